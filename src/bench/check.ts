import { exec } from '../tensor/exec.js';
import { scope } from '../tensor/scope.js';
import { Tensor } from '../tensor/tensor.js';
import { judge } from '../verify/compare.js';

/** How the output of a timed body compared with a reference in the same run. */
export interface OutputCheck {
  readonly against: string;
  readonly error: number;
  readonly bound: number;
  readonly pass: boolean;
}

export function outputCheck(against: string, error: number, bound: number): OutputCheck {
  const { pass } = judge('', against, error, bound);
  return { against, error, bound, pass };
}

/** The largest of several errors; NaN when one is (Math.max would do, but for a comparison that loses NaN). */
export function worst(errors: readonly number[]): number {
  return errors.some(Number.isNaN) ? NaN : Math.max(0, ...errors);
}

/** Largest relative error that passes, of outputs and of gradients. */
export function bounds(dtype: string): { output: number; gradient: number } {
  return dtype === 'float32' ? { output: 1e-5, gradient: 1e-4 } : { output: 1e-2, gradient: 1e-2 };
}

function sumSquares(x: Tensor): number {
  return scope(() => {
    const y = Tensor.empty([], { device: x.device });
    exec('sum_squares', { x: [x] }, { y }, {});
    return y.item();
  });
}

/** ‖actual − expected‖ / ‖expected‖ of two tensors of one shape, computed where they are in float32: for tensors too large
 * to look at on the host. NaN when a value is not finite. */
export function deviceError(actual: Tensor, expected: Tensor): number {
  return scope(() => {
    const difference = actual.to({ dtype: 'float32' });
    const reference = expected.dtype === 'float32' ? expected : expected.to({ dtype: 'float32' });
    exec('add', { a: difference, b: reference }, { y: difference }, { alpha: 1, beta: -1 });
    const [off, all] = [sumSquares(difference), sumSquares(reference)];
    if (!Number.isFinite(off) || !Number.isFinite(all)) return NaN;
    return off === 0 ? 0 : Math.sqrt(off / all);
  });
}

/** 0 when every element of every tensor is finite, NaN otherwise (or where their squares do not sum up to a float32). */
export function finiteError(tensors: readonly Tensor[]): number {
  return tensors.every((t) => Number.isFinite(sumSquares(t))) ? 0 : NaN;
}
