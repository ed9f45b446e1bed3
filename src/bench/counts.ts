/** The one place that says what an operation must move and multiply: the least bytes between memory and the processor
 * (every input read once, every output written once, whatever a kernel stores in between), and the floating-point
 * operations of its matrix products (a multiplication and an addition are two; element-wise arithmetic is not counted).
 * `e` is the size of an element in bytes, 4 or 2. */
export interface Count {
  readonly bytes: number;
  readonly flops: number;
}

export function plus(a: Count, b: Count): Count {
  return { bytes: a.bytes + b.bytes, flops: a.flops + b.flops };
}

type Extents<N extends string> = Readonly<Record<N, number>>;

export function gemmCount({ M, N, K }: Extents<'M' | 'N' | 'K'>, e: number): Count {
  return { bytes: e * (M * K + K * N + M * N), flops: 2 * M * N * K };
}

/** Length of the chunks that a chunkwise form multiplies within. */
const CHUNK = 64;

/** Gated slot attention, chunkwise (equations of native/ops/gsa/README.md). Per token, with states K x M and M x V: the
 * states' updates 2 M (K + V) for each key/value head; for each query head their use 2 M (K + V), and inside the chunk
 * the products q kᵀ, p sᵀ and those with s and v, 2 C (K + V) + 4 C M. g and s are float32 and belong to key/value heads. */
export function gsaForward(shape: Extents<'B' | 'T' | 'H' | 'HQ' | 'K' | 'V' | 'M'>, e: number): Count {
  const { B, T, H, HQ, K, V, M } = shape;
  const bytes = B * T * (e * (HQ * (K + V) + H * (K + V)) + 8 * H * M);
  const perQuery = 2 * M * (K + V) + 2 * CHUNK * (K + V) + 4 * CHUNK * M;
  return { bytes, flops: B * T * (HQ * perQuery + H * 2 * M * (K + V)) };
}

/** Reads q, k, v, s, g and do, writes dq, dk, dv, ds, dg: each product of the forward has two in the backward. */
export function gsaBackward(shape: Extents<'B' | 'T' | 'H' | 'HQ' | 'K' | 'V' | 'M'>, e: number): Count {
  const { B, T, H, HQ, K, V, M } = shape;
  const bytes = B * T * (e * (HQ * (2 * K + V) + H * 2 * (K + V)) + 16 * H * M);
  return { bytes, flops: 2 * gsaForward(shape, e).flops };
}

/** The same from and to joined raw projections: q, k, v and the gate's f in, o out; backward: they and do in, their gradient
 * out. */
export function gsaLayerForward(shape: Extents<'B' | 'T' | 'H' | 'HQ' | 'K' | 'V' | 'M'>, e: number): Count {
  const { B, T, H, HQ, K, V, M } = shape;
  const joined = HQ * K + H * (K + V + M);
  return { bytes: B * T * e * (joined + HQ * V), flops: gsaForward(shape, e).flops };
}
export function gsaLayerBackward(shape: Extents<'B' | 'T' | 'H' | 'HQ' | 'K' | 'V' | 'M'>, e: number): Count {
  const { B, T, H, HQ, K, V, M } = shape;
  const joined = HQ * K + H * (K + V + M);
  return { bytes: B * T * e * (2 * joined + HQ * V), flops: gsaBackward(shape, e).flops };
}

interface ModuleCount {
  readonly forward: Count;
  readonly backward: Count;
}

const moved = (forward: number, backward: number): ModuleCount => ({
  forward: { bytes: forward, flops: 0 },
  backward: { bytes: backward, flops: 0 },
});

type ND = Extents<'N' | 'D'>;

/** By the names of the modules in SHAPES. N rows, D channels, C classes, P parameters. */
export const MODULE_COUNTS = {
  // x in, y out; backward: dy and x in, dx out
  rmsnorm: ({ N, D }: ND, e: number) => moved(2 * e * N * D, 3 * e * N * D),
  'rmsnorm(silu)': ({ N, D }: ND, e: number) => moved(2 * e * N * D, 3 * e * N * D),
  // x and the residual in, their sum and y out; backward: dy, the sum and its gradient in, dx out
  'rmsnorm+residual': ({ N, D }: ND, e: number) => moved(4 * e * N * D, 4 * e * N * D),
  swiglu: ({ N, D }: ND, e: number) => moved(3 * e * N * D, 5 * e * N * D),
  'cross-entropy': ({ N, C }: Extents<'N' | 'C'>, e: number) => moved(e * N * C, 2 * e * N * C),
  // Logits need never reach memory: hidden states and the weight in, their gradients out.
  'linear-cross-entropy': ({ N, D, C }: Extents<'N' | 'D' | 'C'>, e: number): ModuleCount => ({
    forward: { bytes: e * (N * D + C * D), flops: 2 * N * D * C },
    backward: { bytes: e * (N * D + C * D), flops: 4 * N * D * C },
  }),
  // The gradient of the whole table is written.
  embedding: ({ N, D, C }: Extents<'N' | 'D' | 'C'>, e: number) => moved(2 * e * N * D, e * (N * D + C * D)),
  'short-conv': ({ B, T, D }: Extents<'B' | 'T' | 'D'>, e: number) =>
    moved(2 * e * B * T * D, 3 * e * B * T * D),
  rotary: ({ B, T, H, D }: Extents<'B' | 'T' | 'H' | 'D'>, e: number) =>
    moved(2 * e * B * T * H * D, 2 * e * B * T * H * D),
  // g and s are float32
  'gsa-gate': ({ B, T, H, M }: Extents<'B' | 'T' | 'H' | 'M'>, e: number) =>
    moved((e + 8) * B * T * H * M, (2 * e + 8) * B * T * H * M),
} as const;

/** One update: the gradient in; both moments (float32) in and out; float32 weights, or bfloat16 weights and the
 * 16 bits that make float32 masters of them, in and out. */
export function adamwCount({ P }: Extents<'P'>, e: number): Count {
  return { bytes: P * (e + 16 + 8), flops: 0 };
}

/** A training step as model FLOPs are usually counted: 6 for each parameter and token, the operator's own left out. */
export function trainCount(parameters: number, tokens: number): Count {
  return { bytes: 0, flops: 6 * parameters * tokens };
}

/** One token for each of `batch` sequences: every weight in once, of the embeddings only the rows that are used; the
 * float32 states in and out. */
export function decodeCount(
  weightBytes: number,
  embeddingBytes: number,
  stateBytes: number,
  parameters: number,
  batch: number,
): Count {
  return { bytes: weightBytes - embeddingBytes + 2 * stateBytes, flops: 2 * parameters * batch };
}

/** Peak dense bfloat16 rate of one H100 SXM by its data sheet, the denominator of MFU in publications. */
export const H100_BF16_FLOPS = 989e12;
