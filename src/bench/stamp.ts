import { execFileSync } from 'node:child_process';
import { readFileSync, realpathSync } from 'node:fs';
import { cpus, loadavg, platform, release } from 'node:os';
import { join } from 'node:path';
import { nvidiaDriver } from '../native/driver.js';
import { packageRoot } from '../native/load.js';
import type { Device } from '../tensor/device.js';

/** Where, when and from what a number comes: without it a number says nothing. */
export interface Stamp {
  readonly date: string;
  readonly command: string;
  readonly version: string;
  /** The checkout's commit, with "-dirty" when files differ from it, or the one that a bundle was made from; null in an
   * installed package. */
  readonly commit: string | null;
  readonly node: string;
  readonly system: string;
  readonly cpu: string;
  readonly cores: number;
  /** Mean number of busy processes over the last minute: far above 0, others were using the machine. */
  readonly load: number;
  readonly device: string;
  readonly deviceName: string;
  /** Threads (CPU) or multiprocessors (CUDA). */
  readonly units: number;
  /** Instruction set and BLAS, or the CUDA versions of driver and runtime. */
  readonly detail: string;
  /** Version of the GPU's kernel driver; null on the CPU. */
  readonly driver: string | null;
}

function git(root: string, ...args: string[]): string {
  return execFileSync('git', ['-C', root, ...args], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
  }).trim();
}

/** The commit of the checkout at `root`; null where `root` is no checkout's top (an installed package lies inside its
 * user's repository, whose commit would say nothing). */
export function commitOf(root: string): string | null {
  try {
    if (realpathSync(git(root, 'rev-parse', '--show-toplevel')) !== realpathSync(root)) return null;
    const dirty = git(root, 'status', '--porcelain', '--untracked-files=no') !== '';
    return git(root, 'rev-parse', '--short=12', 'HEAD') + (dirty ? '-dirty' : '');
  } catch {
    return null;
  }
}

/** Written into the archive by `npm run bundle`. */
const BUNDLED_COMMIT = 'COMMIT';

function bundledCommit(root: string): string | null {
  try {
    return readFileSync(join(root, BUNDLED_COMMIT), 'utf8').trim();
  } catch {
    return null;
  }
}

export function stamp(device: Device, command: string): Stamp {
  const root = packageRoot();
  const info = device.info();
  return {
    date: new Date().toISOString(),
    command,
    version: (JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string }).version,
    commit: bundledCommit(root) ?? commitOf(root),
    node: process.version,
    system: `${platform()} ${release()}`,
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: cpus().length,
    load: Math.round(loadavg()[0]! * 100) / 100,
    device: device.toString(),
    deviceName: info.name,
    units: info.units,
    detail: info.detail,
    driver: device.backend === 'cuda' ? nvidiaDriver() : null,
  };
}
