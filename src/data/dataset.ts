/** Reading packed tokens. */
import { join } from 'node:path';
import { GsaError, expected } from '../native/errors.js';
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

/** Tokens in memory, for small data and tests.
 * @throws GsaError INVALID_ARGUMENT for an id outside [0, vocabSize). */
export function tokensInMemory(ids: Int32Array, options: { eosId: number; vocabSize: number }): TokenSource {
  const { eosId, vocabSize } = options;
  for (const id of ids) if (id < 0 || id >= vocabSize) throw expected(`ids in [0, ${vocabSize})`, 'ids', id);
  return {
    length: ids.length,
    eosId,
    vocabSize,
    read(start, target) {
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
    const dataset = new TokenDataset(folder, readIndex(folder));
    try {
      if (options.verify ?? true) for (const shard of dataset.#shards) shard.verify();
    } catch (error) {
      dataset.close();
      throw error;
    }
    return dataset;
  }

  /** @throws GsaError USE_AFTER_DISPOSE after close(). */
  split(name: SplitName): TokenSource {
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
