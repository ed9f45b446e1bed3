import {
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { GsaError } from '#src/native/errors.js';
import {
  checkpointFolders,
  latestCheckpoint,
  openCheckpoint,
  recoverCheckpoint,
  saveCheckpoint,
  type TrainerState,
} from '#src/train/checkpoint.js';
import { tempFolder } from '../io/temp.js';

const state = (step: number): TrainerState => ({
  step,
  tokens: 64 * step,
  seconds: 1,
  skipped: 0,
  nonFiniteInARow: 0,
  sampler: { epoch: 0, index: step, seed: 0, seqLen: 4, windows: 2_000_000 },
  text: 'abc',
  unigramEntropy: 6,
  config: { seed: 1 },
});

const fill = (content: string) => (folder: string) => {
  writeFileSync(join(folder, 'model.safetensors'), content);
  writeFileSync(join(folder, 'config.json'), '{}');
};

const steps = (output: string): number[] => checkpointFolders(output).map((c) => c.step);

test('a checkpoint comes back with its state; the oldest beyond keep are deleted', async (t) => {
  const output = tempFolder(t);
  for (const step of [1, 2, 3, 1_000_000]) {
    const path = await saveCheckpoint(output, state(step), fill(`weights ${step}`), 2);
    t.deepEqual((await openCheckpoint(path)).state, state(step));
  }
  t.deepEqual(steps(output), [1_000_000, 3]);
  t.is((await latestCheckpoint(output))!.state.step, 1_000_000);
  t.is(await latestCheckpoint(join(output, 'nothing')), null);
});

test('saving the same step again replaces it', async (t) => {
  const output = tempFolder(t);
  await saveCheckpoint(output, state(5), fill('a'), 1);
  const path = await saveCheckpoint(output, state(5), fill('b'), 1);
  t.is(readFileSync(join(path, 'model.safetensors'), 'utf8'), 'b');
  t.deepEqual(readdirSync(output), ['step-000005']);
});

test('a save that fails leaves the earlier checkpoints and nothing half-written', async (t) => {
  const output = tempFolder(t);
  await saveCheckpoint(output, state(1), fill('good'), 1);
  await t.throwsAsync(
    saveCheckpoint(
      output,
      state(2),
      (folder) => {
        fill('half')(folder);
        throw new GsaError('IO', 'no space left on device');
      },
      1,
    ),
    { message: /no space left/ },
  );
  t.deepEqual(readdirSync(output), ['step-000001']);
});

const DAMAGE: Record<string, (folder: string) => void> = {
  'a weight file cut short': (folder) => truncateSync(join(folder, 'model.safetensors'), 3),
  'a changed byte': (folder) => writeFileSync(join(folder, 'model.safetensors'), 'wEights'),
  'a missing file': (folder) => rmSync(join(folder, 'config.json')),
  'no trainer.json': (folder) => rmSync(join(folder, 'trainer.json')),
  'a trainer.json that is no JSON': (folder) => writeFileSync(join(folder, 'trainer.json'), '{'),
  'a trainer.json of null': (folder) => writeFileSync(join(folder, 'trainer.json'), 'null'),
};

for (const [name, damage] of Object.entries(DAMAGE))
  test(`passed over, with the reason: ${name}`, async (t) => {
    const output = tempFolder(t);
    await saveCheckpoint(output, state(1), fill('older'), 2);
    const path = await saveCheckpoint(output, state(2), fill('weights'), 2);
    damage(path);
    const reasons: string[] = [];
    t.is((await latestCheckpoint(output, (_, reason) => reasons.push(reason)))!.state.step, 1);
    t.is(reasons.length, 1);
    t.true(reasons[0]!.includes(path));
    t.true(existsSync(path), 'looking changes nothing');

    const warnings: string[] = [];
    t.is((await recoverCheckpoint(output, (message) => warnings.push(message)))!.state.step, 1);
    t.deepEqual(readdirSync(output).toSorted(), ['damaged-step-000002', 'step-000001']);
    t.regex(warnings[0]!, /set aside as .*damaged-step-000002/);
    // Training on from step 1 must not count the damaged folder among those it keeps.
    await saveCheckpoint(output, state(2), fill('again'), 1);
    t.deepEqual(steps(output), [2]);
  });

test('what a killed process left half-written is cleared away', async (t) => {
  const output = tempFolder(t);
  await saveCheckpoint(output, state(1), fill('good'), 1);
  // Above every process id that a kernel gives out.
  mkdirSync(join(output, '.step-000002.4194399-0123456789ab.tmp'));
  t.is((await recoverCheckpoint(output, () => t.fail()))!.state.step, 1);
  t.deepEqual(readdirSync(output), ['step-000001']);
});
