import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { writeLogits } from '#src/generate/index.js';
import { openSafetensors, writeSafetensors, type SafetensorsEntry } from '#src/io/safetensors.js';
import { GSAForCausalLM } from '#src/models/index.js';
import { native } from '#src/native/load.js';
import { parseLines, run } from '../cli/run.js';
import { tempFolder } from '../io/temp.js';
import { fixture } from '../paths.js';

const MODEL = fixture('models', 'gsa_gqa');

function idsFile(folder: string, entry: Partial<SafetensorsEntry>): string {
  const path = join(folder, 'ids.safetensors');
  const data = Int32Array.of(3, 1, 4, 1, 5, 9);
  writeSafetensors(path, [{ name: 'input_ids', dtype: 'int32', shape: [2, 3], data, ...entry }]);
  return path;
}

/** log-softmax in double precision, row by row. */
function logSoftmax(logits: Float32Array, width: number): Float64Array {
  const out = Float64Array.from(logits);
  for (let at = 0; at < out.length; at += width) {
    const row = out.subarray(at, at + width);
    const top = row.reduce((a, b) => Math.max(a, b));
    const logSum = top + Math.log(row.reduce((sum, x) => sum + Math.exp(x - top), 0));
    row.forEach((x, i) => (row[i] = x - logSum));
  }
  return out;
}

test('flash-gsa logits: the stored log-probabilities and loss of a model, float32', async (t) => {
  const out = join(tempFolder(t), 'out.safetensors');
  const ids = join(MODEL, 'expected.safetensors');
  const ended = await run(['logits', MODEL, '--ids', ids, '--out', out, '--json']);
  t.is(ended.code, 0, ended.stderr);
  using expected = openSafetensors(ids);
  using actual = openSafetensors(out);
  const [B, T, width] = actual.info('logits').shape as [number, number, number];
  t.deepEqual([B, T], [...expected.info('input_ids').shape]);
  const logProbs = logSoftmax(actual.read('logits').data as Float32Array, width);
  const stored = expected.read('log_probs').data as Float32Array;
  let largest = 0;
  for (let b = 0; b < B; b++)
    for (let i = 0; i < (T - 1) * width; i++)
      largest = Math.max(largest, Math.abs(logProbs[b * T * width + i]! - stored[b * (T - 1) * width + i]!));
  t.true(largest < 1e-4, `log-probabilities differ by ${largest}`);
  const loss = (actual.read('loss').data as Float32Array)[0]!;
  t.true(Math.abs(loss - (expected.read('loss').data as Float32Array)[0]!) < 1e-4);
  const printed = parseLines(ended.stdout)[0]!;
  t.like(printed, { model: MODEL, out, shape: [B, T, width] });
  t.is(Math.fround(printed['loss'] as number), loss);
});

test('int64 ids give the same bytes as int32; one token a sequence gives logits without a loss; nothing stays alive', (t) => {
  const folder = tempFolder(t);
  const before = native().leaks();
  {
    using model = GSAForCausalLM.load(MODEL);
    const logits = (entry: Partial<SafetensorsEntry>, withLoss: boolean): Float32Array => {
      const out = join(folder, 'out.safetensors');
      const result = writeLogits(model, idsFile(folder, entry), out);
      using reader = openSafetensors(out);
      t.is(reader.has('loss'), withLoss);
      t.is(result.loss !== null, withLoss);
      return reader.read('logits').data as Float32Array;
    };
    const wide = { dtype: 'int64', data: BigInt64Array.of(3n, 1n, 4n, 1n, 5n, 9n) } as const;
    t.deepEqual(logits(wide, true), logits({}, true));
    const width = model.config.vocab_size;
    const single = logits({ shape: [6, 1] }, false);
    t.is(single.length, 6 * width);
    const first = logits({}, true).subarray(0, width);
    t.true(first.every((x, i) => Math.abs(x - single[i]!) < 1e-5));
  }
  t.deepEqual(native().leaks(), before);
});

for (const [what, entry, message] of [
  ['no ids', { name: 'ids' }, /Expected a tensor input_ids but the file has ids/],
  ['ids in one dimension', { shape: [6] }, /Expected shape \[B, T\] .* received \[6\]/],
  ['no tokens', { shape: [2, 0], data: new Int32Array(0) }, /at least one token/],
  ['float ids', { dtype: 'float32', data: new Float32Array(6) }, /Expected I32 or I64 .* received F32/],
  ['an id past the vocabulary', { data: Int32Array.of(0, 1, 2, 1 << 20, 0, 0) }, /but found 1048576/],
  ['a negative id', { data: Int32Array.of(0, 1, -1, 0, 0, 0) }, /but found -1/],
] as const)
  test(`a file with ${what} is refused and nothing is written`, (t) => {
    const folder = tempFolder(t);
    const out = join(folder, 'out.safetensors');
    using model = GSAForCausalLM.load(MODEL);
    t.throws(() => writeLogits(model, idsFile(folder, entry as Partial<SafetensorsEntry>), out), {
      code: 'INVALID_FILE',
      message,
    });
    t.false(existsSync(out));
  });

test('flash-gsa logits: a folder that is no model, and a text file of ids, end with 1 and one line', async (t) => {
  const folder = tempFolder(t);
  const out = join(folder, 'out.safetensors');
  const text = join(folder, 'ids.txt');
  writeFileSync(text, '1 2 3');
  for (const [model, ids, message] of [
    [folder, text, /Expected a model folder/],
    [MODEL, text, /ids\.txt/],
  ] as const) {
    const ended = await run(['logits', model, '--ids', ids, '--out', out]);
    t.is(ended.code, 1);
    t.regex(ended.stderr, message);
    t.is(ended.stderr.trimEnd().split('\n').length, 1);
    t.false(existsSync(out));
  }
});
