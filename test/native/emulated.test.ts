import { execFileSync, spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test from 'ava';

const root = fileURLToPath(new URL('../../../', import.meta.url));
const compiler = process.env.CXX ?? 'c++';

/** Where cuda_bf16.h is: its arithmetic runs on the host too. */
function toolkitHeaders(): string | undefined {
  const folders = [process.env.CUDA_HOME, process.env.CUDA_PATH, '/usr/local/cuda'].flatMap((x) => x ?? []);
  return folders.map((x) => join(x, 'include')).find((x) => existsSync(join(x, 'cuda_bf16.h')));
}

/** The sources of an op's kernels beside the emulator's headers, under the names that the sources include. What to compile
 * for `main`: the kernels in whose names `kind` is. */
function layOut(folder: string, main: string, op: string, kind: string): string[] {
  const ops = join(folder, 'native/ops', op);
  mkdirSync(ops, { recursive: true });
  cpSync(join(root, 'test/emulator'), folder, { recursive: true });
  for (const name of ['sm90', 'cuda'])
    cpSync(join(root, 'test/emulator', name), join(folder, 'native', name), { recursive: true });
  cpSync(join(root, 'native/abi'), join(folder, 'native/abi'), { recursive: true });
  for (const name of readdirSync(join(root, 'native/ops', op)))
    if (!name.endsWith('.cc') && !name.endsWith('.md'))
      cpSync(join(root, 'native/ops', op, name), join(ops, name));
  const kernels = readdirSync(ops).filter((name) => name.endsWith('.cu') && name.includes(kind));
  return ['emulator.cc', main, ...kernels.map((name) => join('native/ops', op, name))];
}

for (const [main, op, kind, title] of [
  [
    'sweeps.cc',
    'gsa',
    'sweep',
    'sweep kernels, emulated on the CPU, against float64: K=V 64..512, T 0..1500, cut walks, documents, bfloat16',
  ],
  [
    'fast.cc',
    'gsa',
    'fast',
    'kernels of the tensor-core path, emulated on the CPU, against float64: exact and not, M 16..128, T 0..209, documents, bfloat16',
  ],
  [
    'short_conv.cc',
    'short_conv',
    'short_conv',
    'kernels of the short convolution, emulated on the CPU, against float64: 1 to 5 taps, runs of rows, documents, states',
  ],
  ['argmax.cc', 'reduce', 'argmax', 'kernel of argmax, emulated on the CPU: ties, NaN, rows of 1 to 33,000'],
  [
    'rmsnorm.cc',
    'rmsnorm',
    'rows_of_vectors', // headers alone
    'kernels of RMSNorm for whole 16-byte vectors, emulated on the CPU, against float64: D 8..8192, many rows a block',
  ],
  [
    'rotary.cc',
    'rotary',
    'rotary',
    'kernels of the rotary embedding, emulated on the CPU, against float64: D 6..528, several blocks and rounds, in place',
  ],
] as const)
  test(title, (t) => {
    const headers = toolkitHeaders();
    const sources = existsSync(join(root, 'test/emulator'));
    if (!sources || !headers || process.arch !== 'x64' || spawnSync(compiler, ['--version']).status !== 0) {
      t.log('SKIPPED: needs a checkout, a C++ compiler and the headers of the CUDA toolkit, on x86-64');
      return t.pass();
    }
    t.timeout(280_000);
    const folder = mkdtempSync(join(tmpdir(), 'emulated-'));
    t.teardown(() => rmSync(folder, { recursive: true, force: true }));
    const program = join(folder, 'program');
    // Kernels read pairs of bfloat16 through other types, which nvcc allows.
    const flags = ['-std=c++17', '-O1', '-fno-strict-aliasing', '-w', `-I${headers}`, '-I.', '-x', 'c++'];
    execFileSync(compiler, [...flags, ...layOut(folder, main, op, kind), '-o', program], { cwd: folder });
    const run = spawnSync(program, { encoding: 'utf8' });
    t.log(run.stdout);
    t.is(run.status, 0, run.stdout);
  });
