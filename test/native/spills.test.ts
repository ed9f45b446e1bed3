import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import test from 'ava';
import { ROOT } from './raw.js';

interface Spill {
  kernel: string;
  file: string;
  stores: number;
  loads: number;
  serialised: boolean;
}
const { readSpills, SPILLS } = (await import(
  pathToFileURL(join(ROOT, 'native', 'build', 'spills.mjs')).href
)) as { SPILLS: string; readSpills(log: string, previous: Spill[]): Spill[] };

const name = (file: string, kernel: string) =>
  `_ZN3gsa4sm9055_GLOBAL__N__565ab2cb_${file.length + 3}_${file}_cu_d052e6cc${kernel.length}${kernel}EvNS0_4PassE`;
const serialised = (kernel: string) =>
  `ptxas info    : (C7512) Potential Performance Loss: wgmma.mma_async instructions are serialized due to insufficient register resources for the function '${kernel}'`;
const warning = (kernel: string, stores: number) =>
  `ptxas warning : Registers are spilled to local memory in function '${kernel}', ${stores} bytes spill stores, 8 bytes spill loads`;

test('the list of spills follows what a build compiled again', (t) => {
  const [flow, walk] = [name('gsa_flow_sm90', 'flow'), name('gsa_walk_sm90', 'walk')];
  const compiles = (file: string) =>
    `[ 50%] Building CUDA object CMakeFiles/gsa_cuda.dir/native/ops/gsa/${file}.cu.o`;
  const first = readSpills(
    [
      compiles('gsa_flow_sm90'),
      warning(flow, 4),
      compiles('gsa_walk_sm90'),
      serialised(walk),
      warning(walk, 20),
    ].join('\n'),
    [],
  );
  t.deepEqual(first, [
    { kernel: flow, file: 'gsa_flow_sm90', stores: 4, loads: 8, serialised: false },
    { kernel: walk, file: 'gsa_walk_sm90', stores: 20, loads: 8, serialised: true },
  ]);
  t.deepEqual(readSpills('[100%] Built target gsa_cuda', first), first);
  t.deepEqual(readSpills(compiles('gsa_walk_sm90'), first), first.slice(0, 1));
  t.is(readSpills([compiles('gsa_flow_sm90'), warning(flow, 12)].join('\n'), first)[0]!.stores, 12);
});

// Bytes a thread that kernels of gated slot attention may spill: those that do, by the widths that they are compiled for.
const ALLOWED: [RegExp, number][] = [
  // Two slot roles, by width: slower without these spills, in fewer roles (README-sweeps.md).
  [/forward_sweep_kernelILb0ELb0ELb0ELi1ELi2ELi128E/, 76],
  [/forward_sweep_kernelILb0ELb0ELb0ELi1ELi4ELi128E/, 36],
  [/forward_sweep_kernelILb1ELb[01]ELb0ELi1ELi1ELi128E/, 88],
  [/forward_sweep_kernelILb1ELb[01]ELb0ELi1ELi2ELi128E/, 296],
  [/forward_sweep_kernelILb1ELb[01]ELb0ELi1ELi4ELi128E/, 132],
  [/reverse_sweep_kernelILb[01]ELb[01]ELb0ELi[012]ELi1ELi128E/, 124],
  [/reverse_sweep_kernelILb[01]ELb[01]ELb0ELi[012]ELi2ELi128E/, 204],
  [/reverse_sweep_kernelILb1ELb[01]ELb0ELi[012]ELi4ELi128E/, 124],
  // Grouped queries, the role that makes dv.
  [/reverse_sweep_kernelILb0ELb1ELb0ELi0ELi4ELi128E/, 28],
  // The layer form, two slot roles: K = V = 64, 128, 256.
  [/forward_sweep_kernelILb0ELb0ELb1ELi1ELi2ELi128ELi128E/, 108],
  [/forward_sweep_kernelILb1ELb0ELb1ELi1ELi1ELi(64|128)E/, 4],
  [/forward_sweep_kernelILb1ELb0ELb1ELi1ELi2ELi128ELi128E/, 124],
  [/reverse_sweep_kernelILb[01]ELb0ELb1ELi0ELi1E/, 8],
  [/reverse_sweep_kernelILb0ELb0ELb1ELi0ELi2ELi128E/, 100],
  [/reverse_sweep_kernelILb1ELb0ELb1ELi0ELi2ELi128E/, 120],
  // Its backward where of four roles each has fewer registers: K = V = 512.
  [/reverse_sweep_kernelILb0ELb0ELb1ELi0ELi4ELi128E/, 12],
  [/reverse_sweep_kernelILb1ELb0ELb1ELi0ELi4ELi128E/, 4],
  // 128 slots: K = V = 128, 256, 512.
  [/forward_sweep_kernelILb1ELb0ELb0ELi2ELi1ELi128ELi128E/, 12],
  [/forward_sweep_kernelILb1ELb0ELb0ELi2ELi4ELi128ELi128E/, 12],
  [/forward_sweep_kernelILb0ELb0ELb0ELi2ELi2ELi128ELi128E/, 32],
  [/forward_sweep_kernelILb1ELb0ELb0ELi2ELi2ELi128ELi128E/, 16],
  // The general path, columns of 65 to 128.
  [/scan_kernelIffLb0ELb1ELi8ELi16ELi2ELb0E/, 4],
  // Exact, 128 slots, grouped queries: small calls only.
  [/columns_kernelINS0_5SlotsILi128ELb0ELb1EEELb0E/, 16],
  // Fewer than 64 slots.
  [/walk_states_kernelINS0_5SlotsILi64ELb1E/, 8],
];

// Of these ptxas serialises the products of warpgroups: the backward at narrow widths, whose slot roles need the registers more.
const SERIALISED =
  /(forward_sweep_kernelILb1ELb[01]ELb0ELi1|reverse_sweep_kernelILb[01]ELb[01]ELb0ELi[012])ELi[12]E/;

test('kernels of gated slot attention spill no more registers than is known, nor wait more for products', (t) => {
  const path = join(ROOT, SPILLS);
  if (!existsSync(path)) {
    t.log('SKIPPED: needs a checkout in which the CUDA backend was built');
    return t.pass();
  }
  const list = (JSON.parse(readFileSync(path, 'utf8')) as Spill[]).filter(({ file }) =>
    file.startsWith('gsa_'),
  );
  t.log(list.map(({ file, kernel, stores }) => `${file} ${kernel}: ${stores} bytes`).join('\n'));
  for (const { kernel, stores, serialised } of list) {
    t.true(!serialised || SERIALISED.test(kernel), `the products of ${kernel} are serialised`);
    const allowed = ALLOWED.find(([pattern]) => pattern.test(kernel))?.[1] ?? 0;
    t.true(stores <= allowed, `${kernel} spills ${stores} bytes, ${allowed} are known`);
  }
});
