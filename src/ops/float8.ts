import { GsaError, show } from '../native/errors.js';
import { FLOAT8_MULTIPLE, FLOAT8_RECIPES, type Float8, type Float8Recipe } from '../tensor/dtype.js';
import { exec } from '../tensor/exec.js';
import { record } from '../tensor/recorder.js';
import { shapeText } from '../tensor/shape.js';
import type { Tensor } from '../tensor/tensor.js';
import { absMaxBeside, checkTensor, emptyBeside, refuse, rowCount } from './check.js';
import { checkResidual } from './matmul.js';

/** An 8-bit copy of a matrix: x = q · scale. */
interface Quantized {
  /** Rows as in x. */
  readonly q: Tensor | null;
  /** Columns of x as rows. */
  readonly qt: Tensor | null;
  /** float32 [] */
  readonly scale: Tensor;
}

/** Copies x [R, C] by its own largest magnitude: that which was noted when x was made, else one pass over it more. */
function quantize(
  x: Tensor,
  dtype: Float8,
  wanted: { q: boolean; qt: boolean },
  noted: Tensor | null,
): Quantized {
  const [rows, columns] = x.shape as [number, number];
  const q = wanted.q ? emptyBeside(x, [rows, columns], dtype) : null;
  const qt = wanted.qt ? emptyBeside(x, [columns, rows], dtype) : null;
  const scale = absMaxBeside(x);
  const absmax = noted ?? absMaxBeside(x);
  if (!noted) exec('absmax', { x }, { y: absmax }, {});
  exec('float8_quantize', { x, absmax }, { q, qt, scale }, {});
  return { q, qt, scale };
}

/** c = a bᵀ + beta c, or + addend, for a [M, K] and b [N, K]. */
function product(
  a: Tensor,
  aScale: Tensor,
  b: Tensor,
  bScale: Tensor,
  c: Tensor,
  options: { beta?: number; fast?: boolean; addend?: Tensor | null } = {},
): void {
  const { beta = 0, fast = false, addend } = options;
  exec('float8_matmul', { a, b, a_scale: aScale, b_scale: bScale, addend }, { c }, { beta, fast: +fast });
}

function checkRecipe(recipe: unknown): Float8Recipe {
  const known = FLOAT8_RECIPES.find((name) => name === recipe);
  if (known) return known;
  throw new GsaError(
    'INVALID_ARGUMENT',
    `Expected "fp8" or "fp8-hybrid" for recipe but received ${show(recipe)}`,
    { op: 'linearFloat8' },
  );
}

function checkMultiple(name: string, extent: number): number {
  if (extent % FLOAT8_MULTIPLE === 0) return extent;
  throw refuse('linearFloat8', `a multiple of ${FLOAT8_MULTIPLE}`, name, String(extent));
}

/** x Wᵀ like linear(), with all three products of it (forward, gradient of x, gradient of W) in 8-bit floats and float32
 * sums: x, W and the gradient that comes back are copied by their own largest magnitude, once each, as they are and
 * transposed. `weights` are the rows of W that get a gradient each, as in linearJoined(). `residual`, as the result, is added
 * as linear() does it.
 *
 * x [..., in], weight [out, in] -> [..., out] in the dtype of x. Forward sums may be of fewer bits than float32 (the tensor
 * cores' own), those of gradients are not.
 * @throws GsaError INVALID_ARGUMENT, also for extents (rows of x together, in, and each of the weights' out) that are not
 * multiples of 16 */
export function linearFloat8(
  x: Tensor,
  weights: readonly Tensor[],
  whole: Tensor,
  recipe: Float8Recipe,
  residual?: Tensor | null,
): Tensor {
  const op = 'linearFloat8';
  const gradients: Float8 = checkRecipe(recipe) === 'fp8' ? 'float8_e4m3' : 'float8_e5m2';
  checkTensor(op, 'whole', whole, { ndim: 2 });
  const [total, width] = whole.shape as [number, number];
  const { dtype, device } = whole;
  checkTensor(op, 'x', x, { dtype, device });
  if (x.shape.at(-1) !== width)
    throw refuse(
      op,
      `a last dimension of ${width} (weight ${shapeText(whole.shape)})`,
      'x',
      shapeText(x.shape),
    );
  if (!Array.isArray(weights)) throw refuse(op, 'tensors', 'weights', show(weights));
  for (const weight of weights) checkTensor(op, 'weights', weight, { shape: [null, width], dtype, device });
  const outs = weights.map((weight) => checkMultiple('the out of a weight', weight.shape[0]!));
  if (outs.reduce((sum, out) => sum + out, 0) !== total)
    throw refuse(op, `weights of ${total} rows together`, 'weights', outs.join(' + '));
  checkMultiple('the in of a weight', width);
  const rows = checkMultiple('the rows of x', rowCount(x.shape));
  const shape = x.shape;
  const y = emptyBeside(x, [...shape.slice(0, -1), total]);
  const before = checkResidual(op, residual, y);
  using x2 = x.view([rows, width]);
  using y2 = y.view([rows, total]);
  using addend = before?.view([rows, total]);
  const input = quantize(x2, 'float8_e4m3', { q: true, qt: true }, x.absMax);
  const map = quantize(whole, 'float8_e4m3', { q: true, qt: true }, null);
  product(input.q!, input.scale, map.q!, map.scale, y2, { fast: true, addend });
  const saved = [input.qt!, input.scale, map.qt!, map.scale];
  record(op, [x, ...weights, before], [y], saved, ([dy], [xt, xScale, wt, wScale], needs, into) => {
    const wantsMaps = needs.slice(1, 1 + outs.length).some(Boolean);
    const dy2 = dy!.view([rows, total]);
    const back = quantize(dy2, gradients, { q: needs[0]!, qt: wantsMaps }, dy!.absMax);
    const dx = needs[0] ? emptyBeside(dy!, shape) : null;
    if (dx) product(back.q!, back.scale, wt!, wScale!, dx.view([rows, width]));
    let start = 0;
    const grads = outs.map((out, i) => {
      const from = start;
      start += out;
      if (!needs[i + 1]) return null;
      const there = into[i + 1];
      const dw = there ?? emptyBeside(dy!, [out, width]);
      product(back.qt!.narrow(0, from, out), back.scale, xt!, xScale!, dw, { beta: there ? 1 : 0 });
      return dw;
    });
    return [dx, ...grads, needs[1 + outs.length] ? dy!.alias() : null];
  });
  for (const one of [input, map]) for (const tensor of [one.q, one.qt, one.scale]) tensor?.dispose();
  return y;
}
