import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { BatchSampler, validationBatches, type Batch, type SamplerState } from '../data/sampler.js';
import type { TokenDataset } from '../data/dataset.js';
import { unigramEntropy } from '../data/entropy.js';
import { openOrWriteShards } from '../data/shards.js';
import { loadTokenizer, parseTokenizer, TOKENIZER_FILE, type Tokenizer } from '../data/tokenizer.js';
import { trainBpe } from '../data/train-bpe.js';
import { writeFileAtomic } from '../io/atomic.js';
import { compact } from './format.js';
import { modelSource } from './model-source.js';
import { DEFAULT_VOCABULARY, type TrainConfig } from './schema.js';

/** A training's text, packed and opened. close() it. */
export class PreparedText {
  readonly tokenizer: Tokenizer;
  /** Of the packed tokens: equal when a resumed run reads what the run before read. */
  readonly fingerprint: string;
  readonly trainTokens: number;
  readonly validationTokens: number;
  readonly #dataset: TokenDataset;
  readonly #sampler: BatchSampler;
  readonly #seqLen: number;

  constructor(config: TrainConfig, tokenizer: Tokenizer, dataset: TokenDataset) {
    const { seqLen } = config.data;
    this.tokenizer = tokenizer;
    this.#dataset = dataset;
    this.#seqLen = seqLen;
    const { train, validation } = dataset.index.splits;
    const hash = createHash('sha256');
    for (const shard of [...train.shards, ...validation.shards]) hash.update(shard.sha256);
    this.fingerprint = hash.digest('hex');
    this.trainTokens = train.tokens;
    this.validationTokens = validation.tokens;
    const { batchSize: batch, seed } = config;
    this.#sampler = new BatchSampler(dataset.split('train'), { batch, seqLen, seed });
  }

  nextBatch(): Batch {
    return this.#sampler.next();
  }

  samplerState(): SamplerState {
    return this.#sampler.state();
  }

  /** @throws GsaError INVALID_ARGUMENT for the state of another text */
  restoreSampler(state: SamplerState): void {
    this.#sampler.restore(state);
  }

  /** The first batches of the held-out text, in order; none when there is no such text. */
  validationBatches(batch: number, limit: number): Iterable<Batch> {
    if (this.validationTokens < 2) return [];
    return validationBatches(this.#dataset.split('validation'), { batch, seqLen: this.#seqLen, limit });
  }

  /** Entropy of the held-out text's token frequencies, nats per token: a loss below it shows that context is used. Null
   * without held-out text. Reads all of the text. */
  unigramEntropy(): number | null {
    if (this.validationTokens === 0) return null;
    return unigramEntropy(this.#dataset.split('train'), this.#dataset.split('validation')).entropy;
  }

  close(): void {
    this.#dataset.close();
  }
}

/** The path of the tokenizer.json that a configuration means, or what to train. */
export function tokenizerSource(
  config: TrainConfig,
): string | { readonly train: { readonly vocabSize: number } } {
  const chosen = config.data.tokenizer ?? modelSource(config.model).tokenizer;
  return chosen ?? { train: { vocabSize: DEFAULT_VOCABULARY } };
}

export interface PrepareOptions {
  /** The checkpoint folder of the run that goes on: its tokenizer, and no change of its text. Null at the beginning. */
  readonly resumed: string | null;
  readonly signal?: AbortSignal;
  readonly onStatus: (message: string) => void;
}

/** Readies the text of a run: trains or loads the tokenizer, packs the documents into token shards unless they are packed
 * already, and opens them.
 * @throws GsaError INVALID_ARGUMENT, INVALID_FILE and IO as src/data; ABORTED by the signal */
export async function prepareText(config: TrainConfig, options: PrepareOptions): Promise<PreparedText> {
  const { resumed, signal, onStatus } = options;
  const { train: paths, textField, separator, validationFraction, cache } = config.data;
  const heldOut = { fraction: validationFraction, seed: config.seed };
  const tokenizer = resumed
    ? loadTokenizer(join(resumed, TOKENIZER_FILE))
    : await makeTokenizer(config, { textField, separator, heldOut, signal }, onStatus);
  const { dataset, packed } = await openOrWriteShards(cache ?? join(config.output, 'data'), {
    paths,
    tokenizer,
    heldOut,
    textField,
    separator,
    signal,
    // Another run may be reading a shared folder.
    whenChanged: resumed || cache ? 'refuse' : 'rebuild',
  });
  try {
    const { train, validation } = dataset.index.splits;
    onStatus(
      `${packed ? 'packed' : 'found'} ${compact(train.tokens + validation.tokens)} tokens of ${train.documents + validation.documents} documents, ${validation.documents} of them held out`,
    );
    if (validation.documents === 0 && validationFraction > 0)
      onStatus('no validation: the text is a single document; data.separator cuts a file into several');
    return new PreparedText(config, tokenizer, dataset);
  } catch (error) {
    dataset.close();
    throw error;
  }
}

type BpeSettings = Omit<Parameters<typeof trainBpe>[1], 'vocabSize'>;

async function makeTokenizer(
  config: TrainConfig,
  settings: BpeSettings,
  onStatus: (message: string) => void,
): Promise<Tokenizer> {
  const source = tokenizerSource(config);
  if (typeof source === 'string') return loadTokenizer(source);
  const { vocabSize } = source.train;
  onStatus(`training a vocabulary of ${vocabSize} tokens`);
  const trained = await trainBpe(config.data.train, { ...settings, vocabSize });
  writeFileAtomic(join(config.output, TOKENIZER_FILE), trained.json);
  return parseTokenizer(trained.json);
}
