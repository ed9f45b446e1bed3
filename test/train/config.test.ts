import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { GsaError } from '#src/native/errors.js';
import { applyOverrides, changedKeys, loadTrainConfig, parseTrainConfig } from '#src/train/config.js';
import { tempFolder } from '../io/temp.js';

const MINIMAL = { model: { hidden_size: 8 }, data: { train: 'a.txt' } };

test('a minimal configuration gets every default', async (t) => {
  const config = await parseTrainConfig(MINIMAL);
  t.deepEqual(config.data.train, ['a.txt']);
  t.is(config.batchSize, 8);
  t.deepEqual(config.optimizer.betas, [0.9, 0.95]);
  t.is(config.optimizer.clip, 1);
  t.is(config.seed, 0);
  t.is(config.checkpoint.keep, 2);
  t.deepEqual(await parseTrainConfig(config), config, 'what is parsed parses to itself');
});

const REFUSED: readonly (readonly [overrides: string[], message: string])[] = [
  [['optimizer.lr=NaN'], 'Expected a number for optimizer.lr but received "NaN"'],
  [['optimizer.lr=1e400'], 'Expected a number for optimizer.lr but received Infinity'],
  [['optimizer.lr=0'], 'Expected a number above 0 for optimizer.lr but received 0'],
  [
    ['optimizer.lr=1e-4', 'optimizer.minLr=1e-3'],
    'Expected at most optimizer.lr (0.0001) for optimizer.minLr but received 0.001',
  ],
  [['optimzer.lr=3'], 'Unknown key optimzer (did you mean "optimizer"?)'],
  [['data.seq_len=3'], 'Unknown key data.seq_len (did you mean "seqLen"?)'],
  [
    ['data.tokenizer={"train":{"vocabsize":300}}'],
    'Unknown key data.tokenizer.train.vocabsize (did you mean "vocabSize"?)',
  ],
  [
    ['data.tokenizer={"train":{"vocabSize":3}}'],
    'Expected a number of at least 260 for data.tokenizer.train.vocabSize but received 3',
  ],
  [['batchSize=0'], 'Expected a number of at least 1 for batchSize but received 0'],
  [['batchSize=2.5'], 'Expected an integer for batchSize but received 2.5'],
  [['data.train=[]'], 'Expected at least 1 element for data.train but received []'],
  [['data.train=3'], 'Expected a string or a list for data.train but received 3'],
  [['steps=3', 'tokens=5'], 'Expected one of steps, tokens and epochs but received steps and tokens'],
  [['device=gpu'], 'Expected "cpu", "cuda" or "cuda:N" for device but received "gpu"'],
  [['optimizer.betas=[0.9,1]'], 'Expected a number below 1 for optimizer.betas.1 but received 1'],
  [['model=3'], 'Expected a string or an object for model but received 3'],
  [['sample.topP=1.5'], 'Expected a number of at most 1 for sample.topP but received 1.5'],
  [['seed=-1'], 'Expected a number of at least 0 for seed but received -1'],
  [['x'], 'Expected KEY.KEY=VALUE for --set but received "x"'],
  [['=1'], 'Expected KEY.KEY=VALUE for --set but received "=1"'],
  [['__proto__.a=1'], 'Expected KEY.KEY=VALUE for --set but received "__proto__.a=1"'],
  [['seed=1', 'seed.a=3'], 'Expected an object at seed for --set seed.a=3 but it is 1'],
];

for (const [overrides, message] of REFUSED)
  test(`refused: --set ${overrides.join(' --set ')}`, async (t) => {
    const error = await t.throwsAsync(async () => parseTrainConfig(applyOverrides(MINIMAL, overrides)), {
      instanceOf: GsaError,
    });
    t.is(error!.code, 'INVALID_CONFIG');
    t.is(error!.message, message);
  });

test('every wrong key is named in one message, with the file', async (t) => {
  const path = join(tempFolder(t), 'c.json');
  writeFileSync(path, JSON.stringify({ ...MINIMAL, batchsize: 1, seed: 'x', zzzzzzz: 1 }));
  const error = await t.throwsAsync(loadTrainConfig(path), { instanceOf: GsaError });
  t.true(error!.message.startsWith(`${path}: `));
  t.regex(error!.message, /seed but received "x"/);
  t.regex(error!.message, /batchsize \(did you mean "batchSize"\?\)/);
  t.regex(error!.message, /zzzzzzz \(known here: model, data,/);
  t.false(error!.message.includes('\n'));
});

test('files that are missing or no JSON', async (t) => {
  const folder = tempFolder(t);
  t.is((await t.throwsAsync(loadTrainConfig(join(folder, 'no.json')), { instanceOf: GsaError }))!.code, 'IO');
  const path = join(folder, 'c.json');
  writeFileSync(path, '{"a": 1,}');
  t.is((await t.throwsAsync(loadTrainConfig(path), { instanceOf: GsaError }))!.code, 'INVALID_CONFIG');
});

test('overrides are typed, make missing objects and leave the original alone', (t) => {
  const raw = { a: { b: 1 }, text: 'x' };
  t.deepEqual(
    applyOverrides(raw, ['a.b=2', 'a.c.d=[1,"x"]', 'text=cpu', 'flag=true', 'none=null', 'eq=a=b']),
    {
      a: { b: 2, c: { d: [1, 'x'] } },
      text: 'cpu',
      flag: true,
      none: null,
      eq: 'a=b',
    },
  );
  t.deepEqual(raw, { a: { b: 1 }, text: 'x' });
});

test('a resumed run may change lengths and intervals, nothing that a step computes', async (t) => {
  const before = await parseTrainConfig(MINIMAL);
  const free = [
    'steps=9',
    'evaluation.interval=3',
    'checkpoint.keep=9',
    'sample.interval=4',
    'output=x',
    'threads=2',
    'data.cache=y',
  ];
  t.deepEqual(changedKeys(before, await parseTrainConfig(applyOverrides(MINIMAL, free))), []);
  const bound = [
    'seed=1',
    'optimizer.lr=5e-4',
    'model.hidden_size=16',
    'data.seqLen=64',
    'data.train=["b.txt"]',
  ];
  t.deepEqual(changedKeys(before, await parseTrainConfig(applyOverrides(MINIMAL, bound))).toSorted(), [
    'data.seqLen',
    'data.train',
    'model.hidden_size',
    'optimizer.lr',
    'seed',
  ]);
});
