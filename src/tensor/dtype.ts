import { expected } from '../native/errors.js';

/** Element types. bfloat16 values cross into JavaScript as their 16 raw bits (Uint16Array). */
export type DType = 'float32' | 'bfloat16' | 'int32' | 'int64';

/** The typed array that holds a dtype's elements on the host. */
export interface HostArrays {
  float32: Float32Array;
  bfloat16: Uint16Array;
  int32: Int32Array;
  int64: BigInt64Array;
}
export type HostArray = HostArrays[DType];

interface DTypeInfo {
  /** The dtype's number in gsa_abi.h. */
  readonly id: number;
  readonly bytes: number;
  readonly floating: boolean;
  readonly array: new (lengthOrBuffer: number | ArrayBuffer) => HostArray;
}

export const DTYPES: { readonly [D in DType]: DTypeInfo } = {
  float32: { id: 0, bytes: 4, floating: true, array: Float32Array as never },
  bfloat16: { id: 1, bytes: 2, floating: true, array: Uint16Array as never },
  int32: { id: 2, bytes: 4, floating: false, array: Int32Array as never },
  int64: { id: 3, bytes: 8, floating: false, array: BigInt64Array as never },
};

/** @throws GsaError INVALID_ARGUMENT when `value` is not a dtype name. */
export function checkDType(value: unknown, name = 'dtype'): DType {
  if (typeof value === 'string' && Object.hasOwn(DTYPES, value)) return value as DType;
  throw expected(`one of ${Object.keys(DTYPES).join(', ')}`, name, value);
}

const scratch = new DataView(new ArrayBuffer(4));

/** float32 to bfloat16 bits: round to nearest, ties to even; NaN stays NaN (its sign is kept, it is made quiet). */
export function toBFloat16(value: number): number {
  scratch.setFloat32(0, value);
  const bits = scratch.getUint32(0);
  if ((bits & 0x7fffffff) > 0x7f800000) return (bits >>> 16) | 0x0040;
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) & 0xffff;
}

/** bfloat16 bits to a number; exact. */
export function fromBFloat16(bits: number): number {
  scratch.setUint32(0, (bits << 16) >>> 0);
  return scratch.getFloat32(0);
}
