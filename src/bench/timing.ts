import { performance } from 'node:perf_hooks';

export interface Timing {
  readonly medianMs: number;
  readonly minMs: number;
  readonly maxMs: number;
  /** Interquartile range over the median: how far to trust the median. */
  readonly spread: number;
  readonly iterations: number;
  readonly warmup: number;
}

export interface MeasureOptions {
  /** Calls before the clock counts: they fill caches, start threads, tune. Default 2. */
  warmup?: number;
  /** At least so many timed calls. Default 5. */
  minIterations?: number;
  /** Timed calls go on until they took so long together. Default 1000. */
  budgetMs?: number;
}

/** The value below which a share `q` of the sorted values lies, interpolated. */
export function quantile(sorted: readonly number[], q: number): number {
  const at = q * (sorted.length - 1);
  const low = Math.floor(at);
  const [a, b] = [sorted[low]!, sorted[Math.ceil(at)]!];
  return a + (b - a) * (at - low);
}

/** Median and spread of times in milliseconds. */
export function summarize(times: readonly number[], warmup: number): Timing {
  const sorted = times.toSorted((a, b) => a - b);
  const medianMs = quantile(sorted, 0.5);
  return {
    medianMs,
    minMs: sorted[0]!,
    maxMs: sorted.at(-1)!,
    spread: (quantile(sorted, 0.75) - quantile(sorted, 0.25)) / medianMs,
    iterations: times.length,
    warmup,
  };
}

/** Times several bodies in turns, so that a machine that slows down or speeds up meanwhile does it to all of them: their
 * ratios are what a comparison is about. Bodies end when their work is done (synchronize the device in them). */
export function measureTogether(bodies: readonly (() => void)[], options: MeasureOptions = {}): Timing[] {
  const { warmup = 2, minIterations = 5, budgetMs = 1000 } = options;
  for (let i = 0; i < warmup; i++) for (const body of bodies) body();
  const times: number[][] = bodies.map(() => []);
  const started = performance.now();
  const budget = budgetMs * bodies.length;
  while (times[0]!.length < minIterations || performance.now() - started < budget)
    bodies.forEach((body, i) => {
      const before = performance.now();
      body();
      times[i]!.push(performance.now() - before);
    });
  return times.map((list) => summarize(list, warmup));
}

export function measure(body: () => void, options: MeasureOptions = {}): Timing {
  return measureTogether([body], options)[0]!;
}
