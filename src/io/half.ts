const scratch = new DataView(new ArrayBuffer(4));

/** IEEE 754 binary16 bits to the float32 bits of the same value; exact. NaN keeps its sign and payload. */
export function halfToFloat32Bits(half: number): number {
  const sign = (half & 0x8000) << 16;
  let exponent = (half >>> 10) & 0x1f;
  let fraction = half & 0x3ff;
  if (exponent === 0x1f) return (sign | 0x7f800000 | (fraction << 13)) >>> 0;
  if (exponent === 0) {
    if (fraction === 0) return sign >>> 0;
    // A subnormal half is a normal float32: shift its leading one into the hidden place.
    const shift = Math.clz32(fraction) - 21;
    fraction = (fraction << shift) & 0x3ff;
    exponent = 1 - shift;
  }
  return (sign | ((exponent + 112) << 23) | (fraction << 13)) >>> 0;
}

/** binary16 bits to a number. */
export function fromHalf(half: number): number {
  scratch.setUint32(0, halfToFloat32Bits(half));
  return scratch.getFloat32(0);
}

/** Converts `source` (binary16 bits) into `target`, element by element, through bits so that NaN payloads survive. */
export function halvesToFloat32(source: Uint16Array, target: Float32Array): void {
  const bits = new Uint32Array(target.buffer, target.byteOffset, target.length);
  for (let i = 0; i < source.length; i++) bits[i] = halfToFloat32Bits(source[i]!);
}
