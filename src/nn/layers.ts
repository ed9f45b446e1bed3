import { checkOptions, expected } from '../native/errors.js';
import {
  embedding,
  linear,
  linearFloat8,
  linearJoined,
  reshape,
  rmsNorm,
  shortConv,
  swigluHalves,
  type RmsNormOptions,
} from '../ops/index.js';
import { checkFlag, checkNumber, checkOptional, checkTensor } from '../ops/check.js';
import { MATMUL_MODES, type MatmulMode } from '../tensor/dtype.js';
import { exec } from '../tensor/exec.js';
import { recording } from '../tensor/recorder.js';
import { keep } from '../tensor/scope.js';
import { Tensor } from '../tensor/tensor.js';
import { Module, type Parts } from './module.js';

function checkMode(matmul: unknown, op: string): void {
  if (!(MATMUL_MODES as readonly unknown[]).includes(matmul))
    throw expected(`one of ${MATMUL_MODES.join(', ')}`, 'matmul', matmul, op);
}

/** y = x Wᵀ, weight [out, in], no bias. */
export class Linear extends Module {
  /** @throws GsaError INVALID_ARGUMENT */
  constructor(
    readonly weight: Tensor,
    readonly matmul: MatmulMode = 'dtype',
  ) {
    super();
    checkTensor('Linear', 'weight', weight, { ndim: 2 });
    checkMode(matmul, 'Linear');
  }

  protected parts(): Parts {
    return { weight: this.weight };
  }

  /** x [..., in] -> [..., out], `residual` [..., out] added. @throws GsaError INVALID_ARGUMENT */
  forward(x: Tensor, residual?: Tensor | null): Tensor {
    const { weight, matmul } = this;
    if (matmul !== 'dtype' && recording([x, weight]))
      return linearFloat8(x, [weight], weight, matmul, residual);
    return linear(x, weight, null, residual);
  }
}

/** Linear maps of one input as one product. The weights move below one another into one matrix, and the parameters of the
 * maps in `parts`, by name, are its rows: each keeps its name, its gradient and its place in checkpoints. */
export class JoinedLinear<Name extends string = string> extends Module {
  readonly maps: Readonly<Record<Name, Linear>>;
  readonly #whole: Tensor;

  /** @param weights [out, in] each, of one width, dtype and device; they are moved, and the given tensors disposed
   * @throws GsaError OUT_OF_MEMORY, INVALID_ARGUMENT; the given tensors are then as they were */
  constructor(
    weights: Readonly<Record<Name, Tensor>>,
    readonly matmul: MatmulMode = 'dtype',
  ) {
    super();
    checkMode(matmul, 'JoinedLinear');
    checkOptions(weights ?? null, undefined, 'JoinedLinear');
    const given = Object.entries(weights) as [Name, Tensor][];
    const first = given[0]?.[1];
    if (!first) throw expected('at least one weight', 'weights', weights, 'JoinedLinear');
    const [, width] = checkTensor('JoinedLinear', given[0]![0], first, { ndim: 2 }).shape as [number, number];
    const { dtype, device } = first;
    for (const [name, weight] of given)
      checkTensor('JoinedLinear', name, weight, { shape: [null, width], dtype, device });
    const total = given.reduce((sum, [, weight]) => sum + weight.shape[0]!, 0);
    this.#whole = keep(Tensor.empty([total, width], { dtype, device }));
    let start = 0;
    const moved = given.map(([name, weight]) => {
      const rows = keep(this.#whole.narrow(0, start, weight.shape[0]!));
      exec('cast', { x: weight }, { y: rows }, {});
      rows.requiresGrad = weight.requiresGrad;
      start += rows.shape[0]!;
      return [name, new Linear(rows, matmul)] as const;
    });
    for (const [, weight] of given) weight.dispose();
    this.maps = Object.fromEntries(moved) as Record<Name, Linear>;
  }

  protected parts(): Parts {
    return this.maps;
  }

  override dispose(): void {
    super.dispose();
    this.#whole.dispose();
  }

  /** x [..., in] -> the maps' results side by side [..., sum of out]. @throws GsaError INVALID_ARGUMENT */
  forward(x: Tensor): Tensor {
    const weights = (Object.values(this.maps) as Linear[]).map((map) => map.weight);
    const { matmul } = this;
    if (matmul !== 'dtype' && recording([x, ...weights]))
      return linearFloat8(x, weights, this.#whole, matmul);
    return linearJoined(x, weights, this.#whole);
  }
}

/** Rows of weight [vocabulary, D]. */
export class Embedding extends Module {
  /** @throws GsaError INVALID_ARGUMENT */
  constructor(readonly weight: Tensor) {
    super();
    checkTensor('Embedding', 'weight', weight, { ndim: 2 });
  }

  protected parts(): Parts {
    return { weight: this.weight };
  }

  /** ids [...], int32 or int64 -> [..., D]. @throws GsaError INVALID_ARGUMENT */
  forward(ids: Tensor): Tensor {
    return embedding(this.weight, ids);
  }
}

/** Root-mean-square normalisation; weight float32 [D], or null for none. */
export class RMSNorm extends Module {
  readonly #options: RmsNormOptions;

  /** @throws GsaError INVALID_ARGUMENT */
  constructor(
    readonly weight: Tensor | null,
    options: RmsNormOptions = {},
  ) {
    super();
    checkOptional('RMSNorm', 'weight', weight, { ndim: 1, dtype: 'float32' });
    checkOptions(options, ['eps', 'silu', 'noteAbsMax'], 'RMSNorm');
    const { eps = 1e-6, silu = false } = options;
    checkNumber('RMSNorm', 'eps', eps, 'a number above 0', (n) => n > 0);
    checkFlag('RMSNorm', 'silu', silu);
    this.#options = { ...options };
  }

  protected parts(): Parts {
    return { weight: this.weight };
  }

  /** x [..., D] -> [..., D]. @throws GsaError INVALID_ARGUMENT */
  forward(x: Tensor): Tensor {
    return rmsNorm(x, this.weight, this.#options);
  }

  /** The norm y of the residual stream h, and h for what is added to it: the gradient that comes back through it meets
   * that of y in one pass. @throws GsaError INVALID_ARGUMENT */
  forwardStream(h: Tensor): { y: Tensor; h: Tensor } {
    return rmsNorm(h, this.weight, { ...this.#options, stream: true });
  }
}

/** Causal depthwise convolution along T with silu; weight [D, 1, W], as checkpoints store it. */
export class ShortConvolution extends Module {
  /** @throws GsaError INVALID_ARGUMENT */
  constructor(readonly weight: Tensor) {
    super();
    checkTensor('ShortConvolution', 'weight', weight, { shape: [null, 1, null] });
  }

  protected parts(): Parts {
    return { weight: this.weight };
  }

  /** x [B, T, D] -> y [B, T, D]; `state` holds the last W - 1 inputs [N, D, W - 1] and is not changed.
   * @throws GsaError INVALID_ARGUMENT */
  forward(
    x: Tensor,
    options: { state?: Tensor | null; cuSeqlens?: Tensor | null; outputState?: boolean } = {},
  ): { y: Tensor; state?: Tensor } {
    checkOptions(options, ['state', 'cuSeqlens', 'outputState'], 'shortConv');
    const [channels, , taps] = this.weight.shape as [number, number, number];
    using weight = reshape(this.weight, [channels, taps]);
    return shortConv(x, weight, { silu: true, ...options });
  }
}

/** The feed-forward part of a block: down(silu(gate x) · up x). */
export class GatedMlp extends Module {
  constructor(
    readonly gateAndUp: JoinedLinear<'gate_proj' | 'up_proj'>,
    readonly downProj: Linear,
  ) {
    super();
  }

  protected parts(): Parts {
    return { ...this.gateAndUp.maps, down_proj: this.downProj };
  }

  override dispose(): void {
    super.dispose();
    this.gateAndUp.dispose();
  }

  /** x [..., D] -> [..., D], `residual` [..., D] added. @throws GsaError INVALID_ARGUMENT */
  forward(x: Tensor, residual?: Tensor | null): Tensor {
    const noteAbsMax = this.downProj.matmul !== 'dtype';
    return this.downProj.forward(swigluHalves(this.gateAndUp.forward(x), { noteAbsMax }), residual);
  }
}
