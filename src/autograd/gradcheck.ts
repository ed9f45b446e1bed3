import { checkFunction, checkOptions, expected } from '../native/errors.js';
import { noGrad } from '../tensor/recorder.js';
import { scope } from '../tensor/scope.js';
import { Tensor } from '../tensor/tensor.js';
import { Tape } from './tape.js';

export interface GradcheckOptions {
  /** ε of the differences, in units of the input's root mean square (of 1 where that is 0). Default 0.01. */
  step?: number;
  /** Random directions per input. Default 4. */
  directions?: number;
  seed?: number;
  /** Largest relative error that passes. Default 3e-3: see gradcheck(). */
  tolerance?: number;
}

export interface GradcheckResult {
  /** By input with requiresGrad: the largest error over the directions, and the norm of the gradient. */
  readonly inputs: readonly { readonly index: number; readonly error: number; readonly norm: number }[];
  readonly error: number;
  readonly ok: boolean;
}

/** The function under test: deterministic, leaves its inputs alone, returns one or more float tensors. */
export type GradcheckBody = (inputs: readonly Tensor[]) => Tensor | readonly Tensor[];

/**
 * Compares the tape's gradients of `body` with central differences, on whatever device the inputs are. The outputs are
 * projected on random weights, in float64 on the host, to one number L; for random directions u (independent standard
 * normal elements) the slope (L(x + εu) − L(x − εu)) / 2ε, extrapolated from ε and 2ε so that its error is of order ε⁴,
 * is held against ⟨gradient, u⟩. Errors are relative to the gradient's norm, which is the standard deviation of
 * ⟨gradient, u⟩ over u, so one wrong element in a thousand shows as about 3%.
 *
 * What this can see: with float32 outputs the differences carry a noise of about 1e-7 / ε = 1e-5 of the outputs' norm, so
 * that errors below 1e-3 cannot be told apart for well-scaled functions. Tests that need more compare with derivatives of
 * a float64 reference.
 *
 * @throws GsaError INVALID_ARGUMENT, also when no input has requiresGrad
 */
export function gradcheck(
  body: GradcheckBody,
  inputs: readonly Tensor[],
  options: GradcheckOptions = {},
): GradcheckResult {
  checkFunction(body, 'body', 'gradcheck');
  if (!Array.isArray(inputs) || !inputs.every((x) => x instanceof Tensor))
    throw expected('an array of tensors', 'inputs', inputs, 'gradcheck');
  const { step, directions, seed, tolerance } = checked(options);
  const random = normals(seed);
  const { gradients, weights } = projectedGradients(body, inputs, random);
  const project = (at: readonly Tensor[]): number =>
    noGrad(() =>
      scope(() => {
        let total = 0;
        for (const [i, y] of list(body(at)).entries()) total += dot(y.toFloat32(), weights[i]!);
        return total;
      }),
    );

  const results = inputs.flatMap((x, index) => {
    const gradient = gradients[index];
    if (!gradient) return [];
    const values = x.toFloat32();
    const norm = Math.sqrt(dot(gradient, gradient));
    const epsilon = step * (Math.sqrt(dot(values, values) / values.length) || 1);
    let error = 0;
    for (let d = 0; d < directions; d++) {
      const u = Float64Array.from(values, random);
      // Numeric minus predicted slope, for the points as float32 has them.
      const miss = (eps: number): number => {
        const up = values.map((value, i) => value + eps * u[i]!);
        const down = values.map((value, i) => value - eps * u[i]!);
        using a = Tensor.from(up, x.shape, { device: x.device, dtype: x.dtype });
        using b = Tensor.from(down, x.shape, { device: x.device, dtype: x.dtype });
        const at = (moved: Tensor) => inputs.map((other, i) => (i === index ? moved : other));
        const high = a.toFloat32();
        const between = Float64Array.from(b.toFloat32(), (low, i) => high[i]! - low);
        return (project(at(a)) - project(at(b)) - dot(between, gradient)) / (2 * eps);
      };
      const extrapolated = (4 * miss(epsilon) - miss(2 * epsilon)) / 3;
      error = Math.max(error, extrapolated === 0 ? 0 : Math.abs(extrapolated) / norm);
    }
    return [{ index, error, norm }];
  });
  const error = Math.max(...results.map((r) => r.error));
  return { inputs: results, error, ok: error <= tolerance };
}

/** The tape's gradients (null for inputs without requiresGrad) of the outputs weighted by random numbers, and those. */
function projectedGradients(
  body: GradcheckBody,
  inputs: readonly Tensor[],
  random: () => number,
): { gradients: (Float64Array | null)[]; weights: Float64Array[] } {
  if (!inputs.some((x) => x.requiresGrad))
    throw expected('at least one input with requiresGrad', 'inputs', inputs, 'gradcheck');
  return scope(() => {
    // Fresh leaves, so that gradients already there are neither read nor changed.
    const leaves = inputs.map((x) => (x.requiresGrad ? x.to({}) : x));
    leaves.forEach((leaf, i) => (leaf.requiresGrad = inputs[i]!.requiresGrad));
    const tape = new Tape();
    const outputs = tape.run(() => list(body(leaves)));
    const seeds = outputs.map((y) =>
      Tensor.from(Float32Array.from({ length: y.size }, random), y.shape, {
        device: y.device,
        dtype: y.dtype,
      }),
    );
    tape.backward(outputs, seeds);
    const gradients = leaves.map((leaf) =>
      leaf.requiresGrad ? Float64Array.from(leaf.grad?.toFloat32() ?? new Float32Array(leaf.size)) : null,
    );
    return { gradients, weights: seeds.map((seed) => Float64Array.from(seed.toFloat32())) };
  });
}

function list(outputs: Tensor | readonly Tensor[]): readonly Tensor[] {
  const all: unknown = outputs instanceof Tensor ? [outputs] : outputs;
  if (!Array.isArray(all) || !all.every((y) => y instanceof Tensor))
    throw expected('a function that returns tensors', 'body', outputs, 'gradcheck');
  return all as readonly Tensor[];
}

/** With none of the directions, say, every gradient would pass. */
function checked(options: GradcheckOptions): Required<GradcheckOptions> {
  checkOptions(options, ['step', 'directions', 'seed', 'tolerance'], 'gradcheck');
  const { step = 0.01, directions = 4, seed = 1, tolerance = 3e-3 } = options;
  for (const [name, value] of Object.entries({ step, tolerance }))
    if (!Number.isFinite(value) || value <= 0)
      throw expected('a finite number above 0', name, value, 'gradcheck');
  if (!Number.isInteger(directions) || directions < 1 || directions > 1e6)
    throw expected('an integer from 1 to 1e6', 'directions', directions, 'gradcheck');
  if (!Number.isSafeInteger(seed)) throw expected('an integer', 'seed', seed, 'gradcheck');
  return { step, directions, seed, tolerance };
}

function dot(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let total = 0;
  for (let i = 0; i < a.length; i++) total += a[i]! * b[i]!;
  return total;
}

/** Standard normal numbers from a small generator (mulberry32, Box-Muller): a check must be repeatable. */
function normals(seed: number): () => number {
  let state = seed >>> 0;
  const uniform = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  return () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
}
