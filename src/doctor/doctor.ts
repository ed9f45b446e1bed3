import { existsSync, readFileSync } from 'node:fs';
import { cpus, totalmem } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { packageRoot } from '../native/load.js';
import type { BackendName } from '../native/types.js';
import { runChild } from './child.js';
import { buildTools, gpuLibraries, systemGpus, type Finding, type Gpus } from './machine.js';
import type { ProbeDevice, ProbeReport } from './probe.js';

/** A part of the build as `npm install` recorded it in build/flash-gsa-build.json. */
export interface BuiltPart {
  readonly built: boolean;
  readonly file: string;
  /** Compiler and time; or why it was left out. */
  readonly detail: string;
  readonly remedy?: string;
}

/** "works": every probe gave the right answer; "partly": what it has code for does; "failed": an answer was wrong or an
 * error came back; "crashed" and "hung": so did the child process; "no device"; "not built". */
export type BackendStatus = 'works' | 'partly' | 'failed' | 'crashed' | 'hung' | 'no device' | 'not built';

export interface BackendFinding {
  readonly name: BackendName;
  readonly status: BackendStatus;
  readonly message: string;
  readonly devices: readonly ProbeDevice[];
  readonly milliseconds: number;
}

/** Something absent, and what brings it. */
export interface Missing {
  readonly what: string;
  readonly why: string;
  readonly remedy: string;
}

export interface DoctorReport {
  readonly package: { version: string; folder: string; node: string; platform: string };
  readonly machine: { cpu: string; cores: number; memoryBytes: number };
  readonly built: Readonly<Record<BackendName, BuiltPart>>;
  readonly backends: readonly BackendFinding[];
  /** null where the package came without its sources. */
  readonly tools: readonly Finding[] | null;
  readonly libraries: readonly Finding[];
  readonly gpus: Gpus;
  /** The FLASH_GSA_* variables that are set. */
  readonly environment: Readonly<Record<string, string>>;
  readonly missing: readonly Missing[];
  /** The CPU backend works: this package can be used. */
  readonly ok: boolean;
}

export interface DoctorOptions {
  env?: NodeJS.ProcessEnv;
  /** For each probe. Default 60000. */
  timeoutMs?: number;
  /** The script that probes a backend, given its name; a seam for tests. */
  probeScript?: string;
}

const FILES: Readonly<Record<BackendName, string>> = {
  cpu: 'build/Release/flash_gsa.node',
  cuda: 'build-cuda/Release/gsa_cuda.so',
};

interface RecordedPart {
  built?: boolean;
  reason?: string;
  remedy?: string;
  compiler?: string;
  cuda?: string;
  seconds?: number;
}

function recordedParts(root: string): Partial<Record<'addon' | 'cuda', RecordedPart>> {
  try {
    return JSON.parse(readFileSync(join(root, 'build', 'flash-gsa-build.json'), 'utf8')) as never;
  } catch {
    return {}; // Built by hand, or not at all: the files themselves tell.
  }
}

function builtPart(root: string, name: BackendName): BuiltPart {
  const file = join(root, FILES[name]);
  const recorded = recordedParts(root)[name === 'cpu' ? 'addon' : 'cuda'];
  if (existsSync(file)) {
    const tool = recorded?.cuda ? `CUDA ${recorded.cuda}` : recorded?.compiler;
    return { built: true, file, detail: tool ? `built with ${tool}` : 'built' };
  }
  const remedy =
    recorded?.remedy ??
    (name === 'cpu'
      ? 'npm rebuild flash-gsa'
      : 'install the CUDA toolkit and CMake, then npm rebuild flash-gsa');
  return { built: false, file, detail: recorded?.reason ?? 'it is not there', remedy };
}

function statusOf(report: ProbeReport): { status: BackendStatus; message: string } {
  const steps = report.devices.flatMap((d) => d.steps.map((s) => ({ ...s, device: d.device })));
  const of = (result: string) => steps.filter((s) => s.result === result);
  const failed = of('failed')[0];
  if (failed)
    return { status: 'failed', message: `${failed.device}: ${failed.step}: ${failed.message ?? ''}` };
  if (report.devices.length === 0) return { status: 'no device', message: report.message ?? '' };
  const unsupported = of('unsupported');
  if (unsupported.length === 0) return { status: 'works', message: '' };
  return {
    status: 'partly',
    message: `no code yet for ${[...new Set(unsupported.map((s) => s.step))].join(', ')}`,
  };
}

/** Probes one backend in a child process. */
export async function probeInChild(
  name: BackendName,
  options: Pick<DoctorOptions, 'timeoutMs' | 'probeScript' | 'env'> = {},
): Promise<BackendFinding> {
  const script = options.probeScript ?? fileURLToPath(new URL('probe_main.js', import.meta.url));
  const outcome = await runChild(script, [name], options);
  const { milliseconds } = outcome;
  if (outcome.end !== 'reported')
    return { name, status: outcome.end, message: outcome.message, devices: [], milliseconds };
  const report = outcome.report as ProbeReport;
  return { name, ...statusOf(report), devices: report.devices, milliseconds };
}

/** The CPU backend without a device is broken; a GPU backend on a machine without GPUs is not. */
function asCpu(found: BackendFinding): BackendFinding {
  return found.name === 'cpu' && found.status === 'no device' ? { ...found, status: 'failed' } : found;
}

function missingOf(report: Omit<DoctorReport, 'missing' | 'ok'>): Missing[] {
  const missing: Missing[] = [];
  for (const [name, part] of Object.entries(report.built))
    if (!part.built)
      missing.push({ what: `the ${name} backend`, why: part.detail, remedy: part.remedy ?? '' });
  const wanted = [...(report.tools ?? []), ...(report.gpus.names.length > 0 ? report.libraries : [])];
  for (const { name, found, detail, remedy } of wanted)
    if (!found) missing.push({ what: name, why: detail, remedy: remedy ?? '' });
  const cpu = report.backends.find((backend) => backend.name === 'cpu')?.devices[0];
  if (cpu && /no BLAS/.test(cpu.detail))
    missing.push({
      what: 'a BLAS library',
      why: 'matrix products run on our own kernels, which is slower for large ones',
      remedy: 'Debian, Ubuntu: apt install libopenblas0-pthread; macOS: none needed',
    });
  if (report.gpus.driver && report.gpus.names.length === 0)
    missing.push({
      what: 'a usable NVIDIA GPU',
      why: 'the kernel driver is loaded but nvidia-smi lists no GPU',
      remedy: 'run nvidia-smi and follow what it says',
    });
  return missing;
}

/** Looks at the build, the machine and the libraries, and tries every backend in a child process of its own, so that
 * even a backend that crashes or hangs gives a report. Loads no native code itself. Never throws for a broken setup. */
export async function doctor(options: DoctorOptions = {}): Promise<DoctorReport> {
  const { env = process.env } = options;
  const root = packageRoot();
  const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string };
  const built = { cpu: builtPart(root, 'cpu'), cuda: builtPart(root, 'cuda') };
  const backends: BackendFinding[] = [];
  for (const name of ['cpu', 'cuda'] as const)
    backends.push(
      built[name].built
        ? asCpu(await probeInChild(name, options))
        : { name, status: 'not built', message: built[name].detail, devices: [], milliseconds: 0 },
    );
  const found = {
    package: {
      version: manifest.version,
      folder: root,
      node: process.version,
      platform: `${process.platform}-${process.arch}`,
    },
    machine: { cpu: cpus()[0]?.model.trim() ?? 'unknown', cores: cpus().length, memoryBytes: totalmem() },
    built,
    backends,
    tools: await buildTools(env),
    libraries: await gpuLibraries(),
    gpus: await systemGpus(),
    environment: Object.fromEntries(
      Object.entries(env).filter((e): e is [string, string] => e[0].startsWith('FLASH_GSA_') && !!e[1]),
    ),
  };
  return { ...found, missing: missingOf(found), ok: backends[0]!.status === 'works' };
}
