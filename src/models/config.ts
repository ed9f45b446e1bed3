// Hand-written rather than a schema library: a third of the keys need a reason when refused ("published checkpoints
// have it at this value only"), which no schema expresses, and the command line should not pay for loading one.
import { readFileSync } from 'node:fs';
import { ioError } from '../io/files.js';
import { GsaError, expected, show } from '../native/errors.js';
import { closest } from '../native/suggest.js';
import { FIXED_KEYS, METADATA_KEYS } from './config_keys.js';

/** The Hugging Face configuration of model_type `gsa`, under its own names, with every default filled in. */
export interface GSAConfig {
  readonly model_type: 'gsa';
  readonly vocab_size: number;
  readonly hidden_size: number;
  readonly num_hidden_layers: number;
  /** Query heads. */
  readonly num_heads: number;
  /** Key/value heads, a divisor of num_heads. In JSON null means num_heads. */
  readonly num_kv_heads: number;
  /** Memory slots per key/value head. In JSON null means the key width of a head. */
  readonly num_slots: number;
  /** Width of all keys (values) together, over hidden_size. */
  readonly expand_k: number;
  readonly expand_v: number;
  /** g = logsigmoid(f) / gate_logit_normalizer */
  readonly gate_logit_normalizer: number;
  readonly use_short_conv: boolean;
  /** Taps of the short convolutions. */
  readonly conv_size: number;
  /** Of q and k; only "swish" (silu) is implemented. */
  readonly feature_map: 'swish';
  /** Of the feed-forward part; only "swish" (silu) is implemented. */
  readonly hidden_act: 'swish';
  /** Whether the norm after attention (g_norm) has a weight. The other norms always have one. */
  readonly elementwise_affine: boolean;
  /** Of every norm but g_norm, whose epsilon is always 1e-5: the published weights were trained so. */
  readonly norm_eps: number;
  /** intermediate_size in JSON null: hidden_ratio · hidden_size · 2/3, rounded up to a multiple of 256. */
  readonly hidden_ratio: number;
  readonly intermediate_size: number;
  /** The output projection is the embedding matrix. */
  readonly tie_word_embeddings: boolean;
  /** Standard deviation of the initial weights. */
  readonly initializer_range: number;
  /** The length the model was trained at; nothing in the model depends on it. */
  readonly max_position_embeddings: number;
  readonly bos_token_id: number | null;
  readonly eos_token_id: number | readonly number[] | null;
  /** Which token pads; in this model it is a token like any other (its embedding is trained too). */
  readonly pad_token_id: number | null;
}

interface Field {
  readonly default: unknown;
  readonly what: string;
  readonly accept: (value: unknown) => boolean;
}

const isInt = (v: unknown): v is number => Number.isSafeInteger(v);
const isNumber = (v: unknown): v is number => typeof v === 'number' && Number.isFinite(v);
const count = (value: number): Field => ({
  default: value,
  what: 'an integer above 0',
  accept: (v) => isInt(v) && v > 0,
});
const countOrNull = (value: number | null): Field => ({
  default: value,
  what: 'an integer above 0, or null',
  accept: (v) => v === null || (isInt(v) && v > 0),
});
const positive = (value: number): Field => ({
  default: value,
  what: 'a number above 0',
  accept: (v) => isNumber(v) && v > 0,
});
const flag = (value: boolean): Field => ({
  default: value,
  what: 'true or false',
  accept: (v) => typeof v === 'boolean',
});
const only = (values: readonly unknown[], why: string): Field => ({
  default: values[0],
  what: `${values.map(show).join(' or ')} (${why})`,
  accept: (v) => values.includes(v),
});
const token = (value: number | null): Field => ({
  default: value,
  what: 'a token id or null',
  accept: (v) => v === null || (isInt(v) && v >= 0),
});

/** Defaults are those of the configuration class that wrote the published files. */
const FIELDS: { readonly [K in keyof GSAConfig]: Field } = {
  model_type: only(['gsa'], 'this package runs no other model'),
  vocab_size: count(32000),
  hidden_size: count(2048),
  num_hidden_layers: {
    default: 24,
    what: 'an integer from 1 to 10000',
    accept: (v) => isInt(v) && v > 0 && v <= 10000,
  },
  num_heads: count(4),
  num_kv_heads: countOrNull(null),
  num_slots: countOrNull(64),
  expand_k: positive(1),
  expand_v: positive(1),
  gate_logit_normalizer: positive(8),
  use_short_conv: flag(false),
  conv_size: count(4),
  feature_map: only(['swish'], 'relu and t2r maps are not implemented; the published models use swish'),
  hidden_act: only(['swish', 'silu'], 'two names of one function; no other is implemented'),
  elementwise_affine: flag(true),
  norm_eps: positive(1e-6),
  hidden_ratio: {
    ...positive(4),
    what: 'a number above 0, or null',
    accept: (v) => v === null || (isNumber(v) && v > 0),
  },
  intermediate_size: countOrNull(null),
  tie_word_embeddings: flag(false),
  initializer_range: { default: 0.02, what: 'a number of at least 0', accept: (v) => isNumber(v) && v >= 0 },
  max_position_embeddings: count(2048),
  bos_token_id: token(1),
  eos_token_id: {
    default: 2,
    what: 'a token id, a list of them, or null',
    accept: (v) => v === null || (Array.isArray(v) ? v : [v]).every((n) => isInt(n) && n >= 0),
  },
  pad_token_id: token(null),
};

/** Every key that parseGsaConfig honours. */
export const GSA_CONFIG_KEYS: readonly string[] = Object.keys(FIELDS);

/** Checks a configuration as Hugging Face's config.json has it and fills in the defaults. A key is honoured (GSAConfig),
 * accepted because it changes nothing here (see config_keys.ts), accepted at the values whose meaning is implemented,
 * or refused by name.
 * @throws GsaError INVALID_CONFIG that lists every problem, with a suggestion for a misspelt key */
export function parseGsaConfig(json: unknown): GSAConfig {
  // A Map, say, has no keys of its own: every default would be taken.
  const plain = json && [Object.prototype, null].includes(Object.getPrototypeOf(json) as null);
  if (!plain) throw invalid([`Expected an object for the model configuration but received ${show(json)}`]);
  const given = json as Record<string, unknown>;
  const problems: string[] = [];
  const values: Record<string, unknown> = {};
  for (const [key, field] of Object.entries(FIELDS)) {
    const value = Object.hasOwn(given, key) ? given[key] : field.default;
    if (!field.accept(value)) problems.push(`Expected ${field.what} for ${key} but received ${show(value)}`);
    values[key] = value;
  }
  for (const [key, value] of Object.entries(given)) {
    if (Object.hasOwn(FIELDS, key) || METADATA_KEYS.has(key)) continue;
    const fixed = FIXED_KEYS.get(key);
    if (!fixed) problems.push(unknownKey(key));
    else if (!fixed.accept(value, given))
      problems.push(`Expected ${fixed.what} for ${key} but received ${show(value)}: ${fixed.why}`);
  }
  if (problems.length > 0) throw invalid(problems);
  const config = withDerived(values as unknown as GSAConfig);
  checkWidths(config);
  parsed.add(config);
  return Object.freeze(config);
}

/** Reads and checks a config.json.
 * @throws GsaError INVALID_CONFIG naming the file, IO */
export function readGsaConfig(path: string): GSAConfig {
  let json: unknown;
  try {
    json = JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw ioError(error, 'read', path);
    throw new GsaError('INVALID_CONFIG', `${path}: Expected JSON but ${error.message}`, { cause: error });
  }
  try {
    return parseGsaConfig(json);
  } catch (error) {
    if (!(error instanceof GsaError)) throw error;
    throw new GsaError(error.code, `${path}: ${error.message}`, { cause: error });
  }
}

function invalid(problems: readonly string[]): GsaError {
  return new GsaError('INVALID_CONFIG', problems.join('; '));
}

function unknownKey(key: string): string {
  const known = [...GSA_CONFIG_KEYS, ...FIXED_KEYS.keys(), ...METADATA_KEYS];
  const guess = closest(key, known);
  return `Unknown key ${show(key)} in the model configuration (${guess ? `did you mean "${guess}"?` : 'remove it'})`;
}

type Raw = { -readonly [K in keyof GSAConfig]: GSAConfig[K] | null };

function withDerived(raw: Raw): GSAConfig {
  const hidden_ratio = raw.hidden_ratio ?? 4;
  const hidden_size = raw.hidden_size!;
  return {
    ...(raw as GSAConfig),
    hidden_act: 'swish',
    hidden_ratio,
    num_kv_heads: raw.num_kv_heads ?? raw.num_heads!,
    num_slots: raw.num_slots ?? Math.trunc(Math.trunc(hidden_size * raw.expand_k!) / raw.num_heads!),
    intermediate_size:
      raw.intermediate_size ?? 256 * Math.ceil(Math.trunc((hidden_size * hidden_ratio * 2) / 3) / 256),
  };
}

const parsed = new WeakSet<GSAConfig>();

/** `config`, where parseGsaConfig gave it; anything else is checked and filled in as there.
 * @throws GsaError INVALID_CONFIG */
export function checkedConfig(config: GSAConfig): GSAConfig {
  return parsed.has(config) ? config : parseGsaConfig(config);
}

/** Widths that follow from a configuration. */
export interface GsaWidths {
  /** Of one head's keys and values. */
  readonly K: number;
  readonly V: number;
  /** Of all heads together: q; o and g_norm; k; v; f. */
  readonly query: number;
  readonly output: number;
  readonly key: number;
  readonly value: number;
  readonly gate: number;
}

/** The widths of all tensors of a layer. @throws GsaError INVALID_CONFIG */
export function gsaWidths(config: GSAConfig): GsaWidths {
  return widthsOf(checkedConfig(config));
}

function widthsOf(config: GSAConfig): GsaWidths {
  const query = Math.trunc(config.hidden_size * config.expand_k);
  const output = Math.trunc(config.hidden_size * config.expand_v);
  const K = Math.trunc(query / config.num_heads);
  const V = Math.trunc(output / config.num_heads);
  const H = config.num_kv_heads;
  return { K, V, query, output, key: H * K, value: H * V, gate: H * config.num_slots };
}

function checkWidths(config: GSAConfig): void {
  const { num_heads, num_kv_heads, hidden_size } = config;
  const { query, output } = widthsOf(config);
  const problems: string[] = [];
  if (num_heads % num_kv_heads !== 0)
    problems.push(
      `Expected a divisor of num_heads (${num_heads}) for num_kv_heads but received ${num_kv_heads}`,
    );
  for (const [name, width] of [
    ['expand_k', query],
    ['expand_v', output],
  ] as const)
    if (width < 1 || width % num_heads !== 0)
      problems.push(
        `Expected hidden_size · ${name} (${width}) to be a multiple of num_heads (${num_heads}); change hidden_size, ${name} or num_heads`,
      );
  if (config.elementwise_affine && output !== hidden_size)
    problems.push(
      `Expected expand_v 1 or elementwise_affine false but received expand_v ${config.expand_v}: the weight of g_norm has hidden_size elements in checkpoints of this kind`,
    );
  if (problems.length > 0) throw invalid(problems);
}

/** The configuration in the form of Hugging Face's config.json, readable by flash-linear-attention and by
 * parseGsaConfig. `dtype` is that of the stored weights. */
export function toHuggingFace(config: GSAConfig, dtype: 'float32' | 'bfloat16'): Record<string, unknown> {
  if (dtype !== 'float32' && dtype !== 'bfloat16')
    throw expected('float32 or bfloat16', 'dtype', dtype, 'toHuggingFace');
  return {
    architectures: ['GSAForCausalLM'],
    ...checkedConfig(config),
    torch_dtype: dtype,
    attn: null,
    clamp_max: null,
    clamp_min: null,
    fuse_cross_entropy: true,
    fuse_norm: true,
    use_cache: true,
    use_norm: true,
    use_output_gate: false,
  };
}
