import { exec } from '../tensor/exec.js';
import { record } from '../tensor/recorder.js';
import { inferShape, type Shape } from '../tensor/shape.js';
import { Tensor } from '../tensor/tensor.js';
import { DTYPES, type DType } from '../tensor/dtype.js';
import { checkTensor } from './check.js';

const ANY = Object.keys(DTYPES) as DType[];

/** The same elements in another shape (one extent may be -1). Shares storage with `x`.
 * @throws GsaError INVALID_ARGUMENT for a strided view or a wrong element count. */
export function reshape(x: Tensor, shape: Shape): Tensor {
  checkTensor('reshape', 'x', x, { dtype: ANY });
  const y = x.view(inferShape(shape, x.size));
  const back = x.shape;
  record('reshape', [x], [y], [], ([dy]) => [dy!.view(back)]);
  return y;
}

/** A contiguous copy of the elements start .. start+length-1 along `dim`.
 * @throws GsaError INVALID_ARGUMENT for a dimension or range outside the tensor. */
export function narrow(x: Tensor, dim: number, start: number, length: number): Tensor {
  checkTensor('narrow', 'x', x, { dtype: ANY });
  const part = x.narrow(dim, start, length);
  const y = part.contiguousCopy();
  part.dispose();
  const whole = x.shape;
  const outer = whole.slice(0, dim).reduce((n, extent) => n * extent, 1);
  const inner = whole.slice(dim + 1).reduce((n, extent) => n * extent, 1);
  record('narrow', [x], [y], [], ([dy]) => {
    const dx = Tensor.zeros(whole, { dtype: dy!.dtype, device: dy!.device });
    // Copies write contiguous memory, so one copy per block of consecutive elements: few where `dim` is among the first.
    if (length === 0) return [dx];
    const to = dx.view([outer, whole[dim]! * inner]);
    const from = dy!.view([outer, length * inner]);
    for (let i = 0; i < outer; i++)
      exec(
        'cast',
        { x: from.narrow(0, i, 1) },
        { y: to.narrow(0, i, 1).narrow(1, start * inner, length * inner) },
        {},
      );
    return [dx];
  });
  return y;
}
