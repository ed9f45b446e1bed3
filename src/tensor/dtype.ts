import { expected } from '../native/errors.js';

/** 8-bit floats (Micikevicius et al. 2022, arXiv 2209.05433): e4m3 up to 448 without infinities, e5m2 up to 57344. */
export type Float8 = 'float8_e4m3' | 'float8_e5m2';

/** Extents of 8-bit matrices are multiples of this. */
export const FLOAT8_MULTIPLE = 16;

/** What an 8-bit product rounds to: `fp8` is E4M3 throughout, `fp8-hybrid` has gradients in E5M2, which reaches further
 * down and is coarser (Micikevicius et al. 2022, arXiv 2209.05433). */
export const FLOAT8_RECIPES = ['fp8', 'fp8-hybrid'] as const;
export type Float8Recipe = (typeof FLOAT8_RECIPES)[number];

/** What the products of a layer are computed in where gradients are recorded: its dtype, or 8-bit floats. Without
 * gradients (validation, generation) it is the dtype always. */
export const MATMUL_MODES = ['dtype', ...FLOAT8_RECIPES] as const;
export type MatmulMode = (typeof MATMUL_MODES)[number];

/** Element types. bfloat16 values cross into JavaScript as their 16 raw bits (Uint16Array), 8-bit floats as their 8
 * (Uint8Array). */
export type DType = 'float32' | 'bfloat16' | 'int16' | 'int32' | 'int64' | Float8;

/** The typed array that holds a dtype's elements on the host. */
export interface HostArrays {
  float32: Float32Array;
  bfloat16: Uint16Array;
  int16: Int16Array;
  int32: Int32Array;
  int64: BigInt64Array;
  float8_e4m3: Uint8Array;
  float8_e5m2: Uint8Array;
}
export type HostArray = HostArrays[DType];

interface DTypeInfo {
  /** The dtype's number in gsa_abi.h. */
  readonly id: number;
  readonly bytes: number;
  /** What ops compute on: 8-bit floats are for float8_matmul alone. */
  readonly floating: boolean;
  readonly array: new (lengthOrBuffer: number | ArrayBuffer) => HostArray;
}

export const DTYPES: { readonly [D in DType]: DTypeInfo } = {
  float32: { id: 0, bytes: 4, floating: true, array: Float32Array as never },
  bfloat16: { id: 1, bytes: 2, floating: true, array: Uint16Array as never },
  int16: { id: 6, bytes: 2, floating: false, array: Int16Array as never },
  int32: { id: 2, bytes: 4, floating: false, array: Int32Array as never },
  int64: { id: 3, bytes: 8, floating: false, array: BigInt64Array as never },
  float8_e4m3: { id: 4, bytes: 1, floating: false, array: Uint8Array as never },
  float8_e5m2: { id: 5, bytes: 1, floating: false, array: Uint8Array as never },
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

/** The same for many. A loop, since typed arrays call a mapping function some thirty times slower, and logits are many. */
export function fromBFloat16s(bits: Uint16Array): Float32Array {
  const wide = new Uint32Array(bits.length);
  for (let i = 0; i < bits.length; i++) wide[i] = bits[i]! << 16;
  return new Float32Array(wide.buffer);
}

interface Float8Format {
  readonly mantissa: number;
  /** Exponent of the smallest normal number. */
  readonly lowest: number;
  /** Code of the largest number, without the sign. */
  readonly largest: number;
}

const FLOAT8: { readonly [F in Float8]: Float8Format } = {
  float8_e4m3: { mantissa: 3, lowest: -6, largest: 0x7e },
  float8_e5m2: { mantissa: 2, lowest: -14, largest: 0x7b },
};

export function isFloat8(dtype: DType): dtype is Float8 {
  return Object.hasOwn(FLOAT8, dtype);
}

/** The code of the nearest 8-bit float, ties to even; what is larger than the largest becomes it, infinity too. */
export function toFloat8(value: number, dtype: Float8): number {
  const { mantissa, lowest, largest } = FLOAT8[dtype];
  if (Number.isNaN(value)) return 0x7f;
  const sign = value < 0 || Object.is(value, -0) ? 0x80 : 0;
  const size = Math.abs(value);
  const exponent = size === 0 ? lowest : Math.max(lowest, Math.min(16, Math.floor(Math.log2(size))));
  const units = size / 2 ** (exponent - mantissa);
  const below = Math.floor(units);
  const rest = units - below;
  const rounded = rest > 0.5 || (rest === 0.5 && below % 2 === 1) ? below + 1 : below;
  return sign | Math.min(largest, rounded + (exponent - lowest) * 2 ** mantissa);
}

/** The number of a code; exact. */
export function fromFloat8(code: number, dtype: Float8): number {
  const { mantissa, lowest, largest } = FLOAT8[dtype];
  const size = code & 0x7f;
  const rest = size & (2 ** mantissa - 1);
  const sign = code & 0x80 ? -1 : 1;
  if (size > largest) return dtype === 'float8_e5m2' && rest === 0 ? sign * Infinity : NaN;
  const exponent = size >> mantissa;
  const units = exponent === 0 ? rest : rest + 2 ** mantissa;
  return sign * units * 2 ** (lowest + Math.max(exponent - 1, 0) - mantissa);
}
