import { gsaChunk, gsaGate, gsaInputs, gsaRecurrent, reshape, silu } from '../ops/index.js';
import { recording } from '../tensor/recorder.js';
import type { Tensor } from '../tensor/tensor.js';
import type { JoinedLinear, Linear, RMSNorm, ShortConvolution } from './layers.js';
import { Module, type Parts } from './module.js';

/** What one layer carries from token to token: memory of constant size. */
export interface GsaLayerState {
  /** [N, H, K, M], float32 */
  readonly hk: Tensor;
  /** [N, H, M, V], float32 */
  readonly hv: Tensor;
  /** Inputs that the short convolutions of q, k and v still see, each [N, D, W - 1]; null without convolutions. */
  readonly conv: readonly [q: Tensor, k: Tensor, v: Tensor] | null;
}

/** Extents of the layer's heads. */
export interface GsaHeads {
  /** Query heads, and the key/value heads that they share. */
  readonly HQ: number;
  readonly H: number;
  /** Width of one head's keys and values, and its number of slots. */
  readonly K: number;
  readonly V: number;
  readonly M: number;
  /** g = logsigmoid(f) / normalizer */
  readonly normalizer: number;
}

export interface GsaLayerParts {
  /** Queries, keys, values and gates, in this order. */
  readonly inputs: JoinedLinear<'q_proj' | 'k_proj' | 'v_proj' | 'f_proj'>;
  /** Short convolutions of q, k and v; null without them. */
  readonly convs: readonly [q: ShortConvolution, k: ShortConvolution, v: ShortConvolution] | null;
  /** Applied to silu(o) over the whole value width. */
  readonly gNorm: RMSNorm;
  readonly oProj: Linear;
}

export interface GsaLayerOptions {
  cuSeqlens?: Tensor | null;
  /** State before the first token; not changed. */
  state?: GsaLayerState | null;
  /** Return the state after the last token. */
  outputState?: boolean;
}

/** Gated slot attention as a layer (Zhang et al. 2024, arXiv 2409.07146, section 3.3): q, k, v = silu of projections (after
 * optional short convolutions), g and s from the projection f, then silu, norm and the output projection. */
export class GatedSlotAttention extends Module {
  constructor(
    readonly heads: GsaHeads,
    readonly layers: GsaLayerParts,
  ) {
    super();
  }

  protected parts(): Parts {
    const l = this.layers;
    return {
      ...l.inputs.maps,
      q_conv1d: l.convs?.[0] ?? null,
      k_conv1d: l.convs?.[1] ?? null,
      v_conv1d: l.convs?.[2] ?? null,
      g_norm: l.gNorm,
      o_proj: l.oProj,
    };
  }

  override dispose(): void {
    super.dispose();
    this.layers.inputs.dispose();
  }

  /** x [B, T, D] -> y [B, T, D].
   * @throws GsaError INVALID_ARGUMENT */
  forward(x: Tensor, options: GsaLayerOptions = {}): { y: Tensor; state?: GsaLayerState } {
    const { HQ, V } = this.heads;
    const { inputs, convs, gNorm, oProj } = this.layers;
    const [B, T] = x.shape as [number, number];
    const { cuSeqlens, state, outputState = false } = options;
    const { conv, ...projected } = convs
      ? this.#convolved(x, convs, options)
      : {
          conv: null,
          ...gsaInputs(inputs.forward(x), { ...this.heads, noteAbsMax: inputs.matmul !== 'dtype' }),
        };
    const states = { hk0: state?.hk, hv0: state?.hv };
    const { o, hk, hv } = slotAttention({ ...projected, ...states, cuSeqlens }, outputState);
    const y = oProj.forward(gNorm.forward(reshape(o, [B, T, HQ * V])));
    if (!outputState) return { y };
    return { y, state: { hk: hk!, hv: hv!, conv } };
  }

  /** The same as gsaInputs(), with a short convolution of q, k and v before their activation: those want their own
   * contiguous projections. */
  #convolved(
    x: Tensor,
    convs: NonNullable<GsaLayerParts['convs']>,
    { cuSeqlens, state, outputState = false }: GsaLayerOptions,
  ): ReturnType<typeof gsaInputs> & { conv: GsaLayerState['conv'] } {
    const { HQ, H, M, normalizer } = this.heads;
    const { q_proj, k_proj, v_proj, f_proj } = this.layers.inputs.maps;
    const [B, T] = x.shape as [number, number];
    const project = (proj: Linear, i: 0 | 1 | 2, heads: number) => {
      const { y, state: next } = convs[i].forward(proj.forward(x), {
        state: state?.conv?.[i],
        cuSeqlens,
        outputState,
      });
      return { y: reshape(silu(y), [B, T, heads, -1]), next };
    };
    const [q, k, v] = [project(q_proj, 0, HQ), project(k_proj, 1, H), project(v_proj, 2, H)];
    const { g, s } = gsaGate(reshape(f_proj.forward(x), [B, T, H, M]), { normalizer });
    const conv = outputState ? ([q.next!, k.next!, v.next!] as const) : null;
    return { q: q.y, k: k.y, v: v.y, g, s, conv };
  }
}

type AttentionInputs = Parameters<typeof gsaChunk>[0];

/** One token is cheaper step by step, more are cheaper by chunks; a gradient needs chunks. */
function slotAttention(
  inputs: AttentionInputs,
  outputFinalState: boolean,
): { o: Tensor; hk?: Tensor; hv?: Tensor } {
  const { q, k, v, s, g, hk0, hv0 } = inputs;
  if (q.shape[1] === 1 && !recording([q, k, v, s, g, hk0, hv0])) return gsaRecurrent(inputs);
  const { o, hkT: hk, hvT: hv } = gsaChunk({ ...inputs, outputFinalState });
  return { o, hk, hv };
}
