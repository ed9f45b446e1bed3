// What the machine offers for building: every probe takes the environment to look in, runs nothing but `--version`, and
// returns { ok: true, ... } or { ok: false, reason, remedy }.
import { spawnSync } from 'node:child_process';
import { accessSync, constants, existsSync, readFileSync, statSync } from 'node:fs';
import { delimiter, dirname, join } from 'node:path';

const MIN = { gcc: 10, clang: 12, python: [3, 8], cmake: [3, 24], nvcc: [12, 0] };

const failure = (reason, remedy) => ({ ok: false, reason, remedy });

function isExecutable(path) {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

/** The full path of a program, or null. A name with a slash is taken as it is. */
export function which(name, env) {
  if (name.includes('/')) return isExecutable(name) ? name : null;
  for (const folder of (env.PATH ?? '').split(delimiter))
    if (folder && isExecutable(join(folder, name))) return join(folder, name);
  return null;
}

/** What `program args` prints, or null when it cannot be run or fails. */
export function output(program, args, env) {
  const result = spawnSync(program, args, { env, encoding: 'utf8', timeout: 30_000 });
  return result.status === 0 ? `${result.stdout}${result.stderr}`.trim() : null;
}

/** [12, 2, 0] from "g++ (Debian 12.2.0-14) 12.2.0" given a pattern whose first group is the version. */
export function parseVersion(text, pattern = /(\d+(?:\.\d+)+)/) {
  const found = pattern.exec(text ?? '');
  return found ? found[1].split('.').map(Number) : null;
}

function atLeast(version, least) {
  for (let i = 0; i < least.length; i++)
    if ((version[i] ?? 0) !== least[i]) return (version[i] ?? 0) > least[i];
  return true;
}

/** The C++ compiler: CXX, else g++, else clang++. C++17 with the vector extensions we use: GCC 10, Clang 12. */
export function probeCompiler(env) {
  const remedy = 'install g++ 10 or newer (Debian, Ubuntu: apt install g++; macOS: xcode-select --install)';
  // CXX may carry a launcher or flags ("ccache g++"): the last word that is a program is the compiler.
  const words = env.CXX?.trim().split(/\s+/) ?? [];
  const path = env.CXX
    ? words.map((word) => which(word, env)).findLast((found) => found)
    : (which('g++', env) ?? which('clang++', env));
  if (!path)
    return failure(
      env.CXX ? `the compiler CXX=${env.CXX} was not found` : 'no C++ compiler was found',
      remedy,
    );
  const text = output(path, ['--version'], env);
  const version = parseVersion(text, /(\d+\.\d+(?:\.\d+)*)/);
  if (!version) return failure(`${path} did not tell its version`, remedy);
  const kind = /clang/i.test(text) ? 'clang' : 'gcc';
  const shown = `${kind} ${version.join('.')}`;
  if (version[0] < MIN[kind]) return failure(`${shown} (${path}) is too old`, remedy);
  return { ok: true, path, kind, version: version.join('.'), shown };
}

/** Python, which node-gyp runs: npm_config_python or PYTHON, else python3, else python. */
export function probePython(env) {
  const remedy = `install Python ${MIN.python.join('.')} or newer (Debian, Ubuntu: apt install python3)`;
  const names = [env.npm_config_python, env.PYTHON, 'python3', 'python'].filter(Boolean);
  const path = names.map((name) => which(name, env)).find((found) => found);
  if (!path) return failure('python3 was not found', remedy);
  const version = parseVersion(output(path, ['--version'], env));
  if (!version || !atLeast(version, MIN.python))
    return failure(`${path} is Python ${version?.join('.') ?? 'of an unknown version'}, too old`, remedy);
  return { ok: true, path, version: version.join('.') };
}

export function probeMake(env) {
  const path = env.MAKE ? which(env.MAKE, env) : which('make', env);
  return path
    ? { ok: true, path }
    : failure('make was not found', 'install make (Debian, Ubuntu: apt install make)');
}

function headersVersion(folder) {
  try {
    const text = readFileSync(join(folder, 'include', 'node', 'node_version.h'), 'utf8');
    const part = (name) => Number(new RegExp(`#define NODE_${name}_VERSION (\\d+)`).exec(text)?.[1]);
    return [part('MAJOR'), part('MINOR'), part('PATCH')];
  } catch {
    return null;
  }
}

/** The folder whose include/node holds the headers of this Node.js: the one npm was told of, else the one beside the
 * running program. Headers of another major version are passed over. */
export function probeHeaders(env, execPath, nodeVersion) {
  const major = Number(nodeVersion.split('.')[0]);
  const told = env.npm_config_nodedir;
  const candidates = [told, dirname(dirname(execPath))].filter(Boolean);
  for (const folder of candidates)
    if (headersVersion(folder)?.[0] === major && existsSync(join(folder, 'include', 'node', 'node_api.h')))
      return { ok: true, nodedir: folder };
  return failure(
    `the headers of Node.js ${nodeVersion} are not at ${candidates.map((c) => join(c, 'include/node')).join(' or ')}`,
    'set npm_config_nodedir to the folder whose include/node has them (Debian, Ubuntu: apt install libnode-dev and /usr; ' +
      'the archives of nodejs.org bring them along)',
  );
}

/** CMake and nvcc for the CUDA backend. `usual` is where nvcc stands when no variable and no PATH leads there. */
export function probeCuda(env, usual = ['/usr/local/cuda/bin/nvcc']) {
  const remedy =
    'install the CUDA toolkit 12.0 or newer and CMake 3.24 or newer, then run "npm rebuild flash-gsa"';
  const toolkits = [env.CUDA_HOME, env.CUDA_PATH].filter(Boolean).map((home) => join(home, 'bin', 'nvcc'));
  const names = [env.CUDACXX, ...toolkits, 'nvcc', ...usual].filter(Boolean);
  const nvcc = names.map((name) => which(name, env)).find((found) => found);
  if (!nvcc) return failure('nvcc was not found', remedy);
  const version = parseVersion(output(nvcc, ['--version'], env), /release (\d+\.\d+)/);
  if (!version || !atLeast(version, MIN.nvcc))
    return failure(
      `${nvcc} is ${version ? `CUDA ${version.join('.')}, too old` : 'of an unknown version'}`,
      remedy,
    );
  const cmake = which('cmake', env);
  if (!cmake) return failure('cmake was not found', remedy);
  const cmakeVersion = parseVersion(output(cmake, ['--version'], env));
  if (!cmakeVersion || !atLeast(cmakeVersion, MIN.cmake))
    return failure(`CMake ${cmakeVersion?.join('.') ?? 'of an unknown version'} is too old`, remedy);
  return { ok: true, nvcc, cmake, version: version.join('.'), cmakeVersion: cmakeVersion.join('.') };
}
