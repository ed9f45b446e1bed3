/** Reading safetensors files and sharded folders. Nothing is read but the headers until a tensor is asked for, and
 * tensors are read in bounded pieces, so that files past 4 GiB need no large buffer beside the target. */
import { closeSync } from 'node:fs';
import { endianness } from 'node:os';
import { GsaError, expected, show } from '../native/errors.js';
import { DTYPES, type DType, type HostArray } from '../tensor/dtype.js';
import { openForReading, readFully } from './files.js';
import { halvesToFloat32 } from './half.js';
import {
  MAX_HEADER_BYTES,
  READABLE,
  parseHeader,
  type Header,
  type HeaderEntry,
} from './safetensors-header.js';

/** What the header says of one tensor. */
export interface SafetensorsInfo {
  /** The dtype in the file, for example "BF16". */
  readonly stored: string;
  /** The dtype that read() gives: float32 for F32 and F16, bfloat16 (raw bits) for BF16, int16, int32, int64; null when
   * this package cannot read it. */
  readonly dtype: DType | null;
  readonly shape: readonly number[];
  /** Number of elements. */
  readonly size: number;
  /** Size in the file. */
  readonly bytes: number;
}

export interface HostTensor {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly data: HostArray;
}

/** An opened file or sharded folder; close() it (or `using`) to give the file descriptors back. */
export interface SafetensorsReader {
  /** In the order of the file (of the shards by name, then of each file). */
  readonly names: readonly string[];
  readonly metadata: Readonly<Record<string, string>>;
  has(name: string): boolean;
  /** @throws GsaError INVALID_ARGUMENT when there is no tensor of that name. */
  info(name: string): SafetensorsInfo;
  /** The whole tensor.
   * @throws GsaError INVALID_ARGUMENT for an unknown name, UNSUPPORTED for a dtype that this package does not read,
   * INVALID_FILE when the file changed meanwhile, IO when the system refuses, USE_AFTER_DISPOSE after close(). */
  read(name: string): HostTensor;
  /** Elements [start, start + target.length) in row-major order into `target`, whose type is the one of info().dtype;
   * for moving a large tensor to a device piece by piece.
   * @throws GsaError as read(), and INVALID_ARGUMENT for a range outside the tensor or a target of another type. */
  readInto(name: string, start: number, target: HostArray): void;
  /** Twice is harmless. */
  close(): void;
  [Symbol.dispose](): void;
}

/** Converted dtypes pass through a buffer of this many elements. */
const CONVERT_ELEMENTS = 1 << 20;

/** Opens one safetensors file and checks its header.
 * @throws GsaError INVALID_FILE naming the file and the tensor when it is malformed, IO when the system refuses. */
export function openSafetensorsFile(path: string): SafetensorsReader {
  if (endianness() !== 'LE')
    throw new GsaError('UNSUPPORTED', 'Expected a little-endian machine for safetensors files');
  const { fd, bytes } = openForReading(path);
  try {
    const { header, dataStart } = readHeader(fd, bytes, path);
    return new FileReader(path, fd, header, dataStart);
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

function readHeader(fd: number, bytes: number, path: string): { header: Header; dataStart: number } {
  const bad = (message: string) => new GsaError('INVALID_FILE', `${path}: ${message}`, { op: 'safetensors' });
  if (bytes < 8) throw bad(`Expected at least 8 bytes but the file has ${bytes}`);
  const prefix = new BigUint64Array(1);
  readFully(fd, prefix, 0, path);
  const length = prefix[0]!;
  if (length > BigInt(MAX_HEADER_BYTES))
    throw bad(`Expected a header of at most ${MAX_HEADER_BYTES} bytes but its length says ${length}`);
  const dataStart = 8 + Number(length);
  if (dataStart > bytes) throw bad(`Expected a header of ${length} bytes but the file has ${bytes} in all`);
  const text = new Uint8Array(Number(length));
  readFully(fd, text, 8, path);
  return { header: parseHeader(text, bytes - dataStart, path), dataStart };
}

class FileReader implements SafetensorsReader {
  readonly names: readonly string[];
  readonly metadata: Readonly<Record<string, string>>;
  readonly #path: string;
  readonly #header: Header;
  readonly #dataStart: number;
  #fd: number | null;

  constructor(path: string, fd: number, header: Header, dataStart: number) {
    this.#path = path;
    this.#fd = fd;
    this.#header = header;
    this.#dataStart = dataStart;
    this.names = [...header.entries.keys()];
    this.metadata = header.metadata;
  }

  has(name: string): boolean {
    return this.#header.entries.has(name);
  }

  info(name: string): SafetensorsInfo {
    const { stored, shape, size, begin, end } = this.#entry(name);
    return { stored, dtype: READABLE.get(stored) ?? null, shape, size, bytes: end - begin };
  }

  read(name: string): HostTensor {
    const entry = this.#entry(name);
    const dtype = this.#readable(name, entry);
    const data = allocate(dtype, entry.size, name);
    this.readInto(name, 0, data);
    return { dtype, shape: entry.shape, data };
  }

  readInto(name: string, start: number, target: HostArray): void {
    const entry = this.#entry(name);
    const dtype = this.#readable(name, entry);
    if (!(target instanceof DTYPES[dtype].array))
      throw expected(`a ${DTYPES[dtype].array.name}`, `the target of tensor ${show(name)}`, target);
    if (!Number.isSafeInteger(start) || start < 0 || start + target.length > entry.size)
      throw expected(
        `a range inside the ${entry.size} elements of tensor ${show(name)}`,
        'start and target.length',
        [start, target.length],
      );
    if (this.#fd === null)
      throw new GsaError('USE_AFTER_DISPOSE', `Expected an open reader of ${this.#path} but it was closed`);
    const at = this.#dataStart + entry.begin;
    if (entry.stored === 'F16') readHalves(this.#fd, target as Float32Array, at + start * 2, this.#path);
    else readFully(this.#fd, target, at + start * DTYPES[dtype].bytes, this.#path);
  }

  close(): void {
    if (this.#fd !== null) closeSync(this.#fd);
    this.#fd = null;
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #entry(name: string): HeaderEntry {
    const entry = this.#header.entries.get(name);
    if (!entry) throw expected(`the name of a tensor in ${this.#path}`, 'name', name, 'safetensors');
    return entry;
  }

  #readable(name: string, entry: HeaderEntry): DType {
    const dtype = READABLE.get(entry.stored);
    if (dtype) return dtype;
    throw new GsaError(
      'UNSUPPORTED',
      `Expected ${[...READABLE.keys()].join(', ')} for tensor ${show(name)} of ${this.#path} but it is stored as ${entry.stored}; convert the file first`,
      { op: 'safetensors' },
    );
  }
}

function allocate(dtype: DType, size: number, name: string): HostArray {
  try {
    return new DTYPES[dtype].array(size);
  } catch (cause) {
    throw new GsaError(
      'OUT_OF_MEMORY',
      `Expected room for ${size * DTYPES[dtype].bytes} bytes of tensor ${show(name)} but the allocation failed; read it in pieces with readInto()`,
      { op: 'safetensors', cause },
    );
  }
}

function readHalves(fd: number, target: Float32Array, position: number, path: string): void {
  const buffer = new Uint16Array(Math.min(CONVERT_ELEMENTS, target.length));
  for (let i = 0; i < target.length; i += buffer.length) {
    const piece = buffer.subarray(0, Math.min(buffer.length, target.length - i));
    readFully(fd, piece, position + i * 2, path);
    halvesToFloat32(piece, target.subarray(i, i + piece.length));
  }
}
