import { join } from 'node:path';
import { GsaError, checkOptions, checkPath, expected, show } from '../native/errors.js';
import { Module, type Parts } from '../nn/index.js';
import { countLabels, linear, linearCrossEntropy, narrow } from '../ops/index.js';
import { checkFlag, checkOptional } from '../ops/check.js';
import { type Device, device as deviceOf } from '../tensor/device.js';
import { checkDType, FLOAT8_MULTIPLE, MATMUL_MODES, type MatmulMode } from '../tensor/dtype.js';
import { scope } from '../tensor/scope.js';
import { sameShape, shapeText } from '../tensor/shape.js';
import { Tensor } from '../tensor/tensor.js';
import { GsaBackbone } from './blocks.js';
import { CONFIG_FILE, loadWeights, materialise, saveWeights, type WeightDType } from './checkpoint.js';
import { parseGsaConfig, readGsaConfig, type GSAConfig } from './config.js';
import { parameterDType, parameterSpecs } from './parameters.js';
import { checkState, ModelState, zeroState } from './state.js';

export interface ModelOptions {
  /** Default "cpu". */
  device?: string | Device;
  /** What weights are held and computed in; default float32. Those of norms are float32 in either. */
  dtype?: WeightDType;
  /** What the products of the blocks are computed in where gradients are recorded: `dtype` (default), or 8-bit floats, for
   * which the extents of all matrices of the blocks have to be multiples of 16, and the tokens of a batch too. Weights,
   * gradients, checkpoints and everything without gradients stay as they are. */
  matmul?: MatmulMode;
}

export interface ForwardOptions {
  /** int32 [N + 1] on the model's device: where each sequence starts along T, and T; needs B = 1. */
  cuSeqlens?: Tensor | null;
  /** State before the first token, for each sequence; not changed. With it the state after the last token is returned. */
  state?: ModelState | null;
  /** Return the state after the last token also when none was given. */
  outputState?: boolean;
}

const MODEL_OPTIONS = ['device', 'dtype', 'matmul'] as const;
const FORWARD_OPTIONS = ['cuSeqlens', 'state', 'outputState'] as const;

/** A gated slot attention language model (arXiv 2409.07146) with the parameters of Hugging Face's model_type `gsa`. */
export class GSAForCausalLM extends Module {
  readonly config: GSAConfig;
  readonly device: Device;
  readonly dtype: WeightDType;
  readonly matmul: MatmulMode;
  readonly #model: GsaBackbone;
  /** [vocabulary, D]: the embeddings when they are tied. */
  readonly #head: Tensor;

  private constructor(
    config: GSAConfig,
    weights: ReadonlyMap<string, Tensor>,
    options: Required<ModelOptions>,
  ) {
    super();
    this.config = config;
    this.device = deviceOf(options.device);
    this.dtype = options.dtype;
    this.matmul = options.matmul;
    try {
      this.#model = new GsaBackbone(config, weights, 'model.', options.matmul);
    } catch (error) {
      // Blocks made before the failure hold their weights in storage of their own; what is left is here.
      for (const tensor of weights.values()) tensor.dispose();
      throw error;
    }
    this.#head = weights.get('lm_head.weight') ?? this.#model.embeddings.weight;
  }

  /** A model with fresh weights: normal(0, initializer_range), norms 1. Each parameter's numbers depend only on the seed,
   * its name and its shape, on every device.
   * @throws GsaError INVALID_CONFIG, OUT_OF_MEMORY */
  static create(config: GSAConfig | object, options: ModelOptions & { seed?: number } = {}): GSAForCausalLM {
    const checked = parseGsaConfig(config);
    checkOptions(options, [...MODEL_OPTIONS, 'seed'], 'create');
    const { seed = 0 } = options;
    if (!Number.isSafeInteger(seed) || seed < 0)
      throw expected('an integer of at least 0', 'seed', seed, 'create');
    const { device, dtype, matmul } = modelOptions(options, checked);
    const weights = materialise(parameterSpecs(checked), (spec) => {
      const { name, shape, init } = spec;
      const options = { device, dtype: parameterDType(spec, dtype) };
      if (init === 'ones') return Tensor.full(shape, 1, options);
      return Tensor.randn(shape, {
        ...options,
        seed,
        stream: nameHash(name),
        std: checked.initializer_range,
      });
    });
    return new GSAForCausalLM(checked, weights, { device, dtype, matmul });
  }

  /** Loads a folder in Hugging Face form: config.json, and model.safetensors or its shards. Weights stored as F32, BF16 or
   * F16 are converted to `dtype`.
   * @throws GsaError INVALID_CONFIG; INVALID_FILE that names each tensor missing, unexpected or of another shape; IO */
  static load(folder: string, options: ModelOptions = {}): GSAForCausalLM {
    checkPath(folder, 'folder', 'load');
    checkOptions(options, MODEL_OPTIONS, 'load');
    const config = readGsaConfig(join(folder, CONFIG_FILE));
    const { device, dtype, matmul } = modelOptions(options, config);
    const weights = loadWeights(folder, config, { device, dtype });
    return new GSAForCausalLM(config, weights, { device, dtype, matmul });
  }

  /** Writes config.json and model.safetensors, loadable here and by flash-linear-attention. `dtype` is that of the file.
   * @throws GsaError INVALID_ARGUMENT, IO */
  save(folder: string, options: { dtype?: WeightDType } = {}): void {
    checkPath(folder, 'folder', 'save');
    checkOptions(options, ['dtype'], 'save');
    saveWeights(folder, this.config, this.namedParameters(), weightDType(options.dtype ?? this.dtype));
  }

  protected parts(): Parts {
    return { model: this.#model, 'lm_head.weight': this.config.tie_word_embeddings ? null : this.#head };
  }

  /** The state before the first token of `batch` sequences. @throws GsaError INVALID_ARGUMENT */
  newState(batch: number): ModelState {
    return zeroState(this.config, batch, this.device, this.dtype);
  }

  /** ids [B, T], int32 or int64 on the model's device -> hidden [B, T, D] after the final norm.
   * @throws GsaError INVALID_ARGUMENT */
  forward(ids: Tensor, options: ForwardOptions = {}): { hidden: Tensor; state?: ModelState } {
    const [B, T] = this.#checkIds(ids);
    checkOptions(options, FORWARD_OPTIONS, 'forward');
    const { cuSeqlens, outputState = false } = options;
    checkFlag('forward', 'outputState', outputState);
    const offsets = checkOptional('forward', 'cuSeqlens', cuSeqlens, { ndim: 1, dtype: 'int32' });
    const sequences = offsets ? offsets.size - 1 : B;
    const before =
      options.state == null ? null : checkState(options.state, this.config, sequences, 'forward');
    const wanted = outputState || before !== null;
    const { hidden, state } = this.#model.forward(ids, {
      cuSeqlens,
      state: before?.layers,
      outputState: wanted,
    });
    if (!wanted) return { hidden };
    const seen = before ? before.tokens : 0;
    return { hidden, state: new ModelState(state, sequences, seen === null || cuSeqlens ? null : seen + T) };
  }

  /** Unnormalised log-probabilities of the next token: [B, T, vocabulary], or with `lastOnly` [B, 1, vocabulary] after the
   * last token.
   * @throws GsaError INVALID_ARGUMENT */
  logits(
    ids: Tensor,
    options: ForwardOptions & { lastOnly?: boolean } = {},
  ): { logits: Tensor; state?: ModelState } {
    checkOptions(options, [...FORWARD_OPTIONS, 'lastOnly'], 'logits');
    const { lastOnly = false, ...rest } = options;
    checkFlag('logits', 'lastOnly', lastOnly);
    let state: ModelState | undefined;
    try {
      const logits = scope(() => {
        const out = this.forward(ids, rest);
        state = out.state;
        const T = ids.shape[1]!;
        return linear(lastOnly && T > 1 ? narrow(out.hidden, 1, T - 1, 1) : out.hidden, this.#head);
      });
      return { logits, state };
    } catch (error) {
      state?.dispose();
      throw error;
    }
  }

  /** The summed cross-entropy of `labels` [B, T], where the label of a position is the token that follows it and −100 does
   * not count, with the number of labels that count: a mean over several batches is the sum of sums over the sum of
   * counts. Counting reads the labels on the host, which waits for the device unless `tokens` is given.
   * @throws GsaError INVALID_ARGUMENT */
  loss(
    ids: Tensor,
    labels: Tensor,
    options: { cuSeqlens?: Tensor | null; tokens?: number } = {},
  ): { loss: Tensor; tokens: number } {
    this.#checkIds(ids);
    if (!(labels instanceof Tensor)) throw expected('a Tensor', 'labels', labels, 'loss');
    if (!sameShape(labels.shape, ids.shape))
      throw expected(`shape ${shapeText(ids.shape)}`, 'labels', labels.shape, 'loss');
    checkOptions(options, ['cuSeqlens', 'tokens'], 'loss');
    const { cuSeqlens, tokens = countLabels(labels) } = options;
    if (!Number.isSafeInteger(tokens) || tokens < 0)
      throw expected('an integer of at least 0', 'tokens', tokens, 'loss');
    const loss = scope(() => {
      const { hidden } = this.forward(ids, { cuSeqlens });
      return linearCrossEntropy(hidden, this.#head, labels);
    });
    return { loss, tokens };
  }

  #checkIds(ids: unknown): [B: number, T: number] {
    if (!(ids instanceof Tensor)) throw expected('a Tensor', 'ids', ids, 'forward');
    if (ids.shape.length !== 2 || ids.size === 0)
      throw expected('shape [B, T] with at least one token', 'ids', ids.shape, 'forward');
    return ids.shape as unknown as [number, number];
  }
}

function weightDType(dtype: unknown): WeightDType {
  const checked = checkDType(dtype);
  if (checked === 'float32' || checked === 'bfloat16') return checked;
  throw new GsaError(
    'INVALID_ARGUMENT',
    `Expected float32 or bfloat16 for dtype but received ${show(dtype)}`,
  );
}

function modelOptions(
  options: ModelOptions,
  config: GSAConfig,
): { device: Device; dtype: WeightDType; matmul: MatmulMode } {
  const device = deviceOf(options.device ?? 'cpu');
  const dtype = weightDType(options.dtype ?? 'float32');
  return { device, dtype, matmul: checkMatmul(options.matmul ?? 'dtype', config) };
}

function checkMatmul(matmul: MatmulMode, config: GSAConfig): MatmulMode {
  if (!MATMUL_MODES.includes(matmul)) throw expected(`one of ${MATMUL_MODES.join(', ')}`, 'matmul', matmul);
  if (matmul === 'dtype') return matmul;
  const misfit = parameterSpecs(config).find(
    ({ name, shape }) => name.includes('_proj.') && shape.some((extent) => extent % FLOAT8_MULTIPLE !== 0),
  );
  if (misfit)
    throw new GsaError(
      'INVALID_CONFIG',
      `Expected extents that are multiples of ${FLOAT8_MULTIPLE} for 8-bit products but received ${shapeText(misfit.shape)} for ${misfit.name}; change the model, or take "dtype" for matmul`,
    );
  return matmul;
}

/** FNV-1a, 32 bits: a parameter's random stream does not move when another parameter is added before it. */
function nameHash(name: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193);
  return hash >>> 0;
}
