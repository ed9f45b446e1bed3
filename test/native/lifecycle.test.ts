import test from 'ava';
import { addon, child, FLOAT32, opNumber, TENSOR_MODULE } from './raw.js';

const MiB = 2 ** 20;

const tensor = (...shape: number[]) => addon.tensor('cpu', 0, FLOAT32, shape);
const stats = () => addon.memoryStats('cpu', 0, false);
const fill = opNumber('fill');

test.serial('storage lives as long as a view of it, and dispose twice is harmless', (t) => {
  const before = stats().currentBytes;
  const base = tensor(256, 4);
  const view = addon.view(base, [4], [1], 1020);
  addon.write(
    base,
    Float32Array.from({ length: 1024 }, (_, i) => i),
  );
  addon.dispose(base);
  addon.dispose(base);
  t.throws(() => addon.read(base, new Float32Array(1024)), { code: 'USE_AFTER_DISPOSE' });
  const values = new Float32Array(4);
  addon.read(view, values);
  t.deepEqual(values, Float32Array.of(1020, 1021, 1022, 1023));
  addon.dispose(view);
  t.is(stats().currentBytes, before);
});

test.serial('disposeForgotten() counts a storage that ends with it, and no other', (t) => {
  const { finalized, alive } = addon.leaks();
  const before = stats().currentBytes;
  const base = tensor(1000);
  const view = addon.view(base, [1], [1], 0);
  addon.disposeForgotten(base);
  t.deepEqual(addon.leaks(), { finalized, alive: alive + 1 }, 'the view still has it');
  addon.disposeForgotten(view);
  t.deepEqual(addon.leaks(), { finalized: finalized + 1, alive });
  addon.disposeForgotten(view);
  t.deepEqual(addon.leaks(), { finalized: finalized + 1, alive }, 'twice is harmless');
  t.is(stats().currentBytes, before);
});

test.serial('share() gives another handle on the same elements', (t) => {
  const base = tensor(2, 3);
  const other = addon.share(base);
  t.not(other, base);
  addon.write(base, Float32Array.of(1, 2, 3, 4, 5, 6));
  addon.dispose(base);
  const values = new Float32Array(6);
  addon.read(other, values);
  t.deepEqual(values, Float32Array.of(1, 2, 3, 4, 5, 6));
  addon.dispose(other);
});

test('forgotten tensors start a garbage collection by their size: 100 of 64 MiB never live at once', (t) => {
  const { stdout, status } = child(`
    const { setImmediate: turn } = require('node:timers/promises');
    let most = 0;
    (async () => {
      const { Tensor } = await import(${TENSOR_MODULE});
      for (let i = 0; i < 100; i++) {
        Tensor.empty([${16 * MiB}]);
        await turn();
        most = Math.max(most, addon.leaks().alive);
      }
      console.log(most < 50 ? 'collected' : 'alive: ' + most);
    })();
  `);
  t.is(status, 0);
  t.is(stdout, 'collected\n');
});

test('a program that disposes of what it makes is not stopped for garbage collection', (t) => {
  const { stdout } = child(`
    const { PerformanceObserver, constants } = require('node:perf_hooks');
    let major = 0;
    const observer = new PerformanceObserver((list) => {
      for (const { detail } of list.getEntries())
        if (detail.kind === constants.NODE_PERFORMANCE_GC_MAJOR) major++;
    });
    const step = () => {
      const made = Array.from({ length: 100 }, () => addon.tensor('cpu', 0, 0, [${MiB}]));
      for (const tensor of made) addon.dispose(tensor);
    };
    step();
    observer.observe({ entryTypes: ['gc'] });
    for (let i = 0; i < 20; i++) step();
    setTimeout(() => { observer.disconnect(); console.log(major); }, 50);
  `);
  t.true(Number(stdout) <= 2, `${stdout.trim()} full collections in 20 steps of 400 MiB`);
});

test.serial('memory is flat over 1,000 steps of allocating 24 MiB, running ops and disposing', (t) => {
  const step = () => {
    const made = [tensor(MiB), tensor(2, MiB), tensor(3, MiB)];
    for (const handle of made) addon.exec(fill, [], [handle], [1]);
    for (const handle of made) addon.dispose(handle);
  };
  for (let i = 0; i < 10; i++) step();
  const before = { ...stats(), rss: process.memoryUsage.rss() };
  for (let i = 0; i < 1000; i++) step();
  const after = { ...stats(), rss: process.memoryUsage.rss() };
  t.is(after.currentBytes, before.currentBytes);
  t.is(after.cachedBytes, before.cachedBytes);
  t.is(after.allocations, before.allocations + 3000);
  t.true(after.rss - before.rss < 8 * MiB, `grew by ${(after.rss - before.rss) / MiB} MiB`);
});

test.serial('peak is the largest since the last reset', (t) => {
  const base = addon.memoryStats('cpu', 0, true).currentBytes;
  addon.dispose(tensor(MiB));
  t.is(addon.memoryStats('cpu', 0, true).peakBytes, base + 4 * MiB);
  t.is(stats().peakBytes, base);
});

test.serial('freed blocks are kept up to cache_limit and given back when it shrinks', (t) => {
  const limit = addon.getOption('cpu', 0, 'cache_limit');
  t.teardown(() => addon.setOption('cpu', 0, 'cache_limit', limit));
  addon.setOption('cpu', 0, 'cache_limit', 0);
  t.is(stats().cachedBytes, 0);
  addon.setOption('cpu', 0, 'cache_limit', 10 * MiB);
  for (const handle of [tensor(MiB), tensor(MiB), tensor(MiB), tensor(4 * MiB)]) addon.dispose(handle);
  t.is(stats().cachedBytes, 8 * MiB);
  addon.setOption('cpu', 0, 'cache_limit', 5 * MiB);
  t.is(stats().cachedBytes, 4 * MiB);
  addon.setOption('cpu', 0, 'cache_limit', 0);
  t.is(stats().cachedBytes, 0);
});

test.serial('poison: memory that is handed out reads as NaN', (t) => {
  addon.dispose(tensor(1024));
  addon.setOption('cpu', 0, 'poison', 1);
  const values = new Float32Array(1024);
  addon.read(tensor(1024), values);
  addon.setOption('cpu', 0, 'poison', 0);
  t.true(values.every(Number.isNaN));
});

test.serial('past memory_limit: OUT_OF_MEMORY with the sizes, and smaller work then succeeds', (t) => {
  const limit = addon.getOption('cpu', 0, 'memory_limit');
  t.teardown(() => addon.setOption('cpu', 0, 'memory_limit', limit));
  const used = stats().currentBytes;
  addon.setOption('cpu', 0, 'memory_limit', used + 32 * MiB);
  const first = tensor(4 * MiB);
  const error = t.throws(() => tensor(5 * MiB), { code: 'OUT_OF_MEMORY' });
  t.regex(error!.message, /room for 20\.0 MiB but \d+\.\d of \d+\.\d MiB are in use/);
  t.is(stats().currentBytes, used + 16 * MiB);
  const second = tensor(4 * MiB);
  addon.exec(fill, [], [second], [7]);
  addon.dispose(first);
  addon.dispose(second);
});

test('a tensor larger than the machine is OUT_OF_MEMORY, not the end of the process', (t) => {
  const result = child(`
    try { addon.tensor('cpu', 0, 0, [2 ** 45]); } catch (error) { console.log(error.code); }
    const small = addon.tensor('cpu', 0, 0, [4]);
    addon.write(small, Float32Array.of(1, 2, 3, 4));
    console.log('alive');
  `);
  t.is(result.stdout, 'OUT_OF_MEMORY\nalive\n');
  t.is(result.status, 0);
});

for (const [how, last] of [
  ['by itself', ''],
  ['by process.exit', 'process.exit(0);'],
  ['by process.exit in an exit handler', "process.on('exit', () => process.exit(0));"],
] as const)
  test(`exit with live tensors ${how} is clean`, (t) => {
    const result = child(`
      globalThis.kept = [];
      for (let i = 0; i < 100; i++) kept.push(addon.tensor('cpu', 0, 0, [1000 * i]));
      kept.push(addon.view(kept[50], [10], [1], 0));
      const big = addon.tensor('cpu', 0, 0, [1 << 20]);
      addon.exec(${fill}, [], [big], [1]);
      ${last}
    `);
    t.deepEqual(result, { status: 0, signal: null, stdout: '', stderr: '' });
  });

test('an uncaught error with live tensors exits 1 with its message', (t) => {
  const result = child(`const x = addon.tensor('cpu', 0, 0, [8]); throw new Error('mine');`);
  t.is(result.status, 1);
  t.regex(result.stderr, /mine/);
});

for (const value of ['0', '-1', 'many', '2x', '1025', ''])
  test(`FLASH_GSA_THREADS="${value}" is refused by name`, (t) => {
    const result = child(
      `try { addon.tensor('cpu', 0, 0, [1]); } catch (error) { console.log(error.code, error.message); }`,
      { FLASH_GSA_THREADS: value },
    );
    t.regex(result.stdout, /^INVALID_ARGUMENT Expected an integer from 1 to 1024 for FLASH_GSA_THREADS/);
  });

test('FLASH_GSA_THREADS sets the threads, and the option changes them', (t) => {
  const result = child(
    `const threads = () => addon.getOption('cpu', 0, 'threads');
     console.log(threads(), addon.deviceInfo('cpu', 0).units);
     addon.setOption('cpu', 0, 'threads', 5);
     console.log(threads());`,
    { FLASH_GSA_THREADS: '3' },
  );
  t.is(result.stdout, '3 3\n5\n');
});

test('FLASH_GSA_BLAS: none leaves BLAS out, a library that is none is refused with the reason', (t) => {
  const source = `try { console.log(addon.getOption('cpu', 0, 'blas'), addon.deviceInfo('cpu', 0).detail); }
                  catch (error) { console.log(error.code, error.message); }`;
  t.regex(child(source, { FLASH_GSA_BLAS: 'none' }).stdout, /^0 .*, no BLAS: own matrix kernels\n$/);
  for (const [path, reason] of [
    ['/nowhere/libblas.so', /could not be loaded/],
    ['libm.so.6', /has no cblas_sgemm/],
  ] as const) {
    const { stdout } = child(source, { FLASH_GSA_BLAS: path });
    t.regex(stdout, /^INVALID_ARGUMENT Expected FLASH_GSA_BLAS to name a BLAS library/);
    t.regex(stdout, reason);
  }
});
