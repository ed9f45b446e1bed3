export const bitsOf = (x: Float32Array): Uint32Array => new Uint32Array(x.buffer, x.byteOffset, x.length);
export const floats = (bits: Uint32Array): Float32Array => new Float32Array(bits.buffer);

/** Around every bfloat16 value: itself, the numbers beside it, and both sides of both ties; every one of two binades. */
export function patterns(): Uint32Array {
  const offsets = [0, 1, 2, 0x4000, 0x7ffe, 0x7fff, 0x8000, 0x8001, 0xc000, 0xfffe, 0xffff];
  const around = Array.from({ length: 65536 }, (_, high) => offsets.map((low) => high * 65536 + low));
  const dense = [0x3f800000, 0xbf800000].flatMap((from) =>
    Array.from({ length: 3 * 65536 }, (_, low) => from + low),
  );
  return Uint32Array.from([...around.flat(), ...dense]);
}

export function randomBits(size: number, seed: number): Uint32Array {
  let state = seed;
  return Uint32Array.from({ length: size }, () => {
    state ^= state << 13;
    state ^= state >>> 17;
    return (state ^= state << 5);
  });
}

/** The first element that is not what it was, a NaN being any NaN. */
export function firstLost(masters: Uint32Array, joined: Float32Array): string | null {
  const bits = bitsOf(joined);
  const isNaNBits = (x: number): boolean => (x & 0x7fffffff) > 0x7f800000;
  const at = masters.findIndex((x, i) => bits[i] !== x && !(isNaNBits(x) && isNaNBits(bits[i]!)));
  return at < 0 ? null : `${masters[at]!.toString(16)} became ${bits[at]!.toString(16)}`;
}

/** The first element whose bits differ. */
export function firstDifference(got: Float32Array, wanted: Float32Array): string | null {
  const [a, b] = [bitsOf(got), bitsOf(wanted)];
  const at = a.length === b.length ? a.findIndex((x, i) => x !== b[i]) : a.length;
  return at < 0 ? null : `${at}: ${a[at]?.toString(16)} instead of ${b[at]?.toString(16)}`;
}

export const all = (n: number, of: (i: number) => number): Float32Array =>
  Float32Array.from({ length: n }, (_, i) => of(i));
