import { readdirSync, readFileSync } from 'node:fs';
import { join, posix } from 'node:path';
import test from 'ava';
import { packageRoot } from '#src/native/load.js';

// The layering that keeps a new algorithm cheap: a folder of src imports only folders before it in this list.
const SRC_ORDER = [
  'native',
  'tensor',
  'io',
  'ops',
  'autograd',
  'nn',
  'models',
  'optim',
  'data',
  'generate',
  'train',
  'verify',
  'bench',
  'doctor',
  'cli',
];
const MAX_LINES = 500;
const INCLUDE = /^\s*#\s*include\s*([<"])([^>"]+)[>"]/gm;

const root = packageRoot();

function filesBelow(folder: string, ending: RegExp): string[] {
  const entries = readdirSync(join(root, folder), { withFileTypes: true, recursive: true });
  return entries
    .filter((entry) => entry.isFile() && ending.test(entry.name) && !entry.name.startsWith('.'))
    .map((entry) =>
      posix.relative(
        root.replaceAll('\\', '/'),
        posix.join(entry.parentPath, entry.name).replaceAll('\\', '/'),
      ),
    )
    .toSorted();
}

function read(path: string): string {
  return readFileSync(join(root, path), 'utf8');
}

/** The module specifiers of static and dynamic imports and re-exports. */
function importsOf(source: string): string[] {
  return [...source.matchAll(/\b(?:from|import)\s*\(?\s*'([^']+)'/g)].map((match) => match[1]!);
}

/** Why a file of src may not import `specifier`, or null. */
function srcViolation(file: string, specifier: string): string | null {
  if (!specifier.startsWith('.')) return specifier.startsWith('#src/') ? 'tests only may use #src/' : null;
  if (!specifier.endsWith('.js')) return 'relative imports name the emitted .js file';
  const target = posix.normalize(posix.join(posix.dirname(file), specifier));
  const [, from = ''] = file.split('/');
  const [base, to = ''] = target.split('/');
  if (base !== 'src') return 'leaves src';
  if (file.split('/').length === 2) return null; // src/index.ts gathers the public API
  if (target.split('/').length === 2) return 'no folder may import src/index.ts';
  if (from === to) return null;
  const [here, there] = [SRC_ORDER.indexOf(from), SRC_ORDER.indexOf(to)];
  if (here < 0 || there < 0) return `${here < 0 ? from : to} has no place in the order`;
  return there < here ? null : `${from} stands below ${to}`;
}

interface Include {
  readonly system: boolean;
  /** Relative to native/ when the file is one of ours, else as written. */
  readonly path: string;
  readonly ours: boolean;
}

function includesOf(file: string, nativeFiles: ReadonlySet<string>): Include[] {
  return [...read(file).matchAll(INCLUDE)].map(([, bracket, written]) => {
    const local = posix.normalize(posix.join(posix.dirname(file), written!));
    const fromNative = posix.join('native', written!);
    const path = [local, fromNative].find((candidate) => nativeFiles.has(candidate));
    return { system: bracket === '<', path: (path ?? written!).replace(/^native\//, ''), ours: !!path };
  });
}

const NODE_HEADERS = /^(napi|node|node_api|js_native_api|uv|v8)(-inl)?(\/.*)?(\.h)?$/;
const CUDA_HEADERS = /^(cuda|cublas|nccl|cudnn|nvml|cooperative_groups|cutlass|cute)[\w/.-]*$/;
const STANDARD_C_HEADERS = new Set(['stdint.h', 'stddef.h']);

/** Why a native file may not include that, or null. */
function nativeViolation(file: string, include: Include): string | null {
  const [, area = '', algorithm = ''] = file.split('/');
  const { path } = include;
  const top = include.ours ? path.split('/')[0]! : '';
  if (!include.ours && !include.system && !/^(cuda|cublas|napi|node_api)/.test(path))
    return 'cannot be found below native/';
  if (area !== 'addon' && NODE_HEADERS.test(path)) return 'only the addon may see Node';
  if (area === 'abi') {
    if (file.endsWith('gsa_abi.h'))
      return STANDARD_C_HEADERS.has(path) ? null : 'the contract needs <stdint.h> only';
    return (include.ours && top === 'abi') || /^[a-z_]+(\.h)?$/.test(path) ? null : 'abi stands alone';
  }
  if (area === 'addon') {
    if (CUDA_HEADERS.test(path) || top === 'cuda' || top === 'sm90') return 'the addon holds no CUDA';
    return path.startsWith('ops/') && path !== 'ops/ops.def' ? 'the addon holds no code of an op' : null;
  }
  const cpuOnly = area === 'cpu' || (area === 'ops' && /_cpu[^/]*$/.test(file));
  if (cpuOnly && (CUDA_HEADERS.test(path) || top === 'cuda' || top === 'sm90'))
    return 'the CPU backend builds without CUDA';
  if (area === 'ops' && include.ours) {
    if (top === 'ops' && path.split('/')[1] !== algorithm) return 'an algorithm never includes another';
    return ['abi', 'cpu', 'cuda', 'sm90', 'ops'].includes(top) ? null : `ops may not use ${top}`;
  }
  if (area === 'sm90' && include.ours && !['sm90', 'abi'].includes(top))
    return 'sm90 knows no op and no backend';
  if (area === 'cuda' && top === 'cpu') return 'the CUDA backend builds without the CPU one';
  return top === 'addon' ? 'nothing includes the addon' : null;
}

test('every folder of src imports only folders before it', (t) => {
  const files = filesBelow('src', /\.ts$/);
  t.true(files.length > 10);
  const violations = files.flatMap((file) =>
    importsOf(read(file)).flatMap((specifier) => {
      const reason = srcViolation(file, specifier);
      return reason === null ? [] : [`${file} imports ${specifier}: ${reason}`];
    }),
  );
  t.deepEqual(violations, []);
});

test('every folder of src has its place in the order', (t) => {
  const folders = readdirSync(join(root, 'src'), { withFileTypes: true }).filter((entry) =>
    entry.isDirectory(),
  );
  const unknown = folders.map((entry) => entry.name).filter((name) => !SRC_ORDER.includes(name));
  t.deepEqual(unknown, []);
});

test('the import rule sees what it must refuse', (t) => {
  const refused: [string, string][] = [
    ['src/ops/gsa.ts', '../nn/linear.js'],
    ['src/tensor/tensor.ts', '../ops/matmul.js'],
    ['src/train/loop.ts', '../cli/main.js'],
    ['src/ops/gsa.ts', '../index.js'],
    ['src/ops/gsa.ts', '../../test/cases/gsa.js'],
    ['src/ops/gsa.ts', '../tensor/tensor'],
  ];
  for (const [file, specifier] of refused) t.truthy(srcViolation(file, specifier), `${file} -> ${specifier}`);
  t.is(srcViolation('src/nn/linear.ts', '../ops/matmul.js'), null);
  t.is(srcViolation('src/index.ts', './cli/main.js'), null);
  t.deepEqual(
    importsOf("import a from './a.js';\nexport * from './b.js';\nawait import('./c.js');\nimport './d.js';"),
    ['./a.js', './b.js', './c.js', './d.js'],
  );
});

test('native files include only what their layer may', (t) => {
  const files = filesBelow('native', /\.(h|cc|cu|cuh|inl|def)$/);
  const known = new Set(files);
  t.true(files.length > 10);
  const violations = files.flatMap((file) =>
    includesOf(file, known).flatMap((include) => {
      const reason = nativeViolation(file, include);
      return reason === null ? [] : [`${file} includes ${include.path}: ${reason}`];
    }),
  );
  t.deepEqual(violations, []);
});

test('the include rule sees what it must refuse', (t) => {
  const ours = (path: string): Include => ({ system: false, path, ours: true });
  const system = (path: string): Include => ({ system: true, path, ours: false });
  const refused: [string, Include][] = [
    ['native/ops/gsa/gsa_cpu.cc', ours('ops/matmul/params.h')],
    ['native/ops/gsa/gsa_cpu.cc', system('napi.h')],
    ['native/ops/gsa/gsa_cpu.cc', system('node_api.h')],
    ['native/ops/gsa/gsa_cpu.cc', ours('addon/exec.h')],
    ['native/addon/addon.cc', system('cuda_runtime.h')],
    ['native/addon/addon.cc', ours('cuda/device.h')],
    ['native/addon/addon.cc', ours('ops/gsa/params.h')],
    ['native/abi/gsa_abi.h', system('vector')],
    ['native/abi/args.h', ours('cpu/parallel.h')],
    ['native/cpu/pool.cc', system('cuda_runtime.h')],
    ['native/ops/gsa/gsa_chunk_cpu.cc', ours('cuda/device.h')],
    ['native/sm90/tma.cuh', ours('ops/gsa/params.h')],
  ];
  for (const [file, include] of refused)
    t.truthy(nativeViolation(file, include), `${file} -> ${include.path}`);
  t.is(nativeViolation('native/ops/gsa/gsa_cpu.cc', ours('ops/gsa/params.h')), null);
  t.is(nativeViolation('native/addon/exec.cc', ours('ops/ops.def')), null);
  t.is(nativeViolation('native/abi/gsa_abi.h', system('stdint.h')), null);
});

test(`no source file is longer than ${MAX_LINES} lines`, (t) => {
  const files = ['src', 'native', 'test', 'bench'].flatMap((folder) =>
    filesBelow(folder, /\.(ts|mjs|h|cc|cu|cuh|inl|def|sh)$/),
  );
  const long = files
    .map((file) => ({ file, lines: read(file).split('\n').length - 1 }))
    .filter(({ lines }) => lines > MAX_LINES);
  t.deepEqual(long, []);
});
