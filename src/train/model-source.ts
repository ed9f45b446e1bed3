import { existsSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { ioError } from '../io/files.js';
import { INDEX_FILE, WEIGHTS_FILE } from '../io/safetensors.js';
import { parseGsaConfig, type GSAConfig } from '../models/index.js';
import { GsaError, show } from '../native/errors.js';

/** Where a run's model comes from. */
export interface ModelSource {
  /** As written, not checked: `vocab_size` and the token ids may be missing until the tokenizer is known. */
  readonly raw: Readonly<Record<string, unknown>>;
  /** Folder whose weights are trained further, or null for fresh ones. */
  readonly weights: string | null;
  /** The tokenizer.json beside the weights, if any. */
  readonly tokenizer: string | null;
}

/** What a tokenizer says about the model on top of it. */
export interface VocabularyInfo {
  readonly vocabSize: number;
  readonly bosId: number | null;
  readonly eosId: number | null;
}

function readJson(path: string): Record<string, unknown> {
  let json: unknown;
  try {
    json = JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw ioError(error, 'read', path);
    throw new GsaError('INVALID_CONFIG', `${path}: Expected JSON but ${error.message}`, { cause: error });
  }
  if (json === null || typeof json !== 'object' || Array.isArray(json))
    throw new GsaError('INVALID_CONFIG', `${path}: Expected an object but received ${show(json)}`);
  return json as Record<string, unknown>;
}

/** Reads the `model` of a training configuration: an inline object, the path of a config.json, or a folder with one and
 * perhaps with weights.
 * @throws GsaError IO, INVALID_CONFIG */
export function modelSource(model: string | Readonly<Record<string, unknown>>): ModelSource {
  if (typeof model !== 'string') return { raw: model, weights: null, tokenizer: null };
  if (!existsSync(model) || !statSync(model).isDirectory())
    return { raw: readJson(model), weights: null, tokenizer: null };
  const has = (name: string): boolean => existsSync(join(model, name));
  return {
    raw: readJson(join(model, 'config.json')),
    weights: has(WEIGHTS_FILE) || has(INDEX_FILE) ? model : null,
    tokenizer: has('tokenizer.json') ? join(model, 'tokenizer.json') : null,
  };
}

/** The checked model configuration on top of a tokenizer: `vocab_size` and token ids that the source leaves open are the
 * tokenizer's.
 * @throws GsaError INVALID_CONFIG, also when the tokenizer has more tokens than the model */
export function modelConfig(source: ModelSource, vocabulary: VocabularyInfo): GSAConfig {
  const config = parseGsaConfig({
    vocab_size: vocabulary.vocabSize,
    bos_token_id: vocabulary.bosId,
    eos_token_id: vocabulary.eosId,
    ...source.raw,
  });
  if (config.vocab_size < vocabulary.vocabSize)
    throw new GsaError(
      'INVALID_CONFIG',
      `Expected a model vocab_size of at least ${vocabulary.vocabSize}, the tokens of the tokenizer, but received ${config.vocab_size}; leave vocab_size out to take the tokenizer's`,
    );
  return config;
}
