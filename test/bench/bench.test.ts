import { execFile, execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { BENCH_KINDS, SHAPES, runBench, type BenchKind } from '#src/bench/bench.js';
import { bounds, deviceError, finiteError, outputCheck } from '#src/bench/check.js';
import { clockOf } from '#src/bench/clock.js';
import * as counts from '#src/bench/counts.js';
import { GSA_DIMENSIONS, GSA_OPTIONAL, checkGsa, makeInputs } from '#src/bench/gsa_case.js';
import { withGrowth } from '#src/bench/gsa.js';
import { checkSmall } from '#src/bench/modules.js';
import { MODULES, type ModuleName } from '#src/bench/module_cases.js';
import { rates } from '#src/bench/peaks.js';
import { benchReport, formatReport, type BenchReport, type BenchResult } from '#src/bench/report.js';
import { parseShape, shapeName } from '#src/bench/shape.js';
import { documentLengths } from '#src/bench/shapes.js';
import { commitOf } from '#src/bench/stamp.js';
import { measurePhases, measureTogether, quantile, stopwatch, summarize } from '#src/bench/timing.js';
import { add, scale, swiglu } from '#src/ops/index.js';
import { native, packageRoot } from '#src/native/load.js';
import { device, type Device } from '#src/tensor/device.js';
import { scope } from '#src/tensor/scope.js';
import { Tensor } from '#src/tensor/tensor.js';
import { testDevices } from '../devices.js';

const cpu = device('cpu');
const MODEL = 'D16L1H2M4V32';
const TINY: Readonly<Record<BenchKind, readonly string[]>> = {
  gemm: ['M5N7K3', 'M300N280K20'],
  gsa: ['B2T70H2K8V12M6', 'B1T70H2K8V12M6HQ4', 'B1T90H2K8V8M4DOC40'],
  growth: ['B1T16H1K8V8M4', 'B1T32H1K8V8M4'],
  modules: [
    'rmsnorm:N5D16',
    'rmsnorm+residual:N5D16',
    'rmsnorm(silu):N5D16',
    'swiglu:N5D16',
    'cross-entropy:N5C30',
    'linear-cross-entropy:N5D16C30',
    'embedding:N7D16C9',
    'short-conv:B2T9D8W4',
    'rotary:B2T9H2D8',
    'gsa-gate:B2T9H2M4',
    'adamw:P5000',
  ],
  train: [`${MODEL}B2T70`],
  decode: [`${MODEL}B3P9N4`],
};
/** Beside those of the counts. */
const FIGURES: Readonly<Record<BenchKind, readonly string[]>> = {
  gemm: ['gflops', 'gbPerSecond', 'ofCopy', 'ofMatmul', 'ofFloor'],
  gsa: ['tokensPerSecond', 'gflops', 'ofCopy', 'ofFloor'],
  growth: ['tokensPerSecond', 'growth'],
  modules: ['gbPerSecond', 'ofCopy'],
  train: [],
  decode: ['tokensPerSecond', 'firstTokenMs', 'ofCopy'],
};

function run(kind: BenchKind, on: Device, dtype?: 'float32' | 'bfloat16'): Promise<BenchReport> {
  return runBench(kind, {
    device: on,
    dtype,
    shapes: TINY[kind],
    warmup: 1,
    minIterations: 2,
    budgetMs: 0,
    smallPeaks: true,
    command: 'test',
  });
}

function checkReport(t: ExecutionContext, kind: BenchKind, on: Device, report: BenchReport): void {
  t.is(report.kind, kind);
  t.true(report.pass, JSON.stringify(report.results.map((result) => result.checks)));
  t.is(report.stamp.device, on.toString());
  for (const name of ['date', 'command', 'version', 'node', 'system', 'cpu', 'deviceName', 'detail'] as const)
    t.true(report.stamp[name].length > 0, name);
  t.is(report.stamp.units, on.info().units);
  t.true(report.peaks.copyBytesPerSecond > 0 && report.peaks.matmulFlopsPerSecond > 0);
  for (const { shape, timing, figures, checks } of report.results) {
    t.true(
      TINY[kind].some((text) => text === shape || text.endsWith(`:${shape}`)),
      shape,
    );
    t.true(timing.iterations >= 2 && timing.minMs > 0 && timing.spread >= 0);
    const { minMs, p10Ms, medianMs, p90Ms, maxMs } = timing;
    t.deepEqual(
      [minMs, p10Ms, medianMs, p90Ms, maxMs].toSorted((a, b) => a - b),
      [minMs, p10Ms, medianMs, p90Ms, maxMs],
    );
    for (const name of FIGURES[kind]) t.true(figures[name]! > 0, name);
    for (const check of checks) t.true(check.pass && check.error <= check.bound && check.against !== '');
    t.true(checks.length > 0);
  }
}

for (const on of testDevices())
  for (const kind of BENCH_KINDS)
    for (const dtype of on.backend === 'cpu' ? (['float32'] as const) : (['float32', 'bfloat16'] as const))
      test.serial(
        `bench ${kind} on ${on}, small shapes, ${dtype}: checked and stamped, nothing left`,
        async (t) => {
          const before = native().leaks();
          const blas = on.backend === 'cpu' ? on.getOption('blas') : null;
          const report = JSON.parse(JSON.stringify(await run(kind, on, dtype))) as BenchReport;
          checkReport(t, kind, on, report);
          t.deepEqual(native().leaks(), before);
          if (blas !== null) t.is(on.getOption('blas'), blas);
        },
      );

test('a training step comes as a whole and in phases', async (t) => {
  const { results } = await run('train', cpu);
  const phases = ['forward', 'backward', 'optimizer'].map((name) => `training step: ${name}`);
  t.deepEqual(
    results.map((r) => r.name),
    ['training step', ...phases],
  );
  for (const name of ['tokensPerSecond', 'parameters', 'peakGiB', 'wallMs', 'gflops', 'ofMatmul'])
    t.true(results[0]!.figures[name]! > 0, name);
  for (const { figures } of results.slice(1)) t.true(figures['ofStep']! > 0 && figures['ofStep']! < 1);
});

test('malformed requests are refused', async (t) => {
  const bench = (kind: string, shapes?: string[]) => () =>
    runBench(kind as 'gsa', { device: cpu, shapes, smallPeaks: true, command: 'test' });
  await t.throwsAsync(bench('nothing'), {
    code: 'INVALID_ARGUMENT',
    message: /gemm, gsa, growth, modules, train, decode/,
  });
  for (const shape of ['M5N7', 'M5N7K3K4', 'M5N7K0', 'm5n7k3', 'M5N7K3X', 'M5N7K-3', '', 'M5N7L3'])
    await t.throwsAsync(bench('gemm', [shape]), { code: 'INVALID_ARGUMENT', message: /M16N16K16/ }, shape);
  for (const shape of ['nothing:N4D4', 'swiglu', 'swiglu:N4D4:x', 'N4D4', 'toString:N4D4'])
    await t.throwsAsync(
      bench('modules', [shape]),
      { code: 'INVALID_ARGUMENT', message: /NAME:SHAPE/ },
      shape,
    );
  await t.throwsAsync(bench('modules', ['swiglu:N4']), { code: 'INVALID_ARGUMENT', message: /N16D16/ });
  await t.throwsAsync(bench('gsa', ['B1T4H1K4V4M4R2']), { code: 'INVALID_ARGUMENT', message: /HQ16, DOC16/ });
  t.deepEqual(parseShape('K3M5N7', ['M', 'N', 'K']), { M: 5, N: 7, K: 3 });
  t.deepEqual(parseShape('M5HQ4', ['M'], ['HQ', 'DOC']), { M: 5, HQ: 4 });
  t.is(shapeName({ M: 5, N: 7 }), 'M5N7');
});

test('every listed shape can be read', (t) => {
  for (const kind of BENCH_KINDS)
    for (const text of [...SHAPES[kind].cpu, ...SHAPES[kind].cuda]) {
      if (kind === 'gsa' || kind === 'growth')
        t.notThrows(() => parseShape(text, GSA_DIMENSIONS, GSA_OPTIONAL));
      if (kind !== 'modules') continue;
      const [name, shape] = text.split(':') as [string, string];
      if (name !== 'adamw')
        t.notThrows(() => parseShape(shape, MODULES[name as ModuleName].dimensions), text);
    }
});

test('documents fill the row, none shorter than 16 but the last, none longer than asked', (t) => {
  for (const [T, most] of [
    [32768, 8192],
    [90, 40],
    [1, 8192],
  ] as const) {
    const lengths = documentLengths(T, most);
    t.is(
      lengths.reduce((a, b) => a + b),
      T,
    );
    t.true(lengths.slice(0, -1).every((n) => n >= 16 && n <= most));
  }
  const lengths = documentLengths(32768, 8192);
  t.true(Math.max(...lengths) === 8192 && lengths.some((n) => n < 32) && lengths.length > 15);
});

test('counts: hand-made numbers', (t) => {
  t.deepEqual(counts.gemmCount({ M: 2, N: 3, K: 5 }, 2), { bytes: 2 * (10 + 15 + 6), flops: 60 });
  // The figures of the design: 570 MB forward at B8 T4096 H4 K = V = 512 M64 in bfloat16, 2.75 times that with backward.
  const shape = { B: 8, T: 4096, H: 4, HQ: 4, K: 512, V: 512, M: 64 };
  const forward = counts.gsaForward(shape, 2);
  t.is(forward.bytes, 8 * 4096 * 4 * (2 * 2048 + 8 * 64));
  t.is(forward.flops, 8 * 4096 * 4 * (4 * 64 * 1024 + 2 * 64 * 1024 + 4 * 64 * 64));
  const backward = counts.gsaBackward(shape, 2);
  t.is(backward.bytes, 8 * 4096 * 4 * (2 * 7 * 512 + 16 * 64));
  t.is(backward.flops, 2 * forward.flops);
  const [to, from] = [counts.gsaLayerForward(shape, 2), counts.gsaLayerBackward(shape, 2)];
  t.deepEqual(to, { bytes: 8 * 4096 * 4 * 2 * (4 * 512 + 64), flops: forward.flops });
  t.deepEqual(from, { bytes: 8 * 4096 * 4 * 2 * (7 * 512 + 2 * 64), flops: backward.flops });
  t.deepEqual(counts.MODULE_COUNTS['cross-entropy']({ N: 3, C: 5 }, 2).backward, { bytes: 60, flops: 0 });
  t.is(counts.adamwCount({ P: 10 }, 2).bytes, 260);
  t.is(counts.adamwCount({ P: 10 }, 4).bytes, 280);
  t.is(counts.trainCount(10, 3).flops, 180);
  const peaks = { copyBytesPerSecond: 1e9, matmulFlopsPerSecond: 1e12, matmul: '' };
  t.deepEqual(rates({ bytes: 5e5, flops: 2e8 }, 1, peaks), {
    gbPerSecond: 0.5,
    ofCopy: 0.5,
    gflops: 200,
    ofMatmul: 0.2,
    ofFloor: 0.5,
  });
  t.deepEqual(rates({ bytes: 0, flops: 2e8 }, 1, peaks), { gflops: 200, ofMatmul: 0.2 });
});

for (const on of testDevices())
  test(`errors of whole tensors on ${on}: the relative norm, NaN where a value is not finite`, (t) => {
    scope(() => {
      const from = (values: number[]) => Tensor.from(values, [values.length], { device: on });
      t.is(deviceError(from([3, 4]), from([3, 4])), 0);
      t.true(Math.abs(deviceError(from([3, 4.5]), from([3, 4])) - 0.1) < 1e-6);
      t.true(Number.isNaN(deviceError(from([3, NaN]), from([3, 4]))));
      t.true(Number.isNaN(deviceError(from([3, 4]), from([Infinity, 4]))));
      t.is(finiteError([from([1, 2]), from([0])]), 0);
      t.true(Number.isNaN(finiteError([from([1, 2]), from([Infinity])])));
    });
  });

test('a wrong output, a wrong gradient and a value that is not finite do not pass', (t) => {
  const context = { device: cpu, dtype: 'float32' as const };
  const right = MODULES.swiglu;
  const verdicts = (one: typeof right) => {
    const { output, gradient } = checkSmall(context, one, { N: 5, D: 16 });
    return [output.pass, gradient.pass];
  };
  t.deepEqual(verdicts(right), [true, true]);
  t.deepEqual(verdicts({ ...right, run: ({ gate, up }) => [swiglu(up!, gate!)] }), [false, false]);
  // Right output with the gradient of another function: + up − (a copy of up that the tape does not know).
  const half = ({ gate, up }: Readonly<Record<string, Tensor>>) => {
    const y = swiglu(gate!, up!);
    return [add(y, scale(add(up!, scale(up!.contiguousCopy(), -1)), 1))];
  };
  t.deepEqual(verdicts({ ...right, run: half }), [true, false]);
  scope(() => {
    const shape = { B: 2, T: 70, H: 2, K: 8, V: 12, M: 6 };
    const inputs = makeInputs(cpu, 'float32', shape);
    t.true(checkGsa(inputs, shape).all.every((check) => check.pass));
    const broken = { ...inputs, v: Tensor.full(inputs.v.shape, NaN) };
    t.false(checkGsa(broken, shape).all.some((check) => check.pass));
  });
  t.deepEqual(bounds('bfloat16'), { output: 1e-2, gradient: 1e-2 });
});

test('medians, quartiles and turns', (t) => {
  t.is(quantile([1, 2, 3, 4], 0.5), 2.5);
  t.is(quantile([7], 0.25), 7);
  const { medianMs, minMs, maxMs, spread, iterations } = summarize([5, 1, 3, 2, 4], 0);
  t.deepEqual([medianMs, minMs, maxMs, iterations], [3, 1, 5, 5]);
  t.is(spread, 2 / 3);
  const order: string[] = [];
  const watch = { clock: clockOf(cpu), prepare: () => order.push('-') };
  const options = { warmup: 1, minIterations: 3, budgetMs: 0 };
  const timings = measureTogether(watch, [() => order.push('a'), () => order.push('b')], options);
  t.is(order.join(''), 'ab-a-b-a-b-a-b');
  t.deepEqual(
    timings.map((timing) => [timing.iterations, timing.warmup]),
    [
      [3, 1],
      [3, 1],
    ],
  );
  order.length = 0;
  const { phases, total } = measurePhases(watch, [() => order.push('a'), () => order.push('b')], options);
  t.is(order.join(''), 'ab-ab-ab-ab');
  t.is(phases.length, 2);
  t.true(total.maxMs >= phases[0]!.minMs + phases[1]!.minMs);
});

function result(name: string, shape: string, medianMs: number, error = 0): BenchResult {
  const timing = { ...summarize([medianMs], 0), medianMs };
  return { name, shape, timing, figures: {}, checks: [outputCheck('x', error, 1e-5)] };
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

test('a wrong or missing check spoils the report and shows in the table', (t) => {
  const context = {
    device: cpu,
    dtype: 'float32' as const,
    watch: stopwatch(cpu),
    measure: {},
    peaks: { copyBytesPerSecond: 1e9, matmulFlopsPerSecond: 1e9, matmul: '' },
  };
  const report = (...results: BenchResult[]) => benchReport('gsa', context, 'test', results);
  for (const error of [1, NaN, Infinity]) {
    const wrong = report(result('f', 's', 1), result('g', 's', 1, error));
    t.false(wrong.pass, String(error));
    t.regex(formatReport(wrong), /^g +s .*WRONG \(x: .*, bound 1e-5\)$/m);
    t.regex(formatReport(wrong), /^f +s .*ok \(x: 0.0e\+0, bound 1e-5\)$/m);
  }
  t.true(report(result('f', 's', 1)).pass);
  t.false(report().pass);
  const unchecked = report({ ...result('f', 's', 1), checks: [] });
  t.false(unchecked.pass);
  t.regex(formatReport(unchecked), /NOT CHECKED$/m);
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

test('flash-gsa bench: a table, JSON on demand and into a file, lists, exit codes', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'flash-gsa-bench-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  const file = join(folder, 'report.json');
  const table = await cli('gsa', '--shapes', 'B1T16H1K8V8M4', '--seconds', '0', '--json', file);
  t.is(table.code, 0);
  t.regex(table.stdout, /^gsa forward \+ backward +B1T16H1K8V8M4 .* ok \(.*\)$/m);
  const { results } = JSON.parse(readFileSync(file, 'utf8')) as BenchReport;
  t.deepEqual(
    results.map(({ variant }) => variant ?? 'plain'),
    ['plain', 'plain', 'layer', 'layer'],
  );
  const json = await cli('gemm', '--json', '--seconds', '0', '--shapes', 'M5N7K3,M4N4K4');
  t.is(json.code, 0);
  const report = JSON.parse(json.stdout) as BenchReport;
  t.deepEqual([...new Set(report.results.map((r) => r.shape))], ['M5N7K3', 'M4N4K4']);
  t.is(report.stamp.command, 'flash-gsa bench gemm --json --seconds 0 --shapes M5N7K3,M4N4K4');
  const shapes = await cli('gsa', '--list', '--device', 'cuda:0');
  t.is(shapes.stdout, `${SHAPES.gsa.cuda.join('\n')}\n`);
  t.is((await cli('speed')).code, 2);
  t.is((await cli('gemm', '--shapes', 'M5')).code, 2);
  t.is((await cli('gemm', '--shapes', 'M5N7K3,')).code, 2);
  t.is((await cli('gemm', '--seconds', 'NaN')).code, 2);
  t.is((await cli('gemm', '--dtype', 'int32')).code, 2);
});

for (const [recompute, variant] of [
  [true, 'recompute'],
  ['blocks', 'recompute blocks'],
] as const)
  test(`train --${variant}: said in the variant, checked like any other, float32`, async (t) => {
    const report = await runBench('train', {
      device: cpu,
      shapes: TINY.train,
      recompute,
      minIterations: 2,
      budgetMs: 0,
      smallPeaks: true,
      command: 'test',
    });
    t.true(report.pass);
    t.true(report.results.every((result) => result.variant === variant));
  });

test('train --budget: every op of a step with its calls, time and floor, float32', async (t) => {
  const report = await runBench('train', {
    device: cpu,
    shapes: TINY.train,
    budget: true,
    budgetMs: 0,
    smallPeaks: true,
    command: 'test',
  });
  const lines = report.results.find(({ name }) => name === 'training step')!.budget!;
  const calls = (part: string) =>
    lines.filter((line) => line.part.startsWith(part)).reduce((sum, line) => sum + line.calls, 0);
  t.is(calls('gsa_layer_fwd'), 1); // one layer
  t.is(calls('gsa_layer_bwd'), 1);
  t.true(calls('matmul ') >= 3 * 5); // projections, their two gradients, and the output matrix
  t.true(lines.every(({ ms, floorMs }) => ms >= 0 && floorMs > 0));
  const text = formatReport(report);
  t.regex(text, /budget of one step, D16L1H2M4V32B2T70/);
  t.is(text.split('\n').filter((line) => line.startsWith('all of them ')).length, 1);
  t.true(report.results.slice(1).every(({ budget }) => budget === undefined));
});
