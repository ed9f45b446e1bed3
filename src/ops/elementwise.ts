import { exec } from '../tensor/exec.js';
import { record, recording } from '../tensor/recorder.js';
import { shapeText } from '../tensor/shape.js';
import type { DType } from '../tensor/dtype.js';
import { Tensor } from '../tensor/tensor.js';
import { checkNumber, checkSame, checkTensor, refuse } from './check.js';

/** a + b for tensors of one shape and dtype.
 * @throws GsaError INVALID_ARGUMENT */
export function add(a: Tensor, b: Tensor): Tensor {
  checkTensor('add', 'a', a);
  checkSame('add', 'b', b, a);
  const y = Tensor.emptyLike(a);
  exec('add', { a, b }, { y }, { alpha: 1, beta: 1 });
  record('add', [a, b], [y], [], ([dy]) => [dy!.alias(), dy!.alias()]);
  return y;
}

/** c · x. A tensor `factor` (one float32 element, on x's device) is read on the device, without a wait on the host; no
 * gradient flows to it.
 * @throws GsaError INVALID_ARGUMENT */
export function scale(x: Tensor, factor: number | Tensor): Tensor {
  checkTensor('scale', 'x', x);
  if (typeof factor === 'number') checkNumber('scale', 'factor', factor);
  else checkFactor(x, factor);
  const y = scaled(x, factor);
  record('scale', [x], [y], factor instanceof Tensor ? [factor] : [], ([dy], saved) => [
    scaled(dy!, saved[0] ?? (factor as number)),
  ]);
  return y;
}

function checkFactor(x: Tensor, factor: Tensor): void {
  checkTensor('scale', 'factor', factor, { dtype: 'float32', device: x.device });
  if (factor.size !== 1) throw refuse('scale', 'one element', 'factor', `shape ${shapeText(factor.shape)}`);
  if (recording([factor]))
    throw refuse('scale', 'a tensor that needs no gradient', 'factor', 'one that does; use noGrad() for it');
}

function scaled(x: Tensor, factor: number | Tensor): Tensor {
  const y = Tensor.emptyLike(x);
  if (typeof factor === 'number') exec('add', { a: x }, { y }, { alpha: factor, beta: 0 });
  else exec('scale_by', { x, factor }, { y }, {});
  return y;
}

/** `x` rounded or widened to another floating dtype, recorded: the gradient is converted back. For ops that compute in a
 * wider dtype than they are called with. */
export function convert(x: Tensor, dtype: DType): Tensor {
  const y = x.to({ dtype });
  const back = x.dtype;
  record('convert', [x], [y], [], ([dy]) => [dy!.to({ dtype: back })]);
  return y;
}
