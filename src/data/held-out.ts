/** Which documents are held out for validation. */
import { createHash } from 'node:crypto';
import { checkOptions, expected } from '../native/errors.js';
import { readDocuments, type ReadOptions } from './readers.js';

export interface HeldOut {
  /** Share of the documents, in [0, 0.5]; at least one document unless 0. */
  readonly fraction: number;
  /** Chooses which. */
  readonly seed: number;
}

/** @throws GsaError INVALID_ARGUMENT */
export function checkHeldOut(heldOut: HeldOut): void {
  checkOptions(heldOut ?? null, ['fraction', 'seed'], 'heldOut');
  const { fraction, seed } = heldOut;
  if (typeof fraction !== 'number' || !(fraction >= 0 && fraction <= 0.5))
    throw expected('a number in [0, 0.5]', 'heldOut.fraction', fraction);
  if (!Number.isSafeInteger(seed) || seed < 0) throw expected('a non-negative integer', 'heldOut.seed', seed);
}

/** A document's place in the order from which the first are held out: 48 bits of a hash of seed and text. By content, so
 * that two copies of a document are never on both sides, and renaming or adding files moves few. */
export function rankOf(text: string, seed: number): number {
  return createHash('sha256').update(`${seed}\n`).update(text).digest().readUIntBE(0, 6);
}

/** The highest rank that is held out, given every document's rank; -1 for none. Documents of equal rank stay together,
 * and at least one rank is left for training. */
export function heldOutLimit(ranks: Float64Array, fraction: number): number {
  const sorted = ranks.toSorted();
  if (fraction === 0 || sorted.length < 2) return -1;
  const wanted = Math.max(1, Math.round(sorted.length * fraction));
  const limit = sorted[wanted - 1]!;
  return limit < sorted.at(-1)! ? limit : -1;
}

/** Reads all documents once and says which are held out.
 * @throws GsaError as readDocuments(). */
export async function chooseHeldOut(
  paths: readonly string[],
  heldOut: HeldOut,
  options: ReadOptions = {},
): Promise<(text: string) => boolean> {
  checkHeldOut(heldOut);
  const ranks: number[] = [];
  if (heldOut.fraction > 0)
    for await (const { text } of readDocuments(paths, options)) ranks.push(rankOf(text, heldOut.seed));
  const limit = heldOutLimit(Float64Array.from(ranks), heldOut.fraction);
  return (text) => limit >= 0 && rankOf(text, heldOut.seed) <= limit;
}
