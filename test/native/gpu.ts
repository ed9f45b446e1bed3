// GPU tests on the raw addon: how many devices there are, and a child process that has the CUDA backend loaded.
import { existsSync } from 'node:fs';
import test from 'ava';
import { addon, child, CUDA_PATH, type ChildResult } from './raw.js';

function count(): number {
  if (!existsSync(CUDA_PATH) || !(existsSync('/dev/nvidiactl') || existsSync('/dev/dxg'))) return 0;
  addon.loadBackend('cuda', CUDA_PATH);
  return addon.deviceCount('cuda');
}

export const gpus = count();
const told = new Set<number>();

/** test.serial where there are so many GPUs; else the skip is said, once a file, on stderr. */
export function withGpus(needed: number): typeof test.serial | typeof test.serial.skip {
  if (gpus >= needed) return test.serial;
  if (!told.has(needed)) process.stderr.write(`SKIPPED: tests that need ${needed} GPU(s); ${gpus} here\n`);
  told.add(needed);
  return test.serial.skip;
}

/** child() with the CUDA backend loaded. */
export function gpuChild(source: string, env: Record<string, string> = {}): ChildResult {
  return child(`addon.loadBackend('cuda', ${JSON.stringify(CUDA_PATH)});\n${source}`, env);
}
