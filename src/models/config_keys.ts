// Keys of config.json that this package does not act on. Every one is here for a reason: a configuration that asks for
// something else than what is computed must be refused, never silently run.

/** Written by the transformers library into every configuration, or notes on where a checkpoint came from; they describe
 * the file, its tokens or text generation by that library, not the function that the weights compute. */
export const METADATA_KEYS: ReadonlySet<string> = new Set([
  '_name_or_path',
  '_commit_hash',
  'name_or_path',
  'architectures',
  'auto_map',
  'torch_dtype',
  'dtype',
  'transformers_version',
  'use_cache',
  'return_dict',
  'output_hidden_states',
  'output_attentions',
  '_attn_implementation_autoset',
  'torchscript',
  'tokenizer_class',
  'prefix',
  'sep_token_id',
  'decoder_start_token_id',
  'finetuning_task',
  'task_specific_params',
  'problem_type',
  'id2label',
  'label2id',
  'num_labels',
  'tf_legacy_loss',
  'use_bfloat16',
  'chunk_size_feed_forward',
  // Defaults of text generation, in older files.
  'max_length',
  'min_length',
  'do_sample',
  'early_stopping',
  'num_beams',
  'num_beam_groups',
  'diversity_penalty',
  'temperature',
  'top_k',
  'top_p',
  'typical_p',
  'repetition_penalty',
  'length_penalty',
  'no_repeat_ngram_size',
  'encoder_no_repeat_ngram_size',
  'bad_words_ids',
  'num_return_sequences',
  'output_scores',
  'return_dict_in_generate',
  'forced_bos_token_id',
  'forced_eos_token_id',
  'remove_invalid_values',
  'exponential_decay_length_penalty',
  'suppress_tokens',
  'begin_suppress_tokens',
]);

interface FixedKey {
  readonly what: string;
  readonly why: string;
  readonly accept: (value: unknown, config: Readonly<Record<string, unknown>>) => boolean;
}

function at(values: readonly unknown[], why: string): FixedKey {
  return {
    what: values.map((v) => JSON.stringify(v)).join(' or '),
    why,
    accept: (value) => values.includes(value),
  };
}

const flag = (why: string): FixedKey => at([true, false], why);

/** Keys accepted only at values whose meaning is what this package computes. */
export const FIXED_KEYS: ReadonlyMap<string, FixedKey> = new Map([
  // How kernels are put together; the result is the same either way.
  ['fuse_norm', flag('it chooses a kernel')],
  ['fuse_swiglu', flag('it chooses a kernel')],
  ['fuse_cross_entropy', flag('it chooses a kernel')],
  ['fuse_linear_cross_entropy', flag('it chooses a kernel')],
  ['attn_mode', at(['chunk', 'fused_recurrent'], 'two ways to compute the same function; there is no third')],
  // Variants that are not implemented.
  ['attn', at([null], 'hybrid models with softmax attention layers are not implemented')],
  ['attnres_block_size', at([null], 'attention over residual blocks is not implemented')],
  [
    'use_output_gate',
    at([false], 'an output gate is not implemented, and published models have no weights for it'),
  ],
  ['use_norm', at([true], 'the layer always normalises its output')],
  ['use_l2warp', at([false], 'the L2Warp loss term is not implemented')],
  ['conv_bias', at([false], 'the short convolutions have no bias')],
  ['clamp_min', at([null], 'gates are not clamped')],
  ['clamp_max', at([null], 'gates are not clamped')],
  ['pruned_heads', { what: '{}', why: 'heads cannot be removed', accept: isEmptyObject }],
  ['quantization_config', at([null], 'quantised weights are not implemented')],
  ['is_encoder_decoder', at([false], 'the model is a decoder only')],
  ['is_decoder', at([false, true], 'the model is always a decoder')],
  ['add_cross_attention', at([false], 'there is no cross-attention')],
  ['cross_attention_hidden_size', at([null], 'there is no cross-attention')],
  ['tie_encoder_decoder', at([false], 'there is no encoder')],
  // Of older library versions; published checkpoints have them at these values.
  ['norm_first', at([true], 'blocks normalise before attention and before the feed-forward part')],
  ['use_rope', at([false], 'rotary positions are not implemented')],
  ['gate_low_rank_dim', at([null], 'the gate is one full projection, f_proj')],
  ['use_gk', at([true], 'the gate acts on the slots, in both passes')],
  ['use_gv', at([false], 'the gate acts on the slots, in both passes')],
  [
    'share_conv_kernel',
    {
      what: 'false when use_short_conv is true',
      why: 'q, k and v have convolutions of their own; without short convolutions the key has no meaning',
      accept: (value, config) => value === false || (value === true && config.use_short_conv !== true),
    },
  ],
]);

function isEmptyObject(value: unknown): boolean {
  return value !== null && typeof value === 'object' && Object.keys(value).length === 0;
}
