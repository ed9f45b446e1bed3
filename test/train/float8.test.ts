import test from 'ava';
import type { Batch } from '#src/data/sampler.js';
import { GSAForCausalLM } from '#src/models/index.js';
import { native } from '#src/native/load.js';
import { parseTrainConfig } from '#src/train/config.js';
import { train } from '#src/train/loop.js';
import { Trainer, type StepOutcome } from '#src/train/trainer.js';
import { testPlaces, type Place } from '../devices.js';
import { tempFolder } from '../io/temp.js';
import { tinyConfig } from './tiny.js';

const V = 50;
const MODEL = { hidden_size: 64, num_hidden_layers: 2, num_heads: 2, num_slots: 8, intermediate_size: 96 };

function makeBatch(seed: number): Batch {
  const ids = Int32Array.from({ length: 64 }, (_, i) => (i * 31 + seed * 17 + ((i * i) % 7)) % V);
  const labels = Int32Array.from(ids, (id) => (id * 3 + 1) % V);
  return { ids, labels, shape: [4, 16], tokens: 64, cuSeqlens: null };
}

async function makeTrainer(
  place: Place,
  matmul: 'dtype' | 'fp8' | 'fp8-hybrid',
  model = {},
  recompute: boolean | 'blocks' = false,
): Promise<Trainer> {
  const config = await parseTrainConfig(tinyConfig('unused', { matmul, recompute }));
  const full = { ...MODEL, vocab_size: V, ...model };
  return new Trainer(GSAForCausalLM.create(full, { ...place, matmul, seed: 3 }), config);
}

async function lossesOf(trainer: Trainer, steps: number): Promise<number[]> {
  const outcomes: (StepOutcome | null)[] = [];
  for (let step = 0; step < steps; step++) outcomes.push(await trainer.step([makeBatch(step % 3)], 3e-3));
  outcomes.push(await trainer.settle());
  return outcomes.flatMap((outcome) => (outcome ? [outcome.loss] : []));
}

for (const place of testPlaces()) {
  const where = `${place.device} ${place.dtype}`;
  for (const matmul of ['fp8', 'fp8-hybrid'] as const)
    test(`${where} ${matmul}: 40 steps learn as in the dtype, the same bits twice; validation is in the dtype`, async (t) => {
      const [plain, one, two] = [
        await makeTrainer(place, 'dtype'),
        await makeTrainer(place, matmul),
        await makeTrainer(place, matmul),
      ];
      try {
        t.is(one.evaluate(makeBatch(7)), plain.evaluate(makeBatch(7)));
        const [exact, eight, again] = [
          await lossesOf(plain, 40),
          await lossesOf(one, 40),
          await lossesOf(two, 40),
        ];
        t.deepEqual(eight, again);
        const last = (losses: number[]) => losses.slice(-10).reduce((sum, loss) => sum + loss, 0) / 10;
        t.true(last(exact) < 0.6 * exact[0]!, `it learns: ${exact[0]} to ${last(exact)}`);
        t.true(Math.abs(last(eight) / last(exact) - 1) < 0.05, `${last(eight)} and ${last(exact)}`);
        t.notDeepEqual(eight, exact, 'something else was computed');
      } finally {
        for (const trainer of [plain, one, two]) trainer.dispose();
      }
    });

  test.serial(
    `${where} fp8: memory is flat, and all of it is given back, with short convolutions too`,
    async (t) => {
      const before = native().leaks();
      const trainer = await makeTrainer(place, 'fp8', { use_short_conv: true });
      try {
        const { device } = trainer.model;
        await lossesOf(trainer, 3);
        const used = device.memory().currentBytes;
        await lossesOf(trainer, 20);
        t.is(device.memory().currentBytes, used);
      } finally {
        trainer.dispose();
      }
      t.deepEqual(native().leaks(), before);
    },
  );
}

for (const place of testPlaces())
  test(`${place.device} ${place.dtype} fp8: what is made again is the same in 8 bits too`, async (t) => {
    const losses = [];
    for (const recompute of [false, true, 'blocks'] as const) {
      const trainer = await makeTrainer(place, 'fp8', {}, recompute);
      try {
        losses.push(await lossesOf(trainer, 5));
      } finally {
        trainer.dispose();
      }
    }
    t.deepEqual(losses[1], losses[0]);
    t.deepEqual(losses[2], losses[0]);
  });

test('a run in fp8 goes on from its checkpoint to the same bits, and not in another precision', async (t) => {
  const [whole, halves] = [tempFolder(t), tempFolder(t)];
  const config = (output: string, changes: object = {}) =>
    tinyConfig(output, { model: MODEL, matmul: 'fp8', gradientAccumulation: 1, ...changes });
  const full = await train(config(whole));
  await train(config(halves, { steps: 8 }));
  await t.throwsAsync(train(config(halves, { matmul: 'dtype' })), {
    code: 'INVALID_CONFIG',
    message: /matmul/,
  });
  const resumed = await train(config(halves));
  t.is(resumed.loss, full.loss);
  t.is(resumed.validationLoss, full.validationLoss);
});

test('what 8-bit products cannot take is refused before anything is made', async (t) => {
  t.throws(() => GSAForCausalLM.create({ ...MODEL, vocab_size: V, num_slots: 6 }, { matmul: 'fp8' }), {
    code: 'INVALID_CONFIG',
    message: /multiples of 16 .* \[12, 64\] for model\.layers\.0\.attn\.f_proj\.weight/,
  });
  t.throws(() => GSAForCausalLM.create({ ...MODEL, vocab_size: V }, { matmul: 'fp4' as 'fp8' }), {
    code: 'INVALID_ARGUMENT',
    message: /dtype, fp8, fp8-hybrid/,
  });
  const config = tinyConfig('unused', { matmul: 'fp8', batchSize: 3, data: { train: ['x'], seqLen: 24 } });
  await t.throwsAsync(parseTrainConfig(config), {
    code: 'INVALID_CONFIG',
    message: /batchSize · data\.seqLen to be a multiple of 16 for matmul "fp8" but received 72/,
  });
});
