// Rows as wide and as many as models have them: GPU kernels take those in vectors, several a thread, and walk over them.
// The gradient checker would need thousands of calls here, so gradients are compared with their formulas in float64.
import test from 'ava';
import { Tape } from '#src/autograd/tape.js';
import { crossEntropy, rmsNorm } from '#src/ops/index.js';
import { scope } from '#src/tensor/scope.js';
import { Tensor, type TensorOptions } from '#src/tensor/tensor.js';
import { relativeError } from '../cases/drive.js';
import { testDevices } from '../devices.js';
import { sigmoid } from '../reference/activation.js';

const f64 = (x: Tensor): Float64Array => Float64Array.from(x.toFloat32());
const EPS = 1e-5;

/** d(sum of y·dy + h·dh): the formulas of native/ops/rmsnorm/README.md. */
function normReference(
  h: Float64Array,
  weight: Float64Array,
  dy: Float64Array,
  dh: Float64Array,
  silu: boolean,
): { y: Float64Array; dx: Float64Array; dweight: Float64Array } {
  const D = weight.length;
  const y = new Float64Array(h.length);
  const dx = new Float64Array(h.length);
  const dweight = new Float64Array(D);
  for (let start = 0; start < h.length; start += D) {
    const a = h.slice(start, start + D).map((v) => (silu ? v * sigmoid(v) : v));
    const rstd = 1 / Math.sqrt(a.reduce((sum, v) => sum + v * v, 0) / D + EPS);
    let mean = 0;
    for (let d = 0; d < D; d++) mean += (dy[start + d]! * weight[d]! * a[d]! * rstd) / D;
    for (let d = 0; d < D; d++) {
      const v = h[start + d]!;
      const slope = silu ? sigmoid(v) * (1 + v * (1 - sigmoid(v))) : 1;
      const n = a[d]! * rstd;
      y[start + d] = n * weight[d]!;
      dx[start + d] = rstd * (dy[start + d]! * weight[d]! - n * mean) * slope + dh[start + d]!;
      dweight[d]! += dy[start + d]! * n;
    }
  }
  return { y, dx, dweight };
}

for (const device of testDevices()) {
  const dtypes = device.backend === 'cuda' ? (['float32', 'bfloat16'] as const) : (['float32'] as const);
  for (const dtype of dtypes) {
    const bound = dtype === 'float32' ? 1e-5 : 1e-2;
    const options: TensorOptions = { device, dtype };
    const draw = (shape: number[], stream: number, std = 1, mean = 0, as = options): Tensor => {
      const x = Tensor.randn(shape, { ...as, seed: 3, stream, std, mean });
      x.requiresGrad = true;
      return x;
    };
    const close = (x: Tensor, expected: Float64Array, t: { true(ok: boolean, why: string): void }) => {
      const error = relativeError(x.toFloat32(), expected);
      // A gradient that is kept in float32 is not rounded, and the inputs here are exact.
      t.true(error <= (x.dtype === 'float32' ? 1e-5 : bound), `relative error ${error}`);
    };

    for (const [rows, D] of [
      [5, 1056],
      [1500, 8],
      [3, 2560],
      [2, 8192],
      [2, 8200],
      [7, 1001],
    ] as const)
      for (const silu of [false, true])
        test(`${device} ${dtype} rmsNorm [${rows}, ${D}] ${silu ? 'of silu' : 'with a residual'}: outputs and gradients`, (t) => {
          scope(() => {
            const [x, weight, dy, dh] = [
              draw([rows, D], 0),
              draw([D], 1, 0.3, 1, { device }),
              draw([rows, D], 2),
              draw([rows, D], 3),
            ];
            const residual = silu ? null : draw([rows, D], 4);
            using tape = new Tape();
            if (residual) {
              const { y, h } = tape.run(() => rmsNorm(x, weight, { eps: EPS, residual }));
              tape.backward([y, h], [dy, dh]);
              const expected = normReference(f64(h), f64(weight), f64(dy), f64(dh), false);
              close(y, expected.y, t);
              for (const grad of [x.grad!, residual.grad!]) close(grad, expected.dx, t);
              close(weight.grad!, expected.dweight, t);
            } else {
              const y = tape.run(() => rmsNorm(x, weight, { eps: EPS, silu }));
              tape.backward(y, dy);
              const none = new Float64Array(rows * D);
              const expected = normReference(f64(x), f64(weight), f64(dy), none, true);
              close(y, expected.y, t);
              close(x.grad!, expected.dx, t);
              close(weight.grad!, expected.dweight, t);
            }
          });
        });

    for (const C of [9008, 32000, 9001])
      test(`${device} ${dtype} crossEntropy [6] C=${C}: losses and gradients`, (t) => {
        scope(() => {
          const logits = draw([6, C], 5, 3);
          const host = f64(logits);
          const at = [0, 17, -100, C - 1, 8, -100];
          const labels = Tensor.from(Int32Array.from(at), [6], { device });
          using tape = new Tape();
          const loss = tape.run(() => crossEntropy(logits, labels, { reduction: 'none' }));
          tape.backward(loss, Tensor.full([6], 0.5, { device }));
          const losses = new Float64Array(6);
          const gradient = new Float64Array(6 * C);
          at.forEach((label, r) => {
            if (label < 0) return;
            const row = host.subarray(r * C, (r + 1) * C);
            const lse = Math.log(row.reduce((sum, v) => sum + Math.exp(v), 0));
            losses[r] = lse - row[label]!;
            row.forEach((v, c) => (gradient[r * C + c] = 0.5 * (Math.exp(v - lse) - +(c === label))));
          });
          close(loss, losses, t);
          close(logits.grad!, gradient, t);
        });
      });
  }
}
