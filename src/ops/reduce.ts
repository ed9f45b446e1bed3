import { exec } from '../tensor/exec.js';
import { record } from '../tensor/recorder.js';
import { Tensor } from '../tensor/tensor.js';
import { checkTensor, emptyBeside, refuse } from './check.js';

/** The sum of all elements, as a float32 tensor of shape []. @throws GsaError INVALID_ARGUMENT */
export function sum(x: Tensor): Tensor {
  checkTensor('sum', 'x', x);
  const y = emptyBeside(x, [], 'float32');
  exec('sum', { x }, { y }, {});
  const { shape, dtype, device } = x;
  record('sum', [x], [y], [], ([dy]) => {
    const dx = Tensor.full(shape, 1, { dtype, device });
    exec('scale_by', { x: dx, factor: dy }, { y: dx }, {});
    return [dx];
  });
  return y;
}

/** The largest element of each row of a matrix x [R, C], and its place: the first of equals. A row with a NaN has NaN for its
 * largest. Not differentiable.
 * @returns index int32 [R] and value float32 [R]
 * @throws GsaError INVALID_ARGUMENT */
export function argmax(x: Tensor): { index: Tensor; value: Tensor } {
  checkTensor('argmax', 'x', x, { ndim: 2 });
  const [R, C] = x.shape as [number, number];
  if (C < 1) throw refuse('argmax', 'at least one column', 'x', `shape [${R}, ${C}]`);
  const index = emptyBeside(x, [R], 'int32');
  const value = emptyBeside(x, [R], 'float32');
  exec('argmax', { x }, { index, value }, {});
  return { index, value };
}
