import test from 'ava';
import { exec } from '#src/tensor/exec.js';
import { scope } from '#src/tensor/scope.js';
import { Tensor } from '#src/tensor/tensor.js';
import { testPlaces } from '../devices.js';
import { relativeError } from '../cases/drive.js';

// What linear() adds to its product, for shapes and layouts that it has no use for.
for (const { device, dtype } of testPlaces())
  test(`${device} ${dtype} matmul: an addend in place of beta c, in batches and slices, or alone`, (t) => {
    scope(() => {
      const options = { device, dtype };
      const randn = (seed: number, ...shape: number[]) => Tensor.randn(shape, { ...options, seed });
      const product = (a: Tensor, b: Tensor, addend: Tensor | null, c: Tensor, beta = 0) =>
        exec('matmul', { a, b, addend }, { c }, { trans_a: 0, trans_b: 0, alpha: 0.5, beta });
      const check = (a: Tensor, b: Tensor, addend: Tensor, c: Tensor) => {
        const before = addend.toFloat32();
        const plain = Tensor.zeros(c.shape, options);
        product(a, b, null, plain);
        product(a, b, addend, c);
        t.deepEqual(addend.toFloat32(), before);
        const sum = plain.toFloat32().map((value, i) => value + before[i]!);
        t.true(relativeError(c.toFloat32(), sum) <= (dtype === 'float32' ? 1e-6 : 8e-3));
      };
      check(randn(1, 9, 5), randn(2, 5, 7), randn(3, 9, 7), randn(4, 9, 7));
      check(randn(1, 3, 9, 5), randn(2, 3, 5, 8), randn(3, 3, 9, 8), randn(4, 3, 9, 8));
      check(randn(1, 3, 9, 5), randn(2, 5, 8), randn(3, 3, 9, 8), randn(4, 3, 9, 8));
      check(randn(1, 4, 0), randn(2, 0, 6), randn(3, 4, 6), randn(4, 4, 6));
      const [wide, other] = [randn(5, 9, 16), randn(6, 9, 16)];
      product(randn(1, 9, 5), randn(2, 5, 8), wide.narrow(1, 8, 8), other.narrow(1, 8, 8));
      const whole = Tensor.zeros([9, 8], options);
      product(randn(1, 9, 5), randn(2, 5, 8), wide.narrow(1, 8, 8).contiguousCopy(), whole);
      t.deepEqual(other.narrow(1, 8, 8).contiguousCopy().toFloat32(), whole.toFloat32());

      const [a, b, c] = [randn(1, 9, 5), randn(2, 5, 8), randn(4, 9, 8)];
      const refused = (addend: Tensor, beta: number, message: RegExp) =>
        t.throws(() => product(a, b, addend, c, beta), { code: 'INVALID_ARGUMENT', message });
      refused(randn(3, 9, 8), 1, /0 for beta beside an addend but received 1/);
      refused(randn(3, 8, 9), 0, /shape \[9, 8\] for addend but received \[8, 9\]/);
      refused(wide.narrow(1, 0, 8), 0, /the layout of c for addend; copy it first/);
    });
  });
