import { GsaError } from '../native/errors.js';
import { Tape } from '../autograd/tape.js';
import { gsaChunk, gsaRecurrent, type GsaInputs } from '../ops/gsa.js';
import type { Device } from '../tensor/device.js';
import { fromBFloat16, toBFloat16, type DType } from '../tensor/dtype.js';
import { record } from '../tensor/recorder.js';
import { scope } from '../tensor/scope.js';
import { Tensor } from '../tensor/tensor.js';
import { BF16_OVER_ROUNDED_INPUTS, CANCELLED_GRADIENT, OP_BOUNDS, type VerifyDType } from './bounds.js';
import { failure, judge, norm, relativeError, type Check } from './compare.js';
import { Vectors } from './vectors.js';

const INPUTS = ['q', 'k', 'v', 's', 'g'] as const;
const STATES = ['hk0', 'hv0'] as const;
const RESULTS = ['o', 'hkT', 'hvT'] as const;
const GRADIENTS = ['dq', 'dk', 'dv', 'ds', 'dg'] as const;

/** What tells a file of operator vectors from other safetensors files. */
export const OP_FILE_MARKS: readonly string[] = [...INPUTS, 'o'];

/** What the op stores in the dtype of q, k and v. */
const NARROW: readonly string[] = ['o', 'dq', 'dk', 'dv'];

/** The passes of a file, each with the names of the tensors that it checks. */
interface Pass {
  readonly title: string;
  readonly names: readonly string[];
  readonly bound: 'output' | 'gradient';
  readonly run: () => Map<string, Float32Array>;
}

/** Everything but the values, before anything is computed: the tensors that must be there, that they fit each other, and
 * the scale. */
function checkFile(file: Vectors): void {
  file.require([...INPUTS, ...RESULTS, ...GRADIENTS, 'do']);
  const [B, T, HQ, K] = file.expectShape('q', [null, null, null, null]) as [number, number, number, number];
  const H = file.expectShape('k', [B, T, null, K])[2]!;
  const V = file.expectShape('v', [B, T, H, null])[3]!;
  const M = file.expectShape('s', [B, T, H, null])[3]!;
  const N = file.has('cu_seqlens') ? file.expectShape('cu_seqlens', [null])[0]! - 1 : B;
  const keyState = [N, H, K, M];
  const valueState = [N, H, M, V];
  const shapes: Record<string, readonly number[]> = {
    g: [B, T, H, M],
    o: [B, T, HQ, V],
    do: [B, T, HQ, V],
    dq: [B, T, HQ, K],
    dk: [B, T, H, K],
    dv: [B, T, H, V],
    ds: [B, T, H, M],
    dg: [B, T, H, M],
    hk0: keyState,
    hkT: keyState,
    dhkT: keyState,
    dhk0: keyState,
    hv0: valueState,
    hvT: valueState,
    dhvT: valueState,
    dhv0: valueState,
  };
  for (const [name, shape] of Object.entries(shapes)) if (file.has(name)) file.expectShape(name, shape);
  for (const name of file.names) file.expectDType(name, name === 'cu_seqlens' ? 'int32' : 'float32');
  file.number('scale');
}

/** A tensor of the dtype that q, k and v have; `rounded` sends it through bf16 first. */
function loadValues(file: Vectors, name: string, device: Device, dtype: DType, rounded: boolean): Tensor {
  const tensor = file.tensor(name, rounded ? 'bfloat16' : dtype, device);
  return tensor.dtype === dtype ? tensor : tensor.to({ dtype });
}

function loadInputs(file: Vectors, device: Device, dtype: DType, rounded: boolean): GsaInputs {
  const values = (name: string): Tensor => loadValues(file, name, device, dtype, rounded);
  const single = (name: string): Tensor | null =>
    file.has(name) ? file.tensor(name, 'float32', device) : null;
  return {
    q: values('q'),
    k: values('k'),
    v: values('v'),
    s: single('s')!,
    g: single('g')!,
    hk0: single('hk0'),
    hv0: single('hv0'),
    cuSeqlens: file.has('cu_seqlens') ? file.tensor('cu_seqlens', 'int32', device) : null,
    scale: file.number('scale'),
  };
}

function named(
  names: readonly string[],
  tensors: readonly (Tensor | null | undefined)[],
): Map<string, Float32Array> {
  return new Map(names.map((name, i) => [name, tensors[i]!.toFloat32()]));
}

/** A stand-in for sum of (output · upstream): only its gradient is asked for, which is `upstream`. */
function weightedSum(outputs: readonly Tensor[], upstream: readonly Tensor[]): Tensor {
  const loss = Tensor.zeros([1], { device: outputs[0]!.device });
  record('weightedSum', outputs, [loss], [], () => upstream.map((tensor) => tensor.alias()));
  return loss;
}

/** Gradients of sum(o · do) + sum(hkT · dhkT) + sum(hvT · dhvT). */
function backward(
  file: Vectors,
  device: Device,
  inputs: GsaInputs,
  rounded: boolean,
): Map<string, Float32Array> {
  const { q, k, v, s, g, hk0, hv0 } = inputs;
  const leaves = Object.entries({ q, k, v, s, g, hk0, hv0 }).filter(
    (entry): entry is [string, Tensor] => !!entry[1],
  );
  for (const [, leaf] of leaves) leaf.requiresGrad = true;
  const upstream = new Map<string, Tensor>([['o', loadValues(file, 'do', device, q.dtype, rounded)]]);
  for (const name of ['hkT', 'hvT'])
    if (file.has(`d${name}`)) upstream.set(name, file.tensor(`d${name}`, 'float32', device));
  const tape = new Tape();
  const loss = tape.run(() => {
    const outputs = gsaChunk({ ...inputs, outputFinalState: upstream.size > 1 });
    const weighted = [...upstream.keys()].map((name) => outputs[name as keyof typeof outputs]!);
    return weightedSum(weighted, [...upstream.values()]);
  });
  tape.backward(loss);
  return new Map(
    leaves.map(([name, leaf]) => {
      const grad = leaf.grad!.toFloat32();
      leaf.dispose();
      return [`d${name}`, grad];
    }),
  );
}

/** The error that bf16 cannot be without, in one result: that of fp32 on inputs rounded to bf16, or, where it is larger, that
 * of storing the exact result in bf16. */
function unavoidable(name: string, fp32: Float32Array, expected: Float32Array, reference: number): number {
  const ofInputs = relativeError(fp32, expected, reference);
  if (!NARROW.includes(name)) return ofInputs;
  const stored = expected.map((value) => fromBFloat16(toBFloat16(value)));
  const ofStoring = relativeError(stored, expected, reference);
  return Math.max(ofInputs, ofStoring);
}

function passesOf(file: Vectors, device: Device, dtype: DType, rounded: boolean): Pass[] {
  const load = () => loadInputs(file, device, dtype, rounded);
  return [
    {
      title: 'chunk forward',
      names: RESULTS,
      bound: 'output',
      run: () => {
        const { o, hkT, hvT } = gsaChunk({ ...load(), outputFinalState: true });
        return named(RESULTS, [o, hkT, hvT]);
      },
    },
    {
      title: 'chunk backward',
      names: [...GRADIENTS, ...STATES.map((name) => `d${name}`).filter((name) => file.has(name))],
      bound: 'gradient',
      run: () => backward(file, device, load(), rounded),
    },
    {
      title: 'recurrent',
      names: RESULTS,
      bound: 'output',
      run: () => {
        const { o, hk, hv } = gsaRecurrent(load());
        return named(RESULTS, [o, hk, hv]);
      },
    },
  ];
}

/** The norm that an error in `name` is measured against, where it is not the stored tensor's own. */
function referenceNorm(file: Vectors, name: string): { reference: number; cancelled: boolean } {
  const own = norm(file.floats(name));
  const ofValues = (GRADIENTS as readonly string[]).includes(name) ? norm(file.floats('dv')) : 0;
  const cancelled = Number.isFinite(ofValues) && own < CANCELLED_GRADIENT * ofValues;
  return { reference: cancelled ? ofValues : own, cancelled };
}

/** Checks one file of operator vectors; see docs/verify.md for the format. A pass that throws gives failed checks.
 * @param label the name of the file in the checks
 * @throws GsaError INVALID_FILE for a malformed file, IO when the system refuses */
export function* verifyOpFile(
  path: string,
  label: string,
  device: Device,
  dtype: VerifyDType,
): Generator<Check> {
  using file = new Vectors(path);
  checkFile(file);
  const passes = passesOf(file, device, dtype === 'bf16' ? 'bfloat16' : 'float32', false);
  const rounded = dtype === 'bf16' ? passesOf(file, device, 'float32', true) : null;
  for (const [i, pass] of passes.entries()) {
    let actual: Map<string, Float32Array>;
    let baseline: Map<string, Float32Array> | null;
    const bound = OP_BOUNDS[dtype][pass.bound];
    try {
      baseline = rounded && scope(rounded[i]!.run);
      actual = scope(pass.run);
    } catch (error) {
      if (!(error instanceof GsaError)) throw error;
      yield failure(label, pass.title, bound, error);
      continue;
    }
    for (const name of pass.names) {
      const expected = file.floats(name);
      const { reference, cancelled } = referenceNorm(file, name);
      const error = relativeError(actual.get(name)!, expected, reference);
      const tighter =
        baseline && !cancelled
          ? BF16_OVER_ROUNDED_INPUTS * unavoidable(name, baseline.get(name)!, expected, reference)
          : Infinity;
      yield judge(
        label,
        `${pass.title} ${name}${cancelled ? ' (relative to dv)' : ''}`,
        error,
        Math.min(bound, tighter),
      );
    }
  }
}
