import { createHash } from 'node:crypto';
import {
  cpSync,
  existsSync,
  readFileSync,
  readdirSync,
  rmSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { TokenDataset, tokensInMemory, type TokenSource } from '#src/data/dataset.js';
import type { SplitName } from '#src/data/dataset-index.js';
import { heldOutLimit } from '#src/data/held-out.js';
import { openOrWriteShards, writeShards, type PackOptions, type PackProgress } from '#src/data/shards.js';
import { parseTokenizer } from '#src/data/tokenizer.js';
import { GsaError } from '#src/native/errors.js';
import { tempFolder } from '../io/temp.js';
import { ODD_TEXTS, PROSE } from './texts.js';
import { addedToken, byteLevel } from './tokenizer-files.js';

const tokenizer = parseTokenizer(JSON.stringify(byteLevel()));
const DOCUMENTS = [...PROSE.split('\n'), ...ODD_TEXTS].filter((text) => text.trim() !== '');

function folders(t: ExecutionContext, documents: readonly string[] = DOCUMENTS) {
  const root = tempFolder(t);
  const text = join(root, 'text.jsonl');
  writeFileSync(text, ['', '   ', ...documents].map((one) => JSON.stringify({ text: one })).join('\n'));
  const options: PackOptions = { paths: [text], tokenizer };
  return { root, text, out: join(root, 'tokens'), options };
}

function all(source: TokenSource): Int32Array {
  const ids = new Int32Array(source.length);
  source.read(0, ids);
  return ids;
}

/** The documents of a split, decoded again. */
async function documentsOf(dataset: TokenDataset, name: SplitName): Promise<string[]> {
  const documents: string[] = [];
  let ids: number[] = [];
  for (const id of all(dataset.split(name))) {
    if (id !== dataset.index.eosId) ids.push(id);
    else {
      documents.push(await tokenizer.decode(ids));
      ids = [];
    }
  }
  if (ids.length > 0) throw new Error('the last document is not ended');
  return documents;
}

async function expectedIds(documents: readonly string[]): Promise<Int32Array> {
  const encoded = await tokenizer.encodeBatch(documents);
  return Int32Array.from(encoded.flatMap((ids) => [...ids, tokenizer.eosId!]));
}

for (const shardTokens of [1, 7, 100, 1 << 20])
  test(`documents come back in order from shards of at most ${shardTokens} tokens, uint16`, async (t) => {
    const { out, options } = folders(t, shardTokens === 1 ? DOCUMENTS.slice(0, 2) : DOCUMENTS);
    const index = await writeShards(out, { ...options, shardTokens });
    const wanted = await expectedIds(shardTokens === 1 ? DOCUMENTS.slice(0, 2) : DOCUMENTS);
    t.is(index.emptyDocuments, 2);
    t.is(index.bytesPerToken, 2);
    t.is(index.splits.train.tokens, wanted.length);
    t.is(index.splits.train.shards.length, Math.ceil(wanted.length / shardTokens));
    using dataset = TokenDataset.open(out);
    const source = dataset.split('train');
    t.deepEqual(all(source), wanted);
    t.is(dataset.split('validation').length, 0);
    for (let start = 0; start < wanted.length; start += 13) {
      const part = new Int32Array(Math.min(29, wanted.length - start));
      source.read(start, part);
      t.deepEqual(part, wanted.slice(start, start + part.length));
    }
    for (const [start, length] of [
      [-1, 1],
      [0.5, 1],
      [wanted.length, 1],
      [0, wanted.length + 1],
    ])
      t.throws(() => source.read(start!, new Int32Array(length!)), {
        instanceOf: GsaError,
        message: /range/,
      });
  });

test('the file format is the documented one', async (t) => {
  const { out, options } = folders(t);
  await writeShards(out, options);
  t.deepEqual(readdirSync(out).toSorted(), ['index.json', 'train-00000.bin']);
  const bytes = readFileSync(join(out, 'train-00000.bin'));
  const ids = await expectedIds(DOCUMENTS);
  t.is(bytes.toString('latin1', 0, 8), 'GSATOKEN');
  t.deepEqual([bytes.readUInt32LE(8), bytes.readUInt32LE(12)], [1, 2]);
  t.is(bytes.readBigUInt64LE(16), BigInt(ids.length));
  t.is(bytes.length, 64 + 2 * ids.length);
  t.is(bytes.toString('hex', 24, 56), createHash('sha256').update(bytes.subarray(64)).digest('hex'));
  t.deepEqual(
    [...ids],
    Array.from(ids, (_, i) => bytes.readUInt16LE(64 + 2 * i)),
  );
});

test('a vocabulary past 65536 is packed as uint32', async (t) => {
  const json = byteLevel();
  const extra = Array.from({ length: 66_000 - 400 }, (_, i) => addedToken(400 + i, `<extra ${i}>`, false));
  extra[0] = addedToken(400, '</s>', true);
  const large = parseTokenizer(JSON.stringify({ ...json, added_tokens: extra }));
  const { out, options } = folders(t, ['a <extra 65599> b', 'c']);
  const index = await writeShards(out, { ...options, tokenizer: large, shardTokens: 3 });
  t.is(index.bytesPerToken, 4);
  using dataset = TokenDataset.open(out);
  t.true(all(dataset.split('train')).includes(65_999));
});

test('packing again gives the same bytes', async (t) => {
  const { root, out, options } = folders(t);
  const heldOut = { fraction: 0.2, seed: 3 };
  await writeShards(out, { ...options, heldOut });
  await writeShards(join(root, 'again'), { ...options, heldOut });
  for (const name of readdirSync(out))
    t.deepEqual(readFileSync(join(root, 'again', name)), readFileSync(join(out, name)), name);
});

test('validation documents never appear in training, copies included, and the seed chooses them', async (t) => {
  const documents = [...DOCUMENTS, ...DOCUMENTS.slice(0, 5), DOCUMENTS[0]!];
  const { root, out, options } = folders(t, documents);
  const chosen: string[][] = [];
  for (const seed of [0, 1, 2 ** 40]) {
    const folder = join(root, `seed-${seed}`);
    await writeShards(folder, { ...options, heldOut: { fraction: 0.25, seed } });
    using dataset = TokenDataset.open(folder);
    const train = await documentsOf(dataset, 'train');
    const validation = await documentsOf(dataset, 'validation');
    t.deepEqual(
      validation.filter((text) => train.includes(text)),
      [],
    );
    t.deepEqual([...train, ...validation].toSorted(), documents.toSorted());
    const { splits } = dataset.index;
    t.deepEqual([splits.train.documents, splits.validation.documents], [train.length, validation.length]);
    const bytes = (texts: string[]) => texts.reduce((sum, text) => sum + Buffer.byteLength(text), 0);
    t.deepEqual([splits.train.textBytes, splits.validation.textBytes], [bytes(train), bytes(validation)]);
    const wanted = Math.round(documents.length * 0.25);
    t.true(
      validation.length >= wanted && validation.length <= wanted + 2,
      `${validation.length} of ${wanted}`,
    );
    chosen.push(validation);
  }
  t.notDeepEqual(chosen[0], chosen[1]);
  t.notDeepEqual(chosen[1], chosen[2]);
  await writeShards(out, { ...options, heldOut: { fraction: 0.25, seed: 1 } });
  using dataset = TokenDataset.open(out);
  t.deepEqual(await documentsOf(dataset, 'validation'), chosen[1]);
});

test('the share of held-out documents is met, with at least one on each side', (t) => {
  const limit = (ranks: number[], fraction: number) => heldOutLimit(Float64Array.from(ranks), fraction);
  t.is(limit([], 0.5), -1);
  t.is(limit([5], 0.5), -1, 'one document cannot be split');
  t.is(limit([7, 7, 7], 0.5), -1, 'nor can copies of one');
  t.is(limit([3, 9], 0.001), 3);
  t.is(limit([4, 2, 3, 1], 0), -1);
  t.is(limit([4, 2, 3, 1], 0.5), 2);
  t.is(limit([4, 2, 3, 1], 0.25), 1);
});

test('progress is told to the end, and a signal leaves nothing behind', async (t) => {
  const { root, out, options } = folders(t);
  const seen: PackProgress[] = [];
  await writeShards(out, { ...options, onProgress: (progress) => seen.push(progress) });
  t.deepEqual([...new Set(seen.map((progress) => progress.phase))], ['reading', 'packing']);
  const last = seen.at(-1)!;
  t.is(last.bytes, last.totalBytes);
  t.is(last.documents, DOCUMENTS.length);
  rmSync(out, { recursive: true });
  const controller = new AbortController();
  const onProgress = ({ phase }: PackProgress) => {
    if (phase === 'reading') controller.abort();
  };
  const error = await t.throwsAsync(writeShards(out, { ...options, onProgress, signal: controller.signal }), {
    instanceOf: GsaError,
  });
  t.is(error?.code, 'ABORTED');
  t.deepEqual(readdirSync(root), ['text.jsonl']);
});

test('a line that turns out bad leaves the old tokens and no others', async (t) => {
  const { root, text, out, options } = folders(t);
  await writeShards(out, options);
  const before = readFileSync(join(out, 'index.json'));
  writeFileSync(text, '{"text":"a"}\n{"text":');
  await t.throwsAsync(writeShards(out, options), { instanceOf: GsaError, message: /line 2/ });
  t.deepEqual(readFileSync(join(out, 'index.json')), before);
  t.deepEqual(readdirSync(root).toSorted(), ['text.jsonl', 'tokens']);
});

test('wrong options, empty text and folders of other things are refused', async (t) => {
  const { root, out, options } = folders(t);
  const noEnd = parseTokenizer(JSON.stringify({ ...byteLevel(), added_tokens: [] }));
  const refused: [Partial<PackOptions>, RegExp][] = [
    [{ tokenizer: noEnd }, /end-of-document token/],
    [{ shardTokens: 0 }, /shardTokens/],
    [{ heldOut: { fraction: 0.6, seed: 0 } }, /fraction/],
    [{ heldOut: { fraction: 0.1, seed: -1 } }, /seed/],
    [{ paths: [join(root, 'none')] }, /no such file/],
  ];
  for (const [changes, message] of refused)
    await t.throwsAsync(writeShards(out, { ...options, ...changes }), { instanceOf: GsaError, message });
  writeFileSync(join(root, 'empty.txt'), ' \n');
  await t.throwsAsync(writeShards(out, { ...options, paths: [join(root, 'empty.txt')] }), {
    message: /are empty/,
  });
  t.false(existsSync(out));
  await t.throwsAsync(writeShards(root, options), { instanceOf: GsaError, message: /"empty\.txt"/ });
  t.true(existsSync(join(root, 'empty.txt')));
});

test('a folder is opened again when nothing changed, and rebuilt or refused when something did', async (t) => {
  const { root, text, options, out } = folders(t);
  const open = async (changes: Partial<PackOptions> = {}, whenChanged: 'rebuild' | 'refuse' = 'refuse') => {
    const { dataset, packed } = await openOrWriteShards(out, { ...options, ...changes, whenChanged });
    dataset.close();
    return packed;
  };
  const heldOut = { fraction: 0.1, seed: 1 };
  t.true(await open({ heldOut }));
  t.false(await open({ heldOut }));
  utimesSync(text, 1, 1);
  t.false(await open({ heldOut }), 'the same text at another time');
  cpSync(text, join(root, 'copy.jsonl'));
  t.false(await open({ heldOut, paths: [join(root, 'copy.jsonl')] }), 'the same text at another place');
  const other = parseTokenizer(
    JSON.stringify({ ...byteLevel(), added_tokens: [addedToken(400, '</s>', true)] }),
  );
  const changes: [Partial<PackOptions>, RegExp][] = [
    [{ heldOut, tokenizer: other }, /the tokenizer changed/],
    [{ heldOut, textField: 'body' }, /textField changed/],
    [{ heldOut, separator: '--' }, /separator changed/],
    [{}, /heldOut\.fraction changed/],
    [{ heldOut: { fraction: 0.1, seed: 2 } }, /heldOut\.seed changed/],
    [{ heldOut, paths: [root] }, /number of files/],
  ];
  for (const [change, message] of changes)
    await t.throwsAsync(open(change), { instanceOf: GsaError, message });
  writeFileSync(text, readFileSync(text, 'utf8').replace('keeper', 'Keeper'));
  await t.throwsAsync(open({ heldOut }), { instanceOf: GsaError, message: /text\.jsonl changed/ });
  t.true(await open({ heldOut }, 'rebuild'));
  t.false(await open({ heldOut }));
});

test('a damaged folder is refused by the name of the file', async (t) => {
  const { root, out, options } = folders(t);
  await writeShards(out, { ...options, shardTokens: 200 });
  const damage = (name: string, change: (folder: string) => void, message: RegExp, verify = true) => {
    const folder = join(root, 'damaged');
    rmSync(folder, { recursive: true, force: true });
    cpSync(out, folder, { recursive: true });
    change(folder);
    const error = t.throws(() => TokenDataset.open(folder, { verify }), { instanceOf: GsaError, message });
    t.true(error!.message.includes(name), error!.message);
  };
  const shard = 'train-00001.bin';
  const flip = (at: number) => (folder: string) => {
    const bytes = readFileSync(join(folder, shard));
    bytes[at]! ^= 1;
    writeFileSync(join(folder, shard), bytes);
  };
  const editIndex = (edit: (index: Record<string, never>) => void) => (folder: string) => {
    const index = JSON.parse(readFileSync(join(folder, 'index.json'), 'utf8'));
    edit(index);
    writeFileSync(join(folder, 'index.json'), JSON.stringify(index));
  };
  damage(shard, flip(64), /checksum/);
  damage(shard, flip(463), /checksum/);
  damage(shard, flip(30), /that index\.json says/, false);
  damage(shard, flip(12), /that index\.json says/, false);
  damage(shard, flip(16), /that index\.json says/, false);
  damage(shard, flip(8), /version/, false);
  damage(shard, flip(0), /GSATOKEN/, false);
  damage(shard, (folder) => truncateSync(join(folder, shard), 463), /Expected 464 bytes/, false);
  damage(shard, (folder) => truncateSync(join(folder, shard), 10), /Expected 464 bytes/, false);
  damage(shard, (folder) => rmSync(join(folder, shard)), /no such file/, false);
  damage('index.json', (folder) => rmSync(join(folder, 'index.json')), /no such file/);
  damage('index.json', (folder) => writeFileSync(join(folder, 'index.json'), '{'), /JSON/);
  damage(
    'index.json',
    editIndex((index) => delete index.eosId),
    /eosId/,
  );
  damage(
    'index.json',
    editIndex((index) => Object.assign(index, { eosId: 402 })),
    /eosId below 402/,
  );
  damage(
    'index.json',
    editIndex((index) => Object.assign(index, { more: 1 })),
    /more/,
  );
  damage(
    'index.json',
    editIndex((index) => Object.assign(index.splits!['train'], { tokens: 1 })),
    /hold 1 tokens/,
  );
  const outside = (index: Record<string, never>) =>
    Object.assign(index.splits!['train']['shards'][0], { file: '../x.bin' });
  damage('index.json', editIndex(outside), /file/);
});

test('an id outside the vocabulary is found when it is read', async (t) => {
  const { out, options } = folders(t);
  await writeShards(out, options);
  const path = join(out, 'train-00000.bin');
  const bytes = readFileSync(path);
  bytes.writeUInt16LE(402, 64 + 2 * 5);
  writeFileSync(path, bytes);
  using dataset = TokenDataset.open(out, { verify: false });
  dataset.split('train').read(0, new Int32Array(5));
  t.throws(() => dataset.split('train').read(0, new Int32Array(6)), {
    instanceOf: GsaError,
    message: /train-00000\.bin.*ids below 402 but token 5 is 402/,
  });
});

test('closed tokens are not read', async (t) => {
  const { out, options } = folders(t);
  await writeShards(out, options);
  const dataset = TokenDataset.open(out);
  const source = dataset.split('train');
  dataset.close();
  dataset.close();
  for (const use of [() => dataset.split('train'), () => source.read(0, new Int32Array(1))])
    t.is(t.throws(use, { instanceOf: GsaError })?.code, 'USE_AFTER_DISPOSE');
});

test('tokens in memory are a source too', (t) => {
  const source = tokensInMemory(Int32Array.of(1, 2, 3), { eosId: 0, vocabSize: 4 });
  t.deepEqual(all(source), Int32Array.of(1, 2, 3));
  t.throws(() => source.read(2, new Int32Array(2)), { instanceOf: GsaError });
  t.throws(() => tokensInMemory(Int32Array.of(4), { eosId: 0, vocabSize: 4 }), { instanceOf: GsaError });
});
