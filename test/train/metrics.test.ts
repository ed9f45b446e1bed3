import { appendFileSync, readFileSync, writeFileSync } from 'node:fs';
import test from 'ava';
import { GsaError } from '#src/native/errors.js';
import { MetricsWriter, metricsPath, readMetrics, type StepRecord } from '#src/train/metrics.js';
import { tempFolder } from '../io/temp.js';

const record = (step: number): StepRecord => ({
  step,
  loss: 1 / step,
  lr: 1e-3,
  gradNorm: 0.5,
  tokens: 64,
  tokensPerSecond: 1000,
  seconds: 0.064,
});

test('records come back as written; numbers exactly', (t) => {
  const folder = tempFolder(t);
  const writer = new MetricsWriter(folder, () => true);
  writer.append({ step: 0, unigramEntropy: 6.1 });
  writer.append(record(1));
  writer.append({ ...record(2), loss: null, gradNorm: null, skipped: true });
  writer.append({ step: 2, validationLoss: 3, validationPerplexity: Math.exp(3), validationTokens: 640 });
  writer.close();
  writer.close();
  const metrics = readMetrics(folder);
  t.is(metrics.unigramEntropy, 6.1);
  t.deepEqual(metrics.steps[0], record(1));
  t.is(metrics.steps[1]!.loss, null);
  t.is(metrics.evaluations[0]!.validationPerplexity, Math.exp(3));
});

test('reopening drops the steps that will run again, and a line cut short by a crash', (t) => {
  const folder = tempFolder(t);
  let writer = new MetricsWriter(folder, () => true);
  for (let step = 1; step <= 9; step++) writer.append(record(step));
  writer.close();
  appendFileSync(metricsPath(folder), '{"step":10,"lo');
  t.is(readMetrics(folder).steps.length, 9);
  writer = new MetricsWriter(folder, (r) => r.step <= 5);
  writer.append(record(6));
  writer.close();
  t.deepEqual(
    readMetrics(folder).steps.map((r) => r.step),
    [1, 2, 3, 4, 5, 6],
  );
  t.is(readFileSync(metricsPath(folder), 'utf8').split('\n').length, 7);
});

test('a line that is no record is named by file and line', (t) => {
  const folder = tempFolder(t);
  writeFileSync(metricsPath(folder), `${JSON.stringify(record(1))}\nnull\n`);
  const error = t.throws(() => readMetrics(folder), { instanceOf: GsaError })!;
  t.is(error.code, 'INVALID_FILE');
  t.true(error.message.endsWith(`${metricsPath(folder)}:2`));
  t.is(t.throws(() => readMetrics(tempFolder(t)), { instanceOf: GsaError })!.code, 'IO');
});
