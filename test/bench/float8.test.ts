import test from 'ava';
import { runBench } from '#src/bench/bench.js';
import { clockOf } from '#src/bench/clock.js';
import { benchFloat8 } from '#src/bench/gemm_float8.js';
import { device } from '#src/tensor/device.js';

const cpu = device('cpu');
const measure = { warmup: 0, minIterations: 1, budgetMs: 0 };

test('8-bit products: every row is checked against float64 and float32, other extents have none', (t) => {
  const watch = { clock: clockOf(cpu), caches: '', prepare: () => {}, dispose: () => {} };
  const peaks = { copyBytesPerSecond: 1e9, matmulFlopsPerSecond: 1e9, matmul: '' };
  const context = { device: cpu, dtype: 'float32', watch, measure, peaks } as const;
  const results = benchFloat8(context, { M: 64, N: 48, K: 272 });
  t.deepEqual(
    results.map(({ name, variant }) => `${name} ${variant}`),
    ['matmul fp8, fast sums', 'matmul fp8', 'copies of A fp8', 'copies of A fp8, absmax'],
  );
  for (const { checks, figures, variant } of results) {
    t.is(checks.length, 2);
    t.true(
      checks.every(({ pass }) => pass),
      `${variant}: ${JSON.stringify(checks)}`,
    );
    // The 8-bit numbers' own product is exact to float32, the other check sees what they lost.
    t.true(checks[0]!.error < 1e-5 && checks[1]!.error > 1e-2);
    t.true(figures['gbPerSecond']! > 0);
  }
  t.deepEqual(benchFloat8(context, { M: 64, N: 48, K: 40 }), []);
});

test('train --matmul fp8: said in the variant, checked like any other, with a budget that has its products', async (t) => {
  const report = await runBench('train', {
    device: cpu,
    shapes: ['D32L1H2M8V32B2T72'],
    matmul: 'fp8',
    budget: true,
    command: 'test',
    smallPeaks: true,
    ...measure,
    minIterations: 2,
  });
  t.true(report.pass, JSON.stringify(report.results.map(({ checks }) => checks)));
  t.true(report.results.every(({ variant }) => variant === 'fp8'));
  const parts = report.results[0]!.budget!.map(({ part }) => part);
  t.true(
    parts.includes('float8_quantize') &&
      parts.some((part) => part.startsWith('float8_matmul 144x32 · 112x32ᵀ')),
  );
});
