import { expected } from '../native/errors.js';

export type Shape = readonly number[];

export const MAX_DIMS = 6;

/** @throws GsaError INVALID_ARGUMENT unless `value` is at most 6 non-negative integers whose product is a safe integer. */
export function checkShape(value: unknown, name = 'shape'): number[] {
  const ok =
    Array.isArray(value) && value.length <= MAX_DIMS && value.every((n) => Number.isSafeInteger(n) && n >= 0);
  if (!ok || !Number.isSafeInteger(elementCount(value as number[])))
    throw expected(`at most ${MAX_DIMS} non-negative integers`, name, value);
  return [...(value as number[])];
}

/** The number of elements; 1 for a scalar's empty shape. */
export function elementCount(shape: Shape): number {
  let n = 1;
  for (const extent of shape) n *= extent;
  return n;
}

export function contiguousStrides(shape: Shape): number[] {
  const strides = new Array<number>(shape.length);
  let step = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    strides[i] = step;
    step *= shape[i]!;
  }
  return strides;
}

export function isContiguous(shape: Shape, strides: Shape): boolean {
  if (elementCount(shape) === 0) return true;
  let step = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    if (shape[i] !== 1 && strides[i] !== step) return false;
    step *= shape[i]!;
  }
  return true;
}

export function sameShape(a: Shape, b: Shape): boolean {
  return a.length === b.length && a.every((n, i) => n === b[i]);
}

/** "[2, 3]" */
export function shapeText(shape: Shape): string {
  return `[${shape.join(', ')}]`;
}

/** Replaces a single -1 in `shape` by what `count` elements leave for it.
 * @throws GsaError INVALID_ARGUMENT */
export function inferShape(shape: Shape, count: number): number[] {
  if (!Array.isArray(shape)) throw expected('an array of extents', 'shape', shape);
  const open = shape.indexOf(-1);
  if (open < 0) {
    const full = checkShape(shape);
    if (elementCount(full) !== count)
      throw expected(`a shape of ${count} elements`, 'shape', shapeText(shape));
    return full;
  }
  const rest = elementCount(shape.filter((_, i) => i !== open));
  const extent = rest > 0 ? count / rest : 0;
  if (!Number.isInteger(extent))
    throw expected(`a shape that divides ${count} elements`, 'shape', shapeText(shape));
  return checkShape(shape.map((n, i) => (i === open ? extent : n)));
}
