import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { GsaError, type GsaErrorCode } from './errors.js';
import type { BackendName, NativeAddon } from './types.js';

/** The folder that holds this package's package.json. */
export function packageRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  for (;;) {
    const file = join(folder, 'package.json');
    if (existsSync(file) && JSON.parse(readFileSync(file, 'utf8')).name === 'flash-gsa') return folder;
    const parent = dirname(folder);
    if (parent === folder)
      throw new GsaError('NOT_BUILT', 'Expected to run from inside the flash-gsa package');
    folder = parent;
  }
}

const CODES = [
  'INVALID_ARGUMENT',
  'UNSUPPORTED',
  'OUT_OF_MEMORY',
  'DEVICE_LOST',
  'USE_AFTER_DISPOSE',
  'NOT_BUILT',
  'INTERNAL',
];

/** What the addon threw, as a GsaError: where it has no code it is a TypeError or RangeError about an argument. */
function typedError(error: unknown): unknown {
  const { code, op, message } = error as Error & { code?: unknown; op?: string };
  if (typeof code === 'string' && CODES.includes(code))
    return new GsaError(code as GsaErrorCode, message, { op, cause: error });
  return error instanceof TypeError || error instanceof RangeError
    ? new GsaError('INVALID_ARGUMENT', message, { cause: error })
    : error;
}

/** Every function of the addon, with its errors (also those of promises) turned into GsaError. */
function typed(raw: NativeAddon): NativeAddon {
  const wrapped: Record<string, unknown> = { abiVersion: raw.abiVersion };
  for (const [name, fn] of Object.entries(raw)) {
    if (typeof fn !== 'function') continue;
    wrapped[name] = (...args: unknown[]) => {
      try {
        const result: unknown = fn(...args);
        if (!(result instanceof Promise)) return result;
        return result.catch((error: unknown) => {
          throw typedError(error);
        });
      } catch (error) {
        throw typedError(error);
      }
    };
  }
  return wrapped as unknown as NativeAddon;
}

let addon: NativeAddon | null = null;

/** The native addon, loaded on first use.
 * @throws GsaError NOT_BUILT with the command that builds it. */
export function native(): NativeAddon {
  if (addon) return addon;
  const path = join(packageRoot(), 'build', 'Release', 'flash_gsa.node');
  try {
    addon = typed(createRequire(import.meta.url)(path) as NativeAddon);
  } catch (cause) {
    throw new GsaError(
      'NOT_BUILT',
      `Expected the native addon at ${path} but it could not be loaded (${(cause as Error).message}); run "npm rebuild flash-gsa"`,
      { cause },
    );
  }
  return addon;
}

/** Loads a backend that is not linked into the addon.
 * @throws GsaError NOT_BUILT when it is missing or does not fit the addon. */
export function ensureBackend(name: BackendName): void {
  if (native().loadedBackends().includes(name)) return;
  const path = join(packageRoot(), 'build-cuda', 'Release', 'gsa_cuda.so');
  if (!existsSync(path))
    throw new GsaError(
      'NOT_BUILT',
      `Expected the CUDA backend at ${path} but it was not built; install the CUDA toolkit (nvcc) and CMake, then run "npm rebuild flash-gsa"`,
    );
  native().loadBackend(name, path);
}
