// The addon itself, without the wrapper of src/native, and what the tests of this folder share.
import { spawnSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { NativeAddon } from '#src/native/types.js';
import { packageRoot } from '#src/native/load.js';

export const ROOT = packageRoot();
export const ADDON_PATH = join(ROOT, 'build', 'Release', 'flash_gsa.node');
export const CUDA_PATH = join(ROOT, 'build-cuda', 'Release', 'gsa_cuda.so');
/** For sources of child(): `const { Tensor } = await import(...)`. */
export const TENSOR_MODULE = JSON.stringify(pathToFileURL(join(ROOT, 'dist', 'tensor', 'tensor.js')).href);
export const addon = createRequire(import.meta.url)(ADDON_PATH) as NativeAddon;

export const FLOAT32 = 0;

/** The number of an op in ops.def. */
export function opNumber(name: string): number {
  const index = addon.ops().findIndex((op) => op.name === name);
  if (index < 0) throw new Error(`no op ${name}`);
  return index;
}

export interface ChildResult {
  status: number | null;
  signal: string | null;
  stdout: string;
  stderr: string;
}

/** Runs CommonJS source in a child process, where `addon` is the raw addon unless `load` is false. */
export function child(source: string, env: Record<string, string> = {}, load = true): ChildResult {
  const prelude = load ? `const addon = require(${JSON.stringify(ADDON_PATH)});\n` : '';
  const result = spawnSync(process.execPath, ['-e', prelude + source], {
    env: { ...process.env, ...env },
    encoding: 'utf8',
    timeout: 60_000,
  });
  return { status: result.status, signal: result.signal, stdout: result.stdout, stderr: result.stderr };
}
