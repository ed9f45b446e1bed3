/** The header of a safetensors file: 8 bytes of length, then JSON, then the tensors' bytes without holes.
 * Source: https://github.com/huggingface/safetensors, "Format". */
import { GsaError, show } from '../native/errors.js';
import type { DType } from '../tensor/dtype.js';

/** The format's own bound: a longer header is an attack or an accident. */
export const MAX_HEADER_BYTES = 100_000_000;

/** Every dtype that the format names, with the bits of one element. Only some can be read: see READABLE. */
const BITS: ReadonlyMap<string, number> = new Map([
  ['F4', 4],
  ['F6_E2M3', 6],
  ['F6_E3M2', 6],
  ...['BOOL', 'U8', 'I8', 'F8_E5M2', 'F8_E4M3', 'F8_E8M0'].map((name) => [name, 8] as const),
  ...['I16', 'U16', 'F16', 'BF16'].map((name) => [name, 16] as const),
  ...['I32', 'U32', 'F32'].map((name) => [name, 32] as const),
  ...['I64', 'U64', 'F64', 'C64'].map((name) => [name, 64] as const),
]);

/** Stored dtype to the dtype it is read as. F16 has no place in this package: its values are exact in float32. */
export const READABLE: ReadonlyMap<string, DType> = new Map([
  ['F32', 'float32'],
  ['F16', 'float32'],
  ['BF16', 'bfloat16'],
  ['I16', 'int16'],
  ['I32', 'int32'],
  ['I64', 'int64'],
] as const);

export const STORED: { readonly [D in DType]: string } = {
  float32: 'F32',
  bfloat16: 'BF16',
  int16: 'I16',
  int32: 'I32',
  int64: 'I64',
  float8_e4m3: 'F8_E4M3',
  float8_e5m2: 'F8_E5M2',
};

export interface HeaderEntry {
  readonly stored: string;
  readonly shape: readonly number[];
  /** Number of elements. */
  readonly size: number;
  /** In bytes from the end of the header. */
  readonly begin: number;
  readonly end: number;
}

export interface Header {
  /** In the order of the bytes in the file. */
  readonly entries: ReadonlyMap<string, HeaderEntry>;
  readonly metadata: Readonly<Record<string, string>>;
}

function bad(path: string, message: string, cause?: unknown): GsaError {
  return new GsaError('INVALID_FILE', `${path}: ${message}`, { op: 'safetensors', cause });
}

/** Parses and checks a header.
 * @param dataBytes what follows it in the file, in bytes
 * @throws GsaError INVALID_FILE naming the file and the tensor. */
export function parseHeader(bytes: Uint8Array, dataBytes: number, path: string): Header {
  const text = decodeText(bytes, path);
  if (!text.startsWith('{')) throw bad(path, `Expected a header that starts with "{"`);
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw bad(path, `Expected a JSON header but ${(cause as Error).message}`, cause);
  }
  const twice = duplicateKey(text);
  if (twice !== null) throw bad(path, `Expected every key once in the header but ${show(twice)} comes twice`);
  let metadata: Record<string, string> = {};
  const found: [string, HeaderEntry][] = [];
  for (const [name, value] of Object.entries(json as object)) {
    if (name === '__metadata__') metadata = checkMetadata(value, path);
    else found.push([name, checkEntry(name, value, path)]);
  }
  found.sort(([, a], [, b]) => a.begin - b.begin || a.end - b.end);
  checkContiguous(found, dataBytes, path);
  return { entries: new Map(found), metadata };
}

function decodeText(bytes: Uint8Array, path: string): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (cause) {
    throw bad(path, 'Expected a header in UTF-8 but received other bytes', cause);
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return value !== null && typeof value === 'object' && !Array.isArray(value);
}

function checkMetadata(value: unknown, path: string): Record<string, string> {
  if (!isRecord(value)) throw bad(path, `Expected an object for __metadata__ but received ${show(value)}`);
  for (const [key, item] of Object.entries(value))
    if (typeof item !== 'string')
      throw bad(path, `Expected a string for __metadata__ ${show(key)} but received ${show(item)}`);
  return value as Record<string, string>;
}

const FIELDS = ['dtype', 'shape', 'data_offsets'];
const isCount = (n: unknown): n is number => Number.isSafeInteger(n) && (n as number) >= 0;

function checkEntry(name: string, value: unknown, path: string): HeaderEntry {
  const refuse = (what: string, received: unknown) =>
    bad(path, `Expected ${what} for tensor ${show(name)} but received ${show(received)}`);
  if (!isRecord(value)) throw refuse('an object with dtype, shape and data_offsets', value);
  const unknown = Object.keys(value).find((key) => !FIELDS.includes(key));
  if (unknown !== undefined) throw refuse(`only the fields ${FIELDS.join(', ')}`, unknown);
  const { dtype, shape, data_offsets: offsets } = value;
  const bits = typeof dtype === 'string' ? BITS.get(dtype) : undefined;
  if (bits === undefined) throw refuse('a dtype of the safetensors format', dtype);
  if (!Array.isArray(shape) || !shape.every(isCount)) throw refuse('a shape of non-negative integers', shape);
  // Checked at every factor: a zero at the end must not hide an overflow before it.
  let size = 1;
  for (const extent of shape) {
    size *= extent;
    if (!Number.isSafeInteger(size * bits)) throw refuse('a shape of fewer than 2^53 bits', shape);
  }
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isCount))
    throw refuse('data_offsets of two non-negative integers', offsets);
  const [begin, end] = offsets as [number, number];
  if (size * bits !== (end - begin) * 8)
    throw refuse(
      `${(size * bits) / 8} bytes (${dtype as string} of shape [${shape.join(', ')}])`,
      end - begin,
    );
  return { stored: dtype as string, shape, size, begin, end };
}

function checkContiguous(found: readonly [string, HeaderEntry][], dataBytes: number, path: string): void {
  let next = 0;
  for (const [name, { begin, end }] of found) {
    if (begin !== next)
      throw bad(
        path,
        `Expected tensor ${show(name)} to begin at byte ${next} of the data but it begins at ${begin}: the tensors ${begin < next ? 'overlap' : 'leave a hole'}`,
      );
    next = end;
  }
  if (next !== dataBytes)
    throw bad(
      path,
      `Expected ${next} bytes of tensors after the header but the file has ${dataBytes}; it is ${dataBytes < next ? 'truncated: copy it again' : 'longer than its header says'}`,
    );
}

/** The first key that an object of this valid JSON text holds twice, which JSON.parse does not tell; else null. A hand
 * loop, as a regular expression would exhaust its stack on a string of megabytes. */
export function duplicateKey(json: string): string | null {
  const objects: Set<string>[] = [];
  for (let i = 0; i < json.length; i++) {
    const c = json[i];
    if (c === '{') objects.push(new Set());
    else if (c === '}') objects.pop();
    if (c !== '"') continue;
    const start = i++;
    while (json[i] !== '"') i += json[i] === '\\' ? 2 : 1;
    let after = i + 1;
    while (' \t\r\n'.includes(json[after] ?? 'x')) after++;
    if (json[after] !== ':') continue;
    const key = JSON.parse(json.slice(start, i + 1)) as string;
    const keys = objects.at(-1)!;
    if (keys.has(key)) return key;
    keys.add(key);
  }
  return null;
}
