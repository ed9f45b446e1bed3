import { join } from 'node:path';
import test from 'ava';
import { IGNORED, type Batch } from '#src/data/sampler.js';
import { GSAForCausalLM } from '#src/models/index.js';
import { native } from '#src/native/load.js';
import { parseTrainConfig, type TrainConfig } from '#src/train/config.js';
import { Trainer, type StepOutcome } from '#src/train/trainer.js';
import { testPlaces, type Place } from '../devices.js';
import { tempFolder } from '../io/temp.js';
import { tinyConfig } from './tiny.js';

const V = 50;

async function makeTrainer(place: Place, changes: Partial<TrainConfig['optimizer']> = {}): Promise<Trainer> {
  const config = await parseTrainConfig(tinyConfig('unused'));
  const model = GSAForCausalLM.create({ ...(config.model as object), vocab_size: V }, { ...place, seed: 3 });
  return new Trainer(model, { ...config, optimizer: { ...config.optimizer, ...changes } });
}

/** One step, waited for. */
async function stepOf(trainer: Trainer, batches: readonly Batch[], lr: number): Promise<StepOutcome> {
  await trainer.step(batches, lr);
  return (await trainer.settle())!;
}

/** What a step computed, without the time it took. */
function results({ loss, gradNorm, tokens, skipped }: StepOutcome): Omit<StepOutcome, 'seconds' | 'host'> {
  return { loss, gradNorm, tokens, skipped };
}

/** Rows of 16 tokens; labels beyond `counted` do not count. */
function makeBatch(seed: number, rows: number, counted = rows * 16): Batch {
  const ids = Int32Array.from({ length: rows * 16 }, (_, i) => (i * 31 + seed * 17 + ((i * i) % 7)) % V);
  const labels = Int32Array.from(ids, (_, i) =>
    i < counted ? (ids[(i + 1) % ids.length]! + 1) % V : IGNORED,
  );
  return { ids, labels, shape: [rows, 16], tokens: counted, cuSeqlens: null };
}

function joined(a: Batch, b: Batch): Batch {
  return {
    ids: Int32Array.from([...a.ids, ...b.ids]),
    labels: Int32Array.from([...a.labels, ...b.labels]),
    shape: [a.shape[0] + b.shape[0], 16],
    tokens: a.tokens + b.tokens,
    cuSeqlens: null,
  };
}

function weights(trainer: Trainer): Float32Array {
  return Float32Array.from(trainer.model.namedParameters().flatMap(([, p]) => [...p.toFloat32()]));
}

for (const place of testPlaces()) {
  const where = `${place.device} ${place.dtype}`;
  const bounds = place.dtype === 'float32' ? { loss: 1e-5, norm: 1e-4 } : { loss: 1e-2, norm: 2e-2 };
  test(`${where} accumulation over micro-batches of 32 and 5 counted tokens equals one batch of both`, async (t) => {
    const [a, b] = [makeBatch(1, 2), makeBatch(2, 2, 5)];
    const [split, whole] = [await makeTrainer(place), await makeTrainer(place)];
    try {
      for (let step = 0; step < 3; step++) {
        const x = await stepOf(split, [a, b], 1e-2);
        const y = await stepOf(whole, [joined(a, b)], 1e-2);
        t.is(x.tokens, 37);
        t.true(Math.abs(x.loss - y.loss) < bounds.loss * y.loss, `loss ${x.loss} and ${y.loss}`);
        t.true(
          Math.abs(x.gradNorm - y.gradNorm) < bounds.norm * y.gradNorm,
          `norm ${x.gradNorm} and ${y.gradNorm}`,
        );
      }
    } finally {
      split.dispose();
      whole.dispose();
    }
  });

  test(`${where} a step whose gradient is not finite changes neither weights nor moments, and the next one is made`, async (t) => {
    const trainer = await makeTrainer(place);
    try {
      await stepOf(trainer, [makeBatch(1, 2)], 1e-3);
      const moments = (): number[] => [...trainer.optimizer.state().values()].flatMap((m) => [...m.read()]);
      const [before, momentsBefore] = [weights(trainer), moments()];
      const norm = trainer.model.namedParameters().find(([name]) => name === 'model.norm.weight')![1];
      const good = norm.toFloat32();
      norm.write(good.map(() => Infinity));
      const bad = await stepOf(trainer, [makeBatch(2, 2)], 1e-3);
      t.true(bad.skipped);
      norm.write(good);
      t.deepEqual(weights(trainer), before);
      t.deepEqual(moments(), momentsBefore);
      t.is(trainer.optimizer.stepCount, 1);
      t.false((await stepOf(trainer, [makeBatch(2, 2)], 1e-3)).skipped);
      t.notDeepEqual(weights(trainer), before);
    } finally {
      trainer.dispose();
    }
  });

  test(`${where} a step tells of the one before it, and computes what it would if each were waited for`, async (t) => {
    const [ahead, waiting] = [await makeTrainer(place), await makeTrainer(place)];
    const spoil = (trainer: Trainer, value: number): void => {
      const norm = trainer.model.namedParameters().find(([name]) => name === 'model.norm.weight')![1];
      norm.write(norm.toFloat32().map(() => value));
    };
    try {
      const told: StepOutcome[] = [];
      const waited: StepOutcome[] = [];
      for (let step = 0; step < 6; step++) {
        // Skipped steps in the middle, one after another: the bias correction of the next goes by those made.
        for (const trainer of [ahead, waiting])
          if (step === 2 || step === 4) spoil(trainer, step === 2 ? Infinity : 0.5);
        const before = await ahead.step([makeBatch(step, 2)], 1e-3);
        t.is(before === null, step === 0, `step ${step} tells of the one before`);
        if (before) told.push(before);
        waited.push(await stepOf(waiting, [makeBatch(step, 2)], 1e-3));
      }
      told.push((await ahead.settle())!);
      t.is(await ahead.settle(), null, 'it is told once');
      t.deepEqual(told.map(results), waited.map(results));
      t.deepEqual(
        told.map((outcome) => outcome.skipped),
        [false, false, true, true, false, false],
      );
      t.true(told.every(({ seconds }) => seconds > 0));
      // The host's time is without gaps while steps follow each other, and what it waited for is no work.
      for (const [i, { host }] of told.entries()) {
        if (i > 0) t.is(host.from, told[i - 1]!.host.to);
        t.true(host.ms > 0 && host.ms <= host.to - host.from);
      }
      t.true(waited.every(({ host }, i) => i === 0 || host.from > waited[i - 1]!.host.to));
      t.deepEqual([ahead.optimizer.stepCount, ahead.optimizer.skipped], [4, 2]);
      t.deepEqual(weights(ahead), weights(waiting));
    } finally {
      ahead.dispose();
      waiting.dispose();
    }
  });

  test(`${where} clipping bounds the update; the norm that is told is the one before it`, async (t) => {
    const [free, clipped] = [
      await makeTrainer(place, { clip: null }),
      await makeTrainer(place, { clip: 1e-3 }),
    ];
    try {
      const x = await stepOf(free, [makeBatch(1, 2)], 1e-3);
      const y = await stepOf(clipped, [makeBatch(1, 2)], 1e-3);
      t.is(x.gradNorm, y.gradNorm);
      const first = (trainer: Trainer): number => {
        const m = [...trainer.optimizer.state()].filter(([name]) => name.endsWith('.exp_avg'));
        return Math.sqrt(m.flatMap(([, v]) => [...v.read()]).reduce((sum, v) => sum + v * v, 0));
      };
      // After one step the first moment is (1 - beta1) = 0.1 times the gradient that was used.
      t.true(Math.abs(first(free) - 0.1 * x.gradNorm) < 1e-4 * x.gradNorm);
      t.true(Math.abs(first(clipped) - 1e-4) < 1e-7);
    } finally {
      free.dispose();
      clipped.dispose();
    }
  });

  test(`${where} saved and restored, a trainer takes the same steps to the last bit`, async (t) => {
    const folder = tempFolder(t);
    const one = await makeTrainer(place);
    await stepOf(one, [makeBatch(1, 2)], 1e-3);
    one.save(folder);
    const { model } = one;
    const config = await parseTrainConfig(tinyConfig('unused'));
    const two = new Trainer(GSAForCausalLM.load(folder, place), config);
    try {
      two.restoreOptimizer(folder);
      for (let step = 2; step < 5; step++)
        t.deepEqual(
          results(await stepOf(two, [makeBatch(step, 2)], 1e-3)),
          results(await stepOf(one, [makeBatch(step, 2)], 1e-3)),
        );
      t.deepEqual(weights(two), weights(one));
      const other = GSAForCausalLM.create({ ...model.config, num_slots: 4 }, place);
      const wrong = new Trainer(other, config);
      t.throws(() => wrong.restoreOptimizer(folder), {
        message: new RegExp(`${join(folder, 'optimizer')}.*f_proj`),
      });
      wrong.dispose();
    } finally {
      one.dispose();
      two.dispose();
    }
  });

  test.serial(
    `${where} memory is flat over 300 steps and validations, and all of it is given back`,
    async (t) => {
      const trainer = await makeTrainer(place);
      const batches = [makeBatch(1, 2), makeBatch(2, 2)];
      const { device } = trainer.model;
      const run = async (): Promise<void> => {
        await trainer.step(batches, 1e-3);
        trainer.evaluate(batches[0]!);
      };
      await run();
      const before = device.memory({ resetPeak: true });
      await run();
      const after = device.memory({ resetPeak: true });
      t.is(after.currentBytes, before.currentBytes);
      const leaks = native().leaks();
      for (let step = 0; step < 300; step++) await run();
      t.deepEqual(native().leaks(), leaks);
      const last = device.memory();
      t.is(last.currentBytes, before.currentBytes);
      t.is(last.peakBytes, after.peakBytes);
      trainer.dispose();
      t.is(native().leaks().finalized, 0);
    },
  );
}
