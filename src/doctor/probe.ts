import { GsaError } from '../native/errors.js';
import { ensureBackend, native } from '../native/load.js';
import type { BackendName } from '../native/types.js';
import { add } from '../ops/elementwise.js';
import { gsaChunk, gsaRecurrent } from '../ops/gsa.js';
import { matmul } from '../ops/matmul.js';
import { device, type Device } from '../tensor/device.js';
import { scope } from '../tensor/scope.js';
import { Tensor } from '../tensor/tensor.js';
import { relativeError } from '../verify/compare.js';
import { gsaOracle } from '../verify/oracle.js';

/** One small computation: "ok"; "unsupported", the backend has no code for it; "failed", with the reason. */
export interface ProbeStep {
  readonly step: string;
  readonly result: 'ok' | 'unsupported' | 'failed';
  readonly message?: string;
}

export interface ProbeDevice {
  readonly device: string;
  readonly name: string;
  readonly totalBytes: number;
  readonly freeBytes: number;
  readonly units: number;
  readonly detail: string;
  readonly steps: readonly ProbeStep[];
}

export interface ProbeReport {
  readonly devices: readonly ProbeDevice[];
  /** Why there are none, or why the backend cannot be used at all. */
  readonly message?: string;
}

function expectEqual(actual: Float32Array, expected: readonly number[]): void {
  if (actual.length !== expected.length || expected.some((value, i) => actual[i] !== value))
    throw new Error(`expected [${expected.join(', ')}] but received [${[...actual].join(', ')}]`);
}

function copy(on: Device): void {
  expectEqual(Tensor.from([1, -2, 3.5, 0], [2, 2], { device: on }).toFloat32(), [1, -2, 3.5, 0]);
}

function addition(on: Device): void {
  const a = Tensor.from([1, 2, 3], [3], { device: on });
  expectEqual(add(a, Tensor.full([3], 0.5, { device: on })).toFloat32(), [1.5, 2.5, 3.5]);
}

function product(on: Device): void {
  const a = Tensor.from([1, 2, 3, 4, 5, 6], [2, 3], { device: on });
  const b = Tensor.from([1, 0, 2, 0, 1, 1], [3, 2], { device: on });
  expectEqual(matmul(a, b).toFloat32(), [8, 3, 20, 6]);
}

/** 70 tokens: more than one chunk of 64. */
function attention(on: Device): void {
  const [T, K, V, M] = [70, 16, 24, 8];
  const wave = (n: number, phase: number) =>
    Float32Array.from({ length: n }, (_, i) => Math.sin(0.7 * i + phase));
  const g = wave(T * M, 3).map((x) => -0.2 - 0.1 * x);
  const host = {
    q: wave(T * K, 0),
    k: wave(T * K, 1),
    v: wave(T * V, 2),
    s: g.map((x) => 1 - Math.exp(x)),
    g,
  };
  const put = (data: Float32Array, width: number) => Tensor.from(data, [1, T, 1, width], { device: on });
  const inputs = {
    q: put(host.q, K),
    k: put(host.k, K),
    v: put(host.v, V),
    s: put(host.s, M),
    g: put(host.g, M),
  };
  const expected = gsaOracle({ T, R: 1, K, V, M, scale: 1, ...host }).o;
  for (const op of [gsaChunk, gsaRecurrent]) {
    const error = relativeError(op(inputs).o.toFloat32(), expected);
    if (!(error <= 1e-5))
      throw new Error(`${op.name} differs from the reference by ${error.toExponential(1)}`);
  }
}

const STEPS: Readonly<Record<string, (on: Device) => void>> = {
  copy,
  add: addition,
  matmul: product,
  'gated slot attention': attention,
};

function runStep(step: string, body: () => void): ProbeStep {
  try {
    scope(body);
    return { step, result: 'ok' };
  } catch (error) {
    const unsupported = error instanceof GsaError && error.code === 'UNSUPPORTED';
    return { step, result: unsupported ? 'unsupported' : 'failed', message: (error as Error).message };
  }
}

function probeDevice(backend: BackendName, index: number): ProbeDevice {
  const on = device(backend === 'cpu' ? 'cpu' : `${backend}:${index}`);
  const { name, totalBytes, freeBytes, units, detail } = on.info();
  const steps = Object.entries(STEPS).map(([step, body]) => runStep(step, () => body(on)));
  return { device: on.toString(), name, totalBytes, freeBytes, units, detail, steps };
}

/** Loads the backend, computes a few small things on each of its devices and compares them with known results. May take
 * the process with it: doctor runs it in a child (probe_main.ts). */
export function probeBackend(backend: BackendName): ProbeReport {
  try {
    ensureBackend(backend);
    const count = native().deviceCount(backend);
    const devices = Array.from({ length: count }, (_, index) => probeDevice(backend, index));
    return count > 0 ? { devices } : { devices, message: 'the backend finds no device' };
  } catch (error) {
    return { devices: [], message: (error as Error).message };
  }
}
