/** Batches for training and validation, from a stream of packed tokens. */
import { GsaError, checkOptions, expected, show } from '../native/errors.js';
import { checkSource, type TokenSource } from './dataset.js';
import { Permutation } from './permutation.js';

/** The label of a position that does not count; the ignoreIndex of the losses. */
export const IGNORED = -100;

export interface Batch {
  /** int32 [batch, seqLen], or [1, batch * seqLen] with `cuSeqlens`. */
  readonly ids: Int32Array;
  /** The token after each of `ids`, or IGNORED; of the same shape. */
  readonly labels: Int32Array;
  readonly shape: readonly [number, number];
  /** Labels that count. */
  readonly tokens: number;
  /** Where sequences start along the row, and its end: int32 [N + 1]. Only with `documents`. */
  readonly cuSeqlens: Int32Array | null;
}

export interface BatchSamplerOptions {
  /** Sequences in a batch. */
  batch: number;
  /** Tokens in a sequence. */
  seqLen: number;
  seed: number;
  /** This process's number and how many share the stream; 0 of 1 when absent. */
  rank?: number;
  world?: number;
  /** Gives one row with the document boundaries, for layers that take cu_seqlens: no state and no label crosses from one
   * document to the next. */
  documents?: boolean;
}

/** A place in the stream of batches, as plain JSON. */
export interface SamplerState {
  readonly epoch: number;
  /** Windows of this epoch that were given out, to all ranks together. */
  readonly index: number;
  /** What the place depends on; restore() refuses another. */
  readonly seed: number;
  readonly seqLen: number;
  readonly windows: number;
}

/** Gives windows of the stream in an order shuffled anew each epoch, without end. Window w holds tokens [w T, w T + T] : T
 * ids and, one further, T labels; fewer than T tokens at the end of the stream are not used. The order depends on seed,
 * T and the number of windows alone, so that batch size, accumulation and ranks cut the same sequence of windows. Epochs
 * follow each other without a short batch between them. */
export class BatchSampler {
  /** Windows in an epoch. */
  readonly windows: number;
  readonly #source: TokenSource;
  readonly #options: Required<BatchSamplerOptions>;
  #epoch = 0;
  #index = 0;
  #permutation: Permutation;

  /** @throws GsaError INVALID_ARGUMENT for options out of range, or a stream shorter than one window. */
  constructor(source: TokenSource, options: BatchSamplerOptions) {
    checkSource(source, 'source', 'BatchSampler');
    const names = ['batch', 'seqLen', 'seed', 'rank', 'world', 'documents'];
    checkOptions(options ?? null, names, 'BatchSampler');
    this.#options = { rank: 0, world: 1, documents: false, ...options };
    const { batch, seqLen, seed, rank, world } = this.#options;
    checkPositive(batch, 'batch');
    checkPositive(seqLen, 'seqLen');
    checkPositive(world, 'world');
    if (!Number.isSafeInteger(batch * seqLen) || batch * seqLen >= 2 ** 31)
      throw expected('fewer than 2^31 tokens', 'batch and seqLen', [batch, seqLen]);
    if (!Number.isInteger(rank) || rank < 0 || rank >= world)
      throw expected(`an integer in [0, ${world})`, 'rank', rank);
    if (!Number.isSafeInteger(seed) || seed < 0) throw expected('a non-negative integer', 'seed', seed);
    this.#source = source;
    this.windows = Math.floor(Math.max(0, source.length - 1) / seqLen);
    if (this.windows === 0)
      throw new GsaError(
        'INVALID_ARGUMENT',
        `Expected at least ${seqLen + 1} tokens for seqLen ${seqLen} but the text has ${source.length}; choose a smaller seqLen or add text`,
      );
    this.#permutation = new Permutation(this.windows, seed, 0);
  }

  /** Epochs begun and fractions of one, for showing progress. */
  get epochs(): number {
    return this.#epoch + this.#index / this.windows;
  }

  /** The next batch of this rank; the windows of the other ranks are passed over. */
  next(): Batch {
    const { batch, seqLen, rank, world, documents } = this.#options;
    const out = emptyBatch(batch, seqLen, documents);
    const window = new Int32Array(seqLen + 1);
    for (let i = 0; i < batch * world; i++) {
      const place = this.#advance();
      const row = i - rank * batch;
      if (row < 0 || row >= batch) continue;
      this.#source.read(place * seqLen, window);
      out.ids.set(window.subarray(0, seqLen), row * seqLen);
      out.labels.set(window.subarray(1), row * seqLen);
    }
    if (!documents) return out;
    const cuSeqlens = documentStarts(out, seqLen, this.#source.eosId);
    return { ...out, cuSeqlens, tokens: countLabels(out.labels) };
  }

  state(): SamplerState {
    const { seed, seqLen } = this.#options;
    return { epoch: this.#epoch, index: this.#index, seed, seqLen, windows: this.windows };
  }

  /** Goes on where state() was taken: the next batch is the one that followed then.
   * @throws GsaError INVALID_ARGUMENT for a state of another text, seed or seqLen. */
  restore(state: SamplerState): void {
    const own = this.state();
    for (const key of ['seed', 'seqLen', 'windows'] as const)
      if (state?.[key] !== own[key])
        throw expected(`${own[key]} as in this run`, `the ${key} of the sampler's state`, state?.[key]);
    const { epoch, index } = state;
    if (!Number.isSafeInteger(epoch) || epoch < 0) throw expected('a non-negative integer', 'epoch', epoch);
    if (!Number.isSafeInteger(index) || index < 0 || index >= this.windows)
      throw expected(`an integer in [0, ${this.windows})`, 'index', index);
    this.#epoch = epoch;
    this.#index = index;
    this.#permutation = new Permutation(this.windows, own.seed, epoch);
  }

  #advance(): number {
    const place = this.#permutation.at(this.#index++);
    if (this.#index === this.windows) {
      this.#index = 0;
      this.#epoch++;
      this.#permutation = new Permutation(this.windows, this.#options.seed, this.#epoch);
    }
    return place;
  }
}

function checkPositive(value: number, name: string): void {
  if (!Number.isSafeInteger(value) || value < 1) throw expected('a positive integer', name, value);
}

function emptyBatch(rows: number, seqLen: number, oneRow: boolean): Batch {
  const size = rows * seqLen;
  return {
    ids: new Int32Array(size),
    labels: new Int32Array(size),
    shape: oneRow ? [1, size] : [rows, seqLen],
    tokens: size,
    cuSeqlens: null,
  };
}

function countLabels(labels: Int32Array): number {
  let count = 0;
  for (const label of labels) if (label !== IGNORED) count++;
  return count;
}

/** A sequence starts at every window and after every end-of-document token, whose own label, the next document's first
 * token, is not to be learnt from this one. */
function documentStarts({ ids, labels }: Batch, seqLen: number, eosId: number): Int32Array {
  const starts: number[] = [];
  for (let i = 0; i < ids.length; i++) {
    if (i % seqLen === 0 || ids[i - 1] === eosId) starts.push(i);
    if (ids[i] === eosId) labels[i] = IGNORED;
  }
  return Int32Array.from([...starts, ids.length]);
}

/** The whole stream in order, each token but the first (which nothing precedes) as a label exactly once. The last window is
 * filled up with end-of-document tokens and IGNORED labels; the last batch may have fewer rows.
 * @param options.limit most batches
 * @throws GsaError INVALID_ARGUMENT for options out of range, or a stream of fewer than two tokens. */
export function* validationBatches(
  source: TokenSource,
  options: { batch: number; seqLen: number; limit?: number },
): Generator<Batch> {
  checkSource(source, 'source', 'validationBatches');
  checkOptions(options ?? null, undefined, 'validationBatches');
  const { batch, seqLen, limit = Number.MAX_SAFE_INTEGER } = options;
  checkPositive(batch, 'batch');
  checkPositive(seqLen, 'seqLen');
  checkPositive(limit, 'limit');
  if (batch * seqLen >= 2 ** 31)
    throw expected('fewer than 2^31 tokens', 'batch and seqLen', [batch, seqLen]);
  const labels = source.length - 1;
  if (labels < 1)
    throw new GsaError(
      'INVALID_ARGUMENT',
      `Expected at least 2 tokens to validate on but received ${show(source.length)}`,
    );
  const windows = Math.ceil(labels / seqLen);
  for (let first = 0, done = 0; first < windows && done < limit; first += batch, done++) {
    const out = emptyBatch(Math.min(batch, windows - first), seqLen, false);
    const start = first * seqLen;
    const count = Math.min(out.ids.length, labels - start);
    const tokens = new Int32Array(count + 1);
    source.read(start, tokens);
    out.ids.fill(source.eosId, count).set(tokens.subarray(0, count));
    out.labels.fill(IGNORED, count).set(tokens.subarray(1));
    yield { ...out, tokens: count };
  }
}
