import {
  Embedding,
  GatedMlp,
  GatedSlotAttention,
  JoinedLinear,
  Linear,
  Module,
  RMSNorm,
  ShortConvolution,
  type GsaLayerOptions,
  type GsaLayerState,
  type Parts,
} from '../nn/index.js';
import type { MatmulMode } from '../tensor/dtype.js';
import { part } from '../tensor/recorder.js';
import { scope } from '../tensor/scope.js';
import type { Tensor } from '../tensor/tensor.js';
import { gsaWidths, type GSAConfig } from './config.js';

/** Parameters by checkpoint name. */
export type Weights = ReadonlyMap<string, Tensor>;

/** g_norm's epsilon, whatever norm_eps says: the implementation that trained the published weights calls its kernel
 * without passing one. */
const G_NORM_EPS = 1e-5;

function take(weights: Weights, name: string): Tensor {
  return weights.get(`${name}.weight`)!;
}

/** Pre-norm block: attention, then the feed-forward part, each added to the residual stream by its last product. */
export class GsaBlock extends Module {
  readonly attnNorm: RMSNorm;
  readonly attn: GatedSlotAttention;
  readonly mlpNorm: RMSNorm;
  readonly mlp: GatedMlp;

  constructor(config: GSAConfig, weights: Weights, prefix: string, matmul: MatmulMode) {
    super();
    const noteAbsMax = matmul !== 'dtype';
    const matrix = (name: string) => take(weights, `${prefix}${name}`);
    const linear = (name: string) => new Linear(matrix(name), matmul);
    const conv = (name: string) => new ShortConvolution(matrix(name));
    const norm = (name: string, eps: number) =>
      new RMSNorm(take(weights, `${prefix}${name}`), { eps, noteAbsMax });
    const { K, V } = gsaWidths(config);
    this.attnNorm = norm('attn_norm', config.norm_eps);
    this.attn = new GatedSlotAttention(
      {
        HQ: config.num_heads,
        H: config.num_kv_heads,
        K,
        V,
        M: config.num_slots,
        normalizer: config.gate_logit_normalizer,
      },
      {
        inputs: new JoinedLinear(
          {
            q_proj: matrix('attn.q_proj'),
            k_proj: matrix('attn.k_proj'),
            v_proj: matrix('attn.v_proj'),
            f_proj: matrix('attn.f_proj'),
          },
          matmul,
        ),
        convs: config.use_short_conv
          ? [conv('attn.q_conv1d'), conv('attn.k_conv1d'), conv('attn.v_conv1d')]
          : null,
        gNorm: new RMSNorm(weights.get(`${prefix}attn.g_norm.weight`) ?? null, {
          eps: G_NORM_EPS,
          silu: true,
          noteAbsMax,
        }),
        oProj: linear('attn.o_proj'),
      },
    );
    this.mlpNorm = norm('mlp_norm', config.norm_eps);
    const gateAndUp = { gate_proj: matrix('mlp.gate_proj'), up_proj: matrix('mlp.up_proj') };
    this.mlp = new GatedMlp(new JoinedLinear(gateAndUp, matmul), linear('mlp.down_proj'));
  }

  protected parts(): Parts {
    return { attn_norm: this.attnNorm, attn: this.attn, mlp_norm: this.mlpNorm, mlp: this.mlp };
  }

  /** stream [B, T, D] -> stream after the block. */
  forward(
    stream: Tensor,
    options: Omit<GsaLayerOptions, 'residual'>,
  ): { stream: Tensor; state?: GsaLayerState } {
    const before = this.attnNorm.forwardStream(stream);
    const { y, state } = this.attn.forward(before.y, { ...options, residual: before.h });
    const between = this.mlpNorm.forwardStream(y);
    return { stream: this.mlp.forward(between.y, between.h), state };
  }
}

/** A block without states as a part that may be run again for its gradients. */
function forwardPart(
  layer: GsaBlock,
  stream: Tensor,
  cuSeqlens: Tensor | null,
): { stream: Tensor; state?: undefined } {
  const [after] = part([stream, cuSeqlens], ([stream, cuSeqlens]) => [
    layer.forward(stream!, { cuSeqlens }).stream,
  ]);
  return { stream: after! };
}

/** Embedding, blocks and final norm: token ids to hidden states. */
export class GsaBackbone extends Module {
  readonly embeddings: Embedding;
  readonly layers: readonly GsaBlock[];
  readonly norm: RMSNorm;

  constructor(config: GSAConfig, weights: Weights, prefix: string, matmul: MatmulMode) {
    super();
    this.embeddings = new Embedding(take(weights, `${prefix}embeddings`));
    this.layers = Array.from(
      { length: config.num_hidden_layers },
      (_, i) => new GsaBlock(config, weights, `${prefix}layers.${i}.`, matmul),
    );
    // Its gradient goes to the last block's product.
    const noteAbsMax = matmul !== 'dtype';
    this.norm = new RMSNorm(take(weights, `${prefix}norm`), { eps: config.norm_eps, noteAbsMax });
  }

  protected parts(): Parts {
    return { embeddings: this.embeddings, layers: this.layers, norm: this.norm };
  }

  /** ids [B, T] -> hidden [B, T, D], with the layers' states after the last token when asked for. */
  forward(
    ids: Tensor,
    options: {
      cuSeqlens?: Tensor | null;
      state?: readonly GsaLayerState[] | null;
      outputState?: boolean;
    } = {},
  ): { hidden: Tensor; state: GsaLayerState[] } {
    return scope(() => {
      let stream = this.embeddings.forward(ids);
      const state: GsaLayerState[] = [];
      this.layers.forEach((layer, i) => {
        const { cuSeqlens, outputState } = options;
        const next = scope(() =>
          options.state || outputState
            ? layer.forward(stream, { cuSeqlens, outputState, state: options.state?.[i] })
            : forwardPart(layer, stream, cuSeqlens ?? null),
        );
        // Freed layer by layer rather than at the end; what a backward pass needs the tape has kept.
        stream.dispose();
        stream = next.stream;
        if (next.state) state.push(next.state);
      });
      return { hidden: this.norm.forward(stream), state };
    });
  }
}
