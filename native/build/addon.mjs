// Builds the N-API addon with the CPU backend: build/Release/flash_gsa.node, by node-gyp.
import { existsSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { probeCompiler, probeHeaders, probeMake, probePython } from './probe.mjs';
import { run, tail, toolEntry } from './run.mjs';
import { addonSources, filesBelow } from './sources.mjs';
import { fingerprint } from './stamp.mjs';

export const ADDON = 'build/Release/flash_gsa.node';
const DOWNLOAD_SECONDS = 120;

/** Looks for everything the build needs; the first thing missing is returned as { ok: false, reason, remedy }. */
export function prepareAddon(env, execPath, nodeVersion) {
  const found = {};
  for (const [name, probe] of Object.entries({
    compiler: probeCompiler,
    python: probePython,
    make: probeMake,
  })) {
    found[name] = probe(env);
    if (!found[name].ok) return found[name];
  }
  return { ok: true, ...found, headers: probeHeaders(env, execPath, nodeVersion) };
}

/** Without headers on disk node-gyp fetches them from nodejs.org, once per version. Done before compiling, so that a
 * machine without network stops here with the reason. */
async function fetchHeaders(gyp, found, context) {
  if (found.headers.ok) return found.headers;
  const fetched = await run(context.execPath, [gyp, 'install', '--ensure'], {
    cwd: context.root,
    env: context.env,
    timeoutSeconds: DOWNLOAD_SECONDS,
  });
  if (fetched.ok) return { ok: true, nodedir: null };
  return {
    ...found.headers,
    reason: `${found.headers.reason}, and nodejs.org could not be reached for them`,
  };
}

/** What makes every object file stale when it changes, and what makes the binary stale. */
function fingerprints(root, found, env, nodeVersion) {
  const { CXX, CC, CXXFLAGS, CFLAGS, CPPFLAGS, LDFLAGS } = env;
  const toolchain = fingerprint(root, ['binding.gyp'], {
    compiler: found.compiler,
    flags: { CXX, CC, CXXFLAGS, CFLAGS, CPPFLAGS, LDFLAGS },
    node: nodeVersion.split('.')[0],
    target: `${process.platform}-${process.arch}`,
  });
  const headers = filesBelow(root, 'native').filter((path) => /\.(h|def|inl)$/.test(path));
  return { toolchain, sources: fingerprint(root, [...addonSources(root), ...headers], { toolchain }) };
}

function buildEnvironment(env, found, execPath) {
  // binding.gyp runs `node`: the one that runs now, wherever it stands.
  const result = {
    ...env,
    PATH: `${dirname(execPath)}${delimiter}${env.PATH ?? ''}`,
    PYTHON: found.python.path,
  };
  if (!env.CXX && found.compiler.kind === 'clang') {
    result.CXX = found.compiler.path;
    result.CC = join(dirname(found.compiler.path), 'clang');
  }
  return result;
}

/** Builds unless `previous` (the last report) has the same fingerprint. Resolves to the report's `addon` part. */
export async function buildAddon({ root, env, execPath, nodeVersion, previous }) {
  const found = prepareAddon(env, execPath, nodeVersion);
  if (!found.ok) return { built: false, reason: found.reason, remedy: found.remedy };
  const keys = fingerprints(root, found, env, nodeVersion);
  if (previous?.sources === keys.sources && existsSync(join(root, ADDON)))
    return { ...previous, reused: true };

  const gyp = toolEntry('node-gyp', 'bin/node-gyp.js');
  const context = { root, env: buildEnvironment(env, found, execPath), execPath };
  const headers = await fetchHeaders(gyp, found, context);
  if (!headers.ok) return { built: false, reason: headers.reason, remedy: headers.remedy };
  const jobs = env.JOBS ?? String(availableParallelism());
  // With the same toolchain make knows what to compile again.
  const commands = previous?.toolchain === keys.toolchain ? ['configure', 'build'] : ['rebuild'];
  const options = ['--release', '--jobs', jobs, ...(headers.nodedir ? ['--nodedir', headers.nodedir] : [])];
  const args = [gyp, ...commands, ...options];
  const result = await run(execPath, args, { cwd: root, env: context.env });
  if (!result.ok)
    return {
      built: false,
      reason: `node-gyp failed after ${result.seconds.toFixed(0)} s`,
      log: tail(result.log),
    };
  return {
    built: true,
    ...keys,
    seconds: Number(result.seconds.toFixed(1)),
    compiler: found.compiler.shown,
    compilerPath: found.compiler.path,
    python: found.python.version,
    headers: headers.nodedir ?? 'downloaded by node-gyp',
    flags: { CXXFLAGS: env.CXXFLAGS ?? '', LDFLAGS: env.LDFLAGS ?? '' },
  };
}
