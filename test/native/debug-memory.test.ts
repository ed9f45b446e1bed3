// FLASH_GSA_DEBUG_MEMORY=1: poison, red zones, and reports that name the size and the op. In child processes, since the
// variable is read when a device is opened.
import test from 'ava';
import { child, opNumber, type ChildResult } from './raw.js';
import { gpuChild, withGpus } from './gpu.js';

const [fill, add, cast] = ['fill', 'add', 'cast'].map(opNumber);
const ON = { FLASH_GSA_DEBUG_MEMORY: '1' };

const runners: [string, typeof test.serial, (source: string, env?: Record<string, string>) => ChildResult][] =
  [
    ['cpu', test.serial, child],
    ['cuda', withGpus(1) as typeof test.serial, gpuChild],
  ];

for (const [backend, run, start] of runners) {
  /** What the source said on stdout; it has `make(n)` (float32), `values(x, n)` and `said(fn)`. */
  const outcome = (source: string, env: Record<string, string> = ON) => {
    const { stdout, stderr, status, signal } = start(
      `
      const make = (n) => addon.tensor('${backend}', 0, 0, [n]);
      const values = (x, n) => { const y = new Float32Array(n); addon.read(x, y); return y; };
      const said = (fn) => { try { fn(); console.log('nothing'); } catch (e) { console.log(e.code, e.op ?? '-', e.message); } };
      const overrun = (bytes) => addon.setOption('${backend}', 0, 'debug_overrun', bytes);
      ${source}`,
      env,
    );
    return { lines: stdout.trimEnd().split('\n'), stderr, ended: status ?? signal };
  };

  run(`${backend} fresh memory reads as NaN, and ops work as ever`, (t) => {
    const { lines, ended } = outcome(`
      const x = make(1000), y = make(1000);
      console.log(values(x, 1000).every(Number.isNaN));
      addon.exec(${fill}, [], [x], [2]);
      addon.exec(${add}, [x, x], [y], [1, 3]);
      const part = addon.view(y, [10], [1], 990);
      console.log(values(part, 10).every((v) => v === 8));
      const before = addon.memoryStats('${backend}', 0, false).currentBytes;
      addon.dispose(make(77));
      console.log(addon.memoryStats('${backend}', 0, false).currentBytes === before);
    `);
    t.deepEqual(lines, ['true', 'true', 'true']);
    t.is(ended, 0);
  });

  run(
    `${backend} an overrun is told after the next op on the block: size, side, op; once; work goes on`,
    (t) => {
      const { lines, ended } = outcome(`
      const x = make(1003), y = make(1003);
      addon.exec(${fill}, [], [x], [2]);
      overrun(4012);
      said(() => addon.exec(${cast}, [x], [y], []));
      said(() => addon.exec(${cast}, [x], [y], []));
      console.log(values(y, 1003)[1002]);
    `);
      t.regex(
        lines[0]!,
        /^INTERNAL cast Expected writes inside a block of 4012 bytes \(made by the caller\) but 1 bytes past its end \(from byte \+3\) were overwritten; found after an op on it with cast running$/,
      );
      t.deepEqual(lines.slice(1), ['nothing', '2']);
      t.is(ended, 0);
    },
  );

  run(`${backend} an overrun is told when the block is given back, by the next call and on stderr`, (t) => {
    const { lines, stderr, ended } = outcome(`
      const x = make(500), y = make(7);
      overrun(2000);
      addon.dispose(x);
      said(() => make(8));
      said(() => make(8));
    `);
    const report =
      /block of 2000 bytes .*1 bytes past its end .*found when it was given back with no op running/;
    t.regex(lines[0]!, report);
    t.is(lines[1], 'nothing');
    t.regex(stderr, report);
    t.is(ended, 0);
  });

  run(`${backend} without the variable there is no such option, and a wrong value is refused`, (t) => {
    const plain = outcome(`said(() => overrun(4));`, { FLASH_GSA_DEBUG_MEMORY: '0' });
    t.regex(plain.lines[0]!, /^INVALID_ARGUMENT - Expected one of .*memory_limit.* received "debug_overrun"/);
    t.false(plain.lines[0]!.includes('debug_overrun,'));
    const wrong = outcome(`said(() => make(1));`, { FLASH_GSA_DEBUG_MEMORY: 'yes' });
    t.regex(
      wrong.lines[0]!,
      /^INVALID_ARGUMENT - Expected 0 or 1 for FLASH_GSA_DEBUG_MEMORY but received "yes"/,
    );
    t.regex(
      outcome(`said(() => overrun(4));`).lines[0]!,
      /^INVALID_ARGUMENT - Expected the size of a live block/,
    );
  });
}
