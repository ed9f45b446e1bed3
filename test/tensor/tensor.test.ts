import test from 'ava';
import { GsaError } from '#src/native/errors.js';
import { device } from '#src/tensor/device.js';
import { Tensor } from '#src/tensor/tensor.js';
import { testDevices } from '../devices.js';

const invalid = (message: RegExp) => ({ instanceOf: GsaError, code: 'INVALID_ARGUMENT', message });

for (const dev of testDevices()) {
  test(`${dev} from, full, zeros, scalar hold what they were given`, (t) => {
    using a = Tensor.from([1, 2, 3, 4, 5, 6], [2, -1], { device: dev });
    t.deepEqual(a.shape, [2, 3]);
    t.deepEqual(a.strides, [3, 1]);
    t.is(a.byteLength, 24);
    using ints = Tensor.from(Int32Array.of(1, -2), undefined, { device: dev });
    t.is(ints.dtype, 'int32');
    using longs = Tensor.from([1, 2 ** 40], [2], { dtype: 'int64', device: dev });
    t.deepEqual(longs.toHost(), BigInt64Array.of(1n, 2n ** 40n));
    using half = Tensor.scalar(0.5, { device: dev });
    t.deepEqual(half.shape, []);
    t.is(half.item(), 0.5);
    using sevens = Tensor.full([3], 7, { dtype: 'int32', device: dev });
    t.deepEqual(sevens.toHost(), Int32Array.of(7, 7, 7));
    using zeros = Tensor.zeros([2], { dtype: 'bfloat16', device: dev });
    t.deepEqual(zeros.toFloat32(), new Float32Array(2));
  });

  test(`${dev} extents of 0 are tensors too`, (t) => {
    using x = Tensor.zeros([0, 3], { device: dev });
    t.is(x.size, 0);
    t.deepEqual(x.toHost(), new Float32Array(0));
    using y = x.view([3, 0]);
    t.deepEqual(y.shape, [3, 0]);
    using z = Tensor.from([1, 2], [2], { device: dev });
    using none = z.narrow(0, 2, 0);
    t.is(none.size, 0);
    using rows = Tensor.zeros([2, 0], { device: dev });
    t.true(rows.contiguous);
    t.deepEqual(rows.toHost(), new Float32Array(0));
    using wide = Tensor.zeros([2, 3], { device: dev });
    using strip = wide.narrow(1, 1, 0);
    t.true(strip.contiguous);
    t.deepEqual(strip.toHost(), new Float32Array(0));
  });

  test(`${dev} strided views read as the elements they show`, (t) => {
    using x = Tensor.from([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], [3, 4], { device: dev });
    using columns = x.narrow(1, 1, 2);
    t.false(columns.contiguous);
    t.deepEqual(columns.toFloat32(), Float32Array.of(1, 2, 5, 6, 9, 10));
    using dense = columns.contiguousCopy();
    t.true(dense.contiguous);
    using inner = columns.narrow(0, 1, 2);
    t.deepEqual(inner.toFloat32(), Float32Array.of(5, 6, 9, 10));
    t.throws(() => columns.view([6]), invalid(/contiguous/));
    t.throws(() => columns.write(new Float32Array(6)), { message: /contiguous/i });
  });

  test(`${dev} randn is a pure function of seed and stream, with the asked moments [40000]`, (t) => {
    const draw = (seed: number, stream: number) => {
      using x = Tensor.randn([40000], { seed, stream, mean: 1, std: 0.5, device: dev });
      return x.toFloat32();
    };
    const a = draw(1, 2);
    t.deepEqual(draw(1, 2), a);
    t.notDeepEqual(draw(2, 2), a);
    t.notDeepEqual(draw(1, 3), a);
    const mean = a.reduce((sum, x) => sum + x, 0) / a.length;
    const variance = a.reduce((sum, x) => sum + (x - mean) ** 2, 0) / a.length;
    // Five standard errors.
    t.true(Math.abs(mean - 1) < (5 * 0.5) / Math.sqrt(a.length), `mean ${mean}`);
    t.true(
      Math.abs(Math.sqrt(variance) - 0.5) < (5 * 0.5) / Math.sqrt(2 * a.length),
      `std ${Math.sqrt(variance)}`,
    );
    using prefix = Tensor.randn([17], { seed: 1, stream: 2, mean: 1, std: 0.5, device: dev });
    t.deepEqual(prefix.toFloat32(), a.slice(0, 17), 'element i does not depend on how many are drawn');
  });

  test(`${dev} to() copies, also when nothing changes`, (t) => {
    using x = Tensor.from([1, 2], [2], { device: dev });
    using y = x.to({});
    y.write(Float32Array.of(5, 6));
    t.deepEqual(x.toFloat32(), Float32Array.of(1, 2));
    using host = x.to({ device: 'cpu', dtype: 'bfloat16' });
    t.is(host.device, device('cpu'));
    t.deepEqual(host.toFloat32(), Float32Array.of(1, 2));
  });

  test(`${dev} a failed allocation changes nothing`, (t) => {
    const before = dev.memory().currentBytes;
    t.throws(() => Tensor.empty([2 ** 20, 2 ** 20, 64], { device: dev }), {
      instanceOf: GsaError,
      code: 'OUT_OF_MEMORY',
    });
    t.is(dev.memory().currentBytes, before);
  });
}

test('shapes, data and ranges that do not fit are refused in words', (t) => {
  using x = Tensor.from([1, 2, 3, 4, 5, 6], [2, 3]);
  const bad: [() => unknown, RegExp][] = [
    [() => Tensor.empty(undefined as never), /shape/],
    [() => Tensor.empty([-1]), /non-negative integers/],
    [() => Tensor.empty([1.5]), /non-negative integers/],
    [() => Tensor.empty([1, 1, 1, 1, 1, 1, 1]), /at most 6/],
    [() => Tensor.empty([2 ** 30, 2 ** 30]), /shape/],
    [() => Tensor.empty([2], { dtype: 'float64' as never }), /float32/],
    [() => Tensor.from([1, 2, 3], [2, 2]), /3 elements/],
    [() => Tensor.from([1, 2, 3], [-1, 2]), /divides 3 elements/],
    [() => Tensor.from(Int32Array.of(1), [1], { dtype: 'float32' }), /Float32Array/],
    [() => Tensor.from('abc' as never), /numbers/],
    [() => Tensor.from(null as never), /numbers/],
    [() => x.view([4]), /6 elements/],
    [() => x.view([-1, -1]), /non-negative|shape/],
    [() => x.narrow(2, 0, 1), /dimension below 2/],
    [() => x.narrow(-1, 0, 1), /dimension below 2/],
    [() => x.narrow(0, 1, 2), /range inside 0..2/],
    [() => x.narrow(0, -1, 1), /range/],
    [() => x.narrow(0, 0.5, 1), /range/],
    [() => x.item(), /one element/],
    [() => device('gpu'), /"cpu", "cuda"/],
    [() => device(3 as never), /"cpu", "cuda"/],
  ];
  for (const [use, message] of bad) t.throws(use, invalid(message), String(use));
});

test('integers that int64, int32 or int16 cannot hold are refused', (t) => {
  for (const [value, dtype] of [
    [1.5, 'int64'],
    [1.5, 'int32'],
    [2 ** 31, 'int32'],
    [NaN, 'int32'],
    [2 ** 53, 'int64'],
    [2 ** 15, 'int16'],
    [-(2 ** 15) - 1, 'int16'],
    [0.5, 'int16'],
  ] as const)
    t.throws(() => Tensor.from([value], [1], { dtype }), invalid(/integer/), `${value} ${dtype}`);
});

test('device() gives one value per device', (t) => {
  t.is(device('cpu'), device('cpu:0'));
  t.is(device(), device('cpu'));
  t.is(String(device('cpu')), 'cpu');
  t.throws(() => device('cpu:1'), { instanceOf: GsaError, code: 'UNSUPPORTED' });
});
