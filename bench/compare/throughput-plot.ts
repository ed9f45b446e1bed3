import { scaleLinear, scaleLog } from 'd3-scale';
import { drawing, label, type TextMode } from './svg.js';
import { curvesOf, type Curve, type Step } from './throughput.js';

const WIDTH = 1040;
const HEIGHT = 540;
const BOX = { left: 80, right: 640, top: 64, bottom: 480 };
const COLORS = ['#1f5fa8', '#d1495b', '#6a994e', '#8a5fa8', '#c58b00'];
const GRID = '#e8e8e8';
const SOFT = '#555555';
const whole = (n: number) => n.toLocaleString('en-US');

/** What a curve is called: what tells it from the others of its program comes last. */
function nameOf({ who, setting, tokens }: Curve): string {
  return `${who}${setting && `, ${setting}`} (${whole(tokens)} tokens)`;
}

/** Training throughput against the length of a sequence, of one model: a line for each program, setting and number of
 * tokens a step, dashed where something is made again; rates from 0, lengths on a logarithmic scale. Steps that could
 * not be run leave no mark. */
export function throughputSvg(steps: readonly Step[], options: { title: string; text?: TextMode }): string {
  const mode = options.text ?? 'text';
  const run = steps.filter((step) => step.tokensPerSecond !== null);
  const curves = curvesOf(run);
  const programs = [...new Set(run.map(({ who }) => who))];
  const lengths = [...new Set(run.map(({ T }) => T))].toSorted((a, b) => a - b);
  const [first, last] = [lengths[0] ?? 1, lengths.at(-1) ?? 1];
  const x = scaleLog([first / 1.2, last * 1.2], [BOX.left, BOX.right]).base(2);
  const y = scaleLinear([0, Math.max(1, ...run.map((s) => s.tokensPerSecond!))], [BOX.bottom, BOX.top]).nice(
    8,
  );
  const parts = [label(mode, 20, 30, options.title, { size: 16 })];
  for (const T of lengths) {
    parts.push(`<path d="M${x(T).toFixed(1)} ${BOX.top}V${BOX.bottom}" stroke="${GRID}"/>`);
    parts.push(label(mode, x(T), BOX.bottom + 20, whole(T), { anchor: 'middle', color: SOFT }));
  }
  for (const rate of y.ticks(8)) {
    parts.push(`<path d="M${BOX.left} ${y(rate).toFixed(1)}H${BOX.right}" stroke="${GRID}"/>`);
    parts.push(label(mode, BOX.left - 8, y(rate) + 4, whole(rate), { anchor: 'end', color: SOFT }));
  }
  parts.push(label(mode, BOX.left, BOX.top - 12, 'tokens/s', { color: SOFT }));
  const middle = (BOX.left + BOX.right) / 2;
  parts.push(label(mode, middle, BOX.bottom + 44, 'tokens of a sequence', { anchor: 'middle', color: SOFT }));
  curves.forEach((curve, i) => {
    const color = COLORS[programs.indexOf(curve.who) % COLORS.length]!;
    const dash = curve.setting ? ' stroke-dasharray="6 5"' : '';
    const at = curve.steps.map(
      (step) => [x(step.T).toFixed(1), y(step.tokensPerSecond!).toFixed(1)] as const,
    );
    parts.push(
      `<path d="M${at.map((p) => p.join(' ')).join('L')}" fill="none" stroke="${color}" stroke-width="2"${dash}/>`,
    );
    for (const [cx, cy] of at) parts.push(`<circle cx="${cx}" cy="${cy}" r="3.5" fill="${color}"/>`);
    const row = BOX.top + 20 * i;
    parts.push(`<path d="M${BOX.right + 16} ${row}h26" stroke="${color}" stroke-width="2"${dash}/>`);
    parts.push(label(mode, BOX.right + 48, row + 4, nameOf(curve)));
  });
  return drawing(WIDTH, HEIGHT, parts);
}
