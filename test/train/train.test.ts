import { existsSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { loadTokenizer } from '#src/data/tokenizer.js';
import { trainBpe } from '#src/data/train-bpe.js';
import { GsaError } from '#src/native/errors.js';
import { native } from '#src/native/load.js';
import { train } from '#src/train/loop.js';
import { readMetrics } from '#src/train/metrics.js';
import type { TrainEvent } from '#src/train/events.js';
import { testPlaces } from '../devices.js';
import { tempFolder } from '../io/temp.js';
import { TEXT, tinyConfig } from './tiny.js';

const losses = (output: string): (number | null)[] => readMetrics(output).steps.map((r) => r.loss);

test.serial(
  'a run leaves metrics, checkpoints, curves and a summary, tells every event, and gives all memory back',
  async (t) => {
    const output = tempFolder(t);
    const events: TrainEvent[] = [];
    let turns = 0;
    const timer = setInterval(() => {}, 1000);
    const count = (): void => {
      turns++;
      if (timer.hasRef()) setImmediate(count);
    };
    setImmediate(count);
    const config = tinyConfig(output, {
      steps: 40,
      evaluation: { interval: 10, batches: 2 },
      sample: { interval: 20, prompts: ['The ', 'A '], maxTokens: 5 },
    });
    const before = native().leaks();
    const result = await train(config, { onEvent: (event) => events.push(event) });
    timer.unref();
    clearInterval(timer);
    t.deepEqual(native().leaks(), before);
    t.true(turns >= 40, `${turns} turns of the event loop`);

    const countOf = (type: TrainEvent['type']): number => events.filter((e) => e.type === type).length;
    t.deepEqual(
      (['start', 'step', 'evaluation', 'sample', 'checkpoint', 'end'] as const).map(countOf),
      [1, 40, 4, 2, 5, 1],
    );
    t.is(result.status, 'completed');
    t.deepEqual([result.step, result.steps, result.tokens, result.skipped], [40, 40, 40 * 256, 0]);
    const metrics = readMetrics(output);
    t.deepEqual(
      metrics.steps.map((r) => r.step),
      Array.from({ length: 40 }, (_, i) => i + 1),
    );
    t.true(metrics.steps.at(-1)!.loss! < metrics.steps[0]!.loss! - 1, 'the loss falls');
    t.true(Math.abs(metrics.steps[0]!.loss! - Math.log(384)) < 0.1, 'and starts where knowing nothing is');
    t.deepEqual(
      metrics.evaluations.map((r) => r.step),
      [10, 20, 30, 40],
    );
    t.is(metrics.evaluations.at(-1)!.validationLoss, result.validationLoss!);
    t.is(metrics.unigramEntropy, result.unigramEntropy);
    t.deepEqual(readdirSync(result.checkpoint).toSorted(), [
      'config.json',
      'model.safetensors',
      'optimizer.safetensors',
      'tokenizer.json',
      'tokenizer_config.json',
      'trainer.json',
    ]);
  },
);

test('a complete run is not made again', async (t) => {
  const output = tempFolder(t);
  const first = await train(tinyConfig(output, { steps: 2 }));
  const steps: TrainEvent[] = [];
  const again = await train(tinyConfig(output, { steps: 2 }), {
    onEvent: (event) => event.type === 'step' && steps.push(event),
  });
  t.deepEqual(again, first);
  t.is(steps.length, 0);
  const longer = await train(tinyConfig(output, { steps: 3 }));
  t.is(longer.step, 3, 'more steps go on from there');
  t.is(readMetrics(output).evaluations.length, 2);
  await t.throwsAsync(train(tinyConfig(output, { steps: 2 })), { message: /Expected at least 3 steps/ });
  const fresh = await train(tinyConfig(output, { steps: 2 }), { start: 'fresh' });
  t.is(fresh.validationLoss, first.validationLoss);
  t.false(existsSync(join(output, 'step-000003')));
});

test('micro-batches of 4 twice and of 8 once take the same steps, float32', async (t) => {
  const [a, b] = [tempFolder(t), tempFolder(t)];
  await train(tinyConfig(a, { steps: 4, batchSize: 4, gradientAccumulation: 2 }));
  await train(tinyConfig(b, { steps: 4, batchSize: 8, gradientAccumulation: 1 }));
  for (const [i, loss] of losses(a).entries())
    t.true(Math.abs(loss! - losses(b)[i]!) < 1e-5 * loss!, `step ${i + 1}`);
});

for (const { device, dtype } of testPlaces())
  test(`${device} ${dtype} with recompute the losses are the same to the last bit, and a run may go on with or without`, async (t) => {
    const [kept, again] = [tempFolder(t), tempFolder(t)];
    const model = { ...(tinyConfig(kept).model as object), use_short_conv: false };
    const config = (output: string, steps: number, recompute: boolean | 'blocks') =>
      tinyConfig(output, { device: String(device), dtype, model, steps, recompute });
    await train(config(kept, 8, false));
    await train(config(again, 4, true));
    await train(config(again, 5, false), { start: 'resume' });
    await train(config(again, 7, 'blocks'), { start: 'resume' });
    await train(config(again, 8, true), { start: 'resume' });
    t.deepEqual(losses(again), losses(kept));
  });

for (const { device, dtype } of testPlaces())
  test(`${device} ${dtype} an AbortSignal ends after the step under way with a checkpoint; going on gives the same losses to the last bit`, async (t) => {
    const place = { device: String(device), dtype };
    const [straight, broken] = [tempFolder(t), tempFolder(t)];
    await train(tinyConfig(straight, place));
    const controller = new AbortController();
    const cut = await train(tinyConfig(broken, place), {
      signal: controller.signal,
      onEvent: (event) => event.type === 'step' && event.step === 5 && controller.abort(),
    });
    // Step 6 was under way when step 5 was told of.
    t.deepEqual([cut.status, cut.step], ['interrupted', 6]);
    t.true(cut.checkpoint.endsWith('step-000006'));
    t.is(losses(broken).length, 6);
    t.false(existsSync(join(broken, 'summary.json')));
    t.is((await train(tinyConfig(broken, place), { start: 'resume' })).status, 'completed');
    t.deepEqual(losses(broken), losses(straight));
    t.deepEqual(
      readMetrics(broken).evaluations.map((r) => r.validationLoss),
      readMetrics(straight).evaluations.map((r) => r.validationLoss),
    );
  });

test('a signal that came before the first step aborts with nothing left to clean up', async (t) => {
  const output = tempFolder(t);
  const error = await t.throwsAsync(train(tinyConfig(output), { signal: AbortSignal.abort() }), {
    instanceOf: GsaError,
  });
  t.is(error!.code, 'ABORTED');
  t.deepEqual(readdirSync(output), []);
});

test('a changed configuration, a changed text and a missing checkpoint are refused by name', async (t) => {
  const output = tempFolder(t);
  await t.throwsAsync(train(tinyConfig(output), { start: 'resume' }), {
    message: /Expected a checkpoint to resume/,
  });
  const text = join(tempFolder(t), 'text.jsonl');
  const lines = readFileSync(join('test', 'fixtures', 'text', 'notes.jsonl'), 'utf8');
  writeFileSync(text, lines);
  const base = tinyConfig(output, { steps: 2 });
  const own = { ...base, data: { ...base.data, train: [text], seqLen: 16 } };
  await train(own);
  const changed = await t.throwsAsync(
    train({ ...own, seed: 4, optimizer: { lr: 0.1 }, checkpoint: { keep: 9 } }),
    { instanceOf: GsaError },
  );
  t.is(changed!.code, 'INVALID_CONFIG');
  t.regex(changed!.message, /\(step 2\) but optimizer\.lr, .*seed differ;/);
  t.false(changed!.message.includes('keep'));
  writeFileSync(text, `${lines}{"text": "one more"}\n`);
  await t.throwsAsync(train({ ...own, steps: 3 }), { message: /text\.jsonl changed/ });
});

test('non-finite gradients: updates are skipped and counted, then training stops and the good checkpoint stays', async (t) => {
  const output = tempFolder(t);
  const config = tinyConfig(output, {
    // The first update throws the weights so far that every later loss overflows.
    optimizer: { lr: 1e38, minLr: 1e38, warmupSteps: 0, clip: null, weightDecay: 0 },
    checkpoint: { interval: 1, keep: 3 },
    maxNonFinite: 3,
  });
  const error = await t.throwsAsync(train(config), { instanceOf: GsaError });
  t.is(error!.code, 'DIVERGED');
  t.regex(
    error!.message,
    /3 steps in a row had others, up to step 4; the checkpoint of step 3 is kept; lower optimizer\.lr/,
  );
  const { steps } = readMetrics(output);
  t.deepEqual(
    steps.map((r) => r.skipped ?? false),
    [false, true, true, true],
  );
  const weights = (step: number): Buffer =>
    readFileSync(join(output, `step-00000${step}`, 'model.safetensors'));
  t.true(weights(3).equals(weights(1)), 'skipped updates changed nothing');
});

test('without checkpoints between the steps, skipped ones are counted and recorded as they were made', async (t) => {
  const output = tempFolder(t);
  const skipped: (boolean | undefined)[] = [];
  const config = tinyConfig(output, {
    optimizer: { lr: 1e38, minLr: 1e38, warmupSteps: 0, clip: null, weightDecay: 0 },
    checkpoint: { interval: 0, keep: 3 },
    maxNonFinite: 4,
  });
  const error = await t.throwsAsync(
    train(config, { onEvent: (event) => event.type === 'step' && skipped.push(event.skipped) }),
    { instanceOf: GsaError },
  );
  t.regex(error!.message, /4 steps in a row had others, up to step 5; lower optimizer\.lr/);
  t.deepEqual(skipped, [undefined, true, true, true, true]);
  t.deepEqual(
    readMetrics(output).steps.map((r) => [r.step, r.skipped ?? false, r.loss === null]),
    [1, 2, 3, 4, 5].map((step) => [step, step > 1, step > 1]),
  );
});

test('a model folder is trained further, with its own tokenizer; its weights are where training starts', async (t) => {
  const [first, second] = [tempFolder(t), tempFolder(t)];
  const base = await train(tinyConfig(first, { steps: 30 }));
  const config = tinyConfig(second, { model: base.checkpoint, steps: 1 });
  const { tokenizer: _, ...data } = config.data;
  await train({ ...config, data });
  t.true(losses(second)[0]! < losses(first)[0]! - 1);
  t.is(
    readFileSync(join(second, 'step-000001', 'tokenizer.json'), 'utf8'),
    readFileSync(join(base.checkpoint, 'tokenizer.json'), 'utf8'),
  );
  t.false(existsSync(join(second, 'tokenizer.json')), 'no vocabulary was trained');
});

test('the token that ends documents stays the one that tokenizer_config.json named, also when resumed', async (t) => {
  const [output, folder] = [tempFolder(t), tempFolder(t)];
  const specials = ['<|endoftext|>', '<stop>'];
  writeFileSync(join(folder, 'tokenizer.json'), (await trainBpe([TEXT], { vocabSize: 300, specials })).json);
  writeFileSync(join(folder, 'tokenizer_config.json'), '{"eos_token": {"content": "<stop>"}}');
  const base = tinyConfig(output, { steps: 1 });
  const config = { ...base, data: { ...base.data, tokenizer: join(folder, 'tokenizer.json') } };
  const { checkpoint } = await train(config);
  t.is(JSON.parse(readFileSync(join(checkpoint, 'config.json'), 'utf8')).eos_token_id, 1);
  t.is(loadTokenizer(checkpoint).eosId, 1);
  t.is((await train({ ...config, steps: 2 })).step, 2);
});

test('a vocabulary larger than the model, and a misspelt model key, are refused before training', async (t) => {
  const output = tempFolder(t);
  const { model } = tinyConfig(output);
  const small = tinyConfig(output, { model: { ...(model as object), vocab_size: 300 } });
  await t.throwsAsync(train(small), { message: /Expected a model vocab_size of at least 384/ });
  const misspelt = tinyConfig(output, { model: { ...(model as object), num_slot: 3 } });
  await t.throwsAsync(train(misspelt), { message: /num_slot.*did you mean "num_slots"/ });
});
