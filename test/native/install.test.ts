// The install script against fake tools: a folder whose name has spaces holds a copy of native/build, a few sources and a
// node_modules with a node-gyp and a cmake-js that only write down how they were called.
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
} from 'node:fs';
import { appendFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import test, { type ExecutionContext } from 'ava';
import { ROOT } from './raw.js';

type Probe = {
  ok: boolean;
  reason?: string;
  remedy?: string;
  path?: string;
  nodedir?: string;
  shown?: string;
};
type Env = Record<string, string>;
interface Probes {
  probeCompiler(env: Env): Probe;
  probePython(env: Env): Probe;
  probeMake(env: Env): Probe;
  probeHeaders(env: Env, execPath: string, version: string): Probe;
  probeCuda(env: Env, usual?: string[]): Probe;
}
const load = <T>(name: string) =>
  import(pathToFileURL(join(ROOT, 'native', 'build', name)).href) as Promise<T>;
const probes = await load<Probes>('probe.mjs');

function folder(t: ExecutionContext): string {
  const path = mkdtempSync(join(tmpdir(), 'flash gsa '));
  t.teardown(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

function put(path: string, text: string): string {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, text);
  return path;
}

/** A program that prints `text`, or runs `script`. */
function program(path: string, text: string, script = ''): string {
  put(path, `#!/bin/sh\n${script}\ncat <<'END'\n${text}\nEND\n`);
  chmodSync(path, 0o755);
  return path;
}

const GCC_12 = 'g++ (Debian 12.2.0-14+deb12u1) 12.2.0\nCopyright (C) 2022 Free Software Foundation, Inc.';
const GCC_8 = 'g++ (Ubuntu 8.4.0-3ubuntu2) 8.4.0';
const CLANG_14 = 'Debian clang version 14.0.6\nTarget: x86_64-pc-linux-gnu';
const CLANG_11 = 'Debian clang version 11.0.1-2';
const APPLE_15 = 'Apple clang version 15.0.0 (clang-1500.3.9.4)';
const NVCC = (version: string) =>
  `nvcc: NVIDIA (R) Cuda compiler driver\nCuda compilation tools, release ${version}, V${version}.1`;

/** A PATH of one folder with these programs, and `sh` and `cat` for the fakes to run. */
function path(t: ExecutionContext, programs: Record<string, string>): string {
  const bin = folder(t);
  for (const [name, text] of Object.entries(programs)) program(join(bin, name), text);
  for (const tool of ['sh', 'cat', 'mkdir', 'touch', 'dirname']) {
    const found = ['/bin', '/usr/bin'].map((dir) => join(dir, tool)).find((file) => existsSync(file))!;
    symlinkSync(found, join(bin, tool));
  }
  return bin;
}

for (const [title, programs, shown] of [
  ['GCC 12', { 'g++': GCC_12 }, 'gcc 12.2.0'],
  ['Clang 14 when there is no g++', { 'clang++': CLANG_14 }, 'clang 14.0.6'],
  ['Apple clang called g++', { 'g++': APPLE_15 }, 'clang 15.0.0'],
] as const)
  test(`compiler: takes ${title}`, (t) => {
    const found = probes.probeCompiler({ PATH: path(t, programs) });
    t.true(found.ok, found.reason);
    t.is(found.shown, shown);
  });

for (const [title, programs, env, reason] of [
  ['GCC 8', { 'g++': GCC_8 }, {}, /gcc 8\.4\.0 .* is too old/],
  ['Clang 11', { 'clang++': CLANG_11 }, {}, /clang 11\.0\.1 .* is too old/],
  ['a machine without any', {}, {}, /no C\+\+ compiler was found/],
  ['a CXX that is not there', { 'g++': GCC_12 }, { CXX: 'icpx' }, /CXX=icpx was not found/],
  ['a program that does not tell its version', { 'g++': 'hello' }, {}, /did not tell its version/],
] as const)
  test(`compiler: refuses ${title}`, (t) => {
    const found = probes.probeCompiler({ PATH: path(t, programs), ...env });
    t.false(found.ok);
    t.regex(found.reason!, reason);
    t.regex(found.remedy!, /install g\+\+ 10 or newer/);
  });

test('compiler: CXX may carry a launcher', (t) => {
  const bin = path(t, { ccache: 'ccache version 4.8', 'g++-11': GCC_12 });
  t.is(probes.probeCompiler({ PATH: bin, CXX: 'ccache g++-11' }).path, join(bin, 'g++-11'));
});

test('python and make: found, missing, too old', (t) => {
  t.true(probes.probePython({ PATH: path(t, { python3: 'Python 3.11.7' }) }).ok);
  t.regex(probes.probePython({ PATH: path(t, {}) }).reason!, /python3 was not found/);
  t.regex(
    probes.probePython({ PATH: path(t, { python3: 'Python 3.6.9' }) }).reason!,
    /Python 3\.6\.9, too old/,
  );
  t.true(probes.probeMake({ PATH: path(t, { make: 'GNU Make 4.3' }) }).ok);
  t.regex(probes.probeMake({ PATH: path(t, {}) }).reason!, /make was not found/);
});

function headers(at: string, major: number): string {
  put(
    join(at, 'include/node/node_version.h'),
    `#define NODE_MAJOR_VERSION ${major}\n#define NODE_MINOR_VERSION 1\n#define NODE_PATCH_VERSION 0\n`,
  );
  put(join(at, 'include/node/node_api.h'), '');
  return at;
}

test('headers: those npm was told of, else those beside node; another major version is passed over', (t) => {
  const told = headers(folder(t), 20);
  const beside = headers(folder(t), 20);
  const old = headers(folder(t), 18);
  const node = join(beside, 'bin', 'node');
  t.is(probes.probeHeaders({ npm_config_nodedir: told }, node, '20.1.0').nodedir, told);
  t.is(probes.probeHeaders({}, node, '20.1.0').nodedir, beside);
  t.is(probes.probeHeaders({ npm_config_nodedir: old }, node, '20.1.0').nodedir, beside);
  const none = probes.probeHeaders({ npm_config_nodedir: old }, '/nowhere/bin/node', '20.1.0');
  t.false(none.ok);
  t.regex(none.reason!, /headers of Node\.js 20\.1\.0 are not at .*include\/node/);
  t.regex(none.remedy!, /npm_config_nodedir/);
});

test('nvcc and CMake: found through CUDA_HOME, missing, too old', (t) => {
  const cmake = { cmake: 'cmake version 3.25.1' };
  const home = folder(t);
  program(join(home, 'bin', 'nvcc'), NVCC('12.8'));
  t.is(probes.probeCuda({ PATH: path(t, cmake), CUDA_HOME: home }).ok, true);
  const none = probes.probeCuda({ PATH: path(t, cmake) }, ['/nowhere/nvcc']);
  t.is(none.reason, 'nvcc was not found');
  t.regex(
    none.remedy!,
    /CUDA toolkit 12\.0 or newer and CMake 3\.24 or newer, then run "npm rebuild flash-gsa"/,
  );
  const withNvcc = (version: string, rest: Record<string, string>) =>
    probes.probeCuda({ PATH: path(t, { nvcc: NVCC(version), ...rest }) });
  t.true(withNvcc('13.0', cmake).ok);
  t.regex(withNvcc('11.8', cmake).reason!, /CUDA 11\.8, too old/);
  t.regex(withNvcc('12.8', {}).reason!, /cmake was not found/);
  t.regex(withNvcc('12.8', { cmake: 'cmake version 3.18.4' }).reason!, /CMake 3\.18\.4 is too old/);
});

const BUILD_TOOLS = { 'g++': GCC_12, python3: 'Python 3.11.7', make: 'GNU Make 4.3' };

/** A fake package in a folder with spaces; `run` installs it and says what was printed and which tools ran. */
function fakePackage(t: ExecutionContext) {
  const root = join(folder(t), 'my package');
  cpSync(join(ROOT, 'native', 'build'), join(root, 'native', 'build'), { recursive: true });
  put(join(root, 'package.json'), JSON.stringify({ name: 'flash-gsa', version: '9.9.9', type: 'module' }));
  put(join(root, 'binding.gyp'), '{}');
  put(join(root, 'CMakeLists.txt'), '');
  put(join(root, 'native/addon/addon.cc'), '// addon');
  put(join(root, 'native/cpu/pool.h'), '// pool');
  put(join(root, 'native/ops/sum/sum_cpu.cc'), '// sum');
  put(join(root, 'native/cuda/device.cc'), '// device');
  const calls = join(root, 'calls.jsonl');
  for (const [tool, entry, target] of [
    ['node-gyp', 'bin/node-gyp.js', 'build/Release/flash_gsa.node'],
    ['cmake-js', 'bin/cmake-js', 'build-cuda/Release/gsa_cuda.so'],
  ]) {
    put(join(root, 'node_modules', tool!, 'package.json'), JSON.stringify({ name: tool, version: '1.0.0' }));
    put(
      join(root, 'node_modules', tool!, entry!),
      `const fs = require('node:fs');
       fs.appendFileSync(${JSON.stringify(calls)}, JSON.stringify([${JSON.stringify(tool)}, ...process.argv.slice(2)]) + '\\n');
       if (process.env.FAIL === ${JSON.stringify(tool)}) { console.error('error: it broke'); process.exit(2); }
       const target = ${JSON.stringify(join(root, target!))};
       fs.mkdirSync(require('node:path').dirname(target), { recursive: true });
       fs.writeFileSync(target, 'binary');`,
    );
  }
  const prefix = headers(folder(t), Number(process.versions.node.split('.')[0]));
  const run = (env: Env) => {
    writeFileSync(calls, '');
    const { status, stdout, stderr } = spawnSync(process.execPath, [join(root, 'native/build/install.mjs')], {
      env: { npm_config_nodedir: prefix, ...env },
      encoding: 'utf8',
    });
    const ran = readFileSync(calls, 'utf8').split('\n').filter(Boolean);
    return { status, stdout, stderr, ran: ran.map((line) => JSON.parse(line) as string[]) };
  };
  const report = () => JSON.parse(readFileSync(join(root, 'build/flash-gsa-build.json'), 'utf8'));
  return { root, run, report };
}

for (const [title, tools, reason] of [
  ['an old compiler', { ...BUILD_TOOLS, 'g++': GCC_8 }, /gcc 8\.4\.0 .* is too old; install g\+\+ 10/],
  ['no python3', { 'g++': GCC_12, make: 'GNU Make 4.3' }, /python3 was not found; install Python 3\.8/],
  ['no make', { 'g++': GCC_12, python3: 'Python 3.11.7' }, /make was not found; install make/],
] as const)
  test(`install: stops before compiling with one line for ${title}`, (t) => {
    const { run, root } = fakePackage(t);
    const { status, stdout, stderr, ran } = run({ PATH: path(t, tools) });
    t.is(status, 1);
    t.is(stdout, '');
    t.deepEqual(ran, []);
    t.is(stderr.trimEnd().split('\n').length, 1);
    t.regex(stderr, reason);
    t.false(existsSync(join(root, 'build')));
  });

test('install: without the CUDA backend says in one line what was left out and how to add it', (t) => {
  const { run, report } = fakePackage(t);
  const { status, stdout, stderr, ran } = run({
    PATH: path(t, BUILD_TOOLS),
    FLASH_GSA_CUDA: '0',
  });
  t.is(status, 0, stderr);
  t.is(stderr, '');
  t.regex(stdout, /^flash-gsa: built the CPU backend in \d/);
  t.regex(stdout, /\nflash-gsa: left out the CUDA backend: .*npm rebuild flash-gsa"\n$/);
  t.is(ran.length, 1);
  t.deepEqual(ran[0]!.slice(0, 3), ['node-gyp', 'rebuild', '--release']);
  const { addon, cuda, version, node } = report();
  t.like(addon, { built: true, compiler: 'gcc 12.2.0', python: '3.11.7' });
  t.is(cuda.built, false);
  t.deepEqual([version, node], ['9.9.9', process.versions.node]);
});

test('install: nothing is built again when nothing changed, and only what a change touches', (t) => {
  const { root, run } = fakePackage(t);
  const PATH = path(t, { ...BUILD_TOOLS, nvcc: NVCC('13.0'), cmake: 'cmake version 3.25.1' });
  const tools = (result: { ran: string[][] }) => result.ran.map(([tool, command]) => `${tool} ${command}`);
  t.deepEqual(tools(run({ PATH })), ['node-gyp rebuild', 'cmake-js compile']);

  const again = run({ PATH });
  t.deepEqual(again.ran, []);
  t.regex(again.stdout, /the CPU backend is up to date\n.*the CUDA backend is up to date/);

  appendFileSync(join(root, 'native/cpu/pool.h'), '// changed');
  t.deepEqual(tools(run({ PATH })), ['node-gyp configure']);
  put(join(root, 'native/ops/sum/max_cpu.cc'), '// a new file');
  t.deepEqual(tools(run({ PATH })), ['node-gyp configure']);
  appendFileSync(join(root, 'native/cuda/device.cc'), '// changed');
  t.deepEqual(tools(run({ PATH })), ['cmake-js compile']);
  t.deepEqual(tools(run({ PATH, CXXFLAGS: '-g' })), ['node-gyp rebuild', 'cmake-js compile']);
  rmSync(join(root, 'build/Release/flash_gsa.node'));
  t.deepEqual(tools(run({ PATH, CXXFLAGS: '-g' })), ['node-gyp configure']);
});

test('install: a failing addon build shows the log, fails, and the next try starts afresh', (t) => {
  const { root, run } = fakePackage(t);
  const env = { PATH: path(t, BUILD_TOOLS), FLASH_GSA_CUDA: '0' };
  t.is(run(env).status, 0);
  appendFileSync(join(root, 'native/addon/addon.cc'), '// changed');
  const { status, stderr } = run({ ...env, FAIL: 'node-gyp' });
  t.is(status, 1);
  t.regex(stderr, /error: it broke/);
  t.regex(stderr, /could not build the native addon: node-gyp failed after/);
  t.is(run(env).ran[0]![1], 'rebuild');
});

test('install: a failing CUDA build fails only where FLASH_GSA_CUDA=1 demands it', (t) => {
  const { run, report } = fakePackage(t);
  const PATH = path(t, { ...BUILD_TOOLS, nvcc: NVCC('13.0'), cmake: 'cmake version 3.25.1' });
  const relaxed = run({ PATH, FAIL: 'cmake-js' });
  t.is(relaxed.status, 0);
  t.regex(relaxed.stdout, /left out the CUDA backend: the build of the CUDA backend failed/);
  t.regex(report().cuda.log, /it broke/);
  const demanded = run({ PATH, FAIL: 'cmake-js', FLASH_GSA_CUDA: '1' });
  t.is(demanded.status, 1);
  t.regex(demanded.stderr, /it broke/);
  t.regex(demanded.stderr, /FLASH_GSA_CUDA=1 demands the CUDA backend/);
  t.is(run({ PATH, FLASH_GSA_CUDA: '1' }).status, 0);
});

test('install: waits for another build of the same folder, and passes over the lock of one that was killed', async (t) => {
  const { root, run } = fakePackage(t);
  const { lockPath } = await load<{ lockPath(root: string): string }>('lock.mjs');
  const lock = lockPath(root);
  t.teardown(() => rmSync(lock, { force: true }));
  const env = { PATH: path(t, BUILD_TOOLS), FLASH_GSA_CUDA: '0', TMPDIR: tmpdir() };

  const killed = spawnSync(process.execPath, ['-e', '']).pid;
  writeFileSync(lock, String(killed));
  t.is(run(env).status, 0);
  t.false(existsSync(lock));

  const other = spawn('sleep', ['1']);
  writeFileSync(lock, String(other.pid));
  other.on('exit', () => rmSync(lock, { force: true }));
  const waiting = spawn(process.execPath, [join(root, 'native/build/install.mjs')], { env });
  let printed = '';
  waiting.stdout.on('data', (data) => (printed += data));
  const [status] = await once(waiting, 'exit');
  t.is(status, 0);
  t.regex(printed, new RegExp(`waiting for another build of this folder \\(process ${other.pid}\\)`));
});

test('install: an unknown FLASH_GSA_CUDA is refused', (t) => {
  const { run } = fakePackage(t);
  const { status, stderr, ran } = run({ PATH: path(t, BUILD_TOOLS), FLASH_GSA_CUDA: 'yes' });
  t.is(status, 1);
  t.regex(stderr, /Expected 0, 1 or nothing for FLASH_GSA_CUDA but received "yes"/);
  t.deepEqual(ran, []);
});
