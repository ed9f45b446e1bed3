import test from 'ava';
import { floorMs, profileOps } from '#src/autograd/profile.js';
import { Tape } from '#src/autograd/tape.js';
import { linear, linearJoined, silu, sum } from '#src/ops/index.js';
import { setProbe } from '#src/tensor/exec.js';
import { scope } from '#src/tensor/scope.js';
import { Tensor } from '#src/tensor/tensor.js';
import { testDevices } from '../devices.js';
import { assertNoLeak } from '../leaks.js';

for (const device of testDevices()) {
  test.serial(
    `${device} profileOps counts calls, bytes and FLOPs by op and shape, and takes its probe away`,
    (t) => {
      scope(() => {
        const x = Tensor.zeros([6, 4], { device });
        const w = Tensor.zeros([5, 4], { device });
        const times = profileOps(device, () =>
          scope(() => {
            linear(x, w);
            linear(x, w);
            sum(x);
          }),
        );
        t.deepEqual(times.map((row) => row.op).toSorted(), ['matmul', 'sum']);
        const product = times.find((row) => row.op === 'matmul')!;
        t.is(product.shape, '6x4 · 5x4ᵀ -> float32');
        t.is(product.calls, 2);
        t.is(product.flops, 2 * (2 * 6 * 5 * 4));
        t.is(product.bytes, 2 * 4 * (6 * 4 + 5 * 4 + 6 * 5));
        t.true(times.every((row) => row.ms >= 0));
        const rates = { bytesPerSecond: 1e3, flopsPerSecond: 1e2 };
        t.is(floorMs(product, rates), 1e3 * Math.max(product.bytes / 1e3, product.flops / 1e2));
        t.is(setProbe(null), null);
      });
    },
  );

  test.serial(`${device} profileOps lets errors through and takes its probe away`, (t) => {
    t.throws(
      () =>
        profileOps(device, () => {
          throw new Error('inside');
        }),
      { message: 'inside' },
    );
    t.is(setProbe(null), null);
  });

  test.serial(`${device} float32 weight gradients of a second backward are added in place`, (t) => {
    scope(() => {
      const draw = (shape: number[], stream: number) => {
        const tensor = Tensor.randn(shape, { device, seed: 5, stream });
        tensor.requiresGrad = true;
        return tensor;
      };
      const x = draw([3, 4], 0);
      const weights = [draw([2, 4], 1), draw([5, 4], 2)];
      const single = draw([2, 4], 3);
      using tape = new Tape();
      const backward = () => {
        const losses = tape.run(() => [sum(linearJoined(x, weights)), sum(linear(x, single))]);
        tape.backward(losses);
      };
      backward();
      const grads = [...weights, single].map((w) => w.grad!);
      const once = grads.map((grad) => grad.toFloat32());
      backward();
      [...weights, single].forEach((w, i) => {
        t.is(w.grad, grads[i]!, 'the same tensor');
        const twice = once[i]!.map((value) => 2 * value);
        w.grad!.toFloat32().forEach((value, j) => t.true(Math.abs(value - twice[j]!) < 1e-5));
      });
    });
  });

  test.serial(
    `${device} float32 gradients of joined weights come from one product, and end one by one`,
    (t) => {
      assertNoLeak(t, () =>
        scope(() => {
          const draw = (shape: number[], stream: number) => Tensor.randn(shape, { device, seed: 6, stream });
          const x = draw([3, 4], 0);
          const whole = draw([8, 4], 1);
          const outs = [2, 1, 5];
          const weights = outs.map((out, i) => whole.narrow(0, [0, 2, 3][i]!, out));
          const apart = weights.map((w) => w.contiguousCopy());
          for (const w of [...weights, ...apart]) w.requiresGrad = true;
          let products = 0;
          const previous = setProbe(({ name }, run) => {
            if (name === 'matmul') products++;
            run();
          });
          using tape = new Tape();
          try {
            tape.backward(tape.run(() => sum(silu(linearJoined(x, weights, whole)))));
          } finally {
            setProbe(previous);
          }
          t.is(products, 2, 'the result, and the gradients of all weights');
          tape.backward(tape.run(() => apart.map((w) => sum(silu(linear(x, w))))));
          weights.forEach((w, i) => {
            const grad = w.grad!;
            t.deepEqual(grad.shape, w.shape);
            const expected = apart[i]!.grad!.toFloat32();
            grad.toFloat32().forEach((value, j) => t.true(Math.abs(value - expected[j]!) < 1e-5));
            grad.dispose(); // the others keep what is theirs
            w.grad = null;
          });
          for (const w of apart) w.grad!.dispose();
        }),
      );
    },
  );
}
