import { gsaChunk, gsaGate, gsaRecurrent, reshape, silu } from '../ops/index.js';
import { recording } from '../tensor/recorder.js';
import type { Tensor } from '../tensor/tensor.js';
import type { Linear, RMSNorm, ShortConvolution } from './layers.js';
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
  readonly qProj: Linear;
  readonly kProj: Linear;
  readonly vProj: Linear;
  readonly fProj: Linear;
  readonly qConv: ShortConvolution | null;
  readonly kConv: ShortConvolution | null;
  readonly vConv: ShortConvolution | null;
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
      q_proj: l.qProj,
      k_proj: l.kProj,
      v_proj: l.vProj,
      f_proj: l.fProj,
      q_conv1d: l.qConv,
      k_conv1d: l.kConv,
      v_conv1d: l.vConv,
      g_norm: l.gNorm,
      o_proj: l.oProj,
    };
  }

  /** x [B, T, D] -> y [B, T, D].
   * @throws GsaError INVALID_ARGUMENT */
  forward(x: Tensor, options: GsaLayerOptions = {}): { y: Tensor; state?: GsaLayerState } {
    const { HQ, H, K, V, M, normalizer } = this.heads;
    const l = this.layers;
    const [B, T] = x.shape as [number, number];
    const { cuSeqlens, state, outputState = false } = options;
    const project = (proj: Linear, conv: ShortConvolution | null, i: 0 | 1 | 2) => {
      const y = proj.forward(x);
      return conv ? conv.forward(y, { state: state?.conv?.[i], cuSeqlens, outputState }) : { y };
    };
    const q = project(l.qProj, l.qConv, 0);
    const k = project(l.kProj, l.kConv, 1);
    const v = project(l.vProj, l.vConv, 2);
    const f = l.fProj.forward(x);
    const { g, s } = gsaGate(reshape(f, [B, T, H, M]), { normalizer });
    const inputs = {
      q: reshape(silu(q.y), [B, T, HQ, K]),
      k: reshape(silu(k.y), [B, T, H, K]),
      v: reshape(silu(v.y), [B, T, H, V]),
      s,
      g,
      hk0: state?.hk,
      hv0: state?.hv,
      cuSeqlens,
    };
    const { o, hk, hv } = slotAttention(inputs, outputState);
    const y = l.oProj.forward(l.gNorm.forward(reshape(o, [B, T, HQ * V])));
    if (!outputState) return { y };
    const conv = q.state ? ([q.state, k.state!, v.state!] as const) : null;
    return { y, state: { hk: hk!, hv: hv!, conv } };
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
