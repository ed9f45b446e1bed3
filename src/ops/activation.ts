import { exec } from '../tensor/exec.js';
import { record } from '../tensor/recorder.js';
import { Tensor } from '../tensor/tensor.js';
import { checkSame, checkTensor } from './check.js';

/** x · sigmoid(x), element by element. @throws GsaError INVALID_ARGUMENT */
export function silu(x: Tensor): Tensor {
  checkTensor('silu', 'x', x);
  const y = Tensor.emptyLike(x);
  exec('silu_fwd', { x }, { y }, {});
  record('silu', [x], [y], [x], ([dy], [x]) => {
    const dx = Tensor.emptyLike(dy!);
    exec('silu_bwd', { dy, x }, { dx }, {});
    return [dx];
  });
  return y;
}

/** silu(gate) · up, for tensors of one shape (Shazeer 2020, "GLU Variants Improve Transformer").
 * @throws GsaError INVALID_ARGUMENT */
export function swiglu(gate: Tensor, up: Tensor): Tensor {
  checkTensor('swiglu', 'gate', gate);
  checkSame('swiglu', 'up', up, gate);
  const y = Tensor.emptyLike(gate);
  exec('swiglu_fwd', { gate, up }, { y }, {});
  record('swiglu', [gate, up], [y], [gate, up], ([dy], [gate, up]) => {
    const dgate = Tensor.emptyLike(dy!);
    const dup = Tensor.emptyLike(dy!);
    exec('swiglu_bwd', { dy, gate, up }, { dgate, dup }, {});
    return [dgate, dup];
  });
  return y;
}
