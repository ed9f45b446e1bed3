import { GsaError, checkOptions, expected } from '../native/errors.js';
import { native } from '../native/load.js';
import type { NativeTensor } from '../native/types.js';
import { type Device, device as deviceOf } from './device.js';
import {
  DTYPES,
  checkDType,
  fromBFloat16s,
  fromFloat8,
  isFloat8,
  toBFloat16,
  toFloat8,
  type DType,
  type HostArray,
} from './dtype.js';
import { exec } from './exec.js';
import { defineTensor, innermost, type Scope } from './scope.js';
import {
  checkShape,
  contiguousStrides,
  elementCount,
  inferShape,
  isContiguous,
  shapeText,
  type Shape,
} from './shape.js';

export interface TensorOptions {
  dtype?: DType;
  device?: string | Device;
}

const OPTIONS = ['dtype', 'device'] as const;

/** Frees what a program forgot to dispose of. */
const forgotten = new FinalizationRegistry<NativeTensor>((handle) => native().disposeForgotten(handle));

/** An n-dimensional array on a device (n <= 6). Its memory is outside the JavaScript heap, so its lifetime is explicit:
 * dispose(), `using`, or a scope(). Views share storage, which lives until the last of them is disposed. */
export class Tensor {
  readonly shape: Shape;
  readonly strides: Shape;
  readonly dtype: DType;
  readonly device: Device;
  /** Ask the tape for this tensor's gradient (leaves: parameters and inputs under test). */
  requiresGrad = false;
  /** Filled by backward() for leaves with requiresGrad; added to when it is there already. */
  grad: Tensor | null = null;
  /** Whether this tensor was made as a view of another (its elements may be shared). */
  readonly isView: boolean;
  /** float32 []: the largest magnitude of the elements, where the op that made them was asked to note it. It ends with the
   * tensor, or when something else is written into it. */
  #absMax: Tensor | null = null;
  /** The tape's own mark on tensors that it computed; on an alias of a leaf, the leaf. */
  gradLink: unknown = null;
  #handle: NativeTensor | null;
  /** Where it ends at the latest, and whether garbage collection is to tell of it: it cannot be forgotten while a scope
   * holds it, so it is watched (which costs time) only outside of all. */
  #scope: Scope | null;
  #watched = false;

  /** @internal Use the static functions. */
  constructor(
    handle: NativeTensor,
    device: Device,
    dtype: DType,
    shape: Shape,
    strides: Shape,
    isView = false,
  ) {
    this.#handle = handle;
    this.device = device;
    this.dtype = dtype;
    this.shape = shape;
    this.strides = strides;
    this.isView = isView;
    this.#scope = innermost();
    if (this.#scope) this.#scope.add(this);
    else this.#watch(handle);
  }

  #watch(handle: NativeTensor): void {
    forgotten.register(this, handle, this);
    this.#watched = true;
  }

  /** @internal Takes it out of its scope, and into another unless that is null. */
  moveTo(scope: Scope | null): void {
    if (scope === this.#scope || this.#handle === null) return;
    this.#scope?.delete(this);
    this.#scope = scope;
    if (scope) scope.add(this);
    else if (!this.#watched) this.#watch(this.#handle);
  }

  /** Uninitialised memory. Default: float32 on the CPU.
   * @throws GsaError INVALID_ARGUMENT; OUT_OF_MEMORY with the sizes; nothing is changed by the failed call. */
  static empty(shape: Shape, options: TensorOptions = {}): Tensor {
    checkOptions(options, OPTIONS, 'Tensor.empty');
    const dims = checkShape(shape);
    const dtype = checkDType(options.dtype ?? 'float32');
    const dev = deviceOf(options.device ?? 'cpu');
    const handle = native().tensor(dev.backend, dev.index, DTYPES[dtype].id, dims);
    return new Tensor(handle, dev, dtype, dims, contiguousStrides(dims));
  }

  /** Every element is `value`, rounded to the dtype; integer dtypes want an integer that they hold.
   * @throws GsaError as empty() */
  static full(shape: Shape, value: number, options: TensorOptions = {}): Tensor {
    checkOptions(options, OPTIONS, 'Tensor.full');
    checkElements([value], checkDType(options.dtype ?? 'float32'), 'value', 'Tensor.full');
    const y = Tensor.empty(shape, options);
    exec('fill', {}, { y }, { value });
    return y;
  }

  /** @throws GsaError as empty() */
  static zeros(shape: Shape, options: TensorOptions = {}): Tensor {
    return Tensor.full(shape, 0, options);
  }

  /** Uninitialised memory of the shape, dtype and device of `other`, unless others are given.
   * @throws GsaError as empty() */
  static emptyLike(other: Tensor, options: TensorOptions = {}): Tensor {
    return Tensor.empty(...like(other, options, 'Tensor.emptyLike'));
  }

  /** @throws GsaError as emptyLike() */
  static zerosLike(other: Tensor, options: TensorOptions = {}): Tensor {
    return Tensor.zeros(...like(other, options, 'Tensor.zerosLike'));
  }

  /** Copies host data. Numbers are rounded to the dtype; a typed array must be the dtype's own (bfloat16: Uint16Array of
   * raw bits; 8-bit floats: Uint8Array) or a Float32Array for bfloat16 and 8-bit floats. `shape` defaults to one dimension.
   * @throws GsaError INVALID_ARGUMENT, also for elements that are no numbers, or that an integer dtype does not hold */
  static from(data: HostArray | readonly number[], shape?: Shape, options: TensorOptions = {}): Tensor {
    if (!Array.isArray(data) && (!ArrayBuffer.isView(data) || data instanceof DataView))
      throw expected('numbers or a typed array', 'data', data, 'Tensor.from');
    checkOptions(options, OPTIONS, 'Tensor.from');
    const dtype = checkDType(options.dtype ?? dtypeOfHost(data));
    const dims = inferShape(shape ?? [data.length], data.length);
    const host = toHost(data, dtype);
    const tensor = Tensor.empty(dims, { ...options, dtype });
    tensor.write(host);
    return tensor;
  }

  /** A tensor of shape [] that holds one number. @throws GsaError as full() */
  static scalar(value: number, options: TensorOptions = {}): Tensor {
    return Tensor.full([], value, options);
  }

  /** Normal random numbers, a pure function of (seed, stream, index) on every device. `seed` and `stream` are integers from
   * 0; `std` is at least 0.
   * @throws GsaError as empty() */
  static randn(
    shape: Shape,
    options: TensorOptions & { seed: number; stream?: number; mean?: number; std?: number },
  ): Tensor {
    checkOptions(options ?? null, [...OPTIONS, 'seed', 'stream', 'mean', 'std'], 'Tensor.randn');
    const { seed, stream = 0, mean = 0, std = 1 } = options;
    for (const [name, value] of Object.entries({ seed, stream }))
      if (!Number.isSafeInteger(value) || value < 0)
        throw expected('a non-negative integer', name, value, 'Tensor.randn');
    if (!Number.isFinite(mean)) throw expected('a finite number', 'mean', mean, 'Tensor.randn');
    if (!Number.isFinite(std) || std < 0)
      throw expected('a finite number of at least 0', 'std', std, 'Tensor.randn');
    const y = Tensor.empty(shape, { dtype: options.dtype, device: options.device });
    exec('random_normal', {}, { y }, { seed, stream, mean, std });
    return y;
  }

  /** The native handle. @throws GsaError USE_AFTER_DISPOSE */
  get handle(): NativeTensor {
    if (this.#handle === null)
      throw new GsaError(
        'USE_AFTER_DISPOSE',
        `Expected a live tensor but received a disposed one of shape ${shapeText(this.shape)}; return it from its scope() or keep() it`,
      );
    return this.#handle;
  }

  get disposed(): boolean {
    return this.#handle === null;
  }

  get size(): number {
    return elementCount(this.shape);
  }

  get byteLength(): number {
    return this.size * DTYPES[this.dtype].bytes;
  }

  get contiguous(): boolean {
    return isContiguous(this.shape, this.strides);
  }

  /** Ends this tensor now; its storage ends with its last view. Twice is harmless. The gradient is disposed too. */
  dispose(): void {
    if (this.#handle === null) return;
    const handle = this.#handle;
    this.#handle = null;
    this.#scope?.delete(this);
    this.#scope = null;
    if (this.#watched) forgotten.unregister(this);
    native().dispose(handle);
    this.grad?.dispose();
    this.grad = null;
    this.gradLink = null;
    this.absMax = null;
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /** @internal See src/ops/float8.ts. */
  get absMax(): Tensor | null {
    return this.#absMax;
  }

  /** @internal Takes `value` over, and disposes of what was there. */
  set absMax(value: Tensor | null) {
    this.#absMax?.dispose();
    value?.moveTo(null);
    this.#absMax = value;
  }

  #viewOf(shape: Shape, strides: Shape, offset: number, isView = true): Tensor {
    return new Tensor(
      native().view(this.handle, shape, strides, offset),
      this.device,
      this.dtype,
      shape,
      strides,
      isView,
    );
  }

  /** @internal Ends this contiguous tensor, which nothing else shares: its rows live on as tensors of `counts` rows each, which
   * are no views, since each is the only one with its elements. */
  splitRows(counts: readonly number[]): Tensor[] {
    const [rows, ...rest] = this.shape;
    if (counts.reduce((sum, count) => sum + count, 0) !== rows)
      throw expected(`counts of ${rows} rows`, 'splitRows', shapeText(counts));
    let start = 0;
    const parts = counts.map((count) => {
      const part = this.#viewOf([count, ...rest], this.strides, start * this.strides[0]!, false);
      start += count;
      return part;
    });
    this.dispose();
    return parts;
  }

  /** Another handle on the same elements, with a lifetime of its own. To the tape it is this tensor: a gradient of a
   * leaf's alias goes to the leaf. */
  alias(): Tensor {
    const handle = native().share(this.handle);
    const other = new Tensor(handle, this.device, this.dtype, this.shape, this.strides, true);
    other.gradLink = this.requiresGrad ? this : this.gradLink;
    other.absMax = this.#absMax?.alias() ?? null;
    return other;
  }

  /** The same elements in another shape (one extent may be -1); no copy, not recorded: see ops/view for that.
   * @throws GsaError INVALID_ARGUMENT for a strided view or a wrong element count. */
  view(shape: Shape): Tensor {
    const dims = inferShape(shape, this.size);
    if (!this.contiguous) throw expected('a contiguous tensor', 'view', `strides ${shapeText(this.strides)}`);
    return this.#viewOf(dims, contiguousStrides(dims), 0);
  }

  /** Elements start .. start+length-1 along `dim`; no copy, not recorded.
   * @throws GsaError INVALID_ARGUMENT */
  narrow(dim: number, start: number, length: number): Tensor {
    const extent = Number.isInteger(dim) ? this.shape[dim] : undefined;
    if (extent === undefined) throw expected(`a dimension below ${this.shape.length}`, 'dim', dim);
    if (
      !Number.isInteger(start) ||
      !Number.isInteger(length) ||
      start < 0 ||
      length < 0 ||
      start + length > extent
    )
      throw expected(`a range inside 0..${extent}`, 'narrow', [start, length]);
    const shape = this.shape.map((n, i) => (i === dim ? length : n));
    // Of no elements there is no first one, which might lie past the end of the storage.
    return this.#viewOf(shape, this.strides, shape.includes(0) ? 0 : start * this.strides[dim]!);
  }

  /** Copies host data of exactly this size and dtype into the tensor (contiguous only).
   * @throws GsaError INVALID_ARGUMENT */
  write(source: HostArray): void {
    native().write(this.handle, source);
    this.absMax = null;
  }

  /** A copy of the elements on the host in the dtype's own typed array; blocks until the device is there. */
  toHost(): HostArray {
    if (!this.contiguous) {
      const dense = this.contiguousCopy();
      try {
        return dense.toHost();
      } finally {
        dense.dispose();
      }
    }
    const host = new DTYPES[this.dtype].array(this.size);
    native().read(this.handle, host);
    return host;
  }

  /** toHost() without blocking: the device's work and the event loop go on. The result is what the tensor holds at the
   * call, also when it is written to or disposed of before the promise is settled. Promises of one device are settled
   * in the order of their calls.
   * @throws GsaError (as a rejection) USE_AFTER_DISPOSE, DEVICE_LOST */
  async toHostAsync(): Promise<HostArray> {
    const dense = this.contiguous ? null : this.contiguousCopy();
    try {
      const pending = native().readAsync((dense ?? this).handle);
      dense?.dispose();
      return new DTYPES[this.dtype].array(await pending);
    } finally {
      dense?.dispose();
    }
  }

  /** The elements as numbers (converted where they are not float32). Blocks like toHost(). */
  toFloat32(): Float32Array {
    return toNumbers(this.toHost(), this.dtype);
  }

  /** toFloat32() without blocking; see toHostAsync(). */
  async toFloat32Async(): Promise<Float32Array> {
    return toNumbers(await this.toHostAsync(), this.dtype);
  }

  /** The one element of a tensor of size 1, as a number. Blocks like toHost(). */
  item(): number {
    this.#expectOne();
    return this.toFloat32()[0]!;
  }

  /** item() without blocking; see toHostAsync(). */
  async itemAsync(): Promise<number> {
    this.#expectOne();
    return (await this.toFloat32Async())[0]!;
  }

  #expectOne(): void {
    void this.handle; // a disposed tensor is the more telling complaint
    if (this.size !== 1) throw expected('a tensor of one element', 'item()', shapeText(this.shape));
  }

  contiguousCopy(): Tensor {
    const y = Tensor.emptyLike(this);
    exec('cast', { x: this }, { y }, {});
    return y;
  }

  /** This tensor converted to a dtype and moved to a device; always a new tensor, not recorded.
   * @throws GsaError as empty() */
  to(options: TensorOptions): Tensor {
    checkOptions(options ?? null, OPTIONS, 'Tensor.to');
    const dtype = checkDType(options.dtype ?? this.dtype);
    const dev = deviceOf(options.device ?? this.device);
    const y = Tensor.empty(this.shape, { dtype, device: this.device });
    exec('cast', { x: this }, { y }, {});
    if (dev === this.device) return y;
    const host = y.toHost();
    y.dispose();
    return Tensor.from(host, this.shape, { dtype, device: dev });
  }

  toString(): string {
    return `Tensor(${shapeText(this.shape)}, ${this.dtype}, ${this.device}${this.disposed ? ', disposed' : ''})`;
  }
}

defineTensor((value) => value instanceof Tensor);

/** Arguments for Tensor.empty(). */
function like(other: Tensor, options: TensorOptions, op: string): [Shape, TensorOptions] {
  if (!(other instanceof Tensor)) throw expected('a Tensor', 'other', other, op);
  checkOptions(options, OPTIONS, op);
  return [other.shape, { dtype: options.dtype ?? other.dtype, device: options.device ?? other.device }];
}

function toNumbers(host: HostArray, dtype: DType): Float32Array {
  if (host instanceof Float32Array) return host;
  if (isFloat8(dtype)) return Float32Array.from(host as Uint8Array, (code) => fromFloat8(code, dtype));
  if (host instanceof Uint16Array) return fromBFloat16s(host);
  return Float32Array.from(host as ArrayLike<number | bigint>, Number);
}

function dtypeOfHost(data: HostArray | readonly number[]): DType {
  if (data instanceof Int16Array) return 'int16';
  if (data instanceof Int32Array) return 'int32';
  if (data instanceof BigInt64Array) return 'int64';
  if (data instanceof Uint16Array) return 'bfloat16';
  if (data instanceof Uint8Array)
    throw expected('dtype float8_e4m3 or float8_e5m2 with a Uint8Array', 'dtype', undefined, 'Tensor.from');
  return 'float32';
}

/** @throws GsaError INVALID_ARGUMENT for what is no number, or what an integer dtype does not hold: a typed array would make
 * NaN of the one, and wrap or truncate the other. */
function checkElements(data: readonly unknown[], dtype: DType, name: string, op: string): void {
  const unused = 32 - 8 * DTYPES[dtype].bytes;
  const integer = !DTYPES[dtype].floating && !isFloat8(dtype);
  // A loop, as the methods of arrays pass over holes.
  for (let i = 0; i < data.length; i++) {
    const value = data[i];
    if (typeof value !== 'number') throw expected('numbers', name, value, op);
    if (!integer) continue;
    const holds = dtype === 'int64' ? Number.isSafeInteger(value) : value === (value << unused) >> unused;
    if (!holds) throw expected(`an integer that ${dtype} holds`, name, value, op);
  }
}

function toHost(data: HostArray | readonly number[], dtype: DType): HostArray {
  const Own = DTYPES[dtype].array;
  if (data instanceof (Own as unknown as typeof Float32Array)) return data as HostArray;
  if (Array.isArray(data)) checkElements(data, dtype, 'data', 'Tensor.from');
  if (dtype === 'bfloat16' && (Array.isArray(data) || data instanceof Float32Array))
    return Uint16Array.from(data as ArrayLike<number>, toBFloat16);
  if (isFloat8(dtype) && (Array.isArray(data) || data instanceof Float32Array))
    return Uint8Array.from(data as ArrayLike<number>, (value) => toFloat8(value, dtype));
  if (!Array.isArray(data))
    throw expected(`numbers or a ${Own.name}`, `data of dtype ${dtype}`, data, 'Tensor.from');
  const numbers = data as readonly number[];
  if (dtype === 'float32') return Float32Array.from(numbers);
  if (dtype === 'int64') return BigInt64Array.from(numbers, BigInt);
  return dtype === 'int32' ? Int32Array.from(numbers) : Int16Array.from(numbers);
}
