import test from 'ava';
import { train } from '#src/train/loop.js';
import { readMetrics, type Metrics } from '#src/train/metrics.js';
import { formatSteadiness, steadiness } from '#src/train/steadiness.js';
import { tempFolder } from '../io/temp.js';
import { tinyConfig } from './tiny.js';

const MiB = 2 ** 20;

/** Steps of these seconds; memory every second one. */
function metrics(seconds: readonly number[]): Metrics {
  const steps = seconds.map((s, i) => ({
    step: i + 1,
    loss: 1,
    lr: 1,
    gradNorm: 1,
    tokens: 1,
    tokensPerSecond: 1 / s,
    seconds: s,
    ...(i % 2 === 1
      ? {
          memory: {
            rssBytes: (100 + i) * MiB,
            heapBytes: MiB,
            deviceBytes: i === 3 ? 9 * MiB : 8 * MiB,
            deviceReservedBytes: 10 * MiB,
          },
        }
      : {}),
  }));
  const evaluation = { step: 4, validationLoss: 1, validationPerplexity: 3, validationTokens: 9 };
  return { steps, evaluations: [evaluation], unigramEntropy: null };
}

test('the median, what exceeds it and by how much; the warm-up does not count', (t) => {
  const found = steadiness(metrics([9, 9, 0.1, 0.12, 0.2, 0.1, 0.1, 0.18]), 2)!;
  t.is(found.steps, 6);
  t.true(Math.abs(found.medianSeconds - 0.11) < 1e-12);
  t.is(found.slowestStep, 5);
  t.is(found.validations, 1);
  t.deepEqual(
    found.slow.map(({ step, afterValidation }) => [step, afterValidation]),
    [
      [5, true],
      [8, false],
    ],
  );
  t.true(Math.abs(found.slowestOfMedian - 0.2 / 0.11) < 1e-12);
  t.deepEqual(
    found.memory.map(({ step, rssBytes }) => [step, rssBytes / MiB]),
    [
      [4, 103],
      [6, 105],
      [8, 107],
    ],
  );
  t.deepEqual(formatSteadiness(found).split('\n'), [
    '6 steps after a warm-up of 2: median 110.00 ms, 99% within 1.818 times that, slowest 1.818 times (step 5), 2 above 1.5 times',
    '  step 5: 1.818 times, the first after a validation',
    '  step 8: 1.636 times',
    'time on the device; what ran between steps is in none of them (1 validations, and samples and checkpoints)',
    'process: 103 MiB at step 4, 107 MiB at step 8, at most 107 MiB',
    'JavaScript heap: 1 MiB at step 4, 1 MiB at step 8, at most 1 MiB',
    'tensors: 9 MiB at step 4, 8 MiB at step 8, at most 9 MiB',
    'held by the allocator: 10 MiB at step 4, 10 MiB at step 8, at most 10 MiB',
  ]);
  t.is(steadiness(metrics([1, 1]), 2), null);
});

test('what the host did for a slow step, and its garbage collections, where they were noted', (t) => {
  const { steps, ...rest } = metrics([0.1, 0.1, 0.1, 0.2, 0.19]);
  const noted = steps.map((record) => ({
    ...record,
    hostSeconds: record.step === 4 ? 0.15 : 0.05,
    ...(record.step === 4 ? { collectionSeconds: 0.0312 } : {}),
  }));
  const found = steadiness({ ...rest, steps: noted }, 0)!;
  t.is(found.medianHostSeconds, 0.05);
  const lines = formatSteadiness(found).split('\n');
  t.deepEqual(lines.slice(1, 3), [
    '  step 4: 2.000 times, host 150.00 ms, of it garbage collection 31.20 ms',
    '  step 5: 1.900 times, the first after a validation, host 50.00 ms',
  ]);
  t.true(lines.includes('host: median 50.00 ms a step, waits for the device left out'));
  t.is(steadiness(metrics([1]), 0)!.medianHostSeconds, null, 'records from before it was noted');
});

test('a training notes its memory every hundredth step, and that of tensors does not grow', async (t) => {
  const output = tempFolder(t);
  await train(tinyConfig(output, { steps: 300, batchSize: 1, gradientAccumulation: 1 }));
  const found = steadiness(readMetrics(output))!;
  t.is(found.steps, 250);
  t.deepEqual(
    found.memory.map(({ step }) => step),
    [100, 200, 300],
  );
  const [first, ...later] = found.memory;
  t.true(first!.deviceBytes > 0 && first!.deviceReservedBytes > 0 && first!.heapBytes > 0);
  for (const record of later) t.is(record.deviceBytes, first!.deviceBytes);
  t.true(found.slowestOfMedian >= 1 && found.medianSeconds > 0);
  t.true(found.medianHostSeconds! > 0);
});
