import { bytes } from './format.js';
import type { MemoryRecord, Metrics, StepRecord } from './metrics.js';

/** Of the median: what a step may take before it counts as slow. */
export const SLOW = 1.5;

/** How even the steps of a run were, and whether its memory grew. */
export interface Steadiness {
  /** Steps looked at, those of the warm-up left out. */
  readonly steps: number;
  readonly warmup: number;
  readonly medianSeconds: number;
  /** The slowest, and what it took over the median. */
  readonly slowestStep: number;
  readonly slowestOfMedian: number;
  /** Steps that took more than SLOW times the median. */
  readonly slow: readonly number[];
  /** Memory in use, from the first time it was noted after the warm-up to the last. */
  readonly memory: readonly ({ readonly step: number } & MemoryRecord)[];
}

/** Null for a run of no more steps than the warm-up, whose kernels are chosen, caches filled and code compiled. */
export function steadiness({ steps }: Metrics, warmup = 50): Steadiness | null {
  const counted = steps.filter((record) => record.step > warmup);
  if (counted.length === 0) return null;
  const times = counted.map((record) => record.seconds).toSorted((a, b) => a - b);
  const medianSeconds = (times[(times.length - 1) >> 1]! + times[times.length >> 1]!) / 2;
  const slowest = counted.reduce((a, b) => (b.seconds > a.seconds ? b : a));
  return {
    steps: counted.length,
    warmup,
    medianSeconds,
    slowestStep: slowest.step,
    slowestOfMedian: slowest.seconds / medianSeconds,
    slow: counted.filter((record) => record.seconds > SLOW * medianSeconds).map((record) => record.step),
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

/** A few lines for a person. */
export function formatSteadiness(found: Steadiness): string {
  const { steps, warmup, medianSeconds, slowestStep, slowestOfMedian, slow, memory } = found;
  const lines = [
    `${steps} steps after a warm-up of ${warmup}: median ${(medianSeconds * 1e3).toFixed(2)} ms, ` +
      `slowest ${slowestOfMedian.toFixed(3)} times that (step ${slowestStep}), ${slow.length} above ${SLOW} times`,
  ];
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
