import { floorMs, profileOps } from '../autograd/profile.js';
import type { BenchContext } from './report.js';
import { formatTable, significant } from './table.js';

/** Where the time of a step goes: calls of one op, matrix products by their shape. */
export interface BudgetLine {
  readonly part: string;
  readonly calls: number;
  /** Of all calls, each with a wait for the device around it. */
  readonly ms: number;
  /** The least that the rates measured in this run allow. */
  readonly floorMs: number;
}

/** Runs `step` once with a clock around every op. The sum exceeds the step that the device gets without waits when the host
 * is fast, and is below it when the host is late. Longest first.
 * Source: docs/training-step.md */
export function measureBudget({ device, peaks }: BenchContext, step: () => void): BudgetLine[] {
  const rates = { bytesPerSecond: peaks.copyBytesPerSecond, flopsPerSecond: peaks.matmulFlopsPerSecond };
  const lines = new Map<string, { part: string; calls: number; ms: number; floorMs: number }>();
  for (const time of profileOps(device, step)) {
    const part = time.op.endsWith('matmul') ? `${time.op} ${time.shape}` : time.op;
    const line = lines.get(part) ?? { part, calls: 0, ms: 0, floorMs: 0 };
    line.calls += time.calls;
    line.ms += time.ms;
    line.floorMs += floorMs(time, rates);
    lines.set(part, line);
  }
  return [...lines.values()].toSorted((a, b) => b.ms - a.ms);
}

/** A table of part, calls, time, floor and their ratio, with a line for the sum. */
export function formatBudget(shape: string, lines: readonly BudgetLine[]): string {
  const sum = { part: 'all of them', calls: 0, ms: 0, floorMs: 0 };
  for (const line of lines) {
    sum.calls += line.calls;
    sum.ms += line.ms;
    sum.floorMs += line.floorMs;
  }
  const rows = [...lines, sum].map(({ part, calls, ms, floorMs: floor }) => [
    part,
    String(calls),
    significant(ms),
    significant(floor),
    floor > 0 ? (ms / floor).toFixed(2) : '',
  ]);
  return [
    `budget of one step, ${shape}: each op alone, floor at the rates above`,
    formatTable(['part', 'calls', 'ms', 'floor ms', 'ms / floor'], rows, (column) => column === 0),
  ].join('\n');
}
