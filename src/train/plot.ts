import { scaleLinear } from 'd3-scale';
import { line } from 'd3-shape';
import type { Metrics } from './metrics.js';
import { strokeText, textWidth } from './stroke-font.js';

/** How labels are drawn: as text (an SVG, whose viewer has fonts) or as strokes (a PNG made where there may be none). */
export type TextMode = 'text' | 'strokes';

type Point = readonly [x: number, y: number];

const WIDTH = 960;
const HEIGHT = 540;
const BOX = { left: 70, right: 930, top: 56, bottom: 480 };
const COLOR = {
  raw: '#b3cde3',
  smooth: '#1f5fa8',
  validation: '#d1495b',
  entropy: '#767676',
  grid: '#e8e8e8',
  axis: '#555555',
  ink: '#222222',
};
const MAX_POINTS = 1500;

interface Label {
  size?: number;
  anchor?: 'start' | 'middle' | 'end';
  color?: string;
  rotate?: number;
}

function escape(text: string): string {
  return text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);
}

function drawLabel(mode: TextMode, x: number, y: number, text: string, options: Label = {}): string {
  const { size = 13, anchor = 'start', color = COLOR.ink, rotate = 0 } = options;
  const place = `translate(${x.toFixed(1)} ${y.toFixed(1)})${rotate ? ` rotate(${rotate})` : ''}`;
  if (mode === 'text')
    return `<text transform="${place}" font-size="${size}" text-anchor="${anchor}" fill="${color}">${escape(text)}</text>`;
  const width = textWidth(text, size);
  const shift = anchor === 'start' ? 0 : anchor === 'middle' ? -width / 2 : -width;
  return `<g transform="${place} translate(${shift.toFixed(1)})">${strokeText(text, size, color)}</g>`;
}

/** Centred moving average over a fortieth of the run: it does not lag. Towards the start, where the loss is steep, the
 * window narrows on both sides; at the end, where it is noisy, on the side that is missing alone. */
export function smooth(points: readonly Point[]): Point[] {
  const sums = [0];
  for (const [, y] of points) sums.push(sums.at(-1)! + y);
  const reach = Math.ceil(points.length / 80);
  return points.map(([x], i) => {
    const half = Math.min(reach, i);
    const end = Math.min(i + half + 1, points.length);
    return [x, (sums[end]! - sums[i - half]!) / (end - i + half)];
  });
}

/** At most about MAX_POINTS points: of every bucket its lowest and its highest, so that spikes stay visible. */
function thin(points: readonly Point[]): readonly Point[] {
  if (points.length <= MAX_POINTS) return points;
  const bucket = Math.ceil((2 * points.length) / MAX_POINTS);
  const kept: Point[] = [];
  for (let at = 0; at < points.length; at += bucket) {
    const part = points.slice(at, at + bucket);
    const low = part.reduce((a, b) => (b[1] < a[1] ? b : a));
    const high = part.reduce((a, b) => (b[1] > a[1] ? b : a));
    kept.push(...(low === high ? [low] : low[0] < high[0] ? [low, high] : [high, low]));
  }
  return kept;
}

function series(metrics: Metrics): { train: Point[]; validation: Point[] } {
  const finite = (points: (readonly [number, number | null])[]): Point[] =>
    points.filter((p): p is Point => p[1] !== null && Number.isFinite(p[1]));
  return {
    train: finite(metrics.steps.map((r) => [r.step, r.loss] as const)),
    validation: finite(metrics.evaluations.map((r) => [r.step, r.validationLoss] as const)),
  };
}

function axes(
  mode: TextMode,
  x: ReturnType<typeof scaleLinear<number>>,
  y: ReturnType<typeof scaleLinear<number>>,
): string {
  const parts: string[] = [];
  const steps = x.ticks(8).filter(Number.isInteger);
  const xText = x.tickFormat(8, ',d');
  for (const tick of steps) {
    const at = x(tick).toFixed(1);
    parts.push(`<path d="M${at} ${BOX.top}V${BOX.bottom}" stroke="${COLOR.grid}"/>`);
    parts.push(drawLabel(mode, x(tick), BOX.bottom + 20, xText(tick), { anchor: 'middle' }));
  }
  const yText = y.tickFormat(8);
  for (const tick of y.ticks(8)) {
    const at = y(tick).toFixed(1);
    parts.push(`<path d="M${BOX.left} ${at}H${BOX.right}" stroke="${COLOR.grid}"/>`);
    parts.push(drawLabel(mode, BOX.left - 8, y(tick) + 4.5, yText(tick), { anchor: 'end' }));
  }
  parts.push(
    `<path d="M${BOX.left} ${BOX.top}V${BOX.bottom}H${BOX.right}" fill="none" stroke="${COLOR.axis}"/>`,
  );
  const middle = (BOX.left + BOX.right) / 2;
  parts.push(drawLabel(mode, middle, BOX.bottom + 44, 'step', { anchor: 'middle', size: 14 }));
  const label = 'loss (nats per token)';
  parts.push(
    drawLabel(mode, 22, (BOX.top + BOX.bottom) / 2, label, { anchor: 'middle', size: 14, rotate: -90 }),
  );
  return parts.join('');
}

function legend(mode: TextMode, entries: readonly { text: string; mark: string }[]): string {
  const size = 13;
  let x = BOX.right;
  const parts: string[] = [];
  for (const { text, mark } of entries.toReversed()) {
    x -= textWidth(text, size) + 8;
    parts.push(drawLabel(mode, x, 43, text, { size }));
    x -= 32;
    parts.push(`<g transform="translate(${x.toFixed(1)} 38.5)">${mark}</g>`);
    x -= 14;
  }
  return parts.join('');
}

/** The loss curve of a run as an SVG document: training loss (raw and smoothed), validation points, the unigram entropy
 * of the text when it is known (a model that knows nothing but word frequencies), axes in steps and nats per token.
 * Plots whatever is there: without a single finite loss only the axes. */
export function lossCurveSvg(metrics: Metrics, options: { title?: string; text?: TextMode } = {}): string {
  const mode = options.text ?? 'text';
  const { train, validation } = series(metrics);
  const smoothed = smooth(train);
  const entropy = metrics.unigramEntropy;
  const heights = [...train, ...validation].map((p) => p[1]).concat(entropy === null ? [] : [entropy]);
  const low = heights.reduce((a, b) => Math.min(a, b), heights[0] ?? 0);
  const high = heights.reduce((a, b) => Math.max(a, b), heights[0] ?? 1);
  const last = Math.max(1, train.at(-1)?.[0] ?? 1, validation.at(-1)?.[0] ?? 1);
  const x = scaleLinear([0, last], [BOX.left, BOX.right]);
  const y = scaleLinear([low, high > low ? high : low + 1], [BOX.bottom, BOX.top]).nice(8);
  const curve = line<Point>(
    (p) => x(p[0]),
    (p) => y(p[1]),
  ).digits(1);
  const path = (points: readonly Point[], color: string, width: number): string =>
    points.length ? `<path d="${curve(points)}" fill="none" stroke="${color}" stroke-width="${width}"/>` : '';
  const rule = (color: string, width: number, dash = ''): string =>
    `<path d="M0 0H26" stroke="${color}" stroke-width="${width}"${dash}/>`;
  const dot = (cx: string | number, cy: string | number): string =>
    `<circle cx="${cx}" cy="${cy}" r="3.5" fill="${COLOR.validation}"/>`;
  const dashes = ' stroke-dasharray="6 5"';

  const parts = [axes(mode, x, y), path(thin(train), COLOR.raw, 1)];
  const entries = [{ text: 'training', mark: rule(COLOR.raw, 2) }];
  entries.push({ text: 'smoothed', mark: rule(COLOR.smooth, 2) });
  if (entropy !== null) {
    parts.push(
      `<path d="M${BOX.left} ${y(entropy).toFixed(1)}H${BOX.right}" stroke="${COLOR.entropy}"${dashes}/>`,
    );
    entries.push({ text: `unigram entropy ${entropy.toFixed(2)}`, mark: rule(COLOR.entropy, 1, dashes) });
  }
  parts.push(path(thin(smoothed), COLOR.smooth, 2));
  if (validation.length) {
    parts.push(path(validation, COLOR.validation, 1.5));
    for (const p of validation) parts.push(dot(x(p[0]).toFixed(1), y(p[1]).toFixed(1)));
    entries.push({
      text: `validation (last ${validation.at(-1)![1].toFixed(3)})`,
      mark: rule(COLOR.validation, 1.5) + dot(13, 0),
    });
  }
  parts.push(legend(mode, entries));
  if (options.title) parts.push(drawLabel(mode, BOX.left, 26, options.title, { size: 16 }));
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${HEIGHT}" viewBox="0 0 ${WIDTH} ${HEIGHT}" font-family="system-ui, sans-serif">` +
    `<rect width="100%" height="100%" fill="#ffffff"/>${parts.join('')}</svg>\n`
  );
}

/** The same curve as a PNG, twice as many pixels wide as the SVG's 960 units. */
export async function lossCurvePng(metrics: Metrics, options: { title?: string } = {}): Promise<Uint8Array> {
  const { Resvg } = await import('@resvg/resvg-js');
  const svg = lossCurveSvg(metrics, { ...options, text: 'strokes' });
  const renderer = new Resvg(svg, {
    fitTo: { mode: 'width', value: 2 * WIDTH },
    font: { loadSystemFonts: false },
  });
  return renderer.render().asPng();
}
