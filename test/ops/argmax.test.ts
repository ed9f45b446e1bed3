import test from 'ava';
import { argmax } from '#src/ops/index.js';
import { fromBFloat16, toBFloat16 } from '#src/tensor/dtype.js';
import { scope } from '#src/tensor/scope.js';
import { Tensor } from '#src/tensor/tensor.js';
import { testPlaces } from '../devices.js';
import { randomFrom } from '../random.js';

for (const { device, dtype } of testPlaces()) {
  const stored = (x: number) => (dtype === 'bfloat16' ? fromBFloat16(toBFloat16(x)) : Math.fround(x));
  const found = (rows: readonly (readonly number[])[]) =>
    scope(() => {
      const flat = Float32Array.from(rows.flat());
      const { index, value } = argmax(Tensor.from(flat, [rows.length, rows[0]!.length], { device, dtype }));
      return [...index.toHost()].map((at, r) => [Number(at), value.toFloat32()[r]!]);
    });

  test(`${device} ${dtype} argmax: the first of equals, zeros of both signs are equal, infinities, negative numbers`, (t) => {
    t.deepEqual(found([[1, 3, 3, 2]]), [[1, 3]]);
    t.deepEqual(found([[-0, 0, -1]]), [[0, -0]]);
    t.deepEqual(found([[-3, -2, -2.5]]), [[1, -2]]);
    t.deepEqual(found([[-Infinity, -Infinity]]), [[0, -Infinity]]);
    t.deepEqual(found([[0, Infinity, 1]]), [[1, Infinity]]);
    t.deepEqual(found([[7]]), [[0, 7]]);
  });

  test(`${device} ${dtype} argmax: a NaN is the largest of its row alone`, (t) => {
    for (const sign of [1, -1]) {
      const rows = found([
        [1, sign * NaN, Infinity, 2],
        [1, 0, 5, 2],
      ]);
      t.deepEqual(rows, [
        [1, NaN],
        [2, 5],
      ]);
    }
  });

  for (const C of [8, 1000, 1001, 32_000, 40_003])
    test(`${device} ${dtype} argmax of rows of ${C}, the largest anywhere`, (t) => {
      const random = randomFrom(C);
      const rows = Array.from({ length: 9 }, () => Array.from({ length: C }, () => stored(random.normal())));
      rows[0]![0] = 50;
      rows[1]![C - 1] = 50;
      // Twice, far apart.
      for (const at of [C >> 1, C - 1]) rows[2]![at] = 50;
      t.deepEqual(
        found(rows),
        rows.map((row) => {
          const top = row.reduce((a, b) => Math.max(a, b));
          return [row.indexOf(top), top];
        }),
      );
    });
}
