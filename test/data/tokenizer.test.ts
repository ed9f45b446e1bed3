import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import * as fc from 'fast-check';
import { Tokenizer as Library } from 'tokenizers';
import { cutText } from '#src/data/cut-text.js';
import { parseTokenizerJson, type CutRule } from '#src/data/tokenizer-json.js';
import { loadTokenizer, parseTokenizer, type Tokenizer } from '#src/data/tokenizer.js';
import { GsaError } from '#src/native/errors.js';
import { tempFolder } from '../io/temp.js';
import { ODD_TEXTS, PROSE } from './texts.js';
import { LLAMA_3, addedToken, byteLevel, metaspace, splitLevel, unigram } from './tokenizer-files.js';

const load = (json: object) => parseTokenizer(JSON.stringify(json));

/** The ids that the library itself gives for a whole text. */
async function wholeIds(json: object, text: string): Promise<Int32Array> {
  const encoding = await Library.fromString(JSON.stringify(json)).encode(text, null, {
    addSpecialTokens: false,
  });
  return Int32Array.from(encoding.getIds());
}

const LONG = PROSE.repeat(12);
const FORMS: Record<string, { json: () => object; cut: CutRule }> = {
  'GPT-2': { json: byteLevel, cut: 'keep' },
  'Llama 3': { json: () => splitLevel(LLAMA_3), cut: 'keep' },
  Mistral: { json: metaspace, cut: 'drop' },
  'Mistral with a Metaspace pre-tokenizer': {
    json: () => ({
      ...metaspace(),
      normalizer: null,
      pre_tokenizer: { type: 'Metaspace', replacement: '▁', prepend_scheme: 'first', split: false },
    }),
    cut: 'drop',
  },
  'tokens across words': { json: () => metaspace({ inner: true }), cut: 'whole' },
  'an unknown pattern': { json: () => splitLevel('\\p{L}+ \\p{L}+|\\s+'), cut: 'whole' },
  'a lowercasing normalizer': {
    json: () => ({ ...byteLevel(), normalizer: { type: 'Lowercase' } }),
    cut: 'whole',
  },
  'an added token with a space': {
    json: () => ({ ...byteLevel(), added_tokens: [addedToken(400, 'of the', false)] }),
    cut: 'whole',
  },
  'an added token that takes the space': {
    json: () => ({ ...byteLevel(), added_tokens: [addedToken(400, 'keeper', false, { rstrip: true })] }),
    cut: 'whole',
  },
  Unigram: { json: unigram, cut: 'whole' },
};

for (const [title, { json, cut }] of Object.entries(FORMS))
  test(`long texts get the ids of the whole, form ${title}`, async (t) => {
    const parts = parseTokenizerJson(JSON.stringify(json()), 'x');
    t.is(parts.cut, cut);
    const tokenizer = load(json());
    const plain = ODD_TEXTS.filter((text) => !text.includes('</s>'));
    for (const text of [LONG, `  ${LONG}`, ...plain])
      t.deepEqual(
        await tokenizer.encode(text),
        await wholeIds(json(), text),
        JSON.stringify(text.slice(0, 60)),
      );
  });

test('a text is cut between letters only, into pieces that give the text', (t) => {
  const word = fc.string({
    unit: fc.constantFrom('a', 'Z', ' ', ' ', '\n', '.', 'é', '1', '😀'),
    maxLength: 60,
  });
  fc.assert(
    fc.property(word, fc.integer({ min: 1, max: 9 }), (text, size) => {
      const kept = cutText(text, size, 'keep');
      t.is(kept.join(''), text);
      t.is(cutText(text, size, 'drop').join(' '), text);
      t.deepEqual(cutText(text, size, 'whole'), [text]);
      for (const piece of kept.slice(1)) t.regex(piece, /^ [a-zA-Z]/);
      for (const piece of kept.slice(0, -1)) t.true(/[a-zA-Z]$/.test(piece) && piece.length >= size);
    }),
    { numRuns: 500, seed: 7 },
  );
});

test('cutting at every place gives the ids of the whole, forms GPT-2, Llama 3 and Mistral', async (t) => {
  for (const json of [byteLevel(), splitLevel(LLAMA_3), metaspace()]) {
    const { cut, forEncoding } = parseTokenizerJson(JSON.stringify(json), 'x');
    const library = Library.fromString(forEncoding);
    const text = `${PROSE} it's a tool<tool> b  c d'll e`;
    const pieces = cutText(text, 1, cut);
    t.true(pieces.length > 100);
    const encodings = await library.encodeBatch(pieces, { addSpecialTokens: false });
    t.deepEqual(
      encodings.flatMap((encoding) => encoding.getIds()),
      [...(await wholeIds(json, text))],
    );
  }
});

test('a batch gives each text the ids that it gets alone', async (t) => {
  const tokenizer = load(byteLevel());
  const texts = [...ODD_TEXTS, LONG, '', PROSE];
  const batch = await tokenizer.encodeBatch(texts);
  t.is(batch.length, texts.length);
  for (const [i, text] of texts.entries()) t.deepEqual(batch[i], await tokenizer.encode(text));
  t.deepEqual(await tokenizer.encodeBatch([]), []);
});

async function spells(tokenizer: Tokenizer, text: string): Promise<string[]> {
  return [...(await tokenizer.encode(text))].map((id) => tokenizer.idToToken(id)!);
}

test('special tokens in a text stay text, in every form', async (t) => {
  const text = 'a</s>b<s><unk></s>';
  for (const json of [byteLevel(), splitLevel(LLAMA_3), metaspace(), unigram()]) {
    const tokenizer = load(json);
    const ids = await tokenizer.encode(text);
    const special = tokenizer.specialIds().filter((id) => tokenizer.idToToken(id) !== '<unk>');
    t.true(special.length > 0);
    for (const id of special)
      t.false(ids.includes(id), `${tokenizer.idToToken(id)} in ${await spells(tokenizer, text)}`);
    t.is((await tokenizer.decode(ids)).trimStart(), text);
  }
  // The library by itself does turn it into the control token: that is what is prevented.
  t.true((await wholeIds(byteLevel(), text)).includes(400));
});

test('a special token that the vocabulary could spell stays text, and the unknown token works', async (t) => {
  const json = {
    ...byteLevel(),
    added_tokens: [addedToken(0, '[UNK]', true), addedToken(1, 'stop', true), addedToken(3, 'tool', false)],
    pre_tokenizer: { type: 'WhitespaceSplit' },
    decoder: null,
    model: { type: 'WordLevel', vocab: { '[UNK]': 0, stop: 1, go: 2, tool: 3 }, unk_token: '[UNK]' },
  };
  const tokenizer = load(json);
  t.deepEqual([...(await tokenizer.encode('go stop go tool [UNK] x'))], [2, 0, 2, 3, 0, 0]);
  t.is(tokenizer.tokenToId('stop'), 1);
  t.is(await tokenizer.decode([2, 1, 0, 2]), 'go go');
  t.is(await tokenizer.decode([2, 1, 0, 2], { skipSpecialTokens: false }), 'go stop [UNK] go');
});

test('truncation, padding and dropout of a file are left out', async (t) => {
  const json = byteLevel();
  json.truncation = { direction: 'Right', max_length: 4, strategy: 'LongestFirst', stride: 5 };
  json.padding = {
    strategy: { Fixed: 9 },
    direction: 'Right',
    pad_to_multiple_of: null,
    pad_id: 0,
    pad_type_id: 0,
    pad_token: '!',
  };
  const tokenizer = load({ ...json, model: { ...json.model, dropout: 0.9 } });
  for (const text of ['a', PROSE])
    t.deepEqual(await tokenizer.encode(text), await wholeIds(byteLevel(), text));
});

const BYTE_LEVEL = { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true };
const TEMPLATES: Record<string, { processor: unknown; before: number[]; after: number[] }> = {
  none: { processor: null, before: [], after: [] },
  ByteLevel: { processor: BYTE_LEVEL, before: [], after: [] },
  BERT: { processor: { type: 'BertProcessing', sep: ['</s>', 2], cls: ['<s>', 1] }, before: [1], after: [2] },
  Mistral: { processor: metaspace().post_processor, before: [1], after: [] },
  'a sequence': {
    processor: {
      type: 'Sequence',
      processors: [BYTE_LEVEL, metaspace().post_processor],
    },
    before: [1],
    after: [],
  },
};

for (const [title, { processor, before, after }] of Object.entries(TEMPLATES))
  test(`special tokens are added around a text when asked for, template ${title}`, async (t) => {
    const json = { ...metaspace(), post_processor: processor };
    const tokenizer = load(json);
    const ids = await tokenizer.encode('the end');
    const around = await tokenizer.encode('the end', { addSpecialTokens: true });
    t.deepEqual([...around], [...before, ...ids, ...after]);
    const library = Library.fromString(JSON.stringify(json));
    t.deepEqual([...around], (await library.encode('the end', null, { addSpecialTokens: true })).getIds());
    t.deepEqual([...(await tokenizer.encode('', { addSpecialTokens: true }))], [...before, ...after]);
  });

test('the end and the beginning are found by option, by tokenizer_config.json, then by their usual names', (t) => {
  const folder = tempFolder(t);
  const path = join(folder, 'tokenizer.json');
  writeFileSync(path, JSON.stringify(metaspace()));
  t.is(loadTokenizer(folder).eosId, 2);
  t.is(loadTokenizer(path).bosId, 1);
  t.is(load(byteLevel()).bosId, null);
  const config = join(folder, 'tokenizer_config.json');
  writeFileSync(config, '{"eos_token":{"content":"<unk>","lstrip":false},"bos_token":null}');
  t.deepEqual([loadTokenizer(folder).eosId, loadTokenizer(folder).bosId], [0, 1]);
  t.is(loadTokenizer(folder, { eosToken: '<s>' }).eosId, 1);
  t.throws(() => loadTokenizer(folder, { eosToken: '<end>' }), { instanceOf: GsaError, message: /"<end>"/ });
  writeFileSync(config, '{"eos_token":"<end>"}');
  t.throws(() => loadTokenizer(folder), { instanceOf: GsaError, message: /"<end>"/ });
  writeFileSync(config, '{');
  t.throws(() => loadTokenizer(folder), { instanceOf: GsaError, message: /tokenizer_config\.json/ });
});

test('sizes, names and the checksum', (t) => {
  const tokenizer = load(byteLevel());
  t.is(tokenizer.vocabSize, 402);
  t.is(tokenizer.tokenToId('<tool>'), 401);
  t.is(tokenizer.tokenToId('nothing of the kind'), null);
  t.is(tokenizer.idToToken(401), '<tool>');
  for (const id of [402, -1, 0.5, Number.NaN]) t.is(tokenizer.idToToken(id), null);
  t.is(tokenizer.json, JSON.stringify(byteLevel()));
  t.regex(tokenizer.sha256, /^[0-9a-f]{64}$/);
});

test('wrong arguments are refused', async (t) => {
  const tokenizer = load(byteLevel());
  for (const text of [undefined, null, 5, {}])
    await t.throwsAsync(tokenizer.encode(text as string), {
      instanceOf: GsaError,
      message: /a string for text/,
    });
  for (const id of [402, -1, 0.5, Number.NaN, 2 ** 32])
    await t.throwsAsync(tokenizer.decode([1, id]), { instanceOf: GsaError, message: /\[0, 402\)/ });
  t.is(await tokenizer.decode([]), '');
});

test('a text that the vocabulary cannot spell is an error', async (t) => {
  const json = { ...byteLevel(), pre_tokenizer: null, added_tokens: [], decoder: null };
  const tokenizer = load({ ...json, model: { type: 'WordLevel', vocab: { a: 0 }, unk_token: '?' } });
  const error = await t.throwsAsync(tokenizer.encode('b'), { instanceOf: GsaError });
  t.is(error?.code, 'UNSUPPORTED');
});

const withModel = (fields: object) => ({ ...byteLevel(), model: { ...byteLevel().model, ...fields } });
const normalizer = (one: unknown) => ({
  ...byteLevel(),
  normalizer: { type: 'Sequence', normalizers: [one] },
});
const postProcessor = (one: unknown) => ({ ...byteLevel(), post_processor: one });

// Some of these abort the process when the library sees them.
const MALFORMED: Record<string, { json: unknown; message: RegExp }> = {
  'no JSON': { json: '{', message: /in JSON/ },
  null: { json: null, message: /an object with a "model"/ },
  'an empty object': { json: {}, message: /an object with a "model"/ },
  'a model of another kind': { json: withModel({ type: 'Markov' }), message: /Expected a tokenizer/ },
  'a vocabulary that is a number': { json: withModel({ vocab: 5 }), message: /model\.vocab/ },
  'an empty vocabulary': {
    json: { ...withModel({ vocab: {}, merges: [] }), added_tokens: [] },
    message: /at least one token/,
  },
  'a negative id': { json: withModel({ vocab: { a: -1 }, merges: [] }), message: /token "a"/ },
  'an id past 2^31': { json: withModel({ vocab: { a: 2 ** 31 }, merges: [] }), message: /token "a"/ },
  'a merge of unknown tokens': { json: withModel({ merges: [['a', 'qqqqq']] }), message: /merges of two/ },
  'a merge into an unknown token': { json: withModel({ merges: [['a', '!']] }), message: /merges of two/ },
  'a merge of three': { json: withModel({ merges: ['a b c'] }), message: /merges of two/ },
  'a merge without its prefix': {
    json: withModel({ continuing_subword_prefix: '##' }),
    message: /merges of two/,
  },
  'added tokens that are no array': { json: { ...byteLevel(), added_tokens: {} }, message: /added_tokens/ },
  'an added token twice': {
    json: { ...byteLevel(), added_tokens: [addedToken(400, 'x', true), addedToken(401, 'x', true)] },
    message: /no other added token/,
  },
  'an added token without text': {
    json: { ...byteLevel(), added_tokens: [addedToken(400, '', true)] },
    message: /""/,
  },
  'an added token without id': {
    json: { ...byteLevel(), added_tokens: [{ content: 'x' }] },
    message: /id for the added token "x"/,
  },
  'a gap in the ids': {
    json: { ...byteLevel(), added_tokens: [addedToken(410, 'x', true)] },
    message: /without gaps/,
  },
  'a broken pattern': { json: splitLevel('('), message: /Expected a tokenizer/ },
  'a pre-tokenizer of length 0': {
    json: { ...byteLevel(), pre_tokenizer: { type: 'FixedLength', length: 0 } },
    message: /FixedLength/,
  },
  'a replacement of nothing': {
    json: normalizer({ type: 'Replace', pattern: { String: '' }, content: 'x' }),
    message: /Replace/,
  },
  'a replacement of a*': {
    json: normalizer({ type: 'Replace', pattern: { Regex: 'a*' }, content: 'x' }),
    message: /Replace/,
  },
  'nothing in front': { json: normalizer({ type: 'Prepend', prepend: '' }), message: /Prepend/ },
  'a broken character map': {
    json: normalizer({ type: 'Precompiled', precompiled_charsmap: 'AAAA' }),
    message: /Precompiled/,
  },
  'a decoder that strips the end': {
    json: { ...byteLevel(), decoder: { type: 'Strip', content: 'a', start: 0, stop: 1 } },
    message: /Strip/,
  },
  'an unknown post-processor': { json: postProcessor({ type: 'Magic' }), message: /post_processor.*"Magic"/ },
  'a post-processor that is text': { json: postProcessor('x'), message: /post_processor/ },
  'a sequence without parts': { json: postProcessor({ type: 'Sequence' }), message: /processors/ },
  'a BERT template without ids': {
    json: postProcessor({ type: 'BertProcessing', sep: ['x', 1] }),
    message: /cls/,
  },
  'a template of an undefined token': {
    json: postProcessor({ ...(metaspace().post_processor as object), special_tokens: {} }),
    message: /"<s>"/,
  },
  'a template without the text': {
    json: postProcessor({ ...(metaspace().post_processor as object), single: [] }),
    message: /the text once/,
  },
};

for (const [title, { json, message }] of Object.entries(MALFORMED))
  test(`a tokenizer.json with ${title} is refused`, (t) => {
    const path = join(tempFolder(t), 'tokenizer.json');
    writeFileSync(path, typeof json === 'string' ? json : JSON.stringify(json));
    const error = t.throws(() => loadTokenizer(path), { instanceOf: GsaError, message });
    t.is(error?.code, 'INVALID_FILE');
    t.true(error?.message.includes(path));
  });

test('a missing tokenizer.json is reported by its path', (t) => {
  const folder = tempFolder(t);
  mkdirSync(join(folder, 'model'));
  const error = t.throws(() => loadTokenizer(join(folder, 'model')), { instanceOf: GsaError });
  t.is(error?.code, 'IO');
  t.regex(error!.message, /model\/tokenizer\.json/);
});
