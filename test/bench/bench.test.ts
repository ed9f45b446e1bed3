import { execFile, execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { BENCH_KINDS, runBench } from '#src/bench/bench.js';
import { withGrowth } from '#src/bench/gsa.js';
import {
  benchReport,
  formatReport,
  outputCheck,
  type BenchReport,
  type BenchResult,
} from '#src/bench/report.js';
import { parseShape, shapeName } from '#src/bench/shape.js';
import { commitOf } from '#src/bench/stamp.js';
import { measureTogether, quantile, summarize } from '#src/bench/timing.js';
import { native, packageRoot } from '#src/native/load.js';
import { device } from '#src/tensor/device.js';

const cpu = device('cpu');
const TINY = { gemm: ['M5N7K3'], gsa: ['B2T70H2K8V12M6'], growth: ['B1T16H1K8V8M4', 'B1T32H1K8V8M4'] };
const SHAPES = { ...TINY, train: ['D16L1H2M4V32B2T70'] };

function run(kind: (typeof BENCH_KINDS)[number]): BenchReport {
  return runBench(kind, {
    device: cpu,
    shapes: SHAPES[kind],
    minIterations: 2,
    budgetMs: 0,
    command: 'test',
  });
}

const FIGURES = {
  gemm: ['gflops'],
  gsa: ['tokensPerSecond', 'peakMiB'],
  growth: ['tokensPerSecond', 'peakMiB', 'growth'],
  train: ['tokensPerSecond', 'parameters', 'peakMiB'],
};

for (const kind of BENCH_KINDS)
  test.serial(
    `bench ${kind} on ${SHAPES[kind].join(', ')} fp32: checked results with a stamp, nothing left alive`,
    (t) => {
      const before = native().leaks();
      const settings = ['threads', 'blas'].map((name) => cpu.getOption(name));
      const report = JSON.parse(JSON.stringify(run(kind))) as BenchReport;
      t.is(report.kind, kind);
      t.true(report.pass, JSON.stringify(report.results.map((result) => result.check)));
      t.is(report.stamp.device, 'cpu');
      for (const name of [
        'date',
        'command',
        'version',
        'node',
        'system',
        'cpu',
        'deviceName',
        'detail',
      ] as const)
        t.true(report.stamp[name].length > 0, name);
      t.is(report.stamp.units, cpu.getOption('threads'));
      for (const { shape, timing, figures, check } of report.results) {
        t.true(SHAPES[kind].includes(shape));
        t.true(timing.iterations >= 2 && timing.minMs > 0 && timing.minMs <= timing.medianMs);
        t.true(timing.medianMs <= timing.maxMs && timing.spread >= 0);
        for (const name of FIGURES[kind]) t.true(figures[name]! > 0, name);
        t.true(check.pass && check.error <= check.bound && check.against !== '');
      }
      t.deepEqual(native().leaks(), before);
      t.deepEqual(
        ['threads', 'blas'].map((name) => cpu.getOption(name)),
        settings,
      );
    },
  );

test('malformed requests are refused', (t) => {
  const bench = (kind: string, shapes?: string[]) => () =>
    runBench(kind as 'gsa', { device: cpu, shapes, command: 'test' });
  t.throws(bench('nothing'), { code: 'INVALID_ARGUMENT', message: /gemm, gsa, growth, train/ });
  for (const shape of ['M5N7', 'M5N7K3K4', 'M5N7K0', 'm5n7k3', 'M5N7K3X', 'M5N7K-3', '', 'M5N7L3'])
    t.throws(bench('gemm', [shape]), { code: 'INVALID_ARGUMENT', message: /M16N16K16/ }, shape);
  t.deepEqual(parseShape('K3M5N7', ['M', 'N', 'K']), { M: 5, N: 7, K: 3 });
  t.is(shapeName({ M: 5, N: 7 }), 'M5N7');
});

test('medians, quartiles and turns', (t) => {
  t.is(quantile([1, 2, 3, 4], 0.5), 2.5);
  t.is(quantile([7], 0.25), 7);
  const { medianMs, minMs, maxMs, spread, iterations } = summarize([5, 1, 3, 2, 4], 0);
  t.deepEqual([medianMs, minMs, maxMs, iterations], [3, 1, 5, 5]);
  t.is(spread, 2 / 3);
  const order: string[] = [];
  const timings = measureTogether([() => order.push('a'), () => order.push('b')], {
    warmup: 1,
    minIterations: 3,
    budgetMs: 0,
  });
  t.is(order.join(''), 'abababab');
  t.deepEqual(
    timings.map((timing) => [timing.iterations, timing.warmup]),
    [
      [3, 1],
      [3, 1],
    ],
  );
});

function result(name: string, shape: string, medianMs: number, error = 0): BenchResult {
  const timing = { ...summarize([medianMs], 0), medianMs };
  return { name, shape, timing, figures: {}, check: outputCheck('x', error, 1e-5) };
}

test('growth is cost over tokens, relative to the first shape of the same name', (t) => {
  const results = [
    result('f', '512', 2),
    result('f', '1024', 5),
    result('b', '512', 10),
    result('b', '1024', 20),
  ];
  t.deepEqual(
    withGrowth(results, Number).map((r) => r.figures['growth']),
    [1, 1.25, 1, 1],
  );
});

test('a wrong or missing output spoils the report and shows in the table', (t) => {
  for (const error of [1, NaN, Infinity]) {
    const report = benchReport('gsa', cpu, 'test', [result('f', 's', 1), result('g', 's', 1, error)]);
    t.false(report.pass, String(error));
    t.regex(formatReport(report), /^g +s .*WRONG: above 1e-5$/m);
    t.regex(formatReport(report), /^f +s .*ok$/m);
  }
  t.false(benchReport('gsa', cpu, 'test', []).pass);
});

test('the commit is that of a checkout, not of a folder inside one', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'flash-gsa-bench-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  t.is(commitOf(folder), null);
  const git = (...args: string[]) =>
    execFileSync('git', ['-C', folder, '-c', 'user.name=t', '-c', 'user.email=t@t', ...args], {
      stdio: 'pipe',
    });
  git('init', '-q');
  writeFileSync(join(folder, 'a'), '1');
  git('add', 'a');
  git('commit', '-qm', 'a');
  t.regex(commitOf(folder)!, /^[0-9a-f]{12}$/);
  mkdirSync(join(folder, 'node_modules'));
  t.is(commitOf(join(folder, 'node_modules')), null);
  writeFileSync(join(folder, 'a'), '2');
  t.regex(commitOf(folder)!, /^[0-9a-f]{12}-dirty$/);
});

function cli(...args: string[]): Promise<{ code: number; stdout: string }> {
  const main = join(packageRoot(), 'dist', 'cli', 'main.js');
  return new Promise((resolve) =>
    execFile(process.execPath, [main, 'bench', ...args], (error, stdout) =>
      resolve({ code: error ? Number(error.code) : 0, stdout }),
    ),
  );
}

test('flash-gsa bench: a table, JSON on demand, exit codes', async (t) => {
  const table = await cli('gsa', '--shape', 'B1T16H1K8V8M4', '--seconds', '0');
  t.is(table.code, 0);
  t.regex(table.stdout, /^gsa_chunk forward \+ backward +B1T16H1K8V8M4 .* ok$/m);
  const json = await cli('gemm', '--json', '--seconds', '0', '--shape', 'M5N7K3', '--shape', 'M4N4K4');
  t.is(json.code, 0);
  const report = JSON.parse(json.stdout) as BenchReport;
  t.deepEqual([...new Set(report.results.map((r) => r.shape))], ['M5N7K3', 'M4N4K4']);
  t.is(report.stamp.command, 'flash-gsa bench gemm --json --seconds 0 --shape M5N7K3 --shape M4N4K4');
  t.is((await cli('speed')).code, 2);
  t.is((await cli('gemm', '--shape', 'M5')).code, 2);
  t.is((await cli('gemm', '--seconds', 'NaN')).code, 2);
});
