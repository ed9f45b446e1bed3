// Which kernels keep registers in local memory, as ptxas says (-warn-spills), and of which it waits for each product of a
// warpgroup by itself, for want of registers: such a kernel is slow without being wrong, so nothing else would show it.
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export const SPILLS = 'build-cuda/spills.json';

const COMPILED = /Building CUDA object \S*?([^/\s]+)\.cu\.o/g;
const SPILLED =
  /Registers are spilled to local memory in function '(\S+)', (\d+) bytes spill stores, (\d+) bytes spill loads/g;
const SERIALISED = /wgmma\.mma_async instructions are serialized due to [^']*'(\S+)'/g;
// nvcc names what is in an anonymous namespace after its file: length, file, hash, then the name's length and the name.
const FILE = /_\d+_(\w+)_cu_[0-9a-f]{8}/;

/** The list after a build with this log: of the files that it compiled, what it says; of all others, what `previous` had.
 * Each { kernel (as the linker knows it), file (without .cu), stores, loads (bytes a thread), serialised }, sorted. */
export function readSpills(log, previous) {
  const compiled = new Set([...log.matchAll(COMPILED)].map(([, file]) => file));
  const found = new Map();
  const entry = (kernel) => {
    if (!found.has(kernel))
      found.set(kernel, {
        kernel,
        file: FILE.exec(kernel)?.[1] ?? '',
        stores: 0,
        loads: 0,
        serialised: false,
      });
    return found.get(kernel);
  };
  for (const [, kernel, stores, loads] of log.matchAll(SPILLED))
    Object.assign(entry(kernel), { stores: Number(stores), loads: Number(loads) });
  for (const [, kernel] of log.matchAll(SERIALISED)) entry(kernel).serialised = true;
  const list = [...previous.filter(({ file }) => !compiled.has(file)), ...found.values()];
  return list.toSorted((a, b) => (a.kernel < b.kernel ? -1 : 1));
}

/** Reads the log of a build, whether it succeeded or not, and keeps the list beside the objects that it is about. */
export function keepSpills(root, log) {
  const path = join(root, SPILLS);
  const previous = existsSync(path) ? JSON.parse(readFileSync(path, 'utf8')) : [];
  const list = readSpills(log, previous);
  if (existsSync(join(root, 'build-cuda'))) writeFileSync(path, `${JSON.stringify(list, null, 1)}\n`);
  return list;
}

/** One line for people. */
export function describeSpills(list) {
  const spill = list.filter(({ stores }) => stores > 0);
  const serialised = list.filter((kernel) => kernel.serialised);
  const most = Math.max(0, ...spill.map(({ stores }) => stores));
  const spills =
    spill.length === 0
      ? 'no CUDA kernel spills registers'
      : `${spill.length} CUDA kernels spill registers, at most ${most} bytes a thread`;
  return `${spills}; of ${serialised.length} ptxas serialises the products of warpgroups (${SPILLS})`;
}
