import { checkOptions, show } from '../native/errors.js';
import { exec } from '../tensor/exec.js';
import { record } from '../tensor/recorder.js';
import { shapeText } from '../tensor/shape.js';
import type { Tensor } from '../tensor/tensor.js';
import { checkFlag, checkOptional, checkTensor, emptyBeside, refuse, rowCount } from './check.js';

export interface MatmulOptions {
  /** Use the transpose of `a` (of its last two dimensions). */
  transA?: boolean;
  transB?: boolean;
  /** Added to every row: one element per column of the result. */
  bias?: Tensor | null;
}

/** Runs the product, with `beta` times what `into` holds added when that is given, or with `addend`, which is as the
 * result. Not recorded. */
export function gemm(
  a: Tensor,
  b: Tensor,
  options: {
    transA?: boolean;
    transB?: boolean;
    bias?: Tensor | null;
    addend?: Tensor | null;
    into?: Tensor;
    beta?: number;
  } = {},
): Tensor {
  const { transA = false, transB = false, bias, addend, into, beta = 0 } = options;
  const d = a.shape.length - 2;
  const rows = a.shape[d + (transA ? 1 : 0)]!;
  const columns = b.shape[d + (transB ? 0 : 1)]!;
  const c = into ?? emptyBeside(a, [...a.shape.slice(0, d), rows, columns]);
  exec('matmul', { a, b, bias, addend }, { c }, { trans_a: +transA, trans_b: +transB, alpha: 1, beta });
  return c;
}

/** Column sums of a matrix [N, D], as [D]. */
export function columnSum(x: Tensor): Tensor {
  const y = emptyBeside(x, [x.shape[1]!]);
  exec('column_sum', { x }, { y }, { beta: 0 });
  return y;
}

/** The matrix product op(a) op(b) (+ bias), for matrices [M, K] x [K, N] -> [M, N], or batches of them [B, M, K] x
 * [B, K, N] -> [B, M, N].
 * @throws GsaError INVALID_ARGUMENT when the inner extents, batches, dtypes or devices differ. */
export function matmul(a: Tensor, b: Tensor, options: MatmulOptions = {}): Tensor {
  checkOptions(options, ['transA', 'transB', 'bias'], 'matmul');
  const { transA = false, transB = false } = options;
  checkFlag('matmul', 'transA', transA);
  checkFlag('matmul', 'transB', transB);
  checkTensor('matmul', 'a', a, { ndim: [2, 3] });
  checkTensor('matmul', 'b', b, { ndim: a.shape.length, dtype: a.dtype, device: a.device });
  const d = a.shape.length - 2;
  const inner = a.shape[d + (transA ? 0 : 1)];
  if (inner !== b.shape[d + (transB ? 1 : 0)] || (d === 1 && a.shape[0] !== b.shape[0]))
    throw refuse(
      'matmul',
      `b with inner extent ${inner}${d === 1 ? ` and batch ${a.shape[0]}` : ''}`,
      `a ${shapeText(a.shape)}${transA ? ' transposed' : ''}`,
      `b ${shapeText(b.shape)}${transB ? ' transposed' : ''}`,
    );
  const columns = b.shape[d + (transB ? 0 : 1)]!;
  const bias = checkOptional('matmul', 'bias', options.bias, {
    shape: [columns],
    dtype: a.dtype,
    device: a.device,
  });
  const c = gemm(a, b, { transA, transB, bias });
  record('matmul', [a, b, bias], [c], [a, b], ([dc], [a, b], needs) => [
    !needs[0]
      ? null
      : transA
        ? gemm(b!, dc!, { transA: transB, transB: true })
        : gemm(dc!, b!, { transB: !transB }),
    !needs[1]
      ? null
      : transB
        ? gemm(dc!, a!, { transA: true, transB: transA })
        : gemm(a!, dc!, { transA: !transA }),
    needs[2] ? columnSum(dc!.view([-1, columns])) : null,
  ]);
  return c;
}

/** dyᵀ x: the gradient of a weight [out, in] of x Wᵀ, added to `into` where there is one. */
function weightGradient(dy: Tensor, x: Tensor, into: Tensor | null | undefined): Tensor {
  return into ? gemm(dy, x, { transA: true, into, beta: 1 }) : gemm(dy, x, { transA: true });
}

/** x Wᵀ (+ bias) (+ residual), for x [..., in], weight [out, in], bias [out], residual [..., out] -> [..., out]. The sum is
 * rounded once, and saves the pass over memory that would make it.
 * @throws GsaError INVALID_ARGUMENT */
export function linear(x: Tensor, weight: Tensor, bias?: Tensor | null, residual?: Tensor | null): Tensor {
  checkTensor('linear', 'weight', weight, { ndim: 2 });
  const [out, width] = weight.shape as [number, number];
  checkLinearInput('linear', x, weight);
  const offset = checkOptional('linear', 'bias', bias, {
    shape: [out],
    dtype: weight.dtype,
    device: weight.device,
  });
  const shape = x.shape;
  const rows = rowCount(shape);
  const y = emptyBeside(x, [...shape.slice(0, -1), out]);
  const before = checkResidual('linear', residual, y);
  using x2 = x.view([rows, width]);
  using y2 = y.view([rows, out]);
  using addend = before?.view([rows, out]);
  gemm(x2, weight, { transB: true, bias: offset, addend, into: y2 });
  record('linear', [x, weight, offset, before], [y], [x, weight], ([dy], [x, w], needs, into) => {
    const dy2 = dy!.view([rows, out]);
    const dx = needs[0] ? emptyBeside(dy!, shape) : null;
    if (dx) gemm(dy2, w!, { into: dx.view([rows, width]) });
    return [
      dx,
      needs[1] ? weightGradient(dy2, x!.view([rows, width]), into[1]) : null,
      needs[2] ? columnSum(dy2) : null,
      needs[3] ? dy!.alias() : null,
    ];
  });
  return y;
}

/** @throws GsaError INVALID_ARGUMENT */
export function checkResidual(op: string, residual: Tensor | null | undefined, y: Tensor): Tensor | null {
  const { shape, dtype, device } = y;
  return checkOptional(op, 'residual', residual, { shape, dtype, device });
}

function checkLinearInput(op: string, x: Tensor, weight: Tensor): void {
  checkTensor(op, 'x', x, { dtype: weight.dtype, device: weight.device });
  const width = weight.shape[1]!;
  if (x.shape.at(-1) !== width)
    throw refuse(
      op,
      `a last dimension of ${width} (weight ${shapeText(weight.shape)})`,
      'x',
      shapeText(x.shape),
    );
}

/** [x W0ᵀ | x W1ᵀ | ...]: several linear maps of one x [..., in], their results [out_i] side by side -> [..., sum of out].
 * `whole` [sum of out, in], when given, holds the same weights below one another (the weights are then views of it): one
 * product instead of one for each. The gradients of all weights are one product too, except where they are added to what
 * is there.
 * @throws GsaError INVALID_ARGUMENT */
export function linearJoined(x: Tensor, weights: readonly Tensor[], whole?: Tensor | null): Tensor {
  const op = 'linearJoined';
  if (!Array.isArray(weights) || weights.length === 0)
    throw refuse(op, 'at least one tensor', 'weights', show(weights));
  const first = weights[0] as Tensor;
  checkTensor(op, 'weights', first, { ndim: 2 });
  const width = first.shape[1]!;
  const { dtype, device } = first;
  for (const weight of weights) checkTensor(op, 'weights', weight, { shape: [null, width], dtype, device });
  checkLinearInput(op, x, first);
  const outs = weights.map((weight: Tensor) => weight.shape[0]!);
  const total = outs.reduce((sum, out) => sum + out, 0);
  checkOptional(op, 'whole', whole, { shape: [total, width], dtype, device });
  const rows = rowCount(x.shape);
  const shape = x.shape;
  const y = emptyBeside(x, [...shape.slice(0, -1), total]);
  {
    using x2 = x.view([rows, width]);
    using y2 = y.view([rows, total]);
    if (whole) gemm(x2, whole, { transB: true, into: y2 });
    else eachPart(y2, outs, (part, i) => gemm(x2, weights[i]!, { transB: true, into: part }));
  }
  const saved = whole ? [x, whole] : [x, ...weights];
  record(op, [x, ...weights], [y], saved, ([dy], [x, ...maps], needs, into) => {
    const dy2 = dy!.view([rows, total]);
    const x2 = x!.view([rows, width]);
    const dx = needs[0] ? emptyBeside(dy!, shape) : null;
    if (dx) {
      const dx2 = dx.view([rows, width]);
      if (maps.length < outs.length || outs.length === 1) gemm(dy2, maps[0]!, { into: dx2 });
      else eachPart(dy2, outs, (part, i) => gemm(part, maps[i]!, { into: dx2, beta: i === 0 ? 0 : 1 }));
    }
    const together = outs.every((_, i) => needs[i + 1] && !into[i + 1]);
    const grads = together
      ? gemm(dy2, x2, { transA: true }).splitRows(outs)
      : eachPart(dy2, outs, (part, i) => (needs[i + 1] ? weightGradient(part, x2, into[i + 1]) : null));
    return [dx, ...grads];
  });
  return y;
}

/** Calls body with each run of columns of x [rows, sum of widths]. */
function eachPart<R>(x: Tensor, widths: readonly number[], body: (part: Tensor, i: number) => R): R[] {
  let start = 0;
  return widths.map((width, i) => {
    using part = x.narrow(1, start, width);
    start += width;
    return body(part, i);
  });
}
