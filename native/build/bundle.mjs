// `npm run bundle`: one archive that runs on a host without network, npm or compiler (GPU clusters often have none):
// Node.js itself, the compiled package, both backends, the runtime dependencies for this platform, and the tests.
//
//   tar xf flash-gsa-VERSION-linux-x64.tar.xz && cd flash-gsa-VERSION
//   ./flash-gsa doctor | verify | train | bench ...        ./run-tests [ava arguments]
//
// The same inputs give the same bytes: names sorted, one date (SOURCE_DATE_EPOCH, else that of the last commit), no owners.
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join, relative, sep } from 'node:path';
import { fileURLToPath } from 'node:url';

const BUILD_ONLY = ['node-addon-api', 'node-gyp', 'cmake-js'];
const FOR_TESTS = ['ava', 'fast-check'];
/** They read or build the sources, which are not in the archive. */
const TESTS_OF_SOURCES = ['architecture.test.js', 'native/install.test.js'];

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

function copyProduct(target) {
  const required = ['package.json', 'LICENSE', 'README.md', 'dist', '.build', 'build/Release/flash_gsa.node'];
  const optional = ['docs', 'build/flash-gsa-build.json', 'build-cuda/Release/gsa_cuda.so', 'test/fixtures'];
  const left = new Set(TESTS_OF_SOURCES.map((file) => join(root, '.build', 'test', file)));
  for (const path of [...required, ...optional]) {
    if (existsSync(join(root, path))) {
      const filter = (file) => !left.has(file) && !/\.(map|d\.ts)$/.test(file);
      cpSync(join(root, path), join(target, path), { recursive: true, filter });
    } else if (required.includes(path)) {
      throw new Error(`Expected ${path} but it is missing; run "npm install && npm run build:test"`);
    } else {
      console.error(`left out: ${path} is not there`);
    }
  }
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

function main() {
  const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  const name = `flash-gsa-${manifest.version}`;
  const staging = join(root, '.build-bundle');
  const archive = join(root, `${name}-${process.platform}-${process.arch}.tar.xz`);
  rmSync(staging, { recursive: true, force: true });
  mkdirSync(join(staging, name), { recursive: true });
  try {
    copyProduct(join(staging, name));
    copyPackages(join(staging, name), manifest);
    const date = sourceDate();
    const order = [
      '--sort=name',
      `--mtime=@${date}`,
      '--owner=0',
      '--group=0',
      '--numeric-owner',
      '--mode=go=u-w',
    ];
    const partial = `${archive}.partial`;
    run('tar', ['-C', staging, ...order, '-I', 'xz -T1 -6', '-cf', partial, name]);
    run('mv', [partial, archive]);
  } finally {
    rmSync(staging, { recursive: true, force: true });
  }
  console.log(`${relative(process.cwd(), archive)} ${(statSync(archive).size / 1e6).toFixed(1)} MB`);
}

main();
