// Reading back without blocking, and copies in both directions around the sizes of the staging blocks.
import { performance } from 'node:perf_hooks';
import test from 'ava';
import { GsaError } from '#src/native/errors.js';
import { elapsedMs } from '#src/tensor/device.js';
import type { DType } from '#src/tensor/dtype.js';
import { exec } from '#src/tensor/exec.js';
import { Tensor } from '#src/tensor/tensor.js';
import { testDevices } from '../devices.js';

const MiB = 2 ** 20;
// Around one small block (16 KiB), one large block (4 MiB) and all large blocks (64 MiB), in float32.
const SIZES = [0, 1, 4095, 4096, 4097, MiB - 1, MiB, MiB + 1, 16 * MiB, 17 * MiB + 5];

/** Distinct from its neighbours over a whole block and more. */
function pattern(n: number, seed = 0): Float32Array {
  const values = new Float32Array(n);
  for (let i = 0; i < n; i++) values[i] = (i * 7 + seed) % 16_777_213;
  return values;
}

/** deepEqual of ava would be slow on millions of elements. */
function same(a: Float32Array, b: Float32Array): boolean {
  return (
    Buffer.compare(
      Buffer.from(a.buffer, a.byteOffset, a.byteLength),
      Buffer.from(b.buffer, b.byteOffset, b.byteLength),
    ) === 0
  );
}

for (const device of testDevices()) {
  for (const n of SIZES)
    test.serial(`${device} what is written is read, blocking and not: [${n}] float32`, async (t) => {
      const source = pattern(n);
      const kept = source.slice();
      using x = Tensor.from(source, [n], { device });
      source.fill(-1); // the host's memory is the caller's again
      t.true(same(x.toFloat32(), kept));
      t.true(same(await x.toFloat32Async(), kept));
    });

  for (const dtype of ['float32', 'bfloat16', 'int16', 'int32', 'int64'] as DType[])
    test.serial(
      `${device} toHostAsync gives what toHost gives: ${dtype} [3, 4], views, scalars`,
      async (t) => {
        using x = Tensor.from([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], [3, 4], { device, dtype });
        using columns = x.narrow(1, 1, 2);
        using row = x.narrow(0, 2, 1);
        using scalar = Tensor.scalar(7, { device, dtype });
        for (const y of [x, columns, row, scalar]) {
          t.deepEqual(await y.toHostAsync(), y.toHost());
          t.deepEqual(await y.toFloat32Async(), y.toFloat32());
        }
        t.is(await scalar.itemAsync(), 7);
      },
    );

  test.serial(`${device} a read shows the tensor at the call, whatever comes after it`, async (t) => {
    const values = pattern(MiB + 3);
    const x = Tensor.from(values, undefined, { device });
    const first = x.toFloat32Async();
    exec('fill', {}, { y: x }, { value: 5 });
    const second = x.toFloat32Async();
    using part = x.narrow(0, 7, 2);
    const third = part.toFloat32Async();
    x.dispose();
    part.dispose();
    // What was freed is handed out again and written to.
    using other = Tensor.full([MiB + 3], -1, { device });
    t.true(same(await first, values));
    t.true((await second).every((value) => value === 5));
    t.deepEqual(await third, Float32Array.of(5, 5));
    t.is((await other.toFloat32Async())[0], -1);
  });

  test.serial(`${device} 600 reads of mixed sizes in flight: right, and settled in order`, async (t) => {
    const settled: number[] = [];
    const sizes = [1, 100, 5000, 4096, MiB, 3 * MiB + 1];
    using x = Tensor.empty([3 * MiB + 1], { device });
    const reads: Promise<void>[] = [];
    const wrong: number[] = [];
    for (let i = 0; i < 600; i++) {
      exec('fill', {}, { y: x }, { value: i });
      const n = sizes[i % 20 === 0 ? 4 + ((i / 20) % 2) : i % 4]!;
      using part = x.narrow(0, 0, n);
      const pending = part.toFloat32Async();
      const check = async () => {
        const values = await pending;
        settled.push(i);
        if (values.length !== n || values[0] !== i || values[n - 1] !== i) wrong.push(i);
      };
      reads.push(check());
    }
    await Promise.all(reads);
    t.deepEqual(wrong, []);
    t.deepEqual(
      settled,
      Array.from({ length: 600 }, (_, i) => i),
    );
  });

  test.serial(`${device} blocking copies work while reads hold every staging block`, async (t) => {
    const values = pattern(20 * MiB);
    using x = Tensor.from(values, undefined, { device });
    using small = Tensor.full([10], 3, { device });
    const reads = [x.toFloat32Async(), x.toFloat32Async()]; // 160 MiB
    const many = Array.from({ length: 200 }, () => small.toFloat32Async());
    using y = Tensor.from(values.subarray(0, 2 * MiB), undefined, { device });
    t.true(same(y.toFloat32(), values.subarray(0, 2 * MiB)));
    t.is(small.toFloat32()[9], 3);
    for (const read of reads) t.true(same(await read, values));
    for (const read of many) t.deepEqual(await read, new Float32Array(10).fill(3));
  });

  test.serial(`${device} misuse is a typed rejection, not a throw`, async (t) => {
    const x = Tensor.zeros([2], { device });
    await t.throwsAsync(() => x.itemAsync(), { instanceOf: GsaError, code: 'INVALID_ARGUMENT' });
    x.dispose();
    for (const read of [x.toHostAsync(), x.toFloat32Async(), x.itemAsync()])
      await t.throwsAsync(read, { instanceOf: GsaError, code: 'USE_AFTER_DISPOSE' });
  });

  if (device.backend === 'cuda') {
    /** Keeps the device busy for about that long. */
    const busy = (y: Tensor, milliseconds: number): void => {
      const start = device.event();
      for (let i = 0; i < 20; i++) exec('fill', {}, { y }, { value: i });
      const each = Math.max(0.01, elapsedMs(start, device.event()) / 20);
      for (let i = 0; i < milliseconds / each; i++) exec('fill', {}, { y }, { value: i });
    };

    test.serial(`${device} the event loop turns while a read waits for 300 ms of work`, async (t) => {
      using y = Tensor.empty([256 * MiB], { device });
      using x = Tensor.full([4], 2, { device });
      busy(y, 300);
      const before = performance.now();
      const read = x.toFloat32Async();
      const call = performance.now() - before;
      let turns = 0;
      const timer = setInterval(() => turns++, 5);
      t.deepEqual(await read, Float32Array.of(2, 2, 2, 2));
      clearInterval(timer);
      const waited = performance.now() - before;
      t.true(waited > 100, `waited ${waited} ms`);
      t.true(call < 50, `the call took ${call} ms`);
      t.true(turns > waited / 50, `${turns} turns in ${waited} ms`);
    });

    test.serial(`${device} an upload does not wait for the work before it`, (t) => {
      using y = Tensor.empty([256 * MiB], { device });
      using x = Tensor.empty([MiB], { device });
      const values = pattern(MiB);
      x.write(values);
      device.synchronize();
      busy(y, 300);
      const before = performance.now();
      x.write(values);
      const call = performance.now() - before;
      device.synchronize();
      const waited = performance.now() - before;
      t.true(waited > 100 && call < waited / 3, `${call} of ${waited} ms`);
    });
  }
}
