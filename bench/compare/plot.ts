import { scaleLog } from 'd3-scale';
import type { Row } from './rows.js';
import { drawing, label, type TextMode } from './svg.js';
import { milliseconds, times } from './table.js';

const WIDTH = 1120;
const BARS = { left: 520, right: 950 };
const ROW = 24;
const TOP = 70;
const COLOR = {
  faster: '#1f5fa8',
  slower: '#d1495b',
  grid: '#e8e8e8',
  one: '#767676',
  soft: '#555555',
};

type Line = { readonly kind: string } | { readonly row: Row; readonly factor: number };

/** Kinds as headings over their rows; what no peer was measured for has no bar and is left to the table. */
function linesOf(rows: readonly Row[]): Line[] {
  const lines: Line[] = [];
  let last = '';
  for (const row of rows) {
    if (row.factor === null) continue;
    if (row.kind !== last) lines.push({ kind: row.kind });
    last = row.kind;
    lines.push({ row, factor: row.factor });
  }
  return lines;
}

/** Bars of how many times faster each thing is than its peer, on a logarithmic scale: right of 1 faster, left of it slower,
 * with both times beside the bar. */
export function comparisonSvg(rows: readonly Row[], options: { title: string; text?: TextMode }): string {
  const mode = options.text ?? 'text';
  const lines = linesOf(rows);
  const factors = lines.flatMap((line) => ('factor' in line ? [line.factor] : []));
  const x = scaleLog(
    [Math.min(0.5, ...factors.map((f) => f / 1.1)), Math.max(2, ...factors.map((f) => f * 1.1))],
    [BARS.left, BARS.right],
  ).base(2);
  const height = TOP + lines.length * ROW + 40;
  const bottom = TOP + lines.length * ROW;
  const parts = [label(mode, 20, 28, options.title, { size: 16 })];
  for (const tick of x.ticks(6)) {
    const at = x(tick).toFixed(1);
    parts.push(`<path d="M${at} ${TOP - 6}V${bottom}" stroke="${tick === 1 ? COLOR.one : COLOR.grid}"/>`);
    parts.push(label(mode, x(tick), bottom + 18, times(tick), { anchor: 'middle', color: COLOR.soft }));
  }
  parts.push(label(mode, x(1), TOP - 14, 'as fast as the peer', { anchor: 'middle', color: COLOR.soft }));
  lines.forEach((line, i) => {
    const y = TOP + i * ROW;
    if ('kind' in line) {
      parts.push(label(mode, 20, y + 16, line.kind, { size: 14 }));
      return;
    }
    const { row, factor } = line;
    const [from, to] = [Math.min(x(1), x(factor)), Math.max(x(1), x(factor))];
    const color = factor >= 1 ? COLOR.faster : COLOR.slower;
    const name = [row.name, row.variant, row.shape].filter(Boolean).join('  ');
    parts.push(label(mode, BARS.left - 12, y + 16, name, { anchor: 'end', color: COLOR.soft }));
    parts.push(
      `<rect x="${from.toFixed(1)}" y="${y + 4}" width="${(to - from).toFixed(1)}" height="${ROW - 8}" fill="${color}"/>`,
    );
    const figures = `${times(factor)}  ${milliseconds(row.ours.ms)} / ${milliseconds(row.peer!.ms)} ms`;
    parts.push(label(mode, to + 8, y + 16, figures));
  });
  return drawing(WIDTH, height, parts);
}
