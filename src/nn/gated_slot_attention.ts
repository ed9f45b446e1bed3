import { gsaChunk, gsaGate, gsaInputs, gsaLayer, gsaRecurrent, reshape, silu } from '../ops/index.js';
import { checkOptions } from '../native/errors.js';
import { checkTensor } from '../ops/check.js';
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
  /** [B, T, D], added to the result. */
  residual?: Tensor | null;
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

  /** x [B, T, D] -> y [B, T, D], `residual` [B, T, D] added.
   * @throws GsaError INVALID_ARGUMENT */
  forward(x: Tensor, options: GsaLayerOptions = {}): { y: Tensor; state?: GsaLayerState } {
    checkTensor('GatedSlotAttention', 'x', x, { ndim: 3 });
    checkOptions(options, ['cuSeqlens', 'state', 'outputState', 'residual'], 'GatedSlotAttention');
    const { HQ, V } = this.heads;
    const { convs, gNorm, oProj } = this.layers;
    const [B, T] = x.shape as [number, number];
    const { conv, o, hk, hv } = convs ? this.#convolved(x, convs, options) : this.#joined(x, options);
    const y = oProj.forward(gNorm.forward(reshape(o, [B, T, HQ * V])), options.residual);
    if (!options.outputState) return { y };
    return { y, state: { hk: hk!, hv: hv!, conv } };
  }

  #joined(x: Tensor, { cuSeqlens, state, outputState }: GsaLayerOptions): Attended {
    const { inputs } = this.layers;
    const projected = inputs.forward(x);
    const shape = { ...this.heads, noteAbsMax: inputs.matmul !== 'dtype' };
    const { hk: hk0, hv: hv0 } = state ?? {};
    if (isStep(x, [projected, hk0, hv0]))
      return { conv: null, ...gsaRecurrent({ ...gsaInputs(projected, shape), hk0, hv0, cuSeqlens }) };
    const options = { ...shape, hk0, hv0, cuSeqlens, outputFinalState: outputState };
    const { o, hkT: hk, hvT: hv } = gsaLayer(projected, options);
    return { conv: null, o, hk, hv };
  }

  /** The same with a short convolution of q, k and v before their activation: those want their own contiguous
   * projections. */
  #convolved(
    x: Tensor,
    convs: NonNullable<GsaLayerParts['convs']>,
    { cuSeqlens, state, outputState = false }: GsaLayerOptions,
  ): Attended {
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
    const given = { q: q.y, k: k.y, v: v.y, g, s, hk0: state?.hk, hv0: state?.hv, cuSeqlens };
    if (isStep(x, Object.values(given))) return { conv, ...gsaRecurrent(given) };
    const { o, hkT: hk, hvT: hv } = gsaChunk({ ...given, outputFinalState: outputState });
    return { conv, o, hk, hv };
  }
}

/** What attention gives, and the states after the last token where they were asked for. */
interface Attended {
  o: Tensor;
  hk?: Tensor;
  hv?: Tensor;
  conv: GsaLayerState['conv'];
}

/** One token is cheaper step by step, more are cheaper by chunks; a gradient needs chunks. */
function isStep(x: Tensor, inputs: readonly (Tensor | null | undefined)[]): boolean {
  return x.shape[1] === 1 && !recording(inputs);
}
