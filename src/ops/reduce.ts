import { exec } from '../tensor/exec.js';
import { record } from '../tensor/recorder.js';
import { Tensor } from '../tensor/tensor.js';
import { checkTensor, emptyBeside } from './check.js';

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
