// Run as a worker thread by workers.test.ts: loads the addon, works on the shared pool, and says what it found.
import { parentPort, workerData } from 'node:worker_threads';
import { addon, CUDA_PATH, FLOAT32, opNumber } from './raw.js';

const { backend, index, seed, rounds, leak } = {
  backend: 'cpu',
  index: 0,
  ...(workerData as object),
} as { backend: 'cpu' | 'cuda'; index: number; seed: number; rounds: number; leak: boolean };
if (backend === 'cuda') addon.loadBackend('cuda', CUDA_PATH);
const n = 300_000;
const fill = opNumber('fill');
const add = opNumber('add');

let wrong = 0;
const host = new Float32Array(n);
for (let round = 0; round < rounds; round++) {
  const [a, b, y] = [0, 1, 2].map(() => addon.tensor(backend, index, FLOAT32, [n])) as [never, never, never];
  addon.exec(fill, [], [a], [seed]);
  addon.exec(fill, [], [b], [round]);
  addon.exec(add, [a, b], [y], [2, 1]);
  // Both ways to the host; the second is still under way when y is disposed of.
  addon.read(y, host);
  const check = (values: Float32Array): void => {
    for (const value of values) if (value !== 2 * seed + round) wrong++;
  };
  check(host);
  const pending = addon.readAsync(y);
  if (!leak) for (const handle of [a, b, y]) addon.dispose(handle);
  check(new Float32Array(await pending));
}
parentPort!.postMessage({ wrong, alive: addon.leaks().alive }, []);
