// Run as a worker thread by workers.test.ts: loads the addon, works on the shared pool, and says what it found.
import { parentPort, workerData } from 'node:worker_threads';
import { addon, FLOAT32, opNumber } from './raw.js';

const { seed, rounds, leak } = workerData as { seed: number; rounds: number; leak: boolean };
const n = 300_000;
const fill = opNumber('fill');
const add = opNumber('add');

let wrong = 0;
const host = new Float32Array(n);
for (let round = 0; round < rounds; round++) {
  const [a, b, y] = [0, 1, 2].map(() => addon.tensor('cpu', 0, FLOAT32, [n])) as [never, never, never];
  addon.exec(fill, [], [a], [seed]);
  addon.exec(fill, [], [b], [round]);
  addon.exec(add, [a, b], [y], [2, 1]);
  addon.read(y, host);
  for (const value of host) if (value !== 2 * seed + round) wrong++;
  if (!leak) for (const handle of [a, b, y]) addon.dispose(handle);
}
parentPort!.postMessage({ wrong, alive: addon.leaks().alive }, []);
