/** Token shards. A shard is 64 bytes of header and then tokens, all little-endian:
 *
 *     0   8  "GSATOKEN"
 *     8   4  version, 1
 *     12  4  bytes a token, 2 (vocabularies up to 65536) or 4
 *     16  8  number of tokens
 *     24  32 SHA-256 of the tokens' bytes
 *     56  8  zero
 *
 * The shards of a split are one stream in the order of their names; documents may span them. */
import { createHash, type Hash } from 'node:crypto';
import { closeSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { GsaError } from '../native/errors.js';
import { bytesOf, ioError, openForReading, readFully, writeFully } from '../io/files.js';

const MAGIC = Buffer.from('GSATOKEN');
const VERSION = 1;
export const HEADER_BYTES = 64;
const BUFFER_TOKENS = 1 << 19;

export type TokenBytes = 2 | 4;

export interface ShardInfo {
  readonly file: string;
  readonly tokens: number;
  /** Of the tokens' bytes, in hex. */
  readonly sha256: string;
}

/** The narrowest width that holds every id of a vocabulary. */
export function tokenBytes(vocabSize: number): TokenBytes {
  return vocabSize <= 65536 ? 2 : 4;
}

function tokenArray(width: TokenBytes, length: number): Uint16Array | Uint32Array {
  return width === 2 ? new Uint16Array(length) : new Uint32Array(length);
}

/** Appends tokens to as many shards as it takes. The folder is the caller's temporary one: nothing here is atomic. */
export class ShardWriter {
  readonly shards: ShardInfo[] = [];
  /** Tokens appended so far. */
  tokens = 0;
  readonly #buffer: Uint16Array | Uint32Array;
  #buffered = 0;
  #open: { fd: number; file: string; tokens: number; hash: Hash } | null = null;

  constructor(
    readonly folder: string,
    readonly split: string,
    readonly width: TokenBytes,
    readonly maxTokens: number,
  ) {
    this.#buffer = tokenArray(width, Math.min(BUFFER_TOKENS, maxTokens));
  }

  append(ids: Int32Array): void {
    this.tokens += ids.length;
    for (let at = 0; at < ids.length;) {
      const room = Math.min(this.#buffer.length, this.maxTokens - (this.#open?.tokens ?? 0)) - this.#buffered;
      const take = Math.min(room, ids.length - at);
      this.#buffer.set(ids.subarray(at, at + take), this.#buffered);
      this.#buffered += take;
      at += take;
      if (take === room) this.#flush();
    }
  }

  finish(): void {
    this.#flush();
    this.#close();
  }

  /** Gives the file descriptor back after an error. */
  abandon(): void {
    if (this.#open) closeSync(this.#open.fd);
    this.#open = null;
  }

  #flush(): void {
    if (this.#buffered === 0) return;
    const shard = (this.#open ??= this.#create());
    const bytes = bytesOf(this.#buffer.subarray(0, this.#buffered));
    shard.hash.update(bytes);
    this.#write(shard.file, () => writeFully(shard.fd, bytes));
    shard.tokens += this.#buffered;
    this.#buffered = 0;
    if (shard.tokens === this.maxTokens) this.#close();
  }

  #create() {
    const file = `${this.split}-${String(this.shards.length).padStart(5, '0')}.bin`;
    const fd = this.#write(file, () => openSync(join(this.folder, file), 'wx'));
    this.#write(file, () => writeFully(fd, Buffer.alloc(HEADER_BYTES)));
    return { fd, file, tokens: 0, hash: createHash('sha256') };
  }

  #close(): void {
    if (!this.#open) return;
    const { fd, file, tokens, hash } = this.#open;
    const digest = hash.digest();
    const header = Buffer.alloc(HEADER_BYTES);
    MAGIC.copy(header);
    header.writeUInt32LE(VERSION, 8);
    header.writeUInt32LE(this.width, 12);
    header.writeBigUInt64LE(BigInt(tokens), 16);
    digest.copy(header, 24);
    this.#write(file, () => writeSync(fd, header, 0, HEADER_BYTES, 0));
    this.abandon();
    this.shards.push({ file, tokens, sha256: digest.toString('hex') });
  }

  #write<T>(file: string, action: () => T): T {
    try {
      return action();
    } catch (error) {
      throw ioError(error, 'write', join(this.folder, file));
    }
  }
}

/** An opened shard. */
export class ShardReader {
  #fd: number | null;

  /** @throws GsaError INVALID_FILE naming the file when it is not the shard that the index describes, IO when the system
   * refuses. */
  constructor(
    readonly path: string,
    readonly info: ShardInfo,
    readonly width: TokenBytes,
  ) {
    const { fd, bytes } = openForReading(path);
    this.#fd = fd;
    try {
      this.#checkHeader(fd, bytes);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  #checkHeader(fd: number, bytes: number): void {
    const { tokens, sha256 } = this.info;
    const wanted = HEADER_BYTES + tokens * this.width;
    if (bytes !== wanted) throw this.#damaged(`Expected ${wanted} bytes but the file has ${bytes}`);
    const header = Buffer.alloc(HEADER_BYTES);
    readFully(fd, header, 0, this.path);
    if (!header.subarray(0, 8).equals(MAGIC)) throw this.#damaged('Expected a token shard ("GSATOKEN")');
    const version = header.readUInt32LE(8);
    if (version !== VERSION) throw this.#damaged(`Expected version ${VERSION} but received ${version}`);
    const agrees =
      header.readUInt32LE(12) === this.width &&
      header.readBigUInt64LE(16) === BigInt(tokens) &&
      header.toString('hex', 24, 56) === sha256;
    if (!agrees) throw this.#damaged('Expected the token width, count and checksum that index.json says');
  }

  #damaged(message: string): GsaError {
    return new GsaError('INVALID_FILE', `${this.path}: ${message}; delete its folder to build it again`);
  }

  /** Tokens [start, start + target.length), which must lie in the shard. */
  read(start: number, target: Int32Array, vocabSize: number): void {
    const raw = tokenArray(this.width, target.length);
    readFully(this.#descriptor(), raw, HEADER_BYTES + start * this.width, this.path);
    for (let i = 0; i < raw.length; i++) {
      const id = raw[i]!;
      if (id >= vocabSize)
        throw this.#damaged(`Expected ids below ${vocabSize} but token ${start + i} is ${id}`);
      target[i] = id;
    }
  }

  /** Reads all of it and compares the checksum.
   * @throws GsaError INVALID_FILE naming the file. */
  verify(): void {
    const hash = createHash('sha256');
    const piece = new Uint8Array(BUFFER_TOKENS * this.width);
    const bytes = this.info.tokens * this.width;
    for (let at = 0; at < bytes; at += piece.length) {
      const part = piece.subarray(0, Math.min(piece.length, bytes - at));
      readFully(this.#descriptor(), part, HEADER_BYTES + at, this.path);
      hash.update(part);
    }
    if (hash.digest('hex') !== this.info.sha256)
      throw this.#damaged('Expected tokens that fit the checksum but the file was changed');
  }

  /** Twice is harmless. */
  close(): void {
    if (this.#fd !== null) closeSync(this.#fd);
    this.#fd = null;
  }

  #descriptor(): number {
    if (this.#fd !== null) return this.#fd;
    throw new GsaError('USE_AFTER_DISPOSE', `Expected open tokens of ${this.path} but they were closed`);
  }
}
