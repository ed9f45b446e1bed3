import { performance } from 'node:perf_hooks';
import test from 'ava';
import { GsaError } from '#src/native/errors.js';
import { device, elapsedMs } from '#src/tensor/device.js';
import { exec } from '#src/tensor/exec.js';
import { Tensor } from '#src/tensor/tensor.js';
import { testDevices } from '../devices.js';

for (const dev of testDevices()) {
  test.serial(`${dev} events time the work between them, in order: 20 and 200 fills of [2^22]`, (t) => {
    using y = Tensor.zeros([2 ** 22], { device: dev });
    const fills = (n: number) => {
      for (let i = 0; i < n; i++) exec('fill', {}, { y }, { value: i });
    };
    fills(5);
    // Other work may share the device: the least of several times is that of the fills alone.
    let [leastShort, leastLong] = [Infinity, Infinity];
    for (let i = 0; i < 5; i++) {
      const before = performance.now();
      const start = dev.event();
      fills(20);
      const middle = dev.event();
      fills(200);
      const end = dev.event();
      const all = elapsedMs(start, end); // waits by itself
      const took = performance.now() - before;
      const [short, long] = [elapsedMs(start, middle), elapsedMs(middle, end)];
      t.true(short > 0 && long > 0, `${short} ms, then ${long} ms`);
      t.true(Math.abs(short + long - all) < 0.01, `${short} + ${long}, together ${all}`);
      t.true(all < took + 0.1, `${all} ms inside ${took} ms`);
      t.true(elapsedMs(end, start) < 0);
      t.is(elapsedMs(end, end), 0);
      leastShort = Math.min(leastShort, short);
      leastLong = Math.min(leastLong, long);
    }
    t.true(leastLong > 2 * leastShort, `${leastShort} ms, then ${leastLong} ms at least`);
  });

  test.serial(`${dev} an event can be waited for, and what was before it is done`, (t) => {
    using y = Tensor.full([1000], 3, { device: dev });
    const event = dev.event();
    event.synchronize();
    event.synchronize();
    t.is(event.device, dev);
    t.is(y.toFloat32()[999], 3);
  });

  test.serial(`${dev} ten thousand forgotten events are no trouble`, (t) => {
    const first = dev.event();
    for (let i = 0; i < 10_000; i++) dev.event();
    t.true(elapsedMs(first, dev.event()) > 0);
  });
}

test('elapsedMs refuses what is no event', (t) => {
  const event = device('cpu').event();
  for (const bad of [undefined, null, 1, {}, Object.create(event) as object])
    t.throws(() => elapsedMs(event, bad as never), { any: true }, String(bad));
  const error = t.throws(() => elapsedMs(7 as never, event), { instanceOf: GsaError });
  t.is(error?.code, 'INVALID_ARGUMENT');
  t.regex(error!.message, /event of Device\.event\(\).* from .*7/);
});
