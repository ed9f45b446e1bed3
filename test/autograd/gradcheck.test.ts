import test from 'ava';
import { gradcheck } from '#src/autograd/gradcheck.js';
import { GsaError } from '#src/native/errors.js';
import { scale, silu } from '#src/ops/index.js';
import { exec } from '#src/tensor/exec.js';
import { record } from '#src/tensor/recorder.js';
import { Tensor } from '#src/tensor/tensor.js';
import { testDevices } from '../devices.js';
import { assertNoLeak } from '../leaks.js';
import { randomFrom } from '../random.js';

/** silu whose gradient is wrong by `factor`, or in its largest element only. */
function wrongSilu(x: Tensor, factor: number, oneElement: boolean): Tensor {
  const y = Tensor.emptyLike(x);
  exec('silu_fwd', { x }, { y }, {});
  record('wrong', [x], [y], [x], ([dy], [x]) => {
    const dx = Tensor.emptyLike(x!);
    exec('silu_bwd', { dy, x }, { dx }, {});
    if (!oneElement) return [scale(dx, factor)];
    const host = dx.toFloat32();
    const element = host.reduce((best, g, i) => (Math.abs(g) > Math.abs(host[best]!) ? i : best), 0);
    host[element]! *= factor;
    dx.write(host);
    return [dx];
  });
  return y;
}

for (const device of testDevices()) {
  const input = (size: number): Tensor => {
    const random = randomFrom(5);
    const x = Tensor.from(
      Float32Array.from({ length: size }, () => random.normal()),
      [size],
      { device },
    );
    x.requiresGrad = true;
    return x;
  };

  test.serial(
    `${device} the checker passes a right rule and leaves inputs and gradients alone [200]`,
    (t) => {
      assertNoLeak(t, () => {
        using x = input(200);
        const before = x.toFloat32();
        const result = gradcheck(([x]) => silu(x!), [x]);
        t.true(result.ok && result.error < 1e-3, JSON.stringify(result));
        t.deepEqual(x.toFloat32(), before);
        t.is(x.grad, null);
      });
    },
  );

  for (const [what, factor, oneElement] of [
    ['a factor of 1.01', 1.01, false],
    ['a sign', -1, false],
    ['one element of 200', 0, true],
  ] as const)
    test.serial(`${device} the checker finds ${what}`, (t) => {
      assertNoLeak(t, () => {
        using x = input(200);
        const result = gradcheck(([x]) => wrongSilu(x!, factor, oneElement), [x]);
        t.false(result.ok, JSON.stringify(result));
      });
    });

  test.serial(`${device} the checker sees a gradient that never arrives`, (t) => {
    using x = input(10);
    const result = gradcheck(
      ([x]) => {
        const y = Tensor.emptyLike(x!);
        exec('silu_fwd', { x }, { y }, {});
        record('deaf', [x!], [y], [], () => [null]);
        return y;
      },
      [x],
    );
    t.false(result.ok);
  });
}

test('the checker refuses inputs of which none wants a gradient', (t) => {
  using x = Tensor.zeros([2]);
  t.throws(() => gradcheck(([x]) => silu(x!), [x]), { instanceOf: GsaError, code: 'INVALID_ARGUMENT' });
});
