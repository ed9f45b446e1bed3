import { judge } from '../verify/compare.js';
import { stamp, type Stamp } from './stamp.js';
import type { Timing } from './timing.js';
import type { Device } from '../tensor/device.js';

/** How the output of a timed body compared with a reference in the same run. */
export interface OutputCheck {
  readonly against: string;
  readonly error: number;
  readonly bound: number;
  readonly pass: boolean;
}

export interface BenchResult {
  /** What was timed, for example "gsa_chunk forward". */
  readonly name: string;
  /** The shape in the notation of --shape, for example "B1T2048H4K128V128M64". */
  readonly shape: string;
  /** The variant, where one shape is timed in several ways ("own", "BLAS"). */
  readonly variant?: string;
  readonly timing: Timing;
  /** Named rates and ratios derived from the median: gflops, tokensPerSecond, ... */
  readonly figures: Readonly<Record<string, number>>;
  readonly check: OutputCheck;
}

export interface BenchReport {
  readonly kind: string;
  readonly stamp: Stamp;
  readonly results: readonly BenchResult[];
  /** False when any output was wrong: its time then means nothing. */
  readonly pass: boolean;
}

export function outputCheck(against: string, error: number, bound: number): OutputCheck {
  const { pass } = judge('', against, error, bound);
  return { against, error, bound, pass };
}

export function benchReport(
  kind: string,
  device: Device,
  command: string,
  results: readonly BenchResult[],
): BenchReport {
  return {
    kind,
    stamp: stamp(device, command),
    results,
    pass: results.length > 0 && results.every((result) => result.check.pass),
  };
}

/** Four significant digits without an exponent where a person would write none. */
export function significant(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  const text = Number(value.toPrecision(4));
  return Math.abs(text) >= 1e-3 || text === 0 ? String(text) : text.toExponential(1);
}

/** A plain table: one line per result, columns aligned, numbers to the right. */
export function formatReport(report: BenchReport): string {
  const { stamp: s } = report;
  const figures = [...new Set(report.results.flatMap((result) => Object.keys(result.figures)))];
  const head = ['name', 'shape', 'variant', 'median ms', 'spread', ...figures, 'error', 'check'];
  const rows = report.results.map((result) => [
    result.name,
    result.shape,
    result.variant ?? '',
    significant(result.timing.medianMs),
    `${(result.timing.spread * 100).toFixed(1)}%`,
    ...figures.map((name) => (name in result.figures ? significant(result.figures[name]!) : '')),
    result.check.error.toExponential(1),
    result.check.pass ? 'ok' : `WRONG: above ${result.check.bound.toExponential(0)}`,
  ]);
  const widths = head.map((_, i) => Math.max(...[head, ...rows].map((row) => row[i]!.length)));
  const line = (row: readonly string[]) =>
    row
      .map((cell, i) =>
        i < 3 || i === head.length - 1 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!),
      )
      .join('  ')
      .trimEnd();
  return [
    `${s.deviceName}, ${s.units} threads, ${s.detail}; node ${s.node}, flash-gsa ${s.version} ${s.commit ?? ''}`.trimEnd(),
    line(head),
    ...rows.map(line),
  ].join('\n');
}
