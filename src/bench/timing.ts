import { performance } from 'node:perf_hooks';
import { exec } from '../tensor/exec.js';
import type { Device } from '../tensor/device.js';
import { keep } from '../tensor/scope.js';
import { Tensor } from '../tensor/tensor.js';
import { clockOf, type Clock } from './clock.js';

export interface Timing {
  readonly medianMs: number;
  readonly minMs: number;
  /** A tenth of the times are below `p10Ms`, and a tenth above `p90Ms`. */
  readonly p10Ms: number;
  readonly p90Ms: number;
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

const MOST_ITERATIONS = 1000;

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
    p10Ms: quantile(sorted, 0.1),
    p90Ms: quantile(sorted, 0.9),
    maxMs: sorted.at(-1)!,
    spread: (quantile(sorted, 0.75) - quantile(sorted, 0.25)) / medianMs,
    iterations: times.length,
    warmup,
  };
}

/** Five times the L2 cache of an H100. */
const FLUSH_BYTES = 256 * 2 ** 20;

/** How one run measures: which clock, and what happens between repetitions. */
export interface Stopwatch {
  readonly clock: Clock;
  /** What the caches hold when a repetition starts, for the stamp. */
  readonly caches: string;
  /** Called before each timed body, whose calls take the host `leadMs`. */
  readonly prepare: (leadMs: number) => void;
  readonly dispose: () => void;
}

/** About what writing that takes the fastest GPUs. */
const FLUSH_MS = 0.07;
const MOST_FLUSHES = 100;

/** On a GPU a buffer larger than its caches is written before each repetition, so that inputs come from memory, as they do
 * where other layers run in between. It is written so often that the host has made all calls of the repetition before the
 * first of them starts: what a launch costs the host is not measured.
 * On a CPU, whose caches keep what a model's layers hand on, repetitions follow each other. */
export function stopwatch(device: Device): Stopwatch {
  const clock = clockOf(device);
  if (device.backend === 'cpu')
    return { clock, caches: 'as the repetition before left them', prepare: () => {}, dispose: () => {} };
  const buffer = keep(Tensor.empty([FLUSH_BYTES / 4], { device }));
  return {
    clock,
    caches: `overwritten before each repetition (${FLUSH_BYTES / 2 ** 20} MiB)`,
    prepare: (leadMs) => {
      const times = Math.min(1 + Math.ceil(leadMs / FLUSH_MS), MOST_FLUSHES);
      for (let i = 0; i < times; i++) exec('fill', {}, { y: buffer }, { value: 0 });
    },
    dispose: () => buffer.dispose(),
  };
}

/** Times several bodies in turns, so that a machine that slows down or speeds up meanwhile does it to all of them: their
 * ratios are what a comparison is about. */
export function measureTogether(
  watch: Pick<Stopwatch, 'clock' | 'prepare'>,
  bodies: readonly (() => void)[],
  options: MeasureOptions = {},
): Timing[] {
  return measureLaps(
    watch,
    bodies.map((body) => [body]),
    options,
  ).map(([timing]) => timing!);
}

/** The same for bodies made of phases: the timing of each phase, and that of all of them together after them. */
export function measurePhases(
  watch: Pick<Stopwatch, 'clock' | 'prepare'>,
  phases: readonly (() => void)[],
  options: MeasureOptions = {},
): { phases: Timing[]; total: Timing } {
  const timings = measureLaps(watch, [phases], options)[0]!;
  return { phases: timings.slice(0, -1), total: timings.at(-1)! };
}

/** At least `minIterations` turns, at most so many that the budget is spent. */
function measureLaps(
  { clock, prepare }: Pick<Stopwatch, 'clock' | 'prepare'>,
  sequences: readonly (readonly (() => void)[])[],
  options: MeasureOptions,
): Timing[][] {
  const { warmup = 2, minIterations = 5, budgetMs = 1000 } = options;
  const leads = sequences.map(() => 0);
  for (let i = 0; i < warmup; i++)
    sequences.forEach((bodies, s) => {
      const started = performance.now();
      for (const body of bodies) body();
      leads[s] = performance.now() - started;
      clock.laps([() => {}]); // waits
    });
  const laps: number[][][] = sequences.map(() => []);
  const turn = (): number => {
    let spent = 0;
    sequences.forEach((bodies, i) => {
      prepare(leads[i]!);
      const times = clock.laps(bodies);
      const total = times.reduce((a, b) => a + b, 0);
      spent += total;
      laps[i]!.push(bodies.length > 1 ? [...times, total] : times);
    });
    return spent;
  };
  for (let left = budgetMs * sequences.length, n = 0; n < MOST_ITERATIONS; n++) {
    if (n >= minIterations && left <= 0) break;
    left -= turn();
  }
  return laps.map((runs) =>
    runs[0]!.map((_, phase) =>
      summarize(
        runs.map((times) => times[phase]!),
        warmup,
      ),
    ),
  );
}
