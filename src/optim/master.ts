/** What native/ops/optimizer/master.h does, on the host: float32 masters as bfloat16 weights with remainders of 16 bits. */

export interface SplitMasters {
  /** bfloat16, raw bits: the masters rounded to nearest, ties to even. */
  readonly weights: Uint16Array;
  /** bits(master) − (bits(weight) << 16); for a tie on an even weight −32768 on both sides of it. */
  readonly remainders: Int16Array;
  /** Second moments. The sign, which they have no use for, is set where a master is a tie above its weight. */
  readonly v: Float32Array;
}

function bitsOf(values: Float32Array): Int32Array {
  return new Int32Array(values.buffer, values.byteOffset, values.length);
}

function weightOf(master: number): number {
  if ((master & 0x7fffffff) > 0x7f800000) return (master >>> 16) | 0x40;
  return ((master + 0x7fff + ((master >>> 16) & 1)) >>> 16) & 0xffff;
}

/** The masters, exactly. Where a remainder does not fit a weight that something else has written, it is the weight. */
export function joinMasters({ weights, remainders, v }: SplitMasters): Float32Array {
  const masters = new Float32Array(weights.length);
  const [bits, signs] = [bitsOf(masters), bitsOf(v)];
  for (let i = 0; i < bits.length; i++) {
    const weight = weights[i]!;
    const joined = ((weight << 16) + remainders[i]! + ((signs[i]! >>> 31) << 16)) | 0;
    bits[i] = weightOf(joined) === weight ? joined : weight << 16;
  }
  return masters;
}

/** @param moments second moments; their signs are nothing to go by */
export function splitMasters(masters: Float32Array, moments: Float32Array): SplitMasters {
  const weights = new Uint16Array(masters.length);
  const remainders = new Int16Array(masters.length);
  const v = secondMoments(moments);
  const [bits, signs] = [bitsOf(masters), bitsOf(v)];
  for (let i = 0; i < bits.length; i++) {
    const weight = weightOf(bits[i]!);
    const rest = (bits[i]! - (weight << 16)) | 0;
    weights[i] = weight;
    remainders[i] = rest; // 32768 becomes -32768
    if (rest === 0x8000) signs[i]! |= 0x80000000;
  }
  return { weights, remainders, v };
}

/** Second moments without the signs. */
export function secondMoments(v: Float32Array): Float32Array {
  const moments = v.slice();
  const bits = bitsOf(moments);
  for (let i = 0; i < bits.length; i++) bits[i]! &= 0x7fffffff;
  return moments;
}

/** Second moments with the signs of `v`. */
export function withSigns(moments: Float32Array, v: Float32Array): Float32Array {
  const signed = secondMoments(moments);
  const [bits, signs] = [bitsOf(signed), bitsOf(v)];
  for (let i = 0; i < bits.length; i++) bits[i]! |= signs[i]! & 0x80000000;
  return signed;
}
