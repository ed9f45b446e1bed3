import { Tape } from '../autograd/tape.js';
import { gsaChunk, gsaGate, silu } from '../ops/index.js';
import type { Device } from '../tensor/device.js';
import type { DType } from '../tensor/dtype.js';
import { scope } from '../tensor/scope.js';
import { Tensor } from '../tensor/tensor.js';
import { relativeError } from '../verify/compare.js';
import { gsaOracle, gsaOracleBackward, type GsaHead } from '../verify/oracle.js';
import { bounds, deviceError, finiteError, outputCheck, worst, type OutputCheck } from './check.js';
import { documentLengths } from './shapes.js';

export interface GsaShape {
  readonly B: number;
  readonly T: number;
  readonly H: number;
  readonly K: number;
  readonly V: number;
  readonly M: number;
  /** Query heads; H when absent. */
  readonly HQ?: number;
  /** The row holds documents of 16 to DOC tokens; one sequence when absent. */
  readonly DOC?: number;
}

export const GSA_DIMENSIONS = ['B', 'T', 'H', 'K', 'V', 'M'] as const;
export const GSA_OPTIONAL = ['HQ', 'DOC'] as const;

export interface GsaInputs {
  readonly q: Tensor; // [B, T, HQ, K]
  readonly k: Tensor; // [B, T, H, K]
  readonly v: Tensor; // [B, T, H, V]
  readonly s: Tensor; // [B, T, H, M]
  readonly g: Tensor;
  readonly upstream: Tensor; // [B, T, HQ, V]
  readonly cuSeqlens: Tensor | null;
}

const LEAVES = ['q', 'k', 'v', 's', 'g'] as const;

/** Where the documents of a row begin; null where it is one sequence. */
export function makeOffsets(device: Device, { T, DOC }: GsaShape): Tensor | null {
  if (!DOC) return null;
  const offsets = [0];
  for (const length of documentLengths(T, DOC)) offsets.push(offsets.at(-1)! + length);
  return Tensor.from(Int32Array.from(offsets), [offsets.length], { device });
}

/** As a layer makes them from normal projections: silu on q, k, v; g = logsigmoid(f) / 8 and s = 1 − exp(g). */
export function makeInputs(device: Device, dtype: DType, shape: GsaShape): GsaInputs {
  const { B, T, H, K, V, M, HQ = H } = shape;
  const draw = (heads: number, width: number, seed: number, type: DType) =>
    Tensor.randn([B, T, heads, width], { device, dtype: type, seed });
  const activated = (heads: number, width: number, seed: number) =>
    scope(() => silu(draw(heads, width, seed, dtype)));
  return {
    q: activated(HQ, K, 1),
    k: activated(H, K, 2),
    v: activated(H, V, 3),
    ...scope(() => gsaGate(draw(H, M, 4, 'float32'), { normalizer: 8 })),
    upstream: draw(HQ, V, 5, dtype),
    cuSeqlens: makeOffsets(device, shape),
  };
}

export function forward({ q, k, v, s, g, cuSeqlens }: GsaInputs): Tensor {
  return gsaChunk({ q, k, v, s, g, cuSeqlens }).o;
}

/** One forward and backward; `use` sees the output and the gradients before they end. */
export function forwardBackward(
  inputs: GsaInputs,
  use: (o: Tensor, grads: readonly Tensor[]) => void = () => {},
): void {
  const leaves = LEAVES.map((name) => inputs[name]);
  for (const leaf of leaves) leaf.requiresGrad = true;
  using tape = new Tape();
  try {
    scope(() => {
      const o = tape.run(() => forward(inputs));
      tape.backward(o, inputs.upstream);
      use(
        o,
        leaves.map((leaf) => leaf.grad!),
      );
    });
  } finally {
    for (const leaf of leaves) {
      leaf.grad?.dispose();
      leaf.grad = null;
      leaf.requiresGrad = false;
    }
  }
}

/** Tokens [start, start + T) of batch item b. */
interface Window {
  readonly b: number;
  readonly start: number;
  readonly T: number;
}

/** The most multiplications of a state, over tokens, that the oracle is asked for: a second or two on the CPU, whose
 * shapes it mostly covers whole; on a GPU, where float32 covers the rest, half a second. */
const ORACLE_WORK = { cpu: 1e8, cuda: 2.5e7 };

/** What the oracle looks at: all of the last sequence, or, where that is too long, a shorter document or the sequence's
 * first tokens. */
function oracleWindow(
  { B, T, K, V, M, H, HQ = H, DOC }: GsaShape,
  work: number,
): { window: Window; whole: boolean } {
  const most = Math.max(1, Math.floor(work / ((K + V) * M * (1 + HQ / H))));
  if (!DOC) return { window: { b: B - 1, start: 0, T: Math.min(T, most) }, whole: T <= most };
  const lengths = documentLengths(T, DOC);
  let [start, best] = [0, { b: 0, start: 0, T: 0 }];
  for (const length of lengths) {
    if (length <= most && length > best.T) best = { b: 0, start, T: length };
    start += length;
  }
  if (best.T === 0) return { window: { b: 0, start: 0, T: Math.min(lengths[0]!, most) }, whole: false };
  return { window: best, whole: true };
}

/** The tokens of a window, of `count` heads from `first` on, as a view [1, T, count, width]. */
function part(tensor: Tensor, { b, start, T }: Window, first: number, count: number): Tensor {
  return scope(() => tensor.narrow(0, b, 1).narrow(1, start, T).narrow(2, first, count));
}

/** The last key/value head of a window, in double precision. */
function oracleHead(inputs: GsaInputs, { K, V, M, H, HQ = H }: GsaShape, window: Window): GsaHead {
  const R = HQ / H;
  const read = (name: (typeof LEAVES)[number]) =>
    scope(() =>
      name === 'q'
        ? part(inputs.q, window, HQ - R, R).toFloat32()
        : part(inputs[name], window, H - 1, 1).toFloat32(),
    );
  const [q, k, v, s, g] = LEAVES.map(read) as [
    Float32Array,
    Float32Array,
    Float32Array,
    Float32Array,
    Float32Array,
  ];
  return { T: window.T, R, K, V, M, scale: 1, q, k, v, s, g };
}

/** Errors of o and of the gradients of `inputs` against the oracle, in `window`. */
function againstOracle(inputs: GsaInputs, shape: GsaShape, window: Window): { o: number; grads: number[] } {
  const { H, HQ = H } = shape;
  const R = HQ / H;
  const head = oracleHead(inputs, shape, window);
  const read = (tensor: Tensor, queries: boolean) =>
    scope(() => part(tensor, window, queries ? HQ - R : H - 1, queries ? R : 1).toFloat32());
  const exact = gsaOracleBackward(head, read(inputs.upstream, true));
  const order = [exact.dq, exact.dk, exact.dv, exact.ds, exact.dg];
  let found = { o: NaN, grads: [NaN] };
  forwardBackward(inputs, (o, grads) => {
    found = {
      o: relativeError(read(o, true), gsaOracle(head).o),
      grads: grads.map((grad, i) => relativeError(read(grad, i === 0), order[i]!)),
    };
  });
  return found;
}

/** Inputs cut to a window and, with `wide`, widened to float32: what a shorter sequence would be. */
function cut(inputs: GsaInputs, window: Window, wide: boolean): GsaInputs {
  const copy = (tensor: Tensor) =>
    scope(() => {
      const piece = part(tensor, window, 0, tensor.shape[2]!);
      return wide ? piece.to({ dtype: 'float32' }) : piece.contiguousCopy();
    });
  const { q, k, v, s, g, upstream } = inputs;
  return {
    q: copy(q),
    k: copy(k),
    v: copy(v),
    s: copy(s),
    g: copy(g),
    upstream: copy(upstream),
    cuSeqlens: null,
  };
}

/** Errors of the whole bfloat16 output and gradients against the same op in float32 on the same inputs. */
function againstFloat32(inputs: GsaInputs): { o: number; grads: number[] } {
  return scope(() => {
    const wide = (tensor: Tensor) => tensor.to({ dtype: 'float32' });
    const { q, k, v, s, g, upstream, cuSeqlens } = inputs;
    const reference = { q: wide(q), k: wide(k), v: wide(v), s, g, upstream: wide(upstream), cuSeqlens };
    let found = { o: NaN, grads: [NaN] };
    forwardBackward(inputs, (o, grads) => {
      // The leaves' gradients move to the tape of the reference otherwise: s and g are leaves of both.
      const kept = [o, ...grads].map((tensor) => tensor.contiguousCopy());
      for (const leaf of LEAVES) {
        inputs[leaf].grad?.dispose();
        inputs[leaf].grad = null;
      }
      forwardBackward(reference, (exact, exactGrads) => {
        const [error, ...errors] = [exact, ...exactGrads].map((e, i) => deviceError(kept[i]!, e));
        found = { o: error!, grads: errors };
      });
    });
    return found;
  });
}

/** Checks of the forward, and with `backward` of the gradients, beside each other in the two lists.
 *
 * Always: one head of the last sequence, token by token in float64; a sequence too long for that is cut to its first
 * tokens, whose outputs must then be those of the whole one. bfloat16 also: everything, against float32 on the same inputs and device, by
 * kernels that are themselves compared with float64 on the cut sequence. */
export function checkGsa(inputs: GsaInputs, shape: GsaShape): { output: OutputCheck[]; all: OutputCheck[] } {
  const { window, whole } = oracleWindow(shape, ORACLE_WORK[inputs.q.device.backend]);
  const dtype = inputs.q.dtype;
  const limit = bounds(dtype);
  const output: OutputCheck[] = [];
  const grads: OutputCheck[] = [];
  const add = (against: string, error: { o: number; grads: number[] }, bound = limit) => {
    output.push(outputCheck(`${against}, o`, error.o, bound.output));
    grads.push(outputCheck(`${against}, gradients`, worst(error.grads), bound.gradient));
  };
  const oracle = (of: string) => `${of}, one head token by token in float64`;
  if (whole) add(oracle(`${window.T} tokens`), againstOracle(inputs, shape, window));
  else {
    const small = { ...shape, B: 1, T: window.T, DOC: undefined };
    const start = { b: 0, start: 0, T: window.T };
    scope(() => {
      const o = scope(() => part(forward(inputs), window, 0, shape.HQ ?? shape.H).contiguousCopy());
      const shorter = cut(inputs, window, false);
      add(oracle(`a sequence cut to ${window.T} tokens`), againstOracle(shorter, small, start));
      // What comes later must not show in what came first.
      const first = deviceError(o, forward(shorter));
      output.push(outputCheck('the first tokens of the whole sequence, cut to them', first, limit.output));
    });
  }
  if (dtype === 'bfloat16') {
    add('everything in float32', againstFloat32(inputs));
    scope(() => {
      const small = { ...shape, B: 1, T: window.T, DOC: undefined };
      const wide = cut(inputs, window, true);
      const error = againstOracle(wide, small, { b: 0, start: 0, T: window.T });
      add(oracle('that float32'), error, bounds('float32'));
    });
  } else if (!whole) {
    forwardBackward(inputs, (o, all) => {
      output.push(outputCheck('all of o is finite', finiteError([o]), limit.output));
      grads.push(outputCheck('all gradients are finite', finiteError(all), limit.gradient));
    });
  }
  return { output, all: [...output, ...grads] };
}
