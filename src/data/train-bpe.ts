/** Training a vocabulary on the user's text. The `tokenizers` package encodes with it but does not make it: its own train()
 * takes neither a vocabulary size nor special tokens, reads line by line and stops the event loop. */
import { Worker } from 'node:worker_threads';
import { GsaError, checkOptions, expected, type GsaErrorCode } from '../native/errors.js';
import type { Learned } from './bpe.js';
import { checkHeldOut, type HeldOut } from './held-out.js';
import type { ReadOptions } from './readers.js';

export const END_OF_TEXT = '<|endoftext|>';

/** Ids are stored with pairs of them in one exact number, see bpe.ts. */
const MAX_VOCAB = 2 ** 21;

export interface TrainBpeOptions extends Pick<ReadOptions, 'textField' | 'separator' | 'signal'> {
  /** Tokens in all: special ones, the 256 bytes, and what merges add. Fewer when the text has no more pairs to merge. */
  vocabSize: number;
  /** Control tokens, which get the first ids; the first of them ends documents. [END_OF_TEXT] when absent. */
  specials?: readonly string[];
  /** A pair must occur this often to be merged; 2 when absent. */
  minCount?: number;
  /** Documents of the validation split are left out. */
  heldOut?: HeldOut;
}

export interface TrainedBpe {
  /** The content of a tokenizer.json. */
  readonly json: string;
  readonly vocabSize: number;
  readonly documents: number;
}

/** What the worker is given and what it answers. */
export interface TrainBpeJob {
  readonly paths: readonly string[];
  readonly specials: readonly string[];
  readonly options: Pick<TrainBpeOptions, 'vocabSize' | 'minCount' | 'heldOut' | 'textField' | 'separator'>;
}
export type TrainBpeAnswer =
  | { readonly learned: Learned; readonly documents: number }
  | { readonly code: GsaErrorCode; readonly message: string };

/** Trains a byte-level BPE vocabulary on .txt and .jsonl files and folders of them, in a worker thread. The same text gives
 * the same vocabulary. Every byte is a token, so any text can be encoded and comes back unchanged.
 * @throws GsaError INVALID_ARGUMENT for a vocabulary smaller than special tokens and bytes, INVALID_FILE and IO as
 * readDocuments(), ABORTED by the signal. */
export async function trainBpe(paths: readonly string[], options: TrainBpeOptions): Promise<TrainedBpe> {
  checkOptions(options ?? null, undefined, 'trainBpe');
  if (!Array.isArray(paths) || !paths.every((path) => typeof path === 'string'))
    throw expected('a list of files and folders', 'paths', paths, 'trainBpe');
  const specials = checkSpecials(options.specials ?? [END_OF_TEXT]);
  const { vocabSize, minCount = 2, signal } = options;
  const least = specials.length + 256;
  if (!Number.isInteger(vocabSize) || vocabSize < least || vocabSize > MAX_VOCAB)
    throw expected(
      `an integer in [${least}, ${MAX_VOCAB}] (${specials.length} special tokens, 256 bytes, merges)`,
      'vocabSize',
      vocabSize,
    );
  if (!Number.isInteger(minCount) || minCount < 1) throw expected('a positive integer', 'minCount', minCount);
  const { heldOut, textField, separator } = options;
  if (heldOut !== undefined) checkHeldOut(heldOut);
  for (const [name, value] of Object.entries({ textField, separator }))
    if (value !== undefined && typeof value !== 'string') throw expected('a string', name, value, 'trainBpe');
  if (signal !== undefined && !(signal instanceof AbortSignal))
    throw expected('an AbortSignal', 'signal', signal, 'trainBpe');
  const job: TrainBpeJob = {
    paths,
    specials,
    options: { vocabSize, minCount, heldOut, textField, separator },
  };
  const answer = await runWorker(job, signal);
  if ('code' in answer) throw new GsaError(answer.code, answer.message);
  return {
    json: tokenizerJson(answer.learned, specials.length),
    vocabSize: answer.learned.tokens.length,
    documents: answer.documents,
  };
}

function checkSpecials(specials: readonly string[]): readonly string[] {
  const ok =
    Array.isArray(specials) &&
    specials.length > 0 &&
    new Set(specials).size === specials.length &&
    // One character could be the name of a byte.
    specials.every((token) => typeof token === 'string' && token.length > 1);
  if (!ok)
    throw expected(
      'different texts of at least two characters, the first ending documents',
      'specials',
      specials,
    );
  return specials;
}

function runWorker(job: TrainBpeJob, signal: AbortSignal | undefined): Promise<TrainBpeAnswer> {
  const aborted = () => new GsaError('ABORTED', 'Training a vocabulary was aborted by the caller');
  if (signal?.aborted) return Promise.reject(aborted());
  return new Promise((resolve, reject) => {
    const worker = new Worker(new URL('./train-bpe-worker.js', import.meta.url), {
      workerData: job,
      // Not those of the process: with --input-type (a program given by -e) a worker's file would be refused.
      execArgv: [],
    });
    const onAbort = () => {
      reject(aborted());
      void worker.terminate();
    };
    signal?.addEventListener('abort', onAbort, { once: true });
    worker.once('message', resolve);
    worker.once('error', (error) => {
      const memory = (error as NodeJS.ErrnoException).code === 'ERR_WORKER_OUT_OF_MEMORY';
      const code = memory ? 'OUT_OF_MEMORY' : 'INTERNAL';
      reject(new GsaError(code, `Training a vocabulary failed: ${error.message}`, { cause: error }));
    });
    worker.once('exit', () => {
      signal?.removeEventListener('abort', onAbort);
      reject(new GsaError('INTERNAL', 'Training a vocabulary ended without a result'));
    });
  });
}

function tokenizerJson({ tokens, merges }: Learned, specials: number): string {
  const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true };
  const json = {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: tokens.slice(0, specials).map((content, id) => ({
      id,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: null,
    decoder: byteLevel,
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
      merges,
    },
  };
  return `${JSON.stringify(json, null, 1)}\n`;
}
