import type { Recompute } from '../autograd/tape.js';
import type { Device } from '../tensor/device.js';
import type { DType, MatmulMode } from '../tensor/dtype.js';
import { formatBudget, type BudgetLine } from './budget.js';
import type { OutputCheck } from './check.js';
import type { Peaks } from './peaks.js';
import { stamp, type Stamp } from './stamp.js';
import { formatTable, significant } from './table.js';
import type { MeasureOptions, Stopwatch, Timing } from './timing.js';

/** What every kind of bench is given. */
export interface BenchContext {
  readonly device: Device;
  readonly dtype: DType & ('float32' | 'bfloat16');
  readonly watch: Stopwatch;
  readonly measure: MeasureOptions;
  readonly peaks: Peaks;
  /** train: also where the time of a step goes, op by op. */
  readonly budget?: boolean;
  /** train: what is made again in the backward instead of kept. */
  readonly recompute?: Recompute;
  /** train: what the products of the blocks are computed in. */
  readonly matmul?: MatmulMode;
}

export interface BenchResult {
  /** What was timed, for example "gsa forward". */
  readonly name: string;
  /** The shape in the notation of --shapes, for example "B1T2048H4K128V128M64". */
  readonly shape: string;
  /** The variant, where one shape is timed in several ways ("own", "BLAS"). */
  readonly variant?: string;
  readonly timing: Timing;
  /** Named rates and ratios derived from the median: gflops, tokensPerSecond, ... */
  readonly figures: Readonly<Record<string, number>>;
  /** At least one: an output that was not looked at has no time. */
  readonly checks: readonly OutputCheck[];
  /** Where the time goes, if it was asked for. */
  readonly budget?: readonly BudgetLine[];
}

export interface BenchReport {
  readonly kind: string;
  readonly dtype: string;
  readonly stamp: Stamp;
  /** How time was taken, and what caches held when a repetition began. */
  readonly clock: string;
  readonly caches: string;
  readonly peaks: Peaks;
  readonly results: readonly BenchResult[];
  /** False when any output was wrong: its time then means nothing. */
  readonly pass: boolean;
}

export function benchReport(
  kind: string,
  context: BenchContext,
  command: string,
  results: readonly BenchResult[],
): BenchReport {
  const { device, dtype, watch, peaks } = context;
  return {
    kind,
    dtype,
    stamp: stamp(device, command),
    clock: watch.clock.name,
    caches: watch.caches,
    peaks,
    results,
    pass:
      results.length > 0 &&
      results.every(({ checks }) => checks.length > 0 && checks.every((check) => check.pass)),
  };
}

/** The check that is nearest to its bound, or past it. */
function tightest(checks: readonly OutputCheck[]): OutputCheck | undefined {
  const share = ({ error, bound }: OutputCheck) =>
    Number.isNaN(error) ? Infinity : error === 0 ? 0 : error / bound;
  return checks.toSorted((a, b) => share(b) - share(a))[0];
}

function verdict(checks: readonly OutputCheck[]): string {
  const check = tightest(checks);
  if (!check) return 'NOT CHECKED';
  const said = `${check.against}: ${check.error.toExponential(1)}, bound ${check.bound.toExponential(0)}`;
  return check.pass ? `ok (${said})` : `WRONG (${said})`;
}

const STEP_TIMES =
  'wallMs: a step from an idle device to an idle device, which tokensPerSecond and mfu go by; queuedMs: steps one after another without a wait, as in a training; hostMs: until the host has put a step under way';

/** A plain table: one line per result, columns aligned, numbers to the right. */
export function formatReport(report: BenchReport): string {
  const { stamp: s, peaks } = report;
  const figures = [...new Set(report.results.flatMap((result) => Object.keys(result.figures)))];
  const head = ['name', 'shape', 'variant', 'median ms', 'p10', 'p90', ...figures, 'check'];
  const rows = report.results.map(({ name, shape, variant, timing, figures: f, checks }) => [
    name,
    shape,
    variant ?? '',
    ...[timing.medianMs, timing.p10Ms, timing.p90Ms].map(significant),
    ...figures.map((figure) => (figure in f ? significant(f[figure]!) : '')),
    verdict(checks),
  ]);
  const copy = significant(peaks.copyBytesPerSecond / 1e9);
  const matmul = significant(peaks.matmulFlopsPerSecond / 1e12);
  return [
    `${s.deviceName}, ${s.units} units, ${s.detail}; node ${s.node}, flash-gsa ${s.version} ${s.commit ?? ''}`.trimEnd(),
    `${report.dtype}; copy ${copy} GB/s, matmul ${matmul} TFLOP/s (${peaks.matmul}); ${report.clock}; caches ${report.caches}`,
    formatTable(head, rows, (column) => column < 3 || column === head.length - 1),
    ...(figures.includes('queuedMs') ? [STEP_TIMES] : []),
    ...report.results.flatMap(({ shape, budget }) => (budget ? ['', formatBudget(shape, budget)] : [])),
  ].join('\n');
}
