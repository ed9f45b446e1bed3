/** Reading packed tokens. */
import { join } from 'node:path';
import { GsaError, checkOptions, expected } from '../native/errors.js';
import { readIndex, type DatasetIndex, type SplitName } from './dataset-index.js';
import { ShardReader } from './shard-file.js';

/** Every shard is held open; this is the largest range that read() converts in one piece. */
const PIECE_TOKENS = 1 << 20;

/** One split as a single stream of tokens: documents one after the other, each followed by `eosId`. */
export interface TokenSource {
  /** Number of tokens. */
  readonly length: number;
  readonly eosId: number;
  readonly vocabSize: number;
  /** Tokens [start, start + target.length) into `target`.
   * @throws GsaError INVALID_ARGUMENT for a range outside the stream. */
  read(start: number, target: Int32Array): void;
}

/** @throws GsaError INVALID_ARGUMENT unless [start, start + count) lies in [0, length). */
export function checkRange(start: number, count: number, length: number): void {
  if (!Number.isSafeInteger(start) || start < 0 || start + count > length)
    throw expected(`a range inside ${length} tokens`, 'start and length', [start, count], 'read');
}

/** @throws GsaError INVALID_ARGUMENT */
function checkTarget(target: unknown): void {
  if (!(target instanceof Int32Array)) throw expected('an Int32Array', 'target', target, 'read');
}

/** @throws GsaError INVALID_ARGUMENT unless `source` is a stream of tokens. */
export function checkSource(source: unknown, name: string, op: string): void {
  const { length, eosId, vocabSize, read } = (source ?? {}) as Partial<TokenSource>;
  const counts = [length, eosId, vocabSize].every((n) => Number.isSafeInteger(n) && n! >= 0);
  if (!counts || typeof read !== 'function')
    throw expected('a TokenSource: tokensInMemory(), or a split of a TokenDataset', name, source, op);
}

/** Tokens in memory, for small data and tests.
 * @throws GsaError INVALID_ARGUMENT for an id, or an eosId, outside [0, vocabSize). */
export function tokensInMemory(ids: Int32Array, options: { eosId: number; vocabSize: number }): TokenSource {
  if (!(ids instanceof Int32Array)) throw expected('an Int32Array', 'ids', ids, 'tokensInMemory');
  checkOptions(options ?? null, ['eosId', 'vocabSize'], 'tokensInMemory');
  const { eosId, vocabSize } = options;
  if (!Number.isSafeInteger(vocabSize) || vocabSize < 1)
    throw expected('an integer above 0', 'vocabSize', vocabSize, 'tokensInMemory');
  if (!Number.isInteger(eosId) || eosId < 0 || eosId >= vocabSize)
    throw expected(`an id in [0, ${vocabSize})`, 'eosId', eosId, 'tokensInMemory');
  for (const id of ids) if (id < 0 || id >= vocabSize) throw expected(`ids in [0, ${vocabSize})`, 'ids', id);
  return {
    length: ids.length,
    eosId,
    vocabSize,
    read(start, target) {
      checkTarget(target);
      checkRange(start, target.length, ids.length);
      target.set(ids.subarray(start, start + target.length));
    },
  };
}

class ShardedSplit implements TokenSource {
  readonly length: number;
  readonly #starts: number[] = [];

  constructor(
    readonly shards: readonly ShardReader[],
    readonly eosId: number,
    readonly vocabSize: number,
  ) {
    let length = 0;
    for (const shard of shards) {
      this.#starts.push(length);
      length += shard.info.tokens;
    }
    this.length = length;
  }

  read(start: number, target: Int32Array): void {
    checkTarget(target);
    checkRange(start, target.length, this.length);
    let at = 0;
    for (let i = this.#shardOf(start); at < target.length;) {
      const inside = start + at - this.#starts[i]!;
      const shard = this.shards[i]!;
      const take = Math.min(target.length - at, shard.info.tokens - inside, PIECE_TOKENS);
      shard.read(inside, target.subarray(at, at + take), this.vocabSize);
      at += take;
      if (inside + take === shard.info.tokens) i++;
    }
  }

  /** The last shard that starts at or before `position`. */
  #shardOf(position: number): number {
    let low = 0;
    let high = this.#starts.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.#starts[middle]! <= position) low = middle;
      else high = middle - 1;
    }
    return low;
  }
}

/** A folder of token shards, opened for reading; close() it (or `using`) to give the file descriptors back. */
export class TokenDataset {
  readonly #shards: ShardReader[];
  readonly #splits: Readonly<Record<SplitName, TokenSource>>;
  #closed = false;

  private constructor(
    readonly folder: string,
    readonly index: DatasetIndex,
  ) {
    this.#shards = [];
    const open = (name: SplitName) => {
      const shards = index.splits[name].shards.map((info) => {
        const shard = new ShardReader(join(folder, info.file), info, index.bytesPerToken);
        this.#shards.push(shard);
        return shard;
      });
      return new ShardedSplit(shards, index.eosId, index.tokenizer.vocabSize);
    };
    try {
      this.#splits = { train: open('train'), validation: open('validation') };
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** Opens a folder that writeShards() made.
   * @param options.verify reads all tokens once and compares the checksums (default; about a second a gigabyte)
   * @throws GsaError INVALID_FILE naming the file that is truncated or changed, IO when one is missing or the system
   * refuses. */
  static open(folder: string, options: { verify?: boolean } = {}): TokenDataset {
    checkOptions(options, ['verify'], 'TokenDataset.open');
    const dataset = new TokenDataset(folder, readIndex(folder));
    try {
      if (options.verify ?? true) for (const shard of dataset.#shards) shard.verify();
    } catch (error) {
      dataset.close();
      throw error;
    }
    return dataset;
  }

  /** @throws GsaError USE_AFTER_DISPOSE after close(), INVALID_ARGUMENT for another name. */
  split(name: SplitName): TokenSource {
    if (name !== 'train' && name !== 'validation')
      throw expected('"train" or "validation"', 'name', name, 'split');
    if (this.#closed)
      throw new GsaError('USE_AFTER_DISPOSE', `Expected open tokens of ${this.folder} but they were closed`);
    return this.#splits[name];
  }

  /** Twice is harmless. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const shard of this.#shards) shard.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
