// The CUDA backend where it was built. On a machine without a GPU it must load and say why it cannot run; on one with a
// GPU its ops must agree with the CPU's.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { Tensor } from '#src/tensor/tensor.js';
import { addon, CUDA_PATH, FLOAT32, opNumber } from './raw.js';

const built = existsSync(CUDA_PATH);
const driver = existsSync('/dev/nvidiactl') || existsSync('/dev/dxg');
if (!built) console.warn(`cuda.test: skipped, ${CUDA_PATH} was not built (no nvcc?)`);
else if (!driver) console.warn('cuda.test: no NVIDIA driver here, the tests on a GPU are skipped');
else console.warn('cuda.test: an NVIDIA driver is here, the tests without one are skipped');
const whenBuilt = built ? test.serial : test.serial.skip;
const withoutDriver = built && !driver ? test.serial : test.serial.skip;
const withGpu = built && driver ? test.serial : test.serial.skip;

test.serial('before loadBackend the cuda backend is NOT_BUILT, whatever is asked of it', (t) => {
  t.deepEqual(addon.loadedBackends(), ['cpu']);
  t.throws(() => addon.deviceCount('cuda'), { code: 'NOT_BUILT' });
  t.throws(() => addon.tensor('cuda', 0, FLOAT32, [1]), { code: 'NOT_BUILT' });
});

test.serial('a library that is missing or is no backend is NOT_BUILT with the reason', (t) => {
  const missing = t.throws(() => addon.loadBackend('cuda', join('/nowhere', 'gsa_cuda.so')), {
    code: 'NOT_BUILT',
  });
  t.regex(missing!.message, /nowhere/);
  const foreign = t.throws(() => addon.loadBackend('cuda', 'libm.so.6'), { code: 'NOT_BUILT' });
  t.regex(foreign!.message, /not a backend of this package/);
  t.deepEqual(addon.loadedBackends(), ['cpu']);
});

whenBuilt('gsa_cuda.so loads, with or without a driver, and twice is harmless', (t) => {
  addon.loadBackend('cuda', CUDA_PATH);
  addon.loadBackend('cuda', CUDA_PATH);
  t.deepEqual(addon.loadedBackends(), ['cpu', 'cuda']);
});

withoutDriver('without a driver every use of a device is UNSUPPORTED and names the driver', (t) => {
  for (const use of [
    () => addon.deviceCount('cuda'),
    () => addon.deviceInfo('cuda', 0),
    () => addon.tensor('cuda', 0, FLOAT32, [4]),
    () => addon.synchronize('cuda', 0),
    () => addon.memoryStats('cuda', 0, false),
    () => addon.setOption('cuda', 0, 'cache_limit', 0),
  ]) {
    const error = t.throws(use, { code: 'UNSUPPORTED' });
    t.regex(error!.message, /NVIDIA driver/);
  }
  t.notThrows(() => addon.tensor('cpu', 0, FLOAT32, [4]));
});

withGpu('fill, add and copies on a GPU: float32 [1000, 1000]', (t) => {
  t.true(addon.deviceCount('cuda') >= 1);
  t.throws(() => addon.deviceInfo('cuda', 4096), { code: 'INVALID_ARGUMENT' });
  const info = addon.deviceInfo('cuda', 0);
  t.true(info.computeMajor >= 9 && info.units > 0 && info.totalBytes > info.freeBytes);
  const n = 1_000_000;
  const before = addon.memoryStats('cuda', 0, true).currentBytes;
  const [a, b, y] = [0, 1, 2].map(() => addon.tensor('cuda', 0, FLOAT32, [1000, 1000])) as [
    never,
    never,
    never,
  ];
  const source = Float32Array.from({ length: n }, (_, i) => i);
  addon.write(a, source);
  addon.exec(opNumber('fill'), [], [b], [0.5]);
  addon.exec(opNumber('add'), [a, b], [y], [2, -1]);
  const result = new Float32Array(n);
  addon.read(y, result);
  t.true(result.every((value, i) => value === 2 * i - 0.5));
  t.true(addon.memoryStats('cuda', 0, false).peakBytes >= before + 12 * n);
  for (const handle of [a, b, y]) addon.dispose(handle);
  addon.synchronize('cuda', 0);
  t.is(addon.memoryStats('cuda', 0, false).currentBytes, before);
});

withGpu(
  'cast on a GPU agrees with the CPU bit for bit: every pair of dtypes, [33, 70] dense, transposed, shifted',
  (t) => {
    const values = Float32Array.from({ length: 33 * 70 }, (_, i) => (i - 1000) * 1.7 * 10 ** (i % 13));
    values.set([NaN, Infinity, -Infinity, -0, 3.4e38, 2 ** 31, -(2 ** 31), 1.00390625]);
    const [cast, bytes] = [opNumber('cast'), [4, 2, 4, 8, 1, 1, 2]];
    const views = [
      { shape: [33, 70], strides: [70, 1], offset: 0 },
      { shape: [70, 33], strides: [1, 70], offset: 0 },
      { shape: [31, 69], strides: [70, 1], offset: 1 },
      { shape: [2307], strides: [1], offset: 3 },
      { shape: [3, 33, 10, 7], strides: [0, 70, 7, 1], offset: 0 },
      { shape: [2, 33, 35], strides: [35, 70, 1], offset: 0 }, // heads before tokens
      { shape: [35, 2, 33], strides: [1, 35, 70], offset: 0 }, // a transposition with something in between
      { shape: [2, 130, 9], strides: [5, 1, 140], offset: 0 }, // tiles that end early
      { shape: [36, 32], strides: [64, 1], offset: 0 }, // whole vectors
      { shape: [33], strides: [70], offset: 2 },
    ];
    for (const from of [0, 1, 2, 3, 6])
      for (const to of [0, 1, 2, 3, 6])
        for (const { shape, strides, offset } of views) {
          const results = (['cpu', 'cuda'] as const).map((backend) => {
            const raw = addon.tensor(backend, 0, FLOAT32, [33, 70]);
            addon.write(raw, values);
            const x = addon.tensor(backend, 0, from, [33, 70]);
            addon.exec(cast, [raw], [x], []);
            const y = addon.tensor(backend, 0, to, shape);
            addon.exec(cast, [addon.view(x, shape, strides, offset)], [y], []);
            // Compared as float32, with every NaN made the same.
            const back = addon.tensor(backend, 0, FLOAT32, shape);
            addon.exec(cast, [y], [back], []);
            const bits = new Uint8Array(shape.reduce((a, b) => a * b) * bytes[to]!);
            const floats = new Float32Array(bits.length / bytes[to]!);
            addon.read(y, bits);
            addon.read(back, floats);
            for (const handle of [raw, x, y, back]) addon.dispose(handle);
            return to < 2 ? floats.map((value) => (Number.isNaN(value) ? NaN : value)) : bits;
          });
          t.deepEqual(results[1], results[0], `${from} to ${to}, [${shape}] / [${strides}]`);
        }
  },
);

withGpu('random_normal on a GPU draws the numbers of the CPU to rounding: [1000001] float32', (t) => {
  const [host, device] = (['cpu', 'cuda'] as const).map((backend) => {
    const y = addon.tensor(backend, 0, FLOAT32, [1_000_001]);
    addon.exec(opNumber('random_normal'), [], [y], [7, 3, 0.5, 2]);
    const values = new Float32Array(1_000_001);
    addon.read(y, values);
    addon.dispose(y);
    return values;
  }) as [Float32Array, Float32Array];
  t.true(host.every((value, i) => Math.abs(value - device[i]!) <= 1e-5));
});

withGpu('tensors of two devices in one op are refused by name', (t) => {
  const host = addon.tensor('cpu', 0, FLOAT32, [4]);
  const device = addon.tensor('cuda', 0, FLOAT32, [4]);
  const error = t.throws(() => addon.exec(opNumber('add'), [host, device], [host], [1, 1]), {
    code: 'INVALID_ARGUMENT',
  });
  t.regex(error!.message, /all tensors on one device/);
});

withGpu('forgotten tensors are collected by their size: 1,000 of 64 MiB hold less than 3 GiB', async (t) => {
  addon.memoryStats('cuda', 0, true);
  const before = addon.memoryStats('cuda', 0, false).currentBytes;
  for (let i = 0; i < 1000; i++) {
    Tensor.empty([2 ** 24], { device: 'cuda' });
    if (i % 4 === 3) await new Promise(setImmediate);
  }
  const { peakBytes } = addon.memoryStats('cuda', 0, false);
  t.true(peakBytes - before < 3 * 2 ** 30, `${(peakBytes - before) / 2 ** 20} MiB`);
});

withGpu(
  'freed memory is kept up to cache_limit, and memory that went back to the driver comes again: 256 MiB',
  (t) => {
    const MiB = 2 ** 20;
    const limit = addon.getOption('cuda', 0, 'cache_limit');
    t.teardown(() => addon.setOption('cuda', 0, 'cache_limit', limit));
    const cached = () => addon.memoryStats('cuda', 0, false).cachedBytes;
    const source = new Float32Array(64 * MiB);
    for (let i = 0; i < source.length; i++) source[i] = i;
    for (const round of [1, 2]) {
      addon.setOption('cuda', 0, 'cache_limit', 0);
      t.true(cached() < 128 * MiB, `round ${round}: ${cached() / MiB} MiB`);
      addon.setOption('cuda', 0, 'cache_limit', limit);
      // Parts of one gap: the second starts where the first ends.
      const [x, y] = [0, 1].map(() => addon.tensor('cuda', 0, FLOAT32, [64, MiB])) as [never, never];
      addon.write(x, source);
      addon.exec(opNumber('cast'), [x], [y], []);
      addon.dispose(x);
      const result = new Float32Array(source.length);
      addon.read(y, result);
      t.true(result.every((value, i) => value === source[i]));
      addon.dispose(y);
      addon.synchronize('cuda', 0);
      t.true(cached() >= 512 * MiB);
    }
  },
);

withGpu('more memory than the GPU has is OUT_OF_MEMORY, and smaller work then succeeds', (t) => {
  t.throws(() => addon.tensor('cuda', 0, FLOAT32, [2 ** 40]), { code: 'OUT_OF_MEMORY' });
  const small = addon.tensor('cuda', 0, FLOAT32, [4]);
  addon.exec(opNumber('fill'), [], [small], [3]);
  const values = new Float32Array(4);
  addon.read(small, values);
  t.deepEqual(values, Float32Array.of(3, 3, 3, 3));
});
