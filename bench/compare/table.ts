import type { BenchReport } from '#src/bench/report.js';
import { significant } from '#src/bench/table.js';
import type { Measured, PeerReport, Row } from './rows.js';

/** Figures worth a column beside the times, where a kind has them. */
const FIGURES: readonly (readonly [name: string, title: string, format: (value: number) => string])[] = [
  ['tokensPerSecond', 'tokens/s', (n) => Math.round(n).toLocaleString('en-US')],
  ['gflops', 'TFLOP/s', (n) => significant(n / 1e3)],
  ['gbPerSecond', 'GB/s', (n) => String(Math.round(n))],
  ['mfu', 'MFU', (n) => `${(n * 100).toFixed(1)}%`],
  ['peakMiB', 'extra MiB', (n) => String(Math.round(n))],
  ['peakGiB', 'peak GiB', (n) => n.toFixed(1)],
  ['firstTokenMs', 'first token ms', (n) => significant(n)],
];

/** Three significant digits: more would be noise. */
export function milliseconds(ms: number): string {
  return ms >= 1000 ? ms.toFixed(0) : String(Number(ms.toPrecision(3)));
}

export function times(factor: number): string {
  return `${factor.toFixed(factor < 9.95 ? 2 : 1)}×`;
}

function share({ figures }: Measured): string {
  const value = figures['ofFloor'] ?? figures['ofMatmul'] ?? figures['ofCopy'];
  return value === undefined ? '' : `${Math.round(value * 100)}%`;
}

export function markdown(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
  const rule = head.map((_, i) => (i < 2 ? '---' : '---:'));
  return [line(head), line(rule), ...rows.map(line)].join('\n');
}

function section(kind: string, rows: readonly Row[]): string {
  const figures = FIGURES.filter(([name]) => rows.some((row) => name in row.ours.figures));
  const head = ['work', 'shape', 'ms', 'p10 to p90', 'peer ms', 'times faster', 'of the floor'];
  for (const [, title] of figures) head.push(title, `peer ${title}`);
  const body = rows.map(({ name, shape, variant, ours, peer, failure, factor }) => [
    `${name}${variant ? ` ${variant}` : ''}${ours.checked ? '' : ' **WRONG OUTPUT**'}`,
    shape,
    milliseconds(ours.ms),
    `${milliseconds(ours.p10Ms)} to ${milliseconds(ours.p90Ms)}`,
    peer ? milliseconds(peer.ms) : failure ? failure.split(':')[0]! : '',
    factor ? times(factor) : '',
    share(ours),
    ...figures.flatMap(([name, , format]) =>
      [ours.figures, peer?.figures].map((f) => (f && name in f ? format(f[name]!) : '')),
    ),
  ]);
  const filled = head.map((_, i) => i < 2 || body.some((row) => row[i] !== ''));
  const keep = (cells: readonly string[]) => cells.filter((_, i) => filled[i]);
  return `### ${kind}\n\n${markdown(keep(head), body.map(keep))}`;
}

/** Their commits, where there are several each with the kinds that were measured at it. */
function commits(ours: readonly BenchReport[]): string {
  const kindsOf = new Map<string, Set<string>>();
  for (const { kind, stamp } of ours) {
    const commit = stamp.commit ?? 'no commit';
    kindsOf.set(commit, (kindsOf.get(commit) ?? new Set()).add(kind));
  }
  if (kindsOf.size === 1) return [...kindsOf.keys()][0]!;
  return [...kindsOf].map(([commit, kinds]) => `${commit} (${[...kinds].join(', ')})`).join(' and ');
}

export function origin(ours: readonly BenchReport[], peers: readonly PeerReport[]): string {
  const { stamp } = ours[0]!;
  const who = new Set(peers.map(({ peer, version }) => `${peer} ${version}`));
  const torch = peers.map((p) => p.stamp['torch']).find((version) => typeof version === 'string');
  return [
    `${stamp.deviceName}, driver ${stamp.driver ?? 'none'}, ${stamp.detail}; ${stamp.date.slice(0, 10)};`,
    `flash-gsa ${stamp.version} at ${commits(ours)};`,
    `peers: ${[...who].join(', ') || 'none'}${torch ? ` (PyTorch ${String(torch)})` : ''}.`,
  ].join(' ');
}

/** The comparison as Markdown, a table for each kind of work. */
export function comparisonTable(
  rows: readonly Row[],
  ours: readonly BenchReport[],
  peers: readonly PeerReport[],
): string {
  const kinds = [...new Set(rows.map((row) => row.kind))];
  const rates = ours.map(
    ({ kind, peaks }) =>
      `${kind} ${significant(peaks.copyBytesPerSecond / 1e12)} TB/s and ${significant(peaks.matmulFlopsPerSecond / 1e12)} TFLOP/s`,
  );
  const by = new Set(rows.flatMap(({ peer }) => (peer ? [`${peer.by} (${peer.peer})`] : [])));
  return [
    origin(ours, peers),
    `Copy and matrix product of the card, measured in each run: ${rates.join('; ')}.`,
    ...kinds.map((kind) =>
      section(
        kind,
        rows.filter((row) => row.kind === kind),
      ),
    ),
    ...(by.size > 0 ? [`Peers' functions: ${[...by].join('; ')}.`] : []),
    '',
  ].join('\n\n');
}
