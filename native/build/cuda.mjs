// Builds the CUDA backend where nvcc is found: build-cuda/Release/gsa_cuda.so, by cmake-js.
import { existsSync, rmSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { probeCuda } from './probe.mjs';
import { run, tail, toolEntry } from './run.mjs';
import { filesBelow } from './sources.mjs';
import { describeSpills, keepSpills } from './spills.mjs';
import { fingerprint } from './stamp.mjs';

export const CUDA_LIBRARY = 'build-cuda/Release/gsa_cuda.so';

function cudaFingerprint(root, found, env) {
  const sources = filesBelow(root, 'native').filter(
    (path) =>
      /^native\/(abi|cuda|sm90|ops)\//.test(path) &&
      /(\.cuh|\.cu|\.h|\.def|native\/cuda\/[^/]+\.cc)$/.test(path),
  );
  const { CUDAARCHS, CUDAFLAGS, CUDAHOSTCXX, CXX, CXXFLAGS } = env;
  return fingerprint(root, [...sources, 'CMakeLists.txt'], {
    ...found,
    flags: { CUDAARCHS, CUDAFLAGS, CUDAHOSTCXX, CXX, CXXFLAGS },
  });
}

/** Builds unless FLASH_GSA_CUDA=0, the toolkit is missing, or nothing changed since `previous`. Resolves to the
 * report's `cuda` part. */
export async function buildCuda({ root, env, execPath, previous }) {
  if (env.FLASH_GSA_CUDA === '0')
    return {
      built: false,
      reason: 'FLASH_GSA_CUDA=0',
      remedy: 'unset FLASH_GSA_CUDA and run "npm rebuild flash-gsa"',
    };
  const found = probeCuda(env);
  if (!found.ok) return { built: false, reason: found.reason, remedy: found.remedy };
  const key = cudaFingerprint(root, found, env);
  if (previous?.built && previous.fingerprint === key && existsSync(join(root, CUDA_LIBRARY)))
    return { ...previous, reused: true };

  const args = [
    toolEntry('cmake-js', 'bin/cmake-js'),
    'compile',
    `--directory=${root}`,
    `--out=${join(root, 'build-cuda')}`,
    '--config=Release',
    `--cmake-path=${found.cmake}`,
    `--parallel=${env.JOBS ?? availableParallelism()}`,
    `--CDCMAKE_CUDA_COMPILER=${found.nvcc}`,
  ];
  const result = await run(execPath, args, { cwd: root, env });
  const spills = keepSpills(root, result.log);
  if (!result.ok) {
    rmSync(join(root, CUDA_LIBRARY), { force: true }); // of older sources, if there is one
    return {
      built: false,
      reason: `the build of the CUDA backend failed after ${result.seconds.toFixed(0)} s`,
      remedy: 'see the end of the build log in build/flash-gsa-build.json',
      log: tail(result.log),
    };
  }
  return {
    built: true,
    fingerprint: key,
    seconds: Number(result.seconds.toFixed(1)),
    nvcc: found.nvcc,
    cuda: found.version,
    cmake: found.cmakeVersion,
    registers: describeSpills(spills),
  };
}
