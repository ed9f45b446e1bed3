// `npm run bundle`: one archive that runs on a host without network, npm or compiler (GPU clusters often have none):
// Node.js itself, the compiled package, both backends, the runtime dependencies for this platform, and the tests.
//
//   tar xf flash-gsa-VERSION-linux-x64.tar.xz && cd flash-gsa-VERSION
//   ./flash-gsa doctor | verify | train | bench ...        ./run-tests [ava arguments]
//
// The same sources, tools and dependencies give the same bytes, wherever the folder is: names sorted, one date
// (SOURCE_DATE_EPOCH, else that of the last commit), no owners, one compression thread, no absolute paths.
// `npm run bundle -- --check` proves it on the last commit (bundle_check.mjs).
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join, relative, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import { checkReproducible } from './bundle_check.mjs';
import { REPORT, install } from './install.mjs';
import { readJson, writeJson } from './stamp.mjs';

const BUILD_ONLY = ['node-addon-api', 'node-gyp', 'cmake-js'];
const FOR_TESTS = ['ava', 'fast-check'];
/** They read or build the sources, which are not in the archive. */
const TESTS_OF_SOURCES = ['architecture.test.js', 'native/install.test.js', 'native/spills.test.js'];

/** Above this the archive is refused: it is carried through narrow doors. */
const LIMIT_BYTES = 50e6;

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

/** Runs a program without a shell; its standard output. */
function run(command, args, options = {}) {
  const done = spawnSync(command, args, { encoding: 'utf8', maxBuffer: 1 << 28, ...options });
  if (done.error) throw new Error(`Expected ${command} to run but it did not: ${done.error.message}`);
  if (done.status !== 0)
    throw new Error(`${command} ${args.join(' ')} exited with ${done.status}\n${done.stderr}`);
  return done.stdout;
}

/** The folder of package `name` as Node.js resolves it from `from`, or null. */
function resolvePackage(name, from) {
  for (let folder = from; ; folder = dirname(folder)) {
    const candidate = join(folder, 'node_modules', name);
    if (existsSync(join(candidate, 'package.json'))) return candidate;
    if (folder === dirname(folder)) return null;
  }
}

/** Folders of all packages that `names` need at run time. */
function closure(names) {
  const found = new Set();
  const visit = (name, from, optional) => {
    const folder = resolvePackage(name, from);
    if (!folder) {
      if (optional) return;
      throw new Error(`Expected package ${name} in node_modules but it is missing; run "npm install"`);
    }
    if (found.has(folder)) return;
    found.add(folder);
    const manifest = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
    for (const need of Object.keys(manifest.dependencies ?? {})) visit(need, folder, false);
    for (const need of Object.keys(manifest.optionalDependencies ?? {})) visit(need, folder, true);
  };
  for (const name of names) visit(name, root, false);
  return [...found].toSorted();
}

/** Whether a file of a dependency is worth carrying: no other platform's binaries, no types, maps or C++ sources. */
function wanted(path) {
  if (/\.(d\.[cm]?ts|map|md|markdown|flow)$/i.test(path) && !/licen[cs]e/i.test(path)) return false;
  const binary = /\.(android|darwin|linux|win32|freebsd)-[\w-]+\.node$/.exec(path);
  return !binary || path.endsWith(`.${process.platform}-${process.arch}-gnu.node`);
}

function copyPackages(target, manifest) {
  const names = Object.keys(manifest.dependencies).filter((name) => !BUILD_ONLY.includes(name));
  for (const folder of closure([...names, ...FOR_TESTS])) {
    cpSync(folder, join(target, relative(root, folder)), {
      recursive: true,
      dereference: true,
      // A package's own node_modules are packages of the closure by themselves.
      filter: (path) => !relative(folder, path).split(sep).includes('node_modules') && wanted(path),
    });
  }
}

const LAUNCHERS = {
  'flash-gsa': 'exec "$here/bin/node" "$here/dist/cli/main.js" "$@"',
  'run-tests': 'cd "$here" && exec bin/node node_modules/ava/entrypoints/cli.mjs "$@"',
};

/** Both backends and all TypeScript, from the sources as they are now. */
async function compile() {
  const context = { root, env: process.env, execPath: process.execPath, nodeVersion: process.versions.node };
  const status = await install({ ...context, say: (line) => console.error(line), complain: console.error });
  if (status !== 0) throw new Error('Expected the native build to succeed but it did not');
  const compiler = join(root, 'node_modules', 'typescript', 'bin', 'tsc');
  for (const project of ['tsconfig.json', 'tsconfig.test.json'])
    run(process.execPath, [compiler, '-p', project], { cwd: root });
  // As `npm run build:ts` does; the compiler keeps the mode of a file that was there, which would be part of the archive.
  chmodSync(join(root, 'dist', 'cli', 'main.js'), 0o755);
}

/** Whether a file of the product belongs into the archive: no maps or types, no test of the sources, and nothing that
 * the compiler wrote from a source that is gone. */
function current(file) {
  if (/(\.map|\.d\.ts|__pycache__)$/.test(file)) return false;
  const path = relative(root, file);
  if (TESTS_OF_SOURCES.some((name) => path === join('.build', 'test', name))) return false;
  const source = path.replace(/^dist/, 'src').replace(/^\.build./, '');
  return source === path || !path.endsWith('.js') || existsSync(join(root, source.replace(/\.js$/, '.ts')));
}

/** What doctor shows of the build; when it was made and how long it took would differ each time. */
function copyBuildReport(target) {
  const { version, node, target: platform, addon, cuda } = readJson(join(root, REPORT));
  const { built, compiler, flags } = addon;
  const { built: builtCuda, cuda: toolkit, reason } = cuda;
  writeJson(join(target, REPORT), {
    version,
    node,
    target: platform,
    addon: { built, compiler, flags },
    cuda: { built: builtCuda, cuda: toolkit, reason },
  });
}

function copyProduct(target) {
  const compiled = ['package.json', 'LICENSE', 'README.md', 'docs', 'dist', '.build'];
  const others = [
    'build/Release/flash_gsa.node',
    'test/fixtures',
    'test/gpu',
    'test/interop',
    'bench/peers',
    'bench/run-gpu.sh',
    'bench/run-throughput.sh',
    'bench/cublaslt.sh',
  ];
  const optional = ['build-cuda/Release/gsa_cuda.so'];
  for (const path of [...compiled, ...others, ...optional]) {
    if (existsSync(join(root, path)))
      cpSync(join(root, path), join(target, path), { recursive: true, filter: current });
    else if (optional.includes(path)) console.error(`left out: ${path} is not there`);
    else throw new Error(`Expected ${path} but it is missing; run "npm install"`);
  }
  copyBuildReport(target);
  // Measurements name the commit that they come from; the archive has no history to ask.
  writeFileSync(join(target, 'COMMIT'), `${sourceCommit()}\n`);
  mkdirSync(join(target, 'bin'));
  cpSync(process.execPath, join(target, 'bin', 'node'), { dereference: true });
  for (const [name, line] of Object.entries(LAUNCHERS)) {
    writeFileSync(join(target, name), `#!/bin/sh\nhere=$(cd "$(dirname "$0")" && pwd)\n${line}\n`);
    chmodSync(join(target, name), 0o755);
  }
}

function sourceDate() {
  if (process.env.SOURCE_DATE_EPOCH) return process.env.SOURCE_DATE_EPOCH;
  return run('git', ['-C', root, 'log', '-1', '--format=%ct']).trim();
}

/** Of a checkout with changes "<commit>-dirty". SOURCE_COMMIT names it where the sources have no history. */
function sourceCommit(revision = '--dirty') {
  if (process.env.SOURCE_COMMIT) return process.env.SOURCE_COMMIT;
  const describe = ['describe', '--always', '--abbrev=12', '--exclude=*', revision];
  return run('git', ['-C', root, ...describe]).trim();
}

/** Packs `folder` of `staging` into `archive`, which appears whole or not at all. */
function pack(staging, folder, archive) {
  const metadata = [
    '--sort=name',
    `--mtime=@${sourceDate()}`,
    '--owner=0',
    '--group=0',
    '--numeric-owner',
    '--mode=u+rw,go=u-w',
    '--format=gnu',
  ];
  const partial = `${archive}.partial`;
  run('tar', ['-C', staging, ...metadata, '-I', 'xz -T1 -6', '-cf', partial, folder]);
  const bytes = statSync(partial).size;
  if (bytes > LIMIT_BYTES)
    throw new Error(`Expected at most ${LIMIT_BYTES} bytes but ${partial} has ${bytes}`);
  renameSync(partial, archive);
}

async function bundle(archive, name, manifest) {
  await compile();
  const staging = join(root, '.build-bundle');
  rmSync(staging, { recursive: true, force: true });
  mkdirSync(join(staging, name), { recursive: true });
  try {
    copyProduct(join(staging, name));
    copyPackages(join(staging, name), manifest);
    pack(staging, name, archive);
  } finally {
    rmSync(staging, { recursive: true, force: true });
  }
}

async function main(args) {
  if (args.some((arg) => arg !== '--check'))
    throw new Error(`Expected --check or nothing but received ${args}`);
  const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  const name = `flash-gsa-${manifest.version}`;
  const archive = join(root, `${name}-${process.platform}-${process.arch}.tar.xz`);
  if (args.length > 0)
    checkReproducible({ root, archive, date: sourceDate(), commit: sourceCommit('HEAD'), run });
  else await bundle(archive, name, manifest);
  console.log(`${relative(process.cwd(), archive)} ${(statSync(archive).size / 1e6).toFixed(1)} MB`);
}

await main(process.argv.slice(2)).catch((error) => {
  console.error(`error: ${error.message}`);
  process.exitCode = 1;
});
