import { Resvg } from '@resvg/resvg-js';
import { strokeText, textWidth } from '#src/train/stroke-font.js';

/** How labels are drawn: as text (an SVG, whose viewer has fonts) or as strokes (a PNG made where there may be none). */
export type TextMode = 'text' | 'strokes';

export interface Label {
  readonly size?: number;
  readonly anchor?: 'start' | 'middle' | 'end';
  readonly color?: string;
}

export const INK = '#222222';

function escape(text: string): string {
  return text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);
}

export function label(mode: TextMode, x: number, y: number, text: string, options: Label = {}): string {
  const { size = 12, anchor = 'start', color = INK } = options;
  if (mode === 'text')
    return `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" font-size="${size}" text-anchor="${anchor}" fill="${color}">${escape(text)}</text>`;
  const drawn = text.replaceAll('×', 'x'); // which the stroke font has
  const width = textWidth(drawn, size);
  const shift = anchor === 'start' ? 0 : anchor === 'middle' ? -width / 2 : -width;
  return `<g transform="translate(${(x + shift).toFixed(1)} ${y.toFixed(1)})">${strokeText(drawn, size, color)}</g>`;
}

/** A drawing on white. */
export function drawing(width: number, height: number, parts: readonly string[]): string {
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" font-family="system-ui, sans-serif">` +
    `<rect width="100%" height="100%" fill="#ffffff"/>${parts.join('')}</svg>\n`
  );
}

/** A drawing whose text is strokes, twice as many pixels wide and high as it has units. */
export function png(svg: string): Uint8Array {
  return new Resvg(svg, { fitTo: { mode: 'zoom', value: 2 }, font: { loadSystemFonts: false } })
    .render()
    .asPng();
}
