import test from 'ava';
import { Tape } from '#src/autograd/tape.js';
import { GsaError } from '#src/native/errors.js';
import { add, embedding, linear, reshape, rmsNorm, scale, silu, sum, swiglu } from '#src/ops/index.js';
import { noGrad, record } from '#src/tensor/recorder.js';
import { keep, scope } from '#src/tensor/scope.js';
import { Tensor } from '#src/tensor/tensor.js';
import { testDevices } from '../devices.js';
import { assertNoLeak } from '../leaks.js';

const invalid = { instanceOf: GsaError, code: 'INVALID_ARGUMENT' };

for (const dev of testDevices()) {
  const device = dev;
  const leaf = (values: number[], shape: number[] = [values.length]): Tensor => {
    const x = Tensor.from(values, shape, { device });
    x.requiresGrad = true;
    return x;
  };
  const grads = (x: Tensor): number[] => [...x.grad!.toFloat32()];

  test.serial(`${dev} a chain: the gradient of sum(3 silu(x)) at 0 and far out`, (t) => {
    assertNoLeak(t, () => {
      using x = leaf([0, 30, -30]);
      using tape = new Tape();
      using loss = tape.run(() => sum(scale(silu(x), 3)));
      t.true(tape.length > 0);
      tape.backward(loss);
      t.is(tape.length, 0);
      const [at0, above, below] = grads(x);
      t.true(Math.abs(at0! - 1.5) < 1e-6 && Math.abs(above! - 3) < 1e-5 && Math.abs(below!) < 1e-9);
    });
  });

  test.serial(`${dev} gradients add up over uses, passes and aliases of one tensor`, (t) => {
    assertNoLeak(t, () => {
      using x = leaf([1, 2]);
      using tape = new Tape();
      for (const expected of [3, 6]) {
        using alias = x.alias();
        using loss = tape.run(() => sum(add(add(x, alias), alias.alias())));
        tape.backward(loss);
        t.is(alias.grad, null);
        t.deepEqual(grads(x), [expected, expected]);
      }
    });
  });

  test.serial(`${dev} a diamond: both ways of a shared intermediate count`, (t) => {
    assertNoLeak(t, () => {
      using x = leaf([0.5, -1]);
      using tape = new Tape();
      // d/dx of 2x + 6x + 2x, where the middle tensor is used three times.
      using loss = tape.run(() => {
        const middle = scale(x, 2);
        return sum(add(add(middle, scale(middle, 3)), reshape(middle, [2])));
      });
      tape.backward(loss);
      t.deepEqual(grads(x), [10, 10]);
    });
  });

  test.serial(`${dev} two leaves that receive the same gradient do not share it`, (t) => {
    assertNoLeak(t, () => {
      using a = leaf([1, 1]);
      using b = leaf([1, 1]);
      using tape = new Tape();
      {
        using loss = tape.run(() => sum(add(a, b)));
        tape.backward(loss);
      }
      {
        using loss = tape.run(() => sum(scale(a, 5)));
        tape.backward(loss);
      }
      t.deepEqual(
        [grads(a), grads(b)],
        [
          [6, 6],
          [1, 1],
        ],
      );
    });
  });

  test.serial(`${dev} x and residual of a norm, both used again, do not share a gradient`, (t) => {
    assertNoLeak(t, () => {
      using x = leaf([1, 2, 3]);
      using r = leaf([0.5, -0.5, 1]);
      using tape = new Tape();
      const run = (extra: boolean) => {
        using loss = tape.run(() => {
          const { y, h } = rmsNorm(x, null, { residual: r });
          const base = add(sum(y), sum(h));
          return extra ? add(base, sum(scale(x, 10))) : base;
        });
        tape.backward(loss);
        const result = [grads(x), grads(r)];
        for (const p of [x, r]) {
          p.grad!.dispose();
          p.grad = null;
        }
        return result;
      };
      const [plainX, plainR] = run(false);
      const [extraX, extraR] = run(true);
      t.deepEqual(plainX, plainR);
      t.deepEqual(extraR, plainR);
      t.deepEqual(
        extraX,
        plainX!.map((g) => Math.fround(g + 10)),
      );
    });
  });

  test.serial(`${dev} one weight in two roles (tied embeddings) receives the sum`, (t) => {
    assertNoLeak(t, () => {
      using w = leaf([1, 2, 3, 4, 5, 6], [3, 2]);
      using copy = leaf([1, 2, 3, 4, 5, 6], [3, 2]);
      using ids = Tensor.from(Int32Array.of(2, 0), [2], { device });
      using tape = new Tape();
      const of = (embed: Tensor, head: Tensor) => {
        using loss = tape.run(() => sum(silu(linear(embedding(embed, ids), head))));
        tape.backward(loss);
      };
      of(w, w);
      const tied = grads(w);
      using w2 = leaf([1, 2, 3, 4, 5, 6], [3, 2]);
      of(copy, w2);
      const untied = grads(copy).map((g, i) => g + grads(w2)[i]!);
      tied.forEach((g, i) => t.true(Math.abs(g - untied[i]!) <= 1e-5 * Math.abs(g), `${g} ${untied[i]}`));
    });
  });

  test.serial(`${dev} only what needs a gradient gets one, and nothing is recorded without`, (t) => {
    assertNoLeak(t, () => {
      using x = leaf([1, 2]);
      using frozen = Tensor.from([3, 4], [2], { device });
      using tape = new Tape();
      using loss = tape.run(() => sum(swiglu(frozen, x)));
      tape.backward(loss);
      t.is(frozen.grad, null);
      t.not(x.grad, null);
      using plain = tape.run(() => sum(silu(frozen)));
      t.is(tape.length, 0);
      t.throws(() => tape.backward(plain), { ...invalid, message: /requiresGrad/ });
      using hidden = tape.run(() => noGrad(() => sum(silu(x))));
      t.is(tape.length, 0);
      t.throws(() => tape.backward(hidden), invalid);
    });
  });

  test.serial(`${dev} a seed and several ends`, (t) => {
    assertNoLeak(t, () => {
      using x = leaf([1, 2]);
      using seed = Tensor.from([10, 100], [2], { device });
      using one = Tensor.from([1000, 1000], [2], { device });
      using tape = new Tape();
      const [a, b] = tape.run(() => [scale(x, 2), scale(x, 3)] as const);
      tape.backward([a, b], [seed, one]);
      t.deepEqual(grads(x), [3020, 3200]);
      t.deepEqual(seed.toFloat32(), Float32Array.of(10, 100), 'the seed stays as it was');
      a.dispose();
      b.dispose();
    });
  });

  test.serial(`${dev} misuse of backward() is refused in words and leaves the recording`, (t) => {
    assertNoLeak(t, () => {
      using x = leaf([1, 2]);
      using other = Tensor.from([1, 2, 3], [3], { device });
      using tape = new Tape();
      using vector = tape.run(() => scale(x, 2));
      const recorded = tape.length;
      t.throws(() => tape.backward(vector), { ...invalid, message: /one element \(or a seed\).*\[2\]/ });
      t.throws(() => tape.backward(vector, other), { ...invalid, message: /seed/ });
      t.throws(() => tape.backward(x), { ...invalid, message: /requiresGrad/ });
      t.throws(() => tape.backward(undefined as never), { ...invalid, message: /undefined/ });
      t.is(tape.length, recorded);
    });
  });

  test.serial(`${dev} a second backward() through the same loss is refused`, (t) => {
    using x = leaf([1]);
    using tape = new Tape();
    using loss = tape.run(() => sum(scale(x, 2)));
    tape.backward(loss);
    t.throws(() => tape.backward(loss), { ...invalid, message: /not used in backward\(\) before/ });
    t.deepEqual(grads(x), [2]);
  });

  test.serial(`${dev} an exception in the forward drops the recording`, (t) => {
    assertNoLeak(t, () => {
      using x = leaf([1, 2]);
      using tape = new Tape();
      t.throws(
        () =>
          tape.run(() => {
            silu(scale(x, 2));
            throw new Error('forward');
          }),
        { message: 'forward' },
      );
      t.is(tape.length, 0);
      using loss = tape.run(() => sum(scale(x, 4)));
      tape.backward(loss);
      t.deepEqual(grads(x), [4, 4]);
    });
  });

  test.serial(`${dev} an exception in a gradient rule leaks nothing, and the tape can be used again`, (t) => {
    assertNoLeak(t, () => {
      using x = leaf([1, 2]);
      using tape = new Tape();
      using loss = tape.run(() => {
        const y = scale(x, 2);
        const broken = Tensor.emptyLike(y);
        record('broken', [y], [broken], [y], () => {
          Tensor.zeros([100], { device });
          throw new Error('rule');
        });
        return sum(add(broken, silu(y)));
      });
      t.throws(() => tape.backward(loss), { message: 'rule' });
      t.is(tape.length, 0);
      using again = tape.run(() => sum(scale(x, 3)));
      tape.backward(again);
      t.deepEqual(grads(x), [3, 3]);
    });
  });

  test.serial(`${dev} a recording that is never replayed is freed by dispose()`, (t) => {
    assertNoLeak(t, () => {
      using x = leaf([1, 2]);
      const tape = new Tape();
      const loss = tape.run(() => sum(silu(scale(x, 2))));
      loss.dispose();
      tape.dispose();
      tape.dispose();
    });
  });

  test.serial(`${dev} intermediates are freed as the backward proceeds, gradients survive scopes`, (t) => {
    assertNoLeak(t, () => {
      using x = leaf(Array.from({ length: 4096 }, (_, i) => i / 4096));
      using tape = new Tape();
      scope(() => {
        const loss = tape.run(() => {
          let y = x;
          for (let i = 0; i < 32; i++) y = silu(y);
          return sum(y);
        });
        const recorded = device.memory().currentBytes;
        device.memory({ resetPeak: true });
        tape.backward(loss);
        const { peakBytes, currentBytes } = device.memory();
        // 32 saved inputs of 16 KiB, of which one is freed for each gradient made.
        t.true(peakBytes - recorded <= 3 * 16384 + 4096, `${peakBytes - recorded} bytes over the recording`);
        // 31 intermediates are gone; x.grad is new.
        t.true(currentBytes <= recorded - 30 * 16384, `${recorded - currentBytes} bytes freed`);
      });
      t.is(x.grad!.size, 4096);
    });
  });

  test.serial(`${dev} a leaf disposed before backward() receives nothing, and nothing leaks`, (t) => {
    assertNoLeak(t, () => {
      const x = leaf([1, 2]);
      using y = leaf([3, 4]);
      using tape = new Tape();
      using loss = tape.run(() => sum(swiglu(x, y)));
      x.dispose();
      tape.backward(loss);
      t.is(x.grad, null);
      t.is(y.grad!.size, 2);
    });
  });

  test.serial(`${dev} tensors made in run() and kept stay usable in backward()`, (t) => {
    assertNoLeak(t, () => {
      using x = leaf([2]);
      using tape = new Tape();
      const held: Tensor[] = [];
      using loss = tape.run(() => {
        held.push(keep(scale(x, 3)));
        return sum(silu(held[0]!));
      });
      held[0]!.dispose();
      tape.backward(loss);
      t.true(Number.isFinite(grads(x)[0]!));
    });
  });
}
