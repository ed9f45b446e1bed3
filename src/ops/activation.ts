import { checkOptions } from '../native/errors.js';
import { exec } from '../tensor/exec.js';
import { record } from '../tensor/recorder.js';
import { Tensor } from '../tensor/tensor.js';
import { shapeText } from '../tensor/shape.js';
import { absMaxBeside, checkSame, checkTensor, emptyBeside, refuse, rowCount } from './check.js';

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

/** silu(first half) · second half of the last dimension: swiglu of gate and up side by side, as one product with both
 * matrices gives them. x [..., 2 I] -> [..., I]. `noteAbsMax`: for 8-bit products before and after it.
 * @throws GsaError INVALID_ARGUMENT */
export function swigluHalves(x: Tensor, options: { noteAbsMax?: boolean } = {}): Tensor {
  checkOptions(options, ['noteAbsMax'], 'swigluHalves');
  const { noteAbsMax = false } = options;
  checkTensor('swigluHalves', 'x', x);
  const width = (x.shape.at(-1) ?? 1) / 2;
  if (!Number.isInteger(width))
    throw refuse('swigluHalves', 'an even last dimension', 'x', `shape ${shapeText(x.shape)}`);
  const rows = rowCount(x.shape);
  const forward = (x: Tensor): Tensor => {
    const y = emptyBeside(x, [...x.shape.slice(0, -1), width]);
    using joined = halves(x, rows, width);
    using y2 = y.view([rows, width]);
    const absmax = noteAbsMax ? absMaxBeside(y) : null;
    exec('swiglu_fwd', { gate: joined.first, up: joined.second }, { y: y2, absmax }, {});
    y.absMax = absmax;
    return y;
  };
  const y = forward(x);
  record(
    'swigluHalves',
    [x],
    [y],
    [x],
    ([dy], [x]) => {
      const dx = Tensor.emptyLike(x!);
      using from = halves(x!, rows, width);
      using to = halves(dx, rows, width);
      using dy2 = dy!.view([rows, width]);
      const absmax = noteAbsMax ? absMaxBeside(dx) : null;
      exec(
        'swiglu_bwd',
        { dy: dy2, gate: from.first, up: from.second },
        { dgate: to.first, dup: to.second, absmax },
        {},
      );
      dx.absMax = absmax;
      return [dx];
    },
    { of: [0], make: ([x]) => [forward(x!)] },
  );
  return y;
}

interface Halves extends Disposable {
  readonly first: Tensor;
  readonly second: Tensor;
}

/** The left and the right columns of x [rows, 2 width]. */
function halves(x: Tensor, rows: number, width: number): Halves {
  using matrix = x.view([rows, 2 * width]);
  const first = matrix.narrow(1, 0, width);
  const second = matrix.narrow(1, width, width);
  return {
    first,
    second,
    [Symbol.dispose]() {
      first.dispose();
      second.dispose();
    },
  };
}
