import { setTimeout as delay } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import test from 'ava';
import { add, silu } from '#src/ops/index.js';
import { GsaError } from '#src/native/errors.js';
import { native } from '#src/native/load.js';
import { keep, scope } from '#src/tensor/scope.js';
import { Tensor } from '#src/tensor/tensor.js';
import { testDevices } from '../devices.js';
import { assertNoLeak } from '../leaks.js';

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

const disposed = { instanceOf: GsaError, code: 'USE_AFTER_DISPOSE' };

for (const dev of testDevices()) {
  const device = dev;

  test.serial(`${dev} scope() disposes what it made, except what it returns, however nested`, (t) => {
    assertNoLeak(t, () => {
      let lost: Tensor | undefined;
      const kept = scope(() => {
        lost = Tensor.zeros([4], { device });
        const inList = Tensor.zeros([1], { device });
        const inMap = Tensor.zeros([2], { device });
        const inSet = Tensor.zeros([3], { device });
        return { list: [inList], map: new Map([['a', { inMap }]]), set: new Set([inSet]) };
      });
      t.true(lost!.disposed);
      const alive = [kept.list[0]!, kept.map.get('a')!.inMap, ...kept.set];
      t.deepEqual(
        alive.map((x) => x.toFloat32().length),
        [1, 2, 3],
      );
      for (const tensor of alive) tensor.dispose();
    });
  });

  test.serial(`${dev} a tensor returned from an inner scope ends with the outer one`, (t) => {
    assertNoLeak(t, () => {
      let inner: Tensor | undefined;
      scope(() => {
        inner = scope(() => Tensor.zeros([2], { device }));
        t.false(inner.disposed);
      });
      t.true(inner!.disposed);
    });
  });

  test.serial(`${dev} an exception disposes everything that the scope made`, (t) => {
    assertNoLeak(t, () => {
      const made: Tensor[] = [];
      const thrown = t.throws(() =>
        scope(() => {
          made.push(Tensor.zeros([2], { device }));
          scope(() => made.push(scope(() => Tensor.zeros([3], { device }))));
          throw new Error('in the scope');
        }),
      );
      t.is(thrown?.message, 'in the scope');
      t.true(made.every((x) => x.disposed));
    });
  });

  test.serial(`${dev} keep() takes a tensor out of all open scopes`, (t) => {
    assertNoLeak(t, () => {
      const kept = scope(() => scope(() => keep(Tensor.zeros([2], { device }))));
      const holder: { tensor?: Tensor } = {};
      scope(() => {
        holder.tensor = keep(Tensor.full([2], 3, { device }));
      });
      t.deepEqual(holder.tensor!.toFloat32(), Float32Array.of(3, 3));
      holder.tensor!.dispose();
      kept.dispose();
    });
  });

  test.serial(`${dev} using ends a tensor with its block, and dispose() twice is harmless`, (t) => {
    assertNoLeak(t, () => {
      let outside: Tensor;
      {
        using x = Tensor.zeros([2], { device });
        outside = x;
        x.dispose();
        x.dispose();
      }
      t.true(outside.disposed);
    });
  });

  test.serial(`${dev} use after dispose is a typed error from every way in`, (t) => {
    const x = Tensor.zeros([2], { device });
    using other = Tensor.zeros([2], { device });
    x.dispose();
    for (const use of [
      () => x.toHost(),
      () => x.item(),
      () => x.alias(),
      () => x.view([2]),
      () => x.narrow(0, 0, 1),
      () => x.write(new Float32Array(2)),
      () => x.contiguousCopy(),
      () => x.to({ dtype: 'bfloat16' }),
      () => silu(x),
      () => add(other, x),
      () => x.handle,
    ])
      t.throws(use, disposed, String(use));
    t.regex(String(x), /\[2\].*disposed/);
  });

  test.serial(`${dev} views keep the storage until the last of them is disposed`, (t) => {
    assertNoLeak(t, () => {
      const alive = native().leaks().alive;
      const base = Tensor.from([1, 2, 3, 4, 5, 6], [2, 3], { device });
      const row = base.narrow(0, 1, 1);
      const flat = row.view([3]);
      base.dispose();
      row.dispose();
      t.is(native().leaks().alive, alive + 1);
      t.deepEqual(flat.toFloat32(), Float32Array.of(4, 5, 6));
      flat.dispose();
      t.is(native().leaks().alive, alive);
    });
  });

  test.serial(`${dev} views share elements: a write through one is seen through the others`, (t) => {
    using base = Tensor.zeros([2, 2], { device });
    using row = base.narrow(0, 1, 1);
    row.write(Float32Array.of(7, 8));
    t.deepEqual(base.toFloat32(), Float32Array.of(0, 0, 7, 8));
    using alias = base.alias();
    alias.write(Float32Array.of(1, 2, 3, 4));
    t.deepEqual(row.toFloat32(), Float32Array.of(3, 4));
  });

  test.serial(
    `${dev} a forgotten tensor is freed by garbage collection and counted once a storage`,
    async (t) => {
      collect(); // what other tests forgot
      await delay(20);
      const { finalized, alive } = native().leaks();
      const before = device.memory().currentBytes;
      (() => {
        for (let i = 0; i < 10; i++) Tensor.empty([1000], { device });
        const base = Tensor.empty([1000], { device });
        base.narrow(0, 0, 1); // the same storage: one leak
        Tensor.empty([1000], { device }).dispose(); // no leak
        scope(() => keep(Tensor.empty([1000], { device }))); // out of its scope
        scope(() => scope(() => Tensor.empty([1000], { device }))); // returned to nobody
      })();
      t.is(native().leaks().alive, alive + 13);
      for (let i = 0; i < 40 && native().leaks().alive > alive; i++) {
        collect();
        await delay(5);
      }
      t.deepEqual(native().leaks(), { finalized: finalized + 13, alive });
      t.is(device.memory().currentBytes, before);
    },
  );

  test.serial(`${dev} disposing a parameter disposes its gradient`, (t) => {
    const p = Tensor.zeros([2], { device });
    const grad = Tensor.zeros([2], { device });
    p.grad = grad;
    p.dispose();
    t.true(grad.disposed);
    t.false(p.grad instanceof Tensor);
  });

  test.serial(`${dev} a thousand rounds of temporaries leave memory flat`, (t) => {
    assertNoLeak(t, () => {
      const round = () =>
        scope(() => {
          const x = Tensor.full([64, 64], 1, { device });
          return void add(silu(x), x).narrow(0, 3, 9).contiguousCopy();
        });
      round();
      const before = device.memory().currentBytes;
      for (let i = 0; i < 1000; i++) round();
      t.is(device.memory().currentBytes, before);
    });
  });
}

test('scope() refuses an asynchronous body and disposes what it had made', async (t) => {
  let made: Tensor | undefined;
  const error = t.throws(
    () =>
      scope(async () => {
        made = Tensor.zeros([2]);
        await Promise.resolve();
      }),
    { instanceOf: GsaError, code: 'INVALID_ARGUMENT' },
  );
  t.regex(error.message, /synchronous/);
  t.true(made!.disposed);
});
