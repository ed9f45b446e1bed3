/** Writing safetensors files: deterministic, aligned, atomic, one tensor in memory at a time. */
import { endianness } from 'node:os';
import { GsaError, checkOptions, checkPath, expected, show } from '../native/errors.js';
import { DTYPES, checkDType, type DType, type HostArray } from '../tensor/dtype.js';
import { writeFileAtomic } from './atomic.js';
import { MAX_HEADER_BYTES, STORED } from './safetensors-header.js';

export interface SafetensorsEntry {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
  /** The elements in row-major order (bfloat16 as raw bits), or a function that is called once, when their turn comes,
   * so that a large model is never held twice. */
  readonly data: HostArray | (() => HostArray);
}

interface Placed {
  readonly entry: SafetensorsEntry;
  readonly size: number;
}

/** Writes a safetensors file atomically. Tensors are ordered by element size, largest first, then by name, and the
 * header is padded to 8 bytes, so that every tensor is aligned and equal content gives equal bytes.
 * @param metadata strings only, for example {format: 'pt'}, which Hugging Face's loaders ask for
 * @throws GsaError INVALID_ARGUMENT for a repeated name, a shape or data that do not fit, or a header past 100 MB;
 * IO when the system refuses. The old file is then untouched. */
export function writeSafetensors(
  path: string,
  entries: Iterable<SafetensorsEntry>,
  metadata: Readonly<Record<string, string>> = {},
): void {
  if (endianness() !== 'LE')
    throw new GsaError('UNSUPPORTED', 'Expected a little-endian machine for safetensors files');
  checkPath(path, 'the file to write', 'safetensors');
  checkOptions(metadata, undefined, 'safetensors');
  const placed = placeEntries(entries);
  const header = encodeHeader(placed, metadata);
  writeFileAtomic(path, (write) => {
    write(header);
    for (const { entry, size } of placed) write(dataOf(entry, size));
  });
}

function placeEntries(entries: Iterable<SafetensorsEntry>): Placed[] {
  const names = new Set<string>();
  const placed: Placed[] = [];
  if (typeof (entries as unknown[] | null)?.[Symbol.iterator] !== 'function')
    throw expected('a list of tensors', 'entries', entries, 'safetensors');
  for (const entry of entries) {
    checkOptions(entry ?? null, undefined, 'safetensors');
    const { name, shape } = entry;
    if (
      typeof name !== 'string' ||
      name === '__metadata__' ||
      names.has(name) ||
      Buffer.from(name).toString() !== name
    )
      throw expected(
        'a well-formed name that no other tensor has',
        'the name of a tensor',
        name,
        'safetensors',
      );
    names.add(name);
    checkDType(entry.dtype, `the dtype of tensor ${show(name)}`);
    if (!Array.isArray(shape))
      throw expected('non-negative integers', `the shape of tensor ${show(name)}`, shape, 'safetensors');
    let size = 1;
    for (const extent of shape) size *= Number.isSafeInteger(extent) && extent >= 0 ? extent : Number.NaN;
    if (!Number.isSafeInteger(size * DTYPES[entry.dtype].bytes))
      throw expected('non-negative integers', `the shape of tensor ${show(name)}`, shape, 'safetensors');
    placed.push({ entry, size });
  }
  const bytes = ({ entry }: Placed) => DTYPES[entry.dtype].bytes;
  return placed.toSorted((a, b) => bytes(b) - bytes(a) || (a.entry.name < b.entry.name ? -1 : 1));
}

const pair = (key: string, value: string) => `${JSON.stringify(key)}:${value}`;

function encodeHeader(placed: readonly Placed[], metadata: Readonly<Record<string, string>>): Buffer {
  // Text by hand: an object would order names like "1" before all others, and lose "__proto__".
  const fields: string[] = [];
  const meta = Object.entries(metadata).toSorted(([a], [b]) => (a < b ? -1 : 1));
  for (const [key, value] of meta)
    if (typeof value !== 'string') throw expected('a string', `metadata ${show(key)}`, value, 'safetensors');
  if (meta.length > 0)
    fields.push(pair('__metadata__', `{${meta.map(([k, v]) => pair(k, JSON.stringify(v))).join(',')}}`));
  let begin = 0;
  for (const { entry, size } of placed) {
    const end = begin + size * DTYPES[entry.dtype].bytes;
    const fieldsOf = { dtype: STORED[entry.dtype], shape: entry.shape, data_offsets: [begin, end] };
    fields.push(pair(entry.name, JSON.stringify(fieldsOf)));
    begin = end;
  }
  const json = Buffer.from(`{${fields.join(',')}}`);
  const length = Math.ceil(json.length / 8) * 8;
  if (length > MAX_HEADER_BYTES)
    throw expected(
      `at most ${MAX_HEADER_BYTES} bytes`,
      'the header (names and metadata)',
      length,
      'safetensors',
    );
  const header = Buffer.alloc(8 + length, ' ');
  header.writeBigUInt64LE(BigInt(length), 0);
  json.copy(header, 8);
  return header;
}

function dataOf(entry: SafetensorsEntry, size: number): HostArray {
  const data = typeof entry.data === 'function' ? entry.data() : entry.data;
  const Own = DTYPES[entry.dtype].array;
  if (!(data instanceof Own) || data.length !== size)
    throw expected(
      `a ${Own.name} of ${size} elements`,
      `the data of tensor ${show(entry.name)}`,
      data instanceof Own ? `${data.length} elements` : data,
      'safetensors',
    );
  return data;
}
