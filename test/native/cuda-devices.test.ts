// Several devices and several Node.js threads, and how garbage collection follows device memory.
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import type { NativeTensor } from '#src/native/types.js';
import { addon, FLOAT32, opNumber, TENSOR_MODULE } from './raw.js';
import { gpuChild, gpus, withGpus } from './gpu.js';

const FILE = fileURLToPath(new URL('worker.js', import.meta.url));
const MiB = 2 ** 20;
const GiB = 2 ** 30;
const [fill, add] = ['fill', 'add'].map(opNumber) as [number, number];

interface Found {
  wrong: number;
  alive: number;
}
const start = (index: number, seed: number, rounds: number, leak = false) =>
  new Worker(FILE, { workerData: { backend: 'cuda', index, seed, rounds, leak } });
async function result(worker: Worker): Promise<Found> {
  const exited = once(worker, 'exit');
  const [message] = await once(worker, 'message');
  await exited;
  return message as Found;
}

withGpus(1)('four workers and the main thread use one device: no result is wrong', async (t) => {
  const workers = [1, 2, 3, 4].map((seed) => result(start(0, seed, 30)));
  const x = addon.tensor('cuda', 0, FLOAT32, [100_000]);
  for (let i = 0; i < 30; i++) {
    addon.exec(fill, [], [x], [i]);
    const values = new Float32Array(await addon.readAsync(x));
    t.true(values.every((value) => value === i));
    await delay(1);
  }
  addon.dispose(x);
  t.deepEqual(
    await Promise.all(workers),
    workers.map(() => ({ wrong: 0, alive: 0 })),
  );
});

withGpus(1)('workers that end, or are ended, with reads pending leave the device usable', async (t) => {
  const before = addon.memoryStats('cuda', 0, false).currentBytes;
  t.deepEqual(await result(start(0, 5, 2, true)), { wrong: 0, alive: 6 });
  for (let wait = 0; wait < 60; wait += 6) {
    const workers = [1, 2].map((seed) => start(0, seed, 1e6));
    await once(workers[0]!, 'online');
    await delay(100 + wait);
    await Promise.all(workers.map((worker) => worker.terminate()));
  }
  t.deepEqual(await result(start(0, 3, 2)), { wrong: 0, alive: 0 });
  addon.synchronize('cuda', 0);
  t.is(addon.memoryStats('cuda', 0, false).currentBytes, before);
});

withGpus(1)('process.exit with reads pending is clean', (t) => {
  const { status, signal, stderr } = gpuChild(`
    const x = addon.tensor('cuda', 0, 0, [${100 * MiB}]);
    for (let i = 0; i < 200; i++) addon.exec(${fill}, [], [x], [i]);
    addon.readAsync(x);
    addon.readAsync(x);
    setTimeout(() => process.exit(0), 5);
  `);
  t.deepEqual({ status, signal, stderr }, { status: 0, signal: null, stderr: '' });
});

withGpus(2)('two devices side by side: memory, ops, events, reads and workers of each', async (t) => {
  t.log(`${gpus} devices`);
  const before = [0, 1].map((index) => addon.memoryStats('cuda', index, true).currentBytes);
  const tensors = [0, 1].map((index) => addon.tensor('cuda', index, FLOAT32, [(index + 1) * MiB]));
  const [x0, x1] = tensors as [NativeTensor, NativeTensor];
  for (const index of [0, 1])
    t.is(addon.memoryStats('cuda', index, false).currentBytes, before[index]! + 4 * (index + 1) * MiB);
  const [e0, e1] = [addon.recordEvent('cuda', 0), addon.recordEvent('cuda', 1)];
  const reads: Promise<boolean>[] = [];
  for (let i = 0; i < 50; i++)
    for (const [index, x] of tensors.entries()) {
      addon.exec(fill, [], [x], [2 * i + index]);
      const check = (buffer: ArrayBuffer) =>
        new Float32Array(buffer).every((value) => value === 2 * i + index);
      reads.push(addon.readAsync(x).then(check));
    }
  t.true((await Promise.all(reads)).every(Boolean));
  for (const index of [0, 1]) t.true(addon.elapsed([e0, e1][index]!, addon.recordEvent('cuda', index)) > 0);
  t.throws(() => addon.elapsed(e0, e1), { code: 'INVALID_ARGUMENT' });
  const mixed = t.throws(() => addon.exec(add, [x0, x1], [x0], [1, 1]), { code: 'INVALID_ARGUMENT' });
  t.regex(mixed!.message, /all tensors on one device/);
  for (const x of tensors) addon.dispose(x);
  t.deepEqual(
    await Promise.all([0, 1, 0, 1].map((index, seed) => result(start(index, seed, 20)))),
    Array.from({ length: 4 }, () => ({ wrong: 0, alive: 0 })),
  );
  for (const index of [0, 1]) {
    addon.synchronize('cuda', index);
    t.is(addon.memoryStats('cuda', index, false).currentBytes, before[index]!);
  }
});

withGpus(1)(
  '10,000 forgotten tensors of 64 MiB after a ballast of most of the card: peak below 3 GiB',
  (t) => {
    // In a process of its own: what other tests left to be collected would count.
    const { stdout, stderr } = gpuChild(`
    const ballast = [];
    // Not all of it: tests in other processes need some.
    while (addon.deviceInfo('cuda', 0).freeBytes > ${24 * GiB})
      ballast.push(addon.tensor('cuda', 0, 0, [${256 * MiB}]));
    console.log(ballast.length);
    for (const x of ballast) addon.dispose(x);
    addon.memoryStats('cuda', 0, true);
    (async () => {
      const { Tensor } = await import(${TENSOR_MODULE});
      for (let i = 0; i < 10_000; i++) {
        Tensor.empty([${16 * MiB}], { device: 'cuda' });
        if (i % 4 === 3) await new Promise(setImmediate);
      }
      console.log(addon.memoryStats('cuda', 0, false).peakBytes);
    })();
  `);
    const [held, peak] = stdout.trim().split('\n');
    t.true(Number(held) > 20, `the ballast held ${held} GiB ${stderr}`);
    t.true(Number(peak) < 3 * GiB, `${Number(peak) / MiB} MiB`);
    t.log(`ballast ${held} GiB, then a peak of ${(Number(peak) / MiB).toFixed(0)} MiB`);
  },
);

withGpus(1)('steps that rise to 20 GiB and dispose of it meet few collections: 200 steps', (t) => {
  const { stdout, stderr } = gpuChild(`
    const { PerformanceObserver, constants } = require('node:perf_hooks');
    let major = 0;
    const observer = new PerformanceObserver((list) => {
      for (const { detail } of list.getEntries()) if (detail.kind === constants.NODE_PERFORMANCE_GC_MAJOR) major++;
    });
    observer.observe({ entryTypes: ['gc'] });
    (async () => {
      for (let step = 0; step < 200; step++) {
        const made = Array.from({ length: 80 }, () => addon.tensor('cuda', 0, 0, [${64 * MiB}]));
        for (const x of made) addon.dispose(x);
        await new Promise(setImmediate);
      }
      setTimeout(() => { observer.disconnect(); console.log(major); }, 50);
    })();
  `);
  const major = Number(stdout);
  t.true(major > 0 && major <= 40, `${stdout}${stderr}`);
  t.log(`${major} full collections`);
});
