import test from 'ava';
import { parseTokenizer, type Tokenizer } from '#src/data/tokenizer.js';
import { END_OF_TEXT, trainBpe } from '#src/data/train-bpe.js';
import { generate, generateText, loadForGeneration } from '#src/generate/index.js';
import { GSAForCausalLM } from '#src/models/index.js';
import { GsaError } from '#src/native/errors.js';
import { native } from '#src/native/load.js';
import { Tensor } from '#src/tensor/tensor.js';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { testDevices, testPlaces, type Place } from '../devices.js';
import { tempFolder } from '../io/temp.js';
import { TEXT } from '../train/tiny.js';

/** Random weights large enough that the next token depends on the state. */
function makeModel(vocab: number, changes: object = {}, place: Partial<Place> = {}): GSAForCausalLM {
  const config = {
    vocab_size: vocab,
    hidden_size: 32,
    num_hidden_layers: 2,
    num_heads: 4,
    num_kv_heads: 2,
    num_slots: 8,
    intermediate_size: 64,
    use_short_conv: true,
    initializer_range: 0.8,
    eos_token_id: null,
    ...changes,
  };
  return GSAForCausalLM.create(config, { ...place, seed: 5 });
}

const PROMPTS = [[3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5], [7], [2, 7, 1, 8, 2, 8]];

/** Greedy continuation by a full pass over everything for each token. */
function byFullPasses(model: GSAForCausalLM, prompt: readonly number[], count: number): number[] {
  const ids = [...prompt];
  for (let n = 0; n < count; n++) {
    using input = Tensor.from(Int32Array.from(ids), [1, ids.length], { device: model.device });
    const { logits } = model.logits(input, { lastOnly: true });
    const row = logits.toFloat32();
    logits.dispose();
    ids.push(row.indexOf(Math.max(...row)));
  }
  return ids.slice(prompt.length);
}

for (const device of testDevices()) {
  test(`${device} float32 greedy stepping of a batch of prompts of 11, 1 and 6 tokens equals full passes over each alone`, async (t) => {
    using model = makeModel(40, {}, { device });
    const results = await generate(model, PROMPTS, { greedy: true, maxTokens: 24 });
    for (const [i, { tokens, finishReason }] of results.entries()) {
      t.deepEqual(tokens, byFullPasses(model, PROMPTS[i]!, 24), `prompt ${i}`);
      t.is(finishReason, 'length');
    }
    t.true(new Set(results[0]!.tokens).size > 3, 'the continuation varies');
  });

  test(`${device} float32 a seed decides the tokens; prompts in the batch do not disturb each other`, async (t) => {
    using model = makeModel(40, {}, { device });
    const options = { temperature: 1, maxTokens: 20, seed: 9 };
    const all = await generate(model, PROMPTS, options);
    t.deepEqual(await generate(model, PROMPTS, options), all);
    t.deepEqual(await generate(model, PROMPTS.slice(0, 1), options), all.slice(0, 1));
    t.notDeepEqual(await generate(model, PROMPTS, { ...options, seed: 10 }), all);
  });
}

for (const greedy of [true, false])
  test(`a model whose weights have diverged is refused, ${greedy ? 'greedily' : 'drawing'}`, async (t) => {
    using model = makeModel(40);
    const norm = new Map(model.namedParameters()).get('model.norm.weight')!;
    norm.write(new Float32Array(norm.size).fill(NaN));
    const error = await t.throwsAsync(generate(model, PROMPTS, { greedy }), { instanceOf: GsaError });
    t.is(error!.code, 'DIVERGED');
  });

test('a stop token ends its sequence alone and is not part of it', async (t) => {
  using model = makeModel(40);
  const [free, other] = await generate(model, PROMPTS, { greedy: true, maxTokens: 12 });
  const stop = free!.tokens[3]!;
  const at = free!.tokens.indexOf(stop);
  const seen: [number, number][] = [];
  const [cut, rest] = await generate(model, PROMPTS, {
    greedy: true,
    maxTokens: 12,
    stopTokens: [stop],
    onToken: (i, token) => void seen.push([i, token]),
  });
  t.deepEqual(cut, { tokens: free!.tokens.slice(0, at), finishReason: 'stop' });
  const otherEnd = other!.tokens.indexOf(stop);
  t.deepEqual(rest!.tokens, otherEnd < 0 ? other!.tokens : other!.tokens.slice(0, otherEnd));
  t.deepEqual(
    seen.filter(([i]) => i === 0).map(([, token]) => token),
    cut!.tokens,
  );
});

test('the configuration names the stop token when none is given', async (t) => {
  using model = makeModel(40);
  const [free] = await generate(model, PROMPTS, { greedy: true, maxTokens: 8 });
  const eos = free!.tokens[2]!;
  using stopping = makeModel(40, { eos_token_id: [39, eos] });
  const [cut] = await generate(stopping, PROMPTS, { greedy: true, maxTokens: 8 });
  t.is(cut!.finishReason, 'stop');
  t.deepEqual(cut!.tokens, free!.tokens.slice(0, free!.tokens.indexOf(eos)));
});

test('a signal ends generation with what there is; the event loop gets a turn for every token', async (t) => {
  using model = makeModel(40);
  const controller = new AbortController();
  let turns = 0;
  const count = (): void => {
    turns++;
    if (!controller.signal.aborted) setImmediate(count);
  };
  setImmediate(count);
  const results = await generate(model, PROMPTS, {
    maxTokens: 1000,
    signal: controller.signal,
    onToken: (i) => {
      if (i === 0 && turns > 10) controller.abort();
    },
  });
  t.true(results.every((r) => r.finishReason === 'aborted'));
  t.true(
    results[0]!.tokens.length >= 9 && results[0]!.tokens.length < 100,
    `${results[0]!.tokens.length} tokens`,
  );
});

for (const place of testPlaces())
  test.serial(
    `${place.device} ${place.dtype} the same tokens twice; states and logits are given back, also after an error`,
    async (t) => {
      using model = makeModel(40, {}, place);
      const before = native().leaks().alive;
      const once = await generate(model, PROMPTS, { maxTokens: 12, seed: 4 });
      t.deepEqual(await generate(model, PROMPTS, { maxTokens: 12, seed: 4 }), once);
      const fail = (): void => {
        throw new Error('mine');
      };
      await t.throwsAsync(generate(model, PROMPTS, { maxTokens: 5, onToken: fail }), { message: 'mine' });
      t.is(native().leaks().alive, before);
      t.is(native().leaks().finalized, 0);
    },
  );

for (const [name, prompts, options] of [
  ['no prompt', [], {}],
  ['an empty prompt', [[]], {}],
  ['an id past the vocabulary', [[40]], {}],
  ['a fraction', [[1.5]], {}],
  ['maxTokens 0', [[1]], { maxTokens: 0 }],
  ['maxTokens NaN', [[1]], { maxTokens: Number.NaN }],
] as const)
  test(`refused: ${name}`, async (t) => {
    using model = makeModel(40);
    const error = await t.throwsAsync(generate(model, prompts, options), { instanceOf: GsaError });
    t.is(error!.code, 'INVALID_ARGUMENT');
  });

async function makeTokenizer(): Promise<Tokenizer> {
  return parseTokenizer((await trainBpe([TEXT], { vocabSize: 300 })).json);
}

test('pieces of text join to the text, whatever bytes the tokens are; an empty prompt starts a document', async (t) => {
  const tokenizer = await makeTokenizer();
  using model = makeModel(tokenizer.vocabSize);
  const pieces = ['', '', ''];
  const results = await generateText(model, tokenizer, ['The harbour', '', 'é漢🙂'], {
    temperature: 3,
    maxTokens: 60,
    onText: (i, piece) => (pieces[i] += piece),
  });
  for (const [i, { prompt, text, tokens }] of results.entries()) {
    t.is(text, pieces[i]!);
    const context = prompt === '' ? [] : [...(await tokenizer.encode(prompt))];
    t.is(prompt + text, await tokenizer.decode([...context, ...tokens]), 'as decoded at once');
  }
  const start = tokenizer.tokenToId(END_OF_TEXT)!;
  const [byId] = await generate(model, [[start]], { greedy: true, maxTokens: 8, stopTokens: [] });
  const [byText] = await generateText(model, tokenizer, [''], { greedy: true, maxTokens: 8, stopTokens: [] });
  t.deepEqual(byText!.tokens, byId!.tokens);
});

test('a model folder is loaded with its tokenizer, or says what is missing', async (t) => {
  const folder = tempFolder(t);
  const tokenizer = await makeTokenizer();
  using model = makeModel(tokenizer.vocabSize);
  model.save(folder);
  t.throws(() => loadForGeneration(folder), { message: /Expected tokenizer\.json in/ });
  writeFileSync(join(folder, 'tokenizer.json'), tokenizer.json);
  const loaded = loadForGeneration(folder);
  const options = { greedy: true, maxTokens: 10 };
  t.deepEqual(
    await generateText(loaded.model, loaded.tokenizer, ['A garden'], options),
    await generateText(model, tokenizer, ['A garden'], options),
  );
  loaded.model.dispose();
  const small = tempFolder(t);
  using narrow = makeModel(tokenizer.vocabSize - 1);
  narrow.save(small);
  writeFileSync(join(small, 'tokenizer.json'), tokenizer.json);
  t.throws(() => loadForGeneration(small), { message: /Expected at most 299 tokens/ });
});
