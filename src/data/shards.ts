/** Packing documents into token shards on disk (format: shard-file.ts and dataset-index.ts). */
import { createHash, type Hash } from 'node:crypto';
import { existsSync, readdirSync, statSync, type Stats } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { removeStaleTemps, writeFileAtomic, writeFolderAtomic } from '../io/atomic.js';
import { ioError } from '../io/files.js';
import { GsaError, checkOptions, checkPath, expected, show } from '../native/errors.js';
import { TokenDataset } from './dataset.js';
import {
  INDEX_NAME,
  readIndex,
  type DatasetIndex,
  type SourceFile,
  type SplitName,
} from './dataset-index.js';
import { checkHeldOut, heldOutLimit, rankOf, type HeldOut } from './held-out.js';
import { readDocuments, type Document, type ReadOptions } from './readers.js';
import { ShardWriter, tokenBytes } from './shard-file.js';
import { changedSetting } from './source-files.js';
import { Tokenizer } from './tokenizer.js';

/** 256 or 512 MB a shard. */
const SHARD_TOKENS = 2 ** 27;
/** Documents are encoded together up to this many characters. */
const GROUP_CHARACTERS = 1 << 20;

export interface PackProgress {
  /** "reading" is the first pass, which only chooses the held-out documents. */
  readonly phase: 'reading' | 'packing';
  readonly documents: number;
  /** Of the files, so far and in all. */
  readonly bytes: number;
  readonly totalBytes: number;
}

export interface PackOptions extends Pick<ReadOptions, 'textField' | 'separator' | 'signal'> {
  /** .txt and .jsonl files, and folders searched for them. */
  paths: readonly string[];
  tokenizer: Tokenizer;
  /** The validation split, by document: no document, nor a copy of it, is on both sides. None when absent. */
  heldOut?: HeldOut;
  /** Most tokens a shard; 2^27 when absent. */
  shardTokens?: number;
  onProgress?: (progress: PackProgress) => void;
}

/** Reads documents, encodes them, and writes `folder` with the shards of both splits and index.json; the folder appears or
 * is replaced whole. Each document is followed by the tokenizer's end-of-document token.
 * @throws GsaError INVALID_ARGUMENT for a tokenizer without such a token, text without documents, or a folder that holds
 * anything else; INVALID_FILE and IO as readDocuments(); ABORTED by the signal. `folder` is then as before. */
export async function writeShards(folder: string, options: PackOptions): Promise<DatasetIndex> {
  checkPath(folder, 'folder', 'writeShards');
  checkOptions(options ?? null, undefined, 'writeShards');
  if (!(options.tokenizer instanceof Tokenizer))
    throw expected('a Tokenizer', 'tokenizer', options.tokenizer, 'writeShards');
  const { tokenizer, shardTokens = SHARD_TOKENS, heldOut = { fraction: 0, seed: 0 } } = options;
  checkHeldOut(heldOut);
  const { eosId } = tokenizer;
  if (eosId === null)
    throw new GsaError(
      'INVALID_ARGUMENT',
      'Expected a tokenizer with an end-of-document token but none was found; name it with the eosToken option of loadTokenizer()',
    );
  if (!Number.isSafeInteger(shardTokens) || shardTokens < 1)
    throw expected('a positive integer', 'shardTokens', shardTokens);
  refuseForeignFolder(folder);
  const plan = await readThrough(options, heldOut);
  await writeFolderAtomic(folder, async (temp) => {
    const { sources, splits } = await pack(temp, options, eosId, plan, shardTokens);
    const index: DatasetIndex = {
      format: 'flash-gsa tokens',
      version: 1,
      tokenizer: { sha256: tokenizer.sha256, vocabSize: tokenizer.vocabSize },
      eosId,
      bytesPerToken: tokenBytes(tokenizer.vocabSize),
      reading: { textField: options.textField ?? 'text', separator: options.separator ?? null },
      heldOut: { fraction: heldOut.fraction, seed: heldOut.seed },
      sources,
      emptyDocuments: plan.empty,
      splits,
    };
    writeFileAtomic(join(temp, INDEX_NAME), `${JSON.stringify(index, null, 1)}\n`);
  });
  return readIndex(folder);
}

/** Opens `folder` when it was packed from the same text with the same settings, else packs it (again).
 * @param options.whenChanged what to do with a folder packed from other text or with other settings: "rebuild" it, or
 * "refuse"
 * @returns the opened tokens, and whether they were packed now
 * @throws GsaError INVALID_ARGUMENT when they differ and `whenChanged` is "refuse"; else as writeShards() and
 * TokenDataset.open(). */
export async function openOrWriteShards(
  folder: string,
  options: PackOptions & { whenChanged: 'rebuild' | 'refuse' },
): Promise<{ dataset: TokenDataset; packed: boolean }> {
  removeStaleTemps(dirname(resolve(folder)));
  if (!existsSync(join(folder, INDEX_NAME))) {
    await writeShards(folder, options);
    return { dataset: TokenDataset.open(folder), packed: true };
  }
  const changed = await changedSetting(readIndex(folder), options);
  if (changed !== null && options.whenChanged === 'refuse')
    throw new GsaError(
      'INVALID_ARGUMENT',
      `Expected the tokens in ${folder} to be packed from the same text and settings but ${changed} changed; choose another folder or rebuild it`,
    );
  if (changed !== null) await writeShards(folder, options);
  return { dataset: TokenDataset.open(folder), packed: changed !== null };
}

/** Replacing a folder deletes what is in it, so it must be ours. */
function refuseForeignFolder(folder: string): void {
  let names: string[];
  try {
    names = existsSync(folder) ? readdirSync(folder) : [];
  } catch (error) {
    throw ioError(error, 'read', folder);
  }
  const foreign = names.find((name) => name !== INDEX_NAME && !/^(train|validation)-\d+\.bin$/.test(name));
  if (foreign !== undefined)
    throw new GsaError(
      'INVALID_ARGUMENT',
      `Expected ${folder} to be absent, empty or a folder of token shards but it holds ${show(foreign)}; choose another folder`,
    );
}

interface Plan {
  readonly stats: ReadonlyMap<string, Stats>;
  readonly totalBytes: number;
  readonly empty: number;
  /** See heldOutLimit(). */
  readonly limit: number;
  readonly seed: number;
}

/** The first pass: which documents are held out depends on all of them. */
async function readThrough(options: PackOptions, heldOut: HeldOut): Promise<Plan> {
  const { textField, separator, signal, onProgress } = options;
  let bytes = 0;
  const onBytes = (_path: string, piece: Buffer) => {
    bytes += piece.length;
  };
  const reader = readDocuments(options.paths, { textField, separator, signal, onBytes });
  const stats = new Map(reader.files.map((path) => [path, statSync(path)]));
  const totalBytes = [...stats.values()].reduce((sum, { size }) => sum + size, 0);
  const ranks: number[] = [];
  for await (const { text } of reader) {
    if (heldOut.fraction > 0) ranks.push(rankOf(text, heldOut.seed));
    onProgress?.({ phase: 'reading', documents: reader.documents, bytes, totalBytes });
  }
  if (reader.documents === 0)
    throw new GsaError(
      'INVALID_ARGUMENT',
      `Expected text in ${options.paths.map(show).join(', ')} but all of its ${reader.empty} documents are empty`,
    );
  const limit = heldOutLimit(Float64Array.from(ranks), heldOut.fraction);
  return { stats, totalBytes, empty: reader.empty, limit, seed: heldOut.seed };
}

interface Split {
  readonly writer: ShardWriter;
  documents: number;
  textBytes: number;
}

/** The second pass: writes the shards and takes the checksums of the text that they hold. */
async function pack(
  folder: string,
  options: PackOptions,
  eosId: number,
  plan: Plan,
  shardTokens: number,
): Promise<Pick<DatasetIndex, 'sources' | 'splits'>> {
  const { textField, separator, signal, onProgress, tokenizer } = options;
  const width = tokenBytes(tokenizer.vocabSize);
  const newSplit = (name: SplitName): Split => ({
    writer: new ShardWriter(folder, name, width, shardTokens),
    documents: 0,
    textBytes: 0,
  });
  const train = newSplit('train');
  const validation = newSplit('validation');
  const eos = Int32Array.of(eosId);
  const hashes = new Map<string, Hash>();
  let bytes = 0;
  const onBytes = (path: string, piece: Buffer) => {
    if (!hashes.has(path)) hashes.set(path, createHash('sha256'));
    hashes.get(path)!.update(piece);
    bytes += piece.length;
  };
  const reader = readDocuments(options.paths, { textField, separator, signal, onBytes });
  try {
    for await (const group of groups(reader)) {
      const encoded = await tokenizer.encodeBatch(group.map((document) => document.text));
      group.forEach(({ text }, i) => {
        const split = plan.limit >= 0 && rankOf(text, plan.seed) <= plan.limit ? validation : train;
        split.writer.append(encoded[i]!);
        split.writer.append(eos);
        split.documents++;
        split.textBytes += Buffer.byteLength(text);
      });
      onProgress?.({ phase: 'packing', documents: reader.documents, bytes, totalBytes: plan.totalBytes });
    }
    const splits = { train: finished(train), validation: finished(validation) };
    return { sources: sourcesOf(reader.files, plan, hashes, bytes), splits };
  } finally {
    train.writer.abandon();
    validation.writer.abandon();
  }
}

function sourcesOf(
  files: readonly string[],
  plan: Plan,
  hashes: ReadonlyMap<string, Hash>,
  bytes: number,
): SourceFile[] {
  return files.map((path) => {
    const before = plan.stats.get(path);
    if (!before || bytes !== plan.totalBytes)
      throw new GsaError(
        'INVALID_FILE',
        'Expected the text to stay as it is while it is packed but it changed',
      );
    const hash = hashes.get(path) ?? createHash('sha256');
    return { path, bytes: before.size, modified: before.mtimeMs, sha256: hash.digest('hex') };
  });
}

function finished({ writer, documents, textBytes }: Split): DatasetIndex['splits'][SplitName] {
  writer.finish();
  return { documents, textBytes, tokens: writer.tokens, shards: writer.shards };
}

/** Documents in groups worth one call of the tokenizer. */
async function* groups(documents: AsyncIterable<Document>): AsyncGenerator<Document[]> {
  let group: Document[] = [];
  let characters = 0;
  for await (const document of documents) {
    group.push(document);
    characters += document.text.length;
    if (characters < GROUP_CHARACTERS) continue;
    yield group;
    group = [];
    characters = 0;
  }
  if (group.length > 0) yield group;
}
