import { expected } from '../native/errors.js';

/** Reads the notation of --shape: a letter and a number for every dimension, in any order, none left out.
 * @param names the dimensions that must be there
 * @throws GsaError INVALID_ARGUMENT that shows the notation. */
export function parseShape<N extends string>(text: string, names: readonly N[]): Record<N, number> {
  const found = new Map<string, number>();
  const parts = text.match(/[A-Z]+[1-9]\d{0,8}/g) ?? [];
  for (const part of parts) {
    const [, name, digits] = /^([A-Z]+)(\d+)$/.exec(part)!;
    found.set(name!, Number(digits));
  }
  const right =
    parts.join('') === text && parts.length === names.length && names.every((name) => found.has(name));
  if (!right) throw expected(`a shape like ${names.map((name) => `${name}16`).join('')}`, 'shape', text);
  return Object.fromEntries(names.map((name) => [name, found.get(name)!])) as Record<N, number>;
}

/** "B1T2048H4" for { B: 1, T: 2048, H: 4 }: what parseShape reads. */
export function shapeName(shape: object): string {
  return Object.entries(shape)
    .map(([name, extent]) => `${name}${extent}`)
    .join('');
}
