import test from 'ava';
import { checkDType, fromBFloat16, fromBFloat16s, toBFloat16 } from '#src/tensor/dtype.js';
import { Tensor } from '#src/tensor/tensor.js';
import { GsaError } from '#src/native/errors.js';
import { testDevices } from '../devices.js';
import { randomFrom } from '../random.js';

const bits32 = new DataView(new ArrayBuffer(4));
const float = (bits: number): number => {
  bits32.setUint32(0, bits >>> 0);
  return bits32.getFloat32(0);
};

/** Rounding by search: the nearest of all bfloat16 numbers, ties to the even pattern. Independent of bit tricks. */
function nearest(value: number): number {
  const sign = Object.is(Math.sign(value), -0) || value < 0 ? 0x8000 : 0;
  const size = Math.abs(value);
  let low = 0;
  let high = 0x7f80;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (fromBFloat16(middle) <= size) low = middle;
    else high = middle;
  }
  // Past the largest finite number the next step would be 2^128.
  const above = high === 0x7f80 ? 2 ** 128 : fromBFloat16(high);
  const down = size - fromBFloat16(low);
  const up = above - size;
  const even = low % 2 === 0 ? low : high;
  return sign | (size === Infinity ? 0x7f80 : down < up ? low : up < down ? high : even);
}

const all = Uint16Array.from({ length: 0x10000 }, (_, i) => i);
const isNaNPattern = (bits: number): boolean => (bits & 0x7fff) > 0x7f80;

test('all 65536 bfloat16 patterns survive the way to float32 and back in TypeScript', (t) => {
  for (const bits of all) {
    const back = toBFloat16(fromBFloat16(bits));
    if (isNaNPattern(bits)) t.true(isNaNPattern(back), `pattern ${bits}`);
    else if (back !== bits) t.fail(`pattern ${bits} came back as ${back}`);
  }
  t.pass();
});

/** Numbers around every rounding boundary: for a spread of patterns the midpoint to the next, and one ulp beside it. */
function boundaries(): Float32Array {
  const values: number[] = [0, -0, 1, -1, Infinity, -Infinity, 1e-45, -1e-45, 3.4028234663852886e38];
  for (let pattern = 0; pattern < 0x7f80; pattern += 7)
    for (const low of [0x0001, 0x7fff, 0x8000, 0x8001, 0xffff])
      for (const sign of [0, 0x80000000]) values.push(float(sign + pattern * 0x10000 + low));
  const random = randomFrom(1);
  for (let i = 0; i < 5000; i++) values.push(float(random.below(0x7f800000) + (i % 2) * 0x80000000));
  return Float32Array.from(values);
}

test('float32 to bfloat16 rounds to the nearest, ties to even, with subnormals and overflow, in TypeScript', (t) => {
  for (const value of boundaries())
    if (toBFloat16(value) !== nearest(value))
      t.fail(`${value}: ${toBFloat16(value)} but nearest ${nearest(value)}`);
  t.true(isNaNPattern(toBFloat16(NaN)));
  t.true(isNaNPattern(toBFloat16(float(0x7f800001))), 'a NaN whose payload would be cut off');
  t.true(isNaNPattern(toBFloat16(float(0xffffffff))));
});

for (const dev of testDevices()) {
  test(`${dev} cast bfloat16 -> float32 -> bfloat16 [65536]: every pattern`, (t) => {
    using x = Tensor.from(all, [65536], { device: dev });
    using wide = x.to({ dtype: 'float32' });
    using back = wide.to({ dtype: 'bfloat16' });
    const floats = wide.toFloat32();
    const patterns = back.toHost() as Uint16Array;
    for (const bits of all) {
      if (isNaNPattern(bits)) {
        if (!Number.isNaN(floats[bits]!) || !isNaNPattern(patterns[bits]!)) t.fail(`NaN pattern ${bits}`);
      } else if (!Object.is(floats[bits], fromBFloat16(bits)) || patterns[bits] !== bits)
        t.fail(`pattern ${bits}`);
    }
    t.pass();
  });

  test(`${dev} cast float32 -> bfloat16 rounds to the nearest, ties to even`, (t) => {
    const values = boundaries();
    using x = Tensor.from(values, [values.length], { device: dev });
    using y = x.to({ dtype: 'bfloat16' });
    const patterns = y.toHost() as Uint16Array;
    values.forEach((value, i) => {
      if (patterns[i] !== nearest(value)) t.fail(`${value}: ${patterns[i]} but nearest ${nearest(value)}`);
    });
    using nan = Tensor.from(Float32Array.of(NaN), [1], { device: dev });
    using cast = nan.to({ dtype: 'bfloat16' });
    t.true(isNaNPattern((cast.toHost() as Uint16Array)[0]!));
  });

  test(`${dev} cast int32 <-> int64 keeps every value, also the extremes`, (t) => {
    const values = Int32Array.of(0, 1, -1, 2 ** 31 - 1, -(2 ** 31), -100);
    using x = Tensor.from(values, [6], { device: dev });
    using wide = x.to({ dtype: 'int64' });
    t.deepEqual(wide.toHost(), BigInt64Array.from(values, BigInt));
    using back = wide.to({ dtype: 'int32' });
    t.deepEqual(back.toHost(), values);
  });

  test(`${dev} int16: fills, casts that keep values, and casts that take the nearest bound`, (t) => {
    const values = Int16Array.of(0, 1, -1, 32767, -32768, -100);
    using x = Tensor.from(values, [6], { device: dev });
    t.is(x.dtype, 'int16');
    t.is(x.byteLength, 12);
    for (const dtype of ['int32', 'int64', 'float32'] as const) {
      using wide = x.to({ dtype });
      t.deepEqual(wide.toFloat32(), Float32Array.from(values), dtype);
      using back = wide.to({ dtype: 'int16' });
      t.deepEqual(back.toHost(), values, dtype);
    }
    using far = Tensor.from([40000, -40000, 1.9, -1.9, NaN, 32768], [6], { device: dev });
    using cut = far.to({ dtype: 'int16' });
    t.deepEqual(cut.toHost(), Int16Array.of(32767, -32768, 1, -1, 0, 32767));
    using large = Tensor.from([70000, -70000], [2], { dtype: 'int32', device: dev });
    using bounds = large.to({ dtype: 'int16' });
    t.deepEqual(bounds.toHost(), Int16Array.of(32767, -32768));
    using sevens = Tensor.full([9], -7, { dtype: 'int16', device: dev });
    t.deepEqual(sevens.toHost(), new Int16Array(9).fill(-7));
  });

  test(`${dev} Tensor.from rounds numbers to bfloat16 and takes raw bits as they are`, (t) => {
    using rounded = Tensor.from([1, 1.00390625, -Math.PI], [3], { dtype: 'bfloat16', device: dev });
    t.deepEqual(rounded.toHost(), Uint16Array.of(0x3f80, 0x3f80, 0xc049));
    using raw = Tensor.from(Uint16Array.of(0x3f80, 0xc049), [2], { device: dev });
    t.is(raw.dtype, 'bfloat16');
    t.deepEqual(raw.toFloat32(), Float32Array.of(1, -3.140625));
  });
}

test('a dtype that does not exist is refused with the list of those that do', (t) => {
  const error = t.throws(() => checkDType('float16'), { instanceOf: GsaError });
  t.is(error.code, 'INVALID_ARGUMENT');
  t.regex(error.message, /float32, bfloat16, int16, int32, int64.*"float16"/);
});

test('every code of bfloat16 reads the same alone and among many', (t) => {
  const codes = Uint16Array.from({ length: 2 ** 16 }, (_, i) => i);
  const numbers = fromBFloat16s(codes);
  t.true(codes.every((code) => Object.is(numbers[code], fromBFloat16(code))));
});
