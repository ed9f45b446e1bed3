import type { CutRule } from './tokenizer-json.js';

const isLetter = (code: number) => (code >= 97 && code <= 122) || (code >= 65 && code <= 90);

/** Cuts a text into pieces of at least `size` characters, each between an ASCII letter, a space and an ASCII letter, such
 * that encoding the pieces one by one gives the tokens of the whole (see CutRule). A text without such a place stays
 * whole. */
export function cutText(text: string, size: number, rule: CutRule): string[] {
  if (rule === 'whole') return [text];
  const pieces: string[] = [];
  let start = 0;
  for (;;) {
    const space = nextCut(text, start + size);
    if (space < 0) break;
    pieces.push(text.slice(start, space));
    start = rule === 'drop' ? space + 1 : space;
  }
  pieces.push(text.slice(start));
  return pieces;
}

function nextCut(text: string, from: number): number {
  for (let at = text.indexOf(' ', from); at >= 0; at = text.indexOf(' ', at + 1))
    if (isLetter(text.charCodeAt(at - 1)) && isLetter(text.charCodeAt(at + 1))) return at;
  return -1;
}
