import { bytes } from './format.js';
import type { MemoryRecord, Metrics, StepRecord } from './metrics.js';

/** Of the median: what a step may take before it counts as slow. */
export const SLOW = 1.5;

/** A step that took long. */
export interface SlowStep {
  readonly step: number;
  readonly ofMedian: number;
  /** It is the first after a validation, which leaves the device idle: the host was not ahead of it. */
  readonly afterValidation: boolean;
  /** What the host did for it, and its garbage collections; null where that was not noted. */
  readonly hostSeconds: number | null;
  readonly collectionSeconds: number;
}

/** How even the steps of a run were, and whether its memory grew. */
export interface Steadiness {
  /** Steps looked at, those of the warm-up left out. */
  readonly steps: number;
  readonly warmup: number;
  readonly medianSeconds: number;
  /** Of what the host did for a step, waits for the device left out; null where that was not noted. A step can only be even
   * while this is less than what the device takes: the difference is what the host may stand still. */
  readonly medianHostSeconds: number | null;
  /** A hundredth of the steps took more than this, over the median. */
  readonly p99OfMedian: number;
  /** The slowest, and what it took over the median. */
  readonly slowestStep: number;
  readonly slowestOfMedian: number;
  /** Steps that took more than SLOW times the median. */
  readonly slow: readonly SlowStep[];
  /** Validations between these steps. Neither they nor samples and checkpoints are in the time of a step, which goes from
   * the end of the step before, or from where the next one is begun after them, to its own end on the device. */
  readonly validations: number;
  /** Memory in use, from the first time it was noted after the warm-up to the last. */
  readonly memory: readonly ({ readonly step: number } & MemoryRecord)[];
}

function median(sorted: readonly number[]): number {
  return (sorted[(sorted.length - 1) >> 1]! + sorted[sorted.length >> 1]!) / 2;
}

/** Null for a run of no more steps than the warm-up, whose kernels are chosen, caches filled and code compiled. */
export function steadiness({ steps, evaluations }: Metrics, warmup = 50): Steadiness | null {
  const counted = steps.filter((record) => record.step > warmup);
  if (counted.length === 0) return null;
  const times = counted.map((record) => record.seconds).toSorted((a, b) => a - b);
  const hosts = counted.flatMap(({ hostSeconds }) => hostSeconds ?? []).toSorted((a, b) => a - b);
  const medianSeconds = median(times);
  const validated = new Set(evaluations.map((record) => record.step));
  const slowest = counted.reduce((a, b) => (b.seconds > a.seconds ? b : a));
  return {
    steps: counted.length,
    warmup,
    medianSeconds,
    medianHostSeconds: hosts.length > 0 ? median(hosts) : null,
    p99OfMedian: times[Math.ceil(0.99 * times.length) - 1]! / medianSeconds,
    slowestStep: slowest.step,
    slowestOfMedian: slowest.seconds / medianSeconds,
    slow: counted
      .filter((record) => record.seconds > SLOW * medianSeconds)
      .map(({ step, seconds, hostSeconds, collectionSeconds }) => ({
        step,
        ofMedian: seconds / medianSeconds,
        afterValidation: validated.has(step - 1),
        hostSeconds: hostSeconds ?? null,
        collectionSeconds: collectionSeconds ?? 0,
      })),
    validations: counted.filter((record) => validated.has(record.step - 1)).length,
    memory: counted
      .filter((record): record is StepRecord & { memory: MemoryRecord } => record.memory !== undefined)
      .map(({ step, memory }) => ({ step, ...memory })),
  };
}

const KINDS = {
  rssBytes: 'process',
  heapBytes: 'JavaScript heap',
  deviceBytes: 'tensors',
  deviceReservedBytes: 'held by the allocator',
} as const;

const MOST_SHOWN = 20;

function milliseconds(seconds: number): string {
  return `${(seconds * 1e3).toFixed(2)} ms`;
}

/** A few lines for a person. */
export function formatSteadiness(found: Steadiness): string {
  const { steps, warmup, medianSeconds, medianHostSeconds, p99OfMedian, slowestStep, slowestOfMedian } =
    found;
  const { slow, memory } = found;
  const lines = [
    `${steps} steps after a warm-up of ${warmup}: median ${milliseconds(medianSeconds)}, ` +
      `99% within ${p99OfMedian.toFixed(3)} times that, slowest ${slowestOfMedian.toFixed(3)} times (step ${slowestStep}), ` +
      `${slow.length} above ${SLOW} times`,
  ];
  const worst = slow.toSorted((a, b) => b.ofMedian - a.ofMedian).slice(0, MOST_SHOWN);
  for (const one of worst) {
    const notes = [`  step ${one.step}: ${one.ofMedian.toFixed(3)} times`];
    if (one.afterValidation) notes.push('the first after a validation');
    if (one.hostSeconds !== null) notes.push(`host ${milliseconds(one.hostSeconds)}`);
    if (one.collectionSeconds > 0)
      notes.push(`of it garbage collection ${milliseconds(one.collectionSeconds)}`);
    lines.push(notes.join(', '));
  }
  if (slow.length > MOST_SHOWN) lines.push(`  and ${slow.length - MOST_SHOWN} more, less slow`);
  lines.push(
    `time on the device; what ran between steps is in none of them (${found.validations} validations, and samples and checkpoints)`,
  );
  if (medianHostSeconds !== null)
    lines.push(`host: median ${milliseconds(medianHostSeconds)} a step, waits for the device left out`);
  const [first, last] = [memory[0], memory.at(-1)];
  if (first && last)
    for (const [kind, name] of Object.entries(KINDS) as [keyof typeof KINDS, string][]) {
      const most = Math.max(...memory.map((record) => record[kind]));
      lines.push(
        `${name}: ${bytes(first[kind])} at step ${first.step}, ${bytes(last[kind])} at step ${last.step}, at most ${bytes(most)}`,
      );
    }
  return lines.join('\n');
}
