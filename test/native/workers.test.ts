import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import test from 'ava';
import { addon, child, FLOAT32, opNumber } from './raw.js';

const FILE = fileURLToPath(new URL('worker.js', import.meta.url));
const start = (workerData: object) => new Worker(FILE, { workerData });

async function result(worker: Worker): Promise<{ wrong: number; alive: number }> {
  const exited = once(worker, 'exit');
  const [message] = await once(worker, 'message');
  await exited;
  return message;
}

test.serial('four workers and the main thread share the pool: no result is wrong', async (t) => {
  const workers = [1, 2, 3, 4].map((seed) => result(start({ seed, rounds: 30, leak: false })));
  const handle = addon.tensor('cpu', 0, FLOAT32, [100_000]);
  const host = new Float32Array(100_000);
  for (let i = 0; i < 30; i++) {
    addon.exec(opNumber('fill'), [], [handle], [i]);
    addon.read(handle, host);
    t.true(host.every((value) => value === i));
    await delay(1);
  }
  addon.dispose(handle);
  t.deepEqual(
    await Promise.all(workers),
    workers.map(() => ({ wrong: 0, alive: 0 })),
  );
});

test.serial('workers load and unload, and what they left behind is freed', async (t) => {
  const before = addon.memoryStats('cpu', 0, false).currentBytes;
  const { alive } = addon.leaks();
  for (let i = 0; i < 3; i++)
    t.deepEqual(await result(start({ seed: i, rounds: 2, leak: true })), { wrong: 0, alive: 6 });
  t.is(addon.memoryStats('cpu', 0, false).currentBytes, before);
  t.is(addon.leaks().alive, alive); // counted per thread
});

test.serial('30 workers terminated in the middle of their ops leave the pool usable', async (t) => {
  // Wherever it is hit: inside an op, while a handle is made, while an error is thrown.
  for (let wait = 0; wait < 60; wait += 4) {
    const workers = [1, 2].map((seed) => start({ seed, rounds: 1e6, leak: false }));
    await once(workers[0]!, 'online');
    await delay(wait);
    await Promise.all(workers.map((worker) => worker.terminate()));
  }
  t.deepEqual(await result(start({ seed: 3, rounds: 2, leak: false })), { wrong: 0, alive: 0 });
});

test.serial('the thread count may change while workers run', async (t) => {
  const threads = addon.getOption('cpu', 0, 'threads');
  t.teardown(() => addon.setOption('cpu', 0, 'threads', threads));
  const workers = [1, 2].map((seed) => result(start({ seed, rounds: 30, leak: false })));
  for (const count of [1, 4, 2, 7, 3]) {
    addon.setOption('cpu', 0, 'threads', count);
    await delay(20);
  }
  t.deepEqual(
    await Promise.all(workers),
    workers.map(() => ({ wrong: 0, alive: 0 })),
  );
});

test('the addon is loaded by a worker alone, unloaded, and loaded again', (t) => {
  const { status, stdout, stderr } = child(
    `
    const { Worker } = require('node:worker_threads');
    const run = (seed) => new Promise((resolve, reject) => {
      const worker = new Worker(${JSON.stringify(FILE)}, { workerData: { seed, rounds: 3, leak: seed === 1 } });
      worker.on('message', (m) => console.log(m.wrong));
      worker.on('error', reject);
      worker.on('exit', resolve);
    });
    run(0).then(() => run(1)).then(() => run(2));
  `,
    { FLASH_GSA_THREADS: '4' },
    false,
  );
  t.deepEqual({ status, stdout, stderr }, { status: 0, stdout: '0\n0\n0\n', stderr: '' });
});

test('process.exit while a worker is inside an op is clean', (t) => {
  const { status, signal, stderr } = child(
    `const { Worker } = require('node:worker_threads');
     const worker = new Worker(${JSON.stringify(FILE)}, { workerData: { seed: 1, rounds: 1e6, leak: false } });
     worker.on('online', () => setTimeout(() => process.exit(0), 100));`,
    { FLASH_GSA_THREADS: '4' },
  );
  t.deepEqual({ status, signal, stderr }, { status: 0, signal: null, stderr: '' });
});
