// Which kernels keep registers in local memory, as ptxas says (-warn-spills): a kernel that spills is slow without being
// wrong, so nothing else would show it.
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export const SPILLS = 'build-cuda/spills.json';

const COMPILED = /Building CUDA object \S*?([^/\s]+)\.cu\.o/g;
const SPILLED =
  /Registers are spilled to local memory in function '(\S+)', (\d+) bytes spill stores, (\d+) bytes spill loads/g;
// nvcc names what is in an anonymous namespace after its file: length, file, hash, then the name's length and the name.
const FILE = /_\d+_(\w+)_cu_[0-9a-f]{8}/;

/** The list after a build with this log: of the files that it compiled, what it says; of all others, what `previous` had.
 * Each { kernel (as the linker knows it), file (without .cu), stores, loads (bytes a thread) }, sorted. */
export function readSpills(log, previous) {
  const compiled = new Set([...log.matchAll(COMPILED)].map(([, file]) => file));
  const found = [...log.matchAll(SPILLED)].map(([, kernel, stores, loads]) => ({
    kernel,
    file: FILE.exec(kernel)?.[1] ?? '',
    stores: Number(stores),
    loads: Number(loads),
  }));
  const list = [...previous.filter(({ file }) => !compiled.has(file)), ...found];
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
  if (list.length === 0) return 'no CUDA kernel spills registers';
  const most = Math.max(...list.map(({ stores }) => stores));
  return `${list.length} CUDA kernels spill registers, at most ${most} bytes a thread (${SPILLS})`;
}
