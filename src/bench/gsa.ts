import { Tape } from '../autograd/tape.js';
import { gsaChunk } from '../ops/gsa.js';
import type { Device } from '../tensor/device.js';
import { scope } from '../tensor/scope.js';
import { Tensor } from '../tensor/tensor.js';
import { relativeError } from '../verify/compare.js';
import { gsaOracle, gsaOracleBackward, type GsaHead } from '../verify/oracle.js';
import { outputCheck, type BenchResult, type OutputCheck } from './report.js';
import { shapeName } from './shape.js';
import { measureTogether, type MeasureOptions, type Timing } from './timing.js';

export interface GsaShape {
  readonly B: number;
  readonly T: number;
  readonly H: number;
  readonly K: number;
  readonly V: number;
  readonly M: number;
}

export const GSA_DIMENSIONS = ['B', 'T', 'H', 'K', 'V', 'M'] as const;

/** A small model's heads, and the heads of the published 1.3B model. */
export const GSA_SHAPES: readonly GsaShape[] = [
  { B: 4, T: 512, H: 4, K: 64, V: 64, M: 32 },
  { B: 1, T: 2048, H: 4, K: 128, V: 128, M: 64 },
  { B: 1, T: 1024, H: 4, K: 512, V: 512, M: 64 },
];

/** How the cost grows with the length: one sequence, all else equal. */
export const GSA_GROWTH_SHAPES: readonly GsaShape[] = [512, 1024, 2048, 4096, 8192].map((T) => ({
  B: 1,
  T,
  H: 4,
  K: 64,
  V: 64,
  M: 32,
}));

interface Inputs {
  readonly q: Tensor; // [B, T, H, K]
  readonly k: Tensor;
  readonly v: Tensor; // [B, T, H, V]
  readonly s: Tensor; // [B, T, H, M]
  readonly g: Tensor;
  readonly upstream: Tensor; // [B, T, H, V]
}

/** As a layer makes them: silu on q, k, v; g = logsigmoid(f) / 8 and s = 1 − exp(g) of normal f. */
function makeInputs(device: Device, { B, T, H, K, V, M }: GsaShape): Inputs {
  const draw = (width: number, seed: number, map: (x: number) => number): Tensor =>
    scope(() => {
      const host = Tensor.randn([B, T, H, width], { device, seed }).toFloat32();
      return Tensor.from(host.map(map), [B, T, H, width], { device });
    });
  const silu = (x: number) => x / (1 + Math.exp(-x));
  const gate = (x: number) => -Math.log1p(Math.exp(-x)) / 8;
  return {
    q: draw(K, 1, silu),
    k: draw(K, 2, silu),
    v: draw(V, 3, silu),
    g: draw(M, 4, gate),
    s: draw(M, 4, (x) => -Math.expm1(gate(x))),
    upstream: draw(V, 5, (x) => x),
  };
}

/** [T, width] of the last batch item and head of a [B, T, H, width] tensor. */
function lastHead(tensor: Tensor): Float32Array {
  const [B, T, H, width] = tensor.shape as [number, number, number, number];
  const host = tensor.toFloat32();
  const head = new Float32Array(T * width);
  for (let t = 0; t < T; t++) {
    const at = (((B - 1) * T + t) * H + H - 1) * width;
    head.set(host.subarray(at, at + width), t * width);
  }
  return head;
}

function forward({ q, k, v, s, g }: Inputs): Tensor {
  return gsaChunk({ q, k, v, s, g }).o;
}

/** One forward and backward; `use` sees the gradients before they end. */
function forwardBackward(inputs: Inputs, use: (grads: readonly Tensor[]) => void): void {
  const { q, k, v, s, g, upstream } = inputs;
  const leaves = [q, k, v, s, g];
  for (const leaf of leaves) leaf.requiresGrad = true;
  const tape = new Tape();
  scope(() =>
    tape.backward(
      tape.run(() => forward(inputs)),
      upstream,
    ),
  );
  use(leaves.map((leaf) => leaf.grad!));
  for (const leaf of leaves) {
    leaf.grad?.dispose();
    leaf.grad = null;
  }
}

/** The last head of the last batch item in double precision, token after token. */
function checks(inputs: Inputs, shape: GsaShape, backward: boolean): OutputCheck[] {
  const { q, k, v, s, g, upstream } = inputs;
  const head: GsaHead = {
    ...shape,
    R: 1,
    scale: 1,
    q: lastHead(q),
    k: lastHead(k),
    v: lastHead(v),
    s: lastHead(s),
    g: lastHead(g),
  };
  const against = 'one head, token by token in float64';
  const o = scope(() => lastHead(forward(inputs)));
  const found = [outputCheck(against, relativeError(o, gsaOracle(head).o), 1e-5)];
  if (!backward) return found;
  const exact = gsaOracleBackward(head, lastHead(upstream));
  const order = [exact.dq, exact.dk, exact.dv, exact.ds, exact.dg];
  let errors: number[] = [];
  forwardBackward(inputs, (grads) => {
    errors = grads.map((grad, i) => relativeError(lastHead(grad), order[i]!));
  });
  // Math.max would do, but for a comparison that loses NaN.
  const worst = errors.some(Number.isNaN) ? NaN : Math.max(...errors);
  return [...found, outputCheck(against, worst, 1e-4)];
}

function result(
  name: string,
  shape: GsaShape,
  timing: Timing,
  peakBytes: number,
  check: OutputCheck,
): BenchResult {
  const tokensPerSecond = (shape.B * shape.T) / (timing.medianMs / 1e3);
  return {
    name,
    shape: shapeName(shape),
    timing,
    figures: { tokensPerSecond, peakMiB: peakBytes / 2 ** 20 },
    check,
  };
}

/** Bytes in use at the worst moment of `body`, beyond those before it. */
function peakOf(device: Device, body: () => void): number {
  const before = device.memory({ resetPeak: true }).currentBytes;
  body();
  return device.memory().peakBytes - before;
}

export interface GsaBenchOptions extends MeasureOptions {
  /** Time forward + backward too. Default true. */
  backward?: boolean;
}

/** gsa_chunk, forward alone and forward + backward through the tape. Shapes are timed in turns, so that their ratios hold
 * on a machine whose speed changes.
 * @param shapes default: GSA_SHAPES */
export function benchGsa(
  device: Device,
  shapes: readonly GsaShape[] = GSA_SHAPES,
  options: GsaBenchOptions = {},
): BenchResult[] {
  const { backward = true } = options;
  return scope(() => {
    const inputs = shapes.map((shape) => makeInputs(device, shape));
    const done = () => device.synchronize();
    const passes = [
      { name: 'gsa_chunk forward', run: (i: Inputs) => scope(() => void forward(i)) },
      { name: 'gsa_chunk forward + backward', run: (i: Inputs) => forwardBackward(i, () => {}) },
    ].slice(0, backward ? 2 : 1);
    const checked = shapes.map((shape, i) => checks(inputs[i]!, shape, backward));
    return passes.flatMap(({ name, run }, p) => {
      const bodies = inputs.map((input) => () => {
        run(input);
        done();
      });
      const timings = measureTogether(bodies, options);
      return shapes.map((shape, i) =>
        result(name, shape, timings[i]!, peakOf(device, bodies[i]!), checked[i]![p]!),
      );
    });
  });
}

/** Adds to each result its cost over that of the first with the same name, divided by the same ratio of tokens: 1 is
 * linear growth. */
export function withGrowth(
  results: readonly BenchResult[],
  tokens: (shape: string) => number,
): BenchResult[] {
  return results.map((r) => {
    const first = results.find((other) => other.name === r.name)!;
    const cost = r.timing.medianMs / first.timing.medianMs;
    return { ...r, figures: { ...r.figures, growth: cost / (tokens(r.shape) / tokens(first.shape)) } };
  });
}
