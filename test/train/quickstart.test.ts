import test from 'ava';
import { modelConfig, modelSource } from '#src/train/model-source.js';
import { parameterCount } from '#src/models/index.js';
import { parseTrainConfig } from '#src/train/config.js';
import { PROMPTS, quickstartConfig } from '#src/train/quickstart.js';

test('the quickstart is a valid training of a few million parameters, whose steps follow from the minutes alone', async (t) => {
  const config = await parseTrainConfig(quickstartConfig('folder', 3));
  t.deepEqual(
    await parseTrainConfig(quickstartConfig('folder')),
    config,
    'three minutes when none are given',
  );
  t.is((await parseTrainConfig(quickstartConfig('folder', 1))).steps, config.steps! / 3);
  t.is((await parseTrainConfig(quickstartConfig('folder', 1e-9))).steps, 1);
  const model = modelConfig(modelSource(config.model), { vocabSize: 4096, bosId: null, eosId: 0 });
  const count = parameterCount(model);
  t.true(count > 2e6 && count < 8e6, `${count} parameters`);
  t.is(model.eos_token_id, 0);
  t.is(PROMPTS.length, 3);
  t.true(config.checkpoint.interval > 0 && config.checkpoint.interval < config.steps!);
});
