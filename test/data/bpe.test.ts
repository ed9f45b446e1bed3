import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import * as fc from 'fast-check';
import { Tokenizer as Library, byteLevelAlphabet, byteLevelPreTokenizer } from 'tokenizers';
import { BYTE_CHARACTERS, countWords, learnMerges } from '#src/data/bpe.js';
import { readDocuments } from '#src/data/readers.js';
import { parseTokenizer } from '#src/data/tokenizer.js';
import { END_OF_TEXT, trainBpe } from '#src/data/train-bpe.js';
import { GsaError } from '#src/native/errors.js';
import { tempFolder } from '../io/temp.js';
import { PROSE, ODD_TEXTS } from './texts.js';

/** Byte-pair encoding as the paper's listing has it: count all pairs anew for every merge. */
function mergesByDefinition(counts: Map<string, number>, merges: number): [string, string][] {
  const words = [...counts].map(
    ([word, count]) => [Array.from(Buffer.from(word), (byte) => BYTE_CHARACTERS[byte]!), count] as const,
  );
  // Ids decide between equal counts; the bytes come in the order of their characters.
  const ids = new Map(BYTE_CHARACTERS.toSorted().map((character, id) => [character, id]));
  const result: [string, string][] = [];
  while (result.length < merges) {
    const pairs = new Map<string, { pair: [string, string]; count: number }>();
    for (const [symbols, count] of words)
      for (let i = 1; i < symbols.length; i++) {
        const pair: [string, string] = [symbols[i - 1]!, symbols[i]!];
        const entry = pairs.get(pair.join(' ')) ?? { pair, count: 0 };
        entry.count += count;
        pairs.set(pair.join(' '), entry);
      }
    const order = [...pairs.values()].toSorted(
      (x, y) =>
        y.count - x.count ||
        ids.get(x.pair[0])! - ids.get(y.pair[0])! ||
        ids.get(x.pair[1])! - ids.get(y.pair[1])!,
    );
    const best = order[0];
    if (!best || best.count < 2) break;
    const [a, b] = best.pair;
    result.push([a, b]);
    if (!ids.has(a + b)) ids.set(a + b, ids.size);
    for (const [symbols] of words)
      for (let i = 0; i + 1 < symbols.length; i++)
        if (symbols[i] === a && symbols[i + 1] === b) symbols.splice(i, 2, a + b);
  }
  return result;
}

function wordsOf(text: string): Map<string, number> {
  const counts = new Map<string, number>();
  countWords(text, counts);
  return counts;
}

test('the byte characters are those of the tokenizers package', (t) => {
  t.deepEqual(BYTE_CHARACTERS.toSorted(), byteLevelAlphabet().toSorted());
});

test('words are cut as the tokenizers package cuts them', (t) => {
  const library = byteLevelPreTokenizer(false, true);
  const check = (text: string) => {
    const counts = wordsOf(text);
    const wanted = new Map<string, number>();
    for (const [word] of library.preTokenizeString(text)) {
      const bytes = Array.from(word, (character) => BYTE_CHARACTERS.indexOf(character));
      const key = Buffer.from(bytes).toString();
      wanted.set(key, (wanted.get(key) ?? 0) + 1);
    }
    t.deepEqual(counts, wanted, JSON.stringify(text));
  };
  for (const text of [PROSE, ...ODD_TEXTS]) check(text);
  const piece = fc.constantFrom(
    ' ',
    '  ',
    '\n',
    '\t',
    '\u0085',
    '\ufeff',
    '\u2028',
    "'s",
    "'",
    'é',
    '漢',
    '5',
    '½',
    '-',
    'ab',
    '😀',
  );
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 12 }), (pieces) => check(pieces.join(''))),
    { numRuns: 300, seed: 5 },
  );
});

test('merges are those of a direct count, on prose and on random words', (t) => {
  const prose = wordsOf(PROSE);
  t.deepEqual(learnMerges(prose, 256 + 150, [], 2).merges, mergesByDefinition(prose, 150));
  const word = fc.string({ unit: fc.constantFrom('a', 'b', 'c', 'é'), minLength: 1, maxLength: 9 });
  fc.assert(
    fc.property(fc.array(fc.tuple(word, fc.integer({ min: 1, max: 9 })), { maxLength: 12 }), (list) => {
      const counts = new Map(list);
      const { merges, tokens } = learnMerges(counts, 300, [], 2);
      t.deepEqual(merges, mergesByDefinition(counts, merges.length));
      t.is(new Set(tokens).size, tokens.length);
      // Stopped because no pair is left, or because the vocabulary is full.
      if (tokens.length < 300) t.is(mergesByDefinition(counts, merges.length + 1).length, merges.length);
    }),
    { numRuns: 200, seed: 6 },
  );
});

test('merges are those that the tokenizers package learns', (t) => {
  const folder = tempFolder(t);
  // Its train() counts line by line, so that line breaks are alone in both.
  const text = PROSE.replaceAll(/\s*\n\s*/g, '\n');
  writeFileSync(join(folder, 'a.txt'), text);
  const empty = {
    version: '1.0',
    added_tokens: [],
    pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
    model: { type: 'BPE', vocab: {}, merges: [] },
  };
  const library = Library.fromString(JSON.stringify(empty));
  library.train([join(folder, 'a.txt')]);
  library.save(join(folder, 'trained.json'));
  const trained = JSON.parse(readFileSync(join(folder, 'trained.json'), 'utf8'));
  const { merges } = learnMerges(wordsOf(text), 100_000, [], 1);
  t.true(merges.length > 300);
  t.deepEqual(merges, trained.model.merges);
});

test('a vocabulary of 400 tokens: ids in order, the same twice, every text comes back', async (t) => {
  const folder = tempFolder(t);
  writeFileSync(join(folder, 'a.txt'), PROSE);
  const trained = await trainBpe([folder], { vocabSize: 400 });
  t.is((await trainBpe([folder], { vocabSize: 400 })).json, trained.json);
  t.is(trained.vocabSize, 400);
  t.is(trained.documents, 1);
  const tokenizer = parseTokenizer(trained.json);
  t.is(tokenizer.vocabSize, 400);
  t.is(tokenizer.eosId, 0);
  t.is(tokenizer.idToToken(0), END_OF_TEXT);
  t.deepEqual(tokenizer.specialIds(), [0]);
  t.deepEqual(
    Array.from({ length: 256 }, (_, i) => tokenizer.idToToken(i + 1)),
    BYTE_CHARACTERS.toSorted(),
  );
  for (const text of [PROSE, ...ODD_TEXTS]) t.is(await tokenizer.decode(await tokenizer.encode(text)), text);
  const shorter = (await tokenizer.encode(PROSE)).length;
  t.true(shorter < PROSE.length / 1.8, `${shorter} tokens for ${PROSE.length} characters`);
});

test('every Unicode character but surrogates comes back from 257 tokens', async (t) => {
  const folder = tempFolder(t);
  writeFileSync(join(folder, 'a.txt'), 'x');
  const trained = await trainBpe([folder], { vocabSize: 300 });
  t.is(trained.vocabSize, 257, 'a text without pairs has nothing to merge');
  const tokenizer = parseTokenizer(trained.json);
  for (let start = 0; start < 0x110000; start += 0x4000) {
    if (start >= 0xd800 && start < 0xe000) continue;
    const points = Array.from({ length: 0x4000 }, (_, i) => start + i).filter(
      (p) => p < 0xd800 || p > 0xdfff,
    );
    // A sample of the higher planes is enough; the first plane is whole.
    const text = String.fromCodePoint(...points.filter((p) => p < 0x10000 || p % 64 === 0));
    t.true((await tokenizer.decode(await tokenizer.encode(text))) === text, `from U+${start.toString(16)}`);
  }
});

test('special tokens get the first ids, and held-out documents are not learnt from', async (t) => {
  const folder = tempFolder(t);
  mkdirSync(join(folder, 'in'));
  const documents = PROSE.split('. ').flatMap((text, i) => (text.trim() ? [`${text} unit${i}`] : []));
  writeFileSync(
    join(folder, 'in', 'a.jsonl'),
    documents.map((text) => JSON.stringify({ body: text })).join('\n'),
  );
  const options = { vocabSize: 300, specials: ['<eos>', '<pad>'], textField: 'body' };
  const all = await trainBpe([join(folder, 'in')], options);
  const part = await trainBpe([join(folder, 'in')], { ...options, heldOut: { fraction: 0.3, seed: 1 } });
  t.is(all.documents, documents.length);
  t.is(part.documents, documents.length - Math.round(documents.length * 0.3));
  t.not(part.json, all.json);
  const tokenizer = parseTokenizer(all.json, { eosToken: '<eos>' });
  t.deepEqual([tokenizer.eosId, tokenizer.tokenToId('<pad>')], [0, 1]);
  t.is((await parseTokenizer(all.json).encode('<eos>')).length, 5);
});

test('a run of letters longer than any word is learnt from in time', async (t) => {
  const folder = tempFolder(t);
  writeFileSync(join(folder, 'a.txt'), 'abcdefgh'.repeat(60_000));
  const trained = await trainBpe([folder], { vocabSize: 280 });
  t.true(trained.vocabSize > 257);
});

test('the event loop goes on while a vocabulary is trained, and a signal stops it', async (t) => {
  const folder = tempFolder(t);
  writeFileSync(join(folder, 'a.txt'), PROSE.repeat(40));
  // Turns that ask for no timer: those of a loaded machine may be later than the end of the training.
  let turns = 0;
  let trained = false;
  const turn = () => (trained ? null : (turns++, setImmediate(turn)));
  turn();
  await trainBpe([folder], { vocabSize: 600 });
  trained = true;
  t.true(turns >= 3, `${turns} turns`);
  const controller = new AbortController();
  const training = trainBpe([folder], { vocabSize: 2000, signal: controller.signal });
  setImmediate(() => controller.abort());
  t.is((await t.throwsAsync(training, { instanceOf: GsaError }))?.code, 'ABORTED');
  const before = trainBpe([folder], { vocabSize: 2000, signal: AbortSignal.abort() });
  t.is((await t.throwsAsync(before, { instanceOf: GsaError }))?.code, 'ABORTED');
});

test('wrong options and bad text are refused with the reason', async (t) => {
  const folder = tempFolder(t);
  writeFileSync(join(folder, 'a.jsonl'), '{"text":"a"}\n{"text":7}');
  const refused: [Parameters<typeof trainBpe>[1], RegExp][] = [
    [{ vocabSize: 256 }, /\[257, 2097152\]/],
    [{ vocabSize: 2 ** 22 }, /vocabSize/],
    [{ vocabSize: Number.NaN }, /vocabSize/],
    [{ vocabSize: 300, specials: [] }, /specials/],
    [{ vocabSize: 300, specials: ['a'] }, /two characters/],
    [{ vocabSize: 300, specials: ['<a>', '<a>'] }, /different/],
    [{ vocabSize: 300, minCount: 0 }, /minCount/],
    [{ vocabSize: 300, heldOut: { fraction: 2, seed: 0 } }, /fraction/],
    [{ vocabSize: 300 }, /a\.jsonl, line 2: .*received 7/],
  ];
  for (const [options, message] of refused)
    await t.throwsAsync(trainBpe([folder], options), { instanceOf: GsaError, message });
});

test('the reader of the training text is the reader of documents', async (t) => {
  const folder = tempFolder(t);
  writeFileSync(join(folder, 'a.txt'), 'one--two--three');
  const texts: string[] = [];
  for await (const { text } of readDocuments([folder], { separator: '--' })) texts.push(text);
  t.is((await trainBpe([folder], { vocabSize: 260, separator: '--' })).documents, texts.length);
});
