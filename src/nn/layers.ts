import { embedding, linear, reshape, rmsNorm, shortConv, swiglu, type RmsNormOptions } from '../ops/index.js';
import type { Tensor } from '../tensor/tensor.js';
import { Module, type Parts } from './module.js';

/** y = x Wᵀ, weight [out, in], no bias. */
export class Linear extends Module {
  constructor(readonly weight: Tensor) {
    super();
  }

  protected parts(): Parts {
    return { weight: this.weight };
  }

  /** x [..., in] -> [..., out]. @throws GsaError INVALID_ARGUMENT */
  forward(x: Tensor): Tensor {
    return linear(x, this.weight);
  }
}

/** Rows of weight [vocabulary, D]. */
export class Embedding extends Module {
  constructor(readonly weight: Tensor) {
    super();
  }

  protected parts(): Parts {
    return { weight: this.weight };
  }

  /** ids [...], int32 or int64 -> [..., D]. @throws GsaError INVALID_ARGUMENT */
  forward(ids: Tensor): Tensor {
    return embedding(this.weight, ids);
  }
}

/** Root-mean-square normalisation; weight [D], or null for none. */
export class RMSNorm extends Module {
  readonly #options: RmsNormOptions;

  constructor(
    readonly weight: Tensor | null,
    options: RmsNormOptions = {},
  ) {
    super();
    this.#options = { ...options };
  }

  protected parts(): Parts {
    return { weight: this.weight };
  }

  /** x [..., D] -> [..., D]. @throws GsaError INVALID_ARGUMENT */
  forward(x: Tensor): Tensor {
    return rmsNorm(x, this.weight, this.#options);
  }

  /** h = residual + x, and y = the norm of h, in one pass over memory. Without a residual, h is x itself.
   * @throws GsaError INVALID_ARGUMENT */
  forwardResidual(x: Tensor, residual: Tensor | null): { y: Tensor; h: Tensor } {
    if (residual) return rmsNorm(x, this.weight, { ...this.#options, residual });
    return { y: this.forward(x), h: x };
  }
}

/** Causal depthwise convolution along T with silu; weight [D, 1, W], as checkpoints store it. */
export class ShortConvolution extends Module {
  constructor(readonly weight: Tensor) {
    super();
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
    const [channels, , taps] = this.weight.shape as [number, number, number];
    using weight = reshape(this.weight, [channels, taps]);
    return shortConv(x, weight, { silu: true, ...options });
  }
}

/** The feed-forward part of a block: down(silu(gate x) · up x). */
export class GatedMlp extends Module {
  constructor(
    readonly gateProj: Linear,
    readonly upProj: Linear,
    readonly downProj: Linear,
  ) {
    super();
  }

  protected parts(): Parts {
    return { gate_proj: this.gateProj, up_proj: this.upProj, down_proj: this.downProj };
  }

  /** x [..., D] -> [..., D]. @throws GsaError INVALID_ARGUMENT */
  forward(x: Tensor): Tensor {
    return this.downProj.forward(swiglu(this.gateProj.forward(x), this.upProj.forward(x)));
  }
}
