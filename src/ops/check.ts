import { GsaError, checkOptions, expected } from '../native/errors.js';
import type { Device } from '../tensor/device.js';
import { DTYPES, type DType } from '../tensor/dtype.js';
import { sameShape, shapeText } from '../tensor/shape.js';
import { Tensor } from '../tensor/tensor.js';

/** What an op asks of one tensor argument. */
export interface Want {
  /** Default: any floating dtype. */
  dtype?: DType | readonly DType[];
  ndim?: number | readonly number[];
  /** Extents by dimension; null where any extent will do. */
  shape?: readonly (number | null)[];
  /** The device that the op's other tensors are on. */
  device?: Device;
}

const FLOATING = (Object.keys(DTYPES) as DType[]).filter((d) => DTYPES[d].floating);

function list<T>(value: T | readonly T[]): readonly T[] {
  return Array.isArray(value) ? (value as readonly T[]) : [value as T];
}

/** Checks one tensor argument. Ops take contiguous tensors only, so that no call copies behind the caller's back.
 * @throws GsaError INVALID_ARGUMENT; USE_AFTER_DISPOSE for a dead tensor. */
export function checkTensor(op: string, name: string, value: unknown, want: Want = {}): Tensor {
  if (!(value instanceof Tensor)) throw expected('a Tensor', name, value, op);
  if (value.disposed)
    throw new GsaError(
      'USE_AFTER_DISPOSE',
      `Expected a live tensor for ${name} but received a disposed one of shape ${shapeText(value.shape)}; return it from its scope() or keep() it`,
      { op },
    );
  const dtypes = list(want.dtype ?? FLOATING);
  if (!dtypes.includes(value.dtype)) throw refuse(op, dtypes.join(' or '), name, value.dtype);
  if (want.ndim !== undefined && !list(want.ndim).includes(value.shape.length))
    throw refuse(op, `${list(want.ndim).join(' or ')} dimensions`, name, `shape ${shapeText(value.shape)}`);
  if (want.shape && !fits(value.shape, want.shape))
    throw refuse(
      op,
      `shape [${want.shape.map((n) => n ?? '*').join(', ')}]`,
      name,
      `shape ${shapeText(value.shape)}`,
    );
  if (want.device && value.device !== want.device)
    throw refuse(
      op,
      `a tensor on ${want.device}`,
      name,
      `one on ${value.device}; move it with .to({ device })`,
    );
  if (!value.contiguous)
    throw refuse(
      op,
      'a contiguous tensor',
      name,
      `a view with strides ${shapeText(value.strides)}; call contiguousCopy() first`,
    );
  return value;
}

/** The same for an argument that may be left out (undefined or null). */
export function checkOptional(op: string, name: string, value: unknown, want: Want = {}): Tensor | null {
  return value == null ? null : checkTensor(op, name, value, want);
}

function fits(shape: readonly number[], want: readonly (number | null)[]): boolean {
  return shape.length === want.length && want.every((n, i) => n === null || n === shape[i]);
}

const checkedOffsets = new WeakMap<Tensor, number>();

/** Checks `offsets` (int32, contiguous) as boundaries of sequences along `tokens` joined tokens: from 0 to `tokens`, none
 * below the one before it. CPU kernels look for themselves. On a GPU they are read back, which waits for the device: once
 * for each tensor, whose contents must then stay as they are.
 * @throws GsaError INVALID_ARGUMENT */
export function checkOffsets(op: string, offsets: Tensor | null, tokens: number): void {
  if (offsets === null || offsets.device.backend === 'cpu' || checkedOffsets.get(offsets) === tokens) return;
  const bad = (message: string) => new GsaError('INVALID_ARGUMENT', message, { op });
  const at = offsets.toHost() as Int32Array;
  if (at[0] !== 0) throw bad(`Expected cu_seqlens to start with 0 but received ${at[0]}`);
  at.forEach((value, i) => {
    if (i > 0 && value < at[i - 1]!)
      throw bad(`Expected cu_seqlens not to decrease but received ${value} after ${at[i - 1]} at index ${i}`);
  });
  if (at.at(-1) !== tokens)
    throw bad(`Expected cu_seqlens to end with T = ${tokens} but received ${at.at(-1)}`);
  checkedOffsets.set(offsets, tokens);
}

/** @throws GsaError INVALID_ARGUMENT unless both have one shape and dtype and device. */
export function checkSame(op: string, name: string, value: unknown, first: Tensor): Tensor {
  const tensor = checkTensor(op, name, value, { dtype: first.dtype, device: first.device });
  if (!sameShape(tensor.shape, first.shape))
    throw refuse(op, `shape ${shapeText(first.shape)}`, name, `shape ${shapeText(tensor.shape)}`);
  return tensor;
}

/** @throws GsaError INVALID_ARGUMENT unless `value` is a finite number for which `accept` holds. */
export function checkNumber(
  op: string,
  name: string,
  value: unknown,
  what = 'a finite number',
  accept: (n: number) => boolean = () => true,
): number {
  if (typeof value !== 'number' || !Number.isFinite(value) || !accept(value))
    throw expected(what, name, value, op);
  return value;
}

/** @throws GsaError INVALID_ARGUMENT unless `value` is true or false: "false" would be true. */
export function checkFlag(op: string, name: string, value: unknown): void {
  if (typeof value !== 'boolean') throw expected('true or false', name, value, op);
}

/** Named arguments in one object, for ops with many.
 * @throws GsaError INVALID_ARGUMENT for something else, or for a name that the op does not have. */
export function checkArguments(op: string, value: unknown, names: readonly string[]): void {
  checkOptions(value ?? null, names, op);
}

export function refuse(op: string, what: string, name: string, received: string): GsaError {
  return new GsaError('INVALID_ARGUMENT', `Expected ${what} for ${name} but received ${received}`, { op });
}

/** The product of all extents but the last: the rows of a tensor seen as a matrix. */
export function rowCount(shape: readonly number[]): number {
  return shape.slice(0, -1).reduce((n, extent) => n * extent, 1);
}

/** Uninitialised memory beside `like`: its device, and its dtype unless another is given. */
export function emptyBeside(like: Tensor, shape: readonly number[], dtype: DType = like.dtype): Tensor {
  return Tensor.empty(shape, { dtype, device: like.device });
}

/** Room for the largest magnitude of `like`, to be filled by the op that fills `like`, and then be its absMax. */
export function absMaxBeside(like: Tensor): Tensor {
  return Tensor.empty([], { device: like.device });
}
