/** The native library checks most of a tokenizer.json, but some malformed files make it abort the process instead of
 * failing, while loading or at the first text. Those found by mutating valid files are refused here. */
import { GsaError, show } from '../native/errors.js';

export type Json = Record<string, unknown>;

export function bad(path: string, message: string, cause?: unknown): GsaError {
  return new GsaError('INVALID_FILE', `${path}: ${message}`, { op: 'tokenizer', cause });
}

export function isObject(value: unknown): value is Json {
  return value !== null && typeof value === 'object' && !Array.isArray(value);
}

export function isId(id: unknown): id is number {
  return Number.isInteger(id) && (id as number) >= 0 && (id as number) < 2 ** 31;
}

/** @throws GsaError INVALID_FILE naming the file and the part. */
export function refuseWhatAborts(json: Json, path: string): void {
  for (const part of parts(json.normalizer, 'normalizers')) {
    if (part.type === 'Precompiled') checkCharacterMap(part.precompiled_charsmap, path);
    if (part.type === 'Replace') checkPattern(part, path);
    if (part.type === 'Prepend' && part.prepend === '')
      throw bad(path, 'Expected a text for the Prepend normalizer but received ""');
  }
  for (const part of parts(json.pre_tokenizer, 'pretokenizers'))
    if (part.type === 'FixedLength' && part.length === 0)
      throw bad(path, 'Expected a positive length for the FixedLength pre-tokenizer but received 0');
  for (const part of parts(json.decoder, 'decoders'))
    if (part.type === 'Strip' && part.stop !== 0)
      throw bad(path, `Expected 0 for the stop of the Strip decoder but received ${show(part.stop)}`);
  checkMerges(json.model as Json, path);
}

/** A component and, for a sequence of them, everything inside it. */
function* parts(component: unknown, list: string): Generator<Json> {
  if (!isObject(component)) return;
  yield component;
  const inner = component[list];
  if (Array.isArray(inner)) for (const one of inner) yield* parts(one, list);
}

/** Replacing nothing by something, at the end of a text, is what aborts. Expressions that JavaScript cannot read are left
 * to the library. */
function checkPattern(part: Json, path: string): void {
  const pattern = isObject(part.pattern) ? part.pattern : { String: part.pattern };
  const empty = pattern.String === '' || (typeof pattern.Regex === 'string' && matchesNothing(pattern.Regex));
  if (empty)
    throw bad(
      path,
      `Expected a Replace normalizer whose pattern matches something but received ${show(Object.values(pattern)[0])}`,
    );
}

function matchesNothing(source: string): boolean {
  let regex: RegExp;
  try {
    regex = new RegExp(source, 'gu');
  } catch {
    return false;
  }
  return ['', 'a', ' ', '1', '.', '\n'].some((text) =>
    [...text.matchAll(regex)].some(([match]) => match === ''),
  );
}

/** Base64 of: the size of a table in bytes, the table, then UTF-8. */
function checkCharacterMap(map: unknown, path: string): void {
  const bytes = typeof map === 'string' ? Buffer.from(map, 'base64') : Buffer.alloc(0);
  const table = bytes.length >= 4 ? bytes.readUInt32LE(0) : 0;
  const whole = bytes.toString('base64') === map && table > 0 && table % 4 === 0 && table + 4 <= bytes.length;
  if (!whole) throw bad(path, 'Expected a character map in base64 for the Precompiled normalizer');
  try {
    new TextDecoder('utf-8', { fatal: true }).decode(bytes.subarray(4 + table));
  } catch (cause) {
    throw bad(path, 'Expected UTF-8 in the character map of the Precompiled normalizer', cause);
  }
}

/** The library joins the parts of a merge into a buffer as long as the longest token, dropping the prefix of the second
 * part without looking whether it is there. */
function checkMerges({ continuing_subword_prefix: given, merges, vocab }: Json, path: string): void {
  if (!Array.isArray(merges) || !isObject(vocab)) return;
  const prefix = typeof given === 'string' ? given : '';
  for (const merge of merges as unknown[]) {
    const pair: unknown = typeof merge === 'string' ? merge.split(' ') : merge;
    const [first, second] = Array.isArray(pair) && pair.length === 2 ? (pair as unknown[]) : [];
    const joins =
      typeof first === 'string' &&
      typeof second === 'string' &&
      second.startsWith(prefix) &&
      [first, second, first + second.slice(prefix.length)].every((token) => Object.hasOwn(vocab, token));
    if (!joins)
      throw bad(path, `Expected merges of two tokens that join to a third but received ${show(merge)}`);
  }
}
