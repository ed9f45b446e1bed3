import { checkOptions, expected } from '../native/errors.js';
import type { BackendName } from '../native/types.js';
import { lossChunkRows } from '../ops/cross_entropy.js';
import { checkedConfig, gsaWidths, type GSAConfig } from './config.js';

export type ModelPart = 'embeddings' | 'attention' | 'feedForward' | 'norms' | 'head';

/** One parameter of a model, before it exists. Names are those of Hugging Face checkpoints of model_type `gsa`. */
export interface ParameterSpec {
  readonly name: string;
  readonly shape: readonly number[];
  /** normal: mean 0, standard deviation initializer_range. */
  readonly init: 'normal' | 'ones';
  readonly part: ModelPart;
}

/** What a parameter is held in, in a model of `dtype`. Norm weights are always float32: they stay near 1, where steps of
 * bfloat16 are larger than those of a training, and each of them scales its column for every token. */
export function parameterDType<D extends string>({ part }: ParameterSpec, dtype: D): D | 'float32' {
  return part === 'norms' ? 'float32' : dtype;
}

/** Every parameter of the model that `config` describes, in checkpoint order; nothing is allocated.
 * @throws GsaError INVALID_CONFIG */
export function parameterSpecs(given: GSAConfig): ParameterSpec[] {
  const config = checkedConfig(given);
  const D = config.hidden_size;
  const specs: ParameterSpec[] = [
    { name: 'model.embeddings.weight', shape: [config.vocab_size, D], init: 'normal', part: 'embeddings' },
  ];
  for (let i = 0; i < config.num_hidden_layers; i++) specs.push(...layerSpecs(config, `model.layers.${i}.`));
  specs.push({ name: 'model.norm.weight', shape: [D], init: 'ones', part: 'norms' });
  if (!config.tie_word_embeddings)
    specs.push({ name: 'lm_head.weight', shape: [config.vocab_size, D], init: 'normal', part: 'head' });
  return specs;
}

function layerSpecs(config: GSAConfig, prefix: string): ParameterSpec[] {
  const { hidden_size: D, intermediate_size: I, conv_size: W } = config;
  const widths = gsaWidths(config);
  const specs: ParameterSpec[] = [];
  const norm = (name: string, width: number) =>
    specs.push({ name: `${prefix}${name}.weight`, shape: [width], init: 'ones', part: 'norms' });
  const weight = (name: string, shape: number[], part: ModelPart) =>
    specs.push({ name: `${prefix}${name}.weight`, shape, init: 'normal', part });
  norm('attn_norm', D);
  weight('attn.q_proj', [widths.query, D], 'attention');
  weight('attn.k_proj', [widths.key, D], 'attention');
  weight('attn.v_proj', [widths.value, D], 'attention');
  weight('attn.f_proj', [widths.gate, D], 'attention');
  if (config.use_short_conv) {
    weight('attn.q_conv1d', [widths.query, 1, W], 'attention');
    weight('attn.k_conv1d', [widths.key, 1, W], 'attention');
    weight('attn.v_conv1d', [widths.value, 1, W], 'attention');
  }
  if (config.elementwise_affine) norm('attn.g_norm', widths.output);
  weight('attn.o_proj', [D, widths.output], 'attention');
  norm('mlp_norm', D);
  weight('mlp.gate_proj', [I, D], 'feedForward');
  weight('mlp.up_proj', [I, D], 'feedForward');
  weight('mlp.down_proj', [D, I], 'feedForward');
  return specs;
}

function size(shape: readonly number[]): number {
  return shape.reduce((n, extent) => n * extent, 1);
}

/** The number of parameters; tied embeddings count once. Allocates nothing. @throws GsaError INVALID_CONFIG */
export function parameterCount(config: GSAConfig): number {
  return parameterSpecs(config).reduce((n, spec) => n + size(spec.shape), 0);
}

/** The same by part of the model. @throws GsaError INVALID_CONFIG */
export function parameterBreakdown(config: GSAConfig): Record<ModelPart, number> {
  const parts = { embeddings: 0, attention: 0, feedForward: 0, norms: 0, head: 0 };
  for (const spec of parameterSpecs(config)) parts[spec.part] += size(spec.shape);
  return parts;
}

/** Bytes that training takes on the device, by what they hold. */
export interface TrainingMemory {
  readonly weights: number;
  readonly gradients: number;
  /** The two moments of AdamW, float32. */
  readonly moments: number;
  /** The 16 bits that make float32 masters of bfloat16 weights. */
  readonly masters: number;
  /** What the forward pass keeps for the backward pass. */
  readonly activations: number;
  /** Logits of one chunk, the output matrix' gradient, and temporaries of one block. */
  readonly workspace: number;
  readonly total: number;
}

/** Memory for one training step on `batch` sequences of `seqLen` tokens, by counting what each op saves. An estimate:
 * allocators round up, and kernels have scratch space of their own. Allocates nothing.
 * @throws GsaError INVALID_CONFIG, INVALID_ARGUMENT */
export function trainingMemory(
  given: GSAConfig,
  options: { batch: number; seqLen: number; dtype?: 'float32' | 'bfloat16'; backend?: BackendName },
): TrainingMemory {
  const config = checkedConfig(given);
  checkOptions(options ?? null, ['batch', 'seqLen', 'dtype', 'backend'], 'trainingMemory');
  const { batch, seqLen, dtype = 'float32', backend = 'cpu' } = options;
  for (const [name, value] of Object.entries({ batch, seqLen }))
    if (!Number.isSafeInteger(value) || value < 1)
      throw expected('an integer above 0', name, value, 'trainingMemory');
  if (dtype !== 'float32' && dtype !== 'bfloat16')
    throw expected('float32 or bfloat16', 'dtype', dtype, 'trainingMemory');
  if (backend !== 'cpu' && backend !== 'cuda')
    throw expected('cpu or cuda', 'backend', backend, 'trainingMemory');
  const bytes = dtype === 'bfloat16' ? 2 : 4;
  const n = parameterCount(config);
  const rows = batch * seqLen;
  const { hidden_size: D, intermediate_size: I, vocab_size, num_heads: HQ, num_slots: M } = config;
  const w = gsaWidths(config);
  // Per token and layer: two residual sums and two norm outputs; q, k, v before (each convolution and) silu, and after;
  // f; o and its norm; gate, up and their product.
  const copies = config.use_short_conv ? 3 : 2;
  const narrow = 4 * D + copies * (w.query + w.key + w.value) + w.gate + 2 * w.output + 3 * I;
  // Always float32: g, s, the slot logits, three norms' 1/rms.
  const wide = 2 * w.gate + HQ * M + 3;
  const perToken = config.num_hidden_layers * (narrow * bytes + wide * 4) + 3 * D * bytes;
  const chunkRows = lossChunkRows(rows, vocab_size, dtype, backend);
  const parts = {
    weights: n * bytes,
    gradients: n * bytes,
    moments: n * 8,
    masters: dtype === 'bfloat16' ? n * 2 : 0,
    activations: rows * perToken,
    workspace: chunkRows * vocab_size * bytes + vocab_size * D * 4 + rows * (2 * D + 2 * I) * bytes,
  };
  return { ...parts, total: Object.values(parts).reduce((a, b) => a + b, 0) };
}
