import { expected } from '../native/errors.js';

/** Reads the notation of --shapes: a name in capitals and a number for every dimension, in any order, none left out but
 * the optional ones.
 * @param names the dimensions that must be there
 * @param optional those that may be
 * @throws GsaError INVALID_ARGUMENT that shows the notation. */
export function parseShape<N extends string, O extends string = never>(
  text: string,
  names: readonly N[],
  optional: readonly O[] = [],
): Record<N, number> & Partial<Record<O, number>> {
  const found = new Map<string, number>();
  const parts = text.match(/[A-Z]+[1-9]\d{0,9}/g) ?? [];
  for (const part of parts) {
    const [, name, digits] = /^([A-Z]+)(\d+)$/.exec(part)!;
    found.set(name!, Number(digits));
  }
  const known: readonly string[] = [...names, ...optional];
  const right =
    parts.join('') === text &&
    parts.length === found.size &&
    names.every((name) => found.has(name)) &&
    [...found.keys()].every((name) => known.includes(name));
  if (!right) {
    const more = optional.length ? ` (and where it differs ${optional.map((n) => `${n}16`).join(', ')})` : '';
    throw expected(`a shape like ${names.map((name) => `${name}16`).join('')}${more}`, 'shape', text);
  }
  return Object.fromEntries(known.filter((n) => found.has(n)).map((n) => [n, found.get(n)!])) as Record<
    N,
    number
  > &
    Partial<Record<O, number>>;
}

/** "B1T2048H4" for { B: 1, T: 2048, H: 4 }: what parseShape reads. */
export function shapeName(shape: object): string {
  return Object.entries(shape)
    .map(([name, extent]) => `${name}${extent}`)
    .join('');
}
