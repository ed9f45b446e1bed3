import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import { nvidiaDriver } from '../native/driver.js';
import { packageRoot } from '../native/load.js';
import { runChild } from './child.js';

/** Something that was looked for. */
export interface Finding {
  readonly name: string;
  readonly found: boolean;
  /** Version and place; or why it does not count. */
  readonly detail: string;
  /** What it serves. */
  readonly neededFor: string;
  /** The command that adds it; only where it was not found. */
  readonly remedy?: string;
}

type Probe = { ok: true; path?: string; version?: string; shown?: string; [more: string]: unknown };
type Failure = { ok: false; reason: string; remedy: string };
interface BuildProbes {
  probeCompiler(env: NodeJS.ProcessEnv): Probe | Failure;
  probeMake(env: NodeJS.ProcessEnv): Probe | Failure;
  probePython(env: NodeJS.ProcessEnv): Probe | Failure;
  probeHeaders(env: NodeJS.ProcessEnv, execPath: string, nodeVersion: string): Probe | Failure;
  probeCuda(env: NodeJS.ProcessEnv): Probe | Failure;
}

function finding(name: string, neededFor: string, probe: Probe | Failure): Finding {
  if (!probe.ok) return { name, found: false, detail: probe.reason, neededFor, remedy: probe.remedy };
  const { shown, version, path, nodedir, nvcc, cmake, cmakeVersion } = probe;
  const detail = nvcc
    ? `CUDA ${String(version)} (${String(nvcc)}), CMake ${String(cmakeVersion)} (${String(cmake)})`
    : [shown ?? version, path ?? nodedir].filter(Boolean).join(', ');
  return { name, found: true, detail, neededFor };
}

/** What `npm install` builds with, by the very probes that it uses; null where the package came without its sources. */
export async function buildTools(env: NodeJS.ProcessEnv): Promise<Finding[] | null> {
  const file = join(packageRoot(), 'native', 'build', 'probe.mjs');
  if (!existsSync(file)) return null;
  const probes = (await import(pathToFileURL(file).href)) as BuildProbes;
  const addon = 'building the addon and the CPU backend';
  return [
    finding('C++ compiler', addon, probes.probeCompiler(env)),
    finding('make', addon, probes.probeMake(env)),
    finding('Python', addon, probes.probePython(env)),
    finding('Node.js headers', addon, probes.probeHeaders(env, process.execPath, process.versions.node)),
    finding('nvcc and CMake', 'building the CUDA backend', probes.probeCuda(env)),
  ];
}

interface Library {
  readonly name: string;
  readonly files: readonly string[];
  readonly neededFor: string;
  readonly remedy: string;
}

/** Loaded at run time, never linked. Newest first. */
const LIBRARIES: readonly Library[] = [
  {
    name: 'CUDA driver',
    files: ['libcuda.so.1'],
    neededFor: 'every GPU',
    remedy:
      'install the NVIDIA driver (Debian, Ubuntu: apt install nvidia-driver-libs, or the one of your GPU vendor)',
  },
  {
    name: 'NVML',
    files: ['libnvidia-ml.so.1'],
    neededFor: 'GPU temperature, power and clocks',
    remedy: 'comes with the NVIDIA driver',
  },
  {
    name: 'cuBLASLt',
    files: ['libcublasLt.so.13', 'libcublasLt.so.12'],
    neededFor: 'matrix products on the GPU',
    remedy:
      'install the cuBLAS runtime (NVIDIA repository: apt install libcublas-13-0; or pip install nvidia-cublas and put its lib folder into LD_LIBRARY_PATH)',
  },
  {
    name: 'NCCL',
    files: ['libnccl.so.2'],
    neededFor: 'training on several GPUs',
    remedy: 'install NCCL (NVIDIA repository: apt install libnccl2)',
  },
  {
    name: 'cuDNN',
    files: ['libcudnn.so.9'],
    neededFor: 'softmax attention, the baseline of the benches',
    remedy: 'install cuDNN 9 (NVIDIA repository: apt install cudnn9-cuda-13)',
  },
];

/** Which GPU libraries the dynamic linker finds. Loading one runs its code, so a child process does. */
export async function gpuLibraries(): Promise<Finding[]> {
  const script = fileURLToPath(new URL('libraries_main.js', import.meta.url));
  const outcome = await runChild(
    script,
    LIBRARIES.flatMap((library) => library.files),
    { timeoutMs: 30_000 },
  );
  const loaded = outcome.end === 'reported' ? (outcome.report as string[]) : [];
  return LIBRARIES.map(({ name, files, neededFor, remedy }) => {
    const file = files.find((candidate) => loaded.includes(candidate));
    if (file) return { name, found: true, detail: file, neededFor };
    const detail = outcome.end === 'reported' ? `${files.join(' or ')} was not found` : outcome.message;
    return { name, found: false, detail, neededFor, remedy };
  });
}

export interface Gpus {
  /** Version of the kernel driver; null without one. */
  readonly driver: string | null;
  /** "NVIDIA H100 80GB HBM3, 81559 MiB" per GPU. */
  readonly names: readonly string[];
}

/** NVIDIA GPUs as the system lists them, without touching one. */
export async function systemGpus(): Promise<Gpus> {
  const names = await promisify(execFile)(
    'nvidia-smi',
    ['--query-gpu=name,memory.total', '--format=csv,noheader'],
    {
      timeout: 20_000,
    },
  ).then(
    ({ stdout }) => stdout.split('\n').filter((line) => line.trim() !== ''),
    () => [],
  );
  return { driver: nvidiaDriver(), names };
}
