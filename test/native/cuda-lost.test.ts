// A fault on the device, provoked by the debug_trap option (only under FLASH_GSA_DEBUG_FAULTS=1), in child processes.
import { opNumber } from './raw.js';
import { gpuChild, withGpus } from './gpu.js';

const fill = opNumber('fill');
const FAULTS = { FLASH_GSA_DEBUG_FAULTS: '1' };
const PRELUDE = `
  const said = (fn) => { try { console.log('nothing', fn()); } catch (e) { console.log(e.code, e.message); } };
  const trap = () => { addon.setOption('cuda', 0, 'debug_trap', 1); };
  const values = (x) => { const y = new Float32Array(4); addon.read(x, y); return y.join(); };
`;

withGpus(1)('a fault is DEVICE_LOST at the next wait and in every later call; the CPU goes on', (t) => {
  const { stdout, stderr, status, signal } = gpuChild(
    `${PRELUDE}
    const x = addon.tensor('cuda', 0, 0, [4]);
    const early = addon.recordEvent('cuda', 0);
    trap();
    for (const call of [
      () => addon.synchronize('cuda', 0),
      () => addon.synchronize('cuda', 0),
      () => addon.tensor('cuda', 0, 0, [4]),
      () => addon.exec(${fill}, [], [x], [1]),
      () => values(x),
      () => addon.write(x, new Float32Array(4)),
      () => addon.readAsync(x),
      () => addon.memoryStats('cuda', 0, false),
      () => addon.getOption('cuda', 0, 'memory_limit'),
      () => addon.setOption('cuda', 0, 'cache_limit', 0),
      () => addon.deviceInfo('cuda', 0),
      () => addon.recordEvent('cuda', 0),
      () => addon.waitEvent(early),
    ]) said(call);
    addon.dispose(x);
    const host = addon.tensor('cpu', 0, 0, [4]);
    addon.exec(${fill}, [], [host], [7]);
    console.log(values(host));
    `,
    FAULTS,
  );
  const lines = stdout.trimEnd().split('\n');
  t.is(lines.length, 14, stdout + stderr);
  t.regex(lines[0]!, /^DEVICE_LOST CUDA failed while .*unusable until the process restarts/);
  for (const line of lines.slice(1, 13))
    t.regex(line, /^DEVICE_LOST cuda:0 was lost: CUDA failed while .*unusable until the process restarts/);
  t.is(lines[13], '7,7,7,7');
  t.deepEqual({ status, signal, stderr }, { status: 0, signal: null, stderr: '' });
});

withGpus(1)(
  'promises that are pending at a fault are rejected with DEVICE_LOST, small, large and spilled',
  (t) => {
    const { stdout, status, stderr } = gpuChild(
      `${PRELUDE}
    const [small, large] = [4, 50 * 2 ** 20].map((n) => addon.tensor('cuda', 0, 0, [n]));
    (async () => {
      // Once without a fault: pinning memory takes long enough for it to be noticed by the call.
      await Promise.all([small, large, small].map((x) => addon.readAsync(x)));
      // Work that keeps the fault off until the reads are under way.
      for (let i = 0; i < 800; i++) addon.exec(${fill}, [], [large], [i]);
      trap();
      const reads = [small, large, small].map((x) => addon.readAsync(x).then(() => 'read', (e) => e.code));
      console.log((await Promise.all(reads)).join());
      said(() => addon.synchronize('cuda', 0));
    })();
    `,
      FAULTS,
    );
    const lines = stdout.trimEnd().split('\n');
    t.is(lines[0], 'DEVICE_LOST,DEVICE_LOST,DEVICE_LOST', stdout + stderr);
    t.regex(lines[1]!, /^DEVICE_LOST cuda:0 was lost/);
    t.is(status, 0);
  },
);

withGpus(2)(
  'the driver gives up the other devices of the process too: they say DEVICE_LOST, the CPU goes on',
  (t) => {
    const { stdout, stderr, status } = gpuChild(
      `${PRELUDE}
    const x = addon.tensor('cuda', 1, 0, [4]);
    trap();
    said(() => addon.synchronize('cuda', 0));
    said(() => addon.exec(${fill}, [], [x], [3]));
    said(() => values(x));
    said(() => addon.tensor('cuda', 1, 0, [4]));
    const host = addon.tensor('cpu', 0, 0, [4]);
    addon.exec(${fill}, [], [host], [7]);
    console.log(values(host));
    `,
      FAULTS,
    );
    const lines = stdout.trimEnd().split('\n');
    for (const line of lines.slice(0, 4))
      t.regex(line, /^DEVICE_LOST .*unusable until the process restarts/, stderr);
    t.regex(lines[2]!, /cuda:1 was lost/);
    t.is(lines[4], '7,7,7,7', stdout + stderr);
    t.is(status, 0);
  },
);

withGpus(1)('without the variable there is no such option', (t) => {
  const { stdout } = gpuChild(`${PRELUDE} said(trap);`, { FLASH_GSA_DEBUG_FAULTS: '' });
  t.regex(stdout, /^INVALID_ARGUMENT Expected one of memory_limit, cache_limit/);
});
