import { GsaError, checkFunction, expected } from '../native/errors.js';
import type { Tensor } from './tensor.js';

/** Tensors that end together. Tensors join the innermost open scope when they are made. */
export type Scope = Set<Tensor>;

const stack: Scope[] = [];

/** The scope that a tensor made now belongs to.
 * @internal */
export function innermost(): Scope | null {
  return stack.length > 0 ? stack[stack.length - 1]! : null;
}

function collectTensors(value: unknown, found: Set<object>): void {
  if (value === null || typeof value !== 'object' || found.has(value)) return;
  found.add(value);
  if (isTensor(value) || ArrayBuffer.isView(value)) return;
  if (value instanceof Map) for (const item of value.values()) collectTensors(item, found);
  else if (Array.isArray(value) || value instanceof Set)
    for (const item of value) collectTensors(item, found);
  else if (Object.getPrototypeOf(value) === Object.prototype)
    for (const item of Object.values(value)) collectTensors(item, found);
}

let isTensor: (value: object) => boolean = () => false;
/** @internal tensor.ts tells what a Tensor is, since it imports this file. */
export function defineTensor(test: (value: object) => boolean): void {
  isTensor = test;
}

/** Runs `body` and disposes every tensor made in it, except those in its return value (a tensor, or arrays, maps, sets
 * and plain objects of them), which move to the scope around. On an exception everything made in it is disposed.
 * `body` must be synchronous: with a pending Promise it would be unclear when its tensors end.
 * @throws GsaError INVALID_ARGUMENT when `body` is no function, or returns a Promise. */
export function scope<R>(body: () => R): R {
  checkFunction(body, 'body', 'scope');
  const own: Scope = new Set();
  stack.push(own);
  let kept: Set<object> | null = null;
  try {
    const result = body();
    if (result instanceof Promise) {
      result.catch(() => {});
      throw new GsaError(
        'INVALID_ARGUMENT',
        'Expected a synchronous function for scope() but received one that returns a Promise; dispose its tensors explicitly or with `using`',
      );
    }
    const found = new Set<object>();
    collectTensors(result, found);
    kept = found;
    return result;
  } finally {
    stack.pop();
    const outer = innermost();
    for (const tensor of own) {
      if (kept?.has(tensor)) tensor.moveTo(outer);
      else tensor.dispose();
    }
  }
}

/** Takes a tensor out of every open scope: the caller disposes it.
 * @throws GsaError INVALID_ARGUMENT for what is no tensor */
export function keep<T extends Tensor>(tensor: T): T {
  if (typeof tensor !== 'object' || tensor === null || !isTensor(tensor))
    throw expected('a Tensor', 'tensor', tensor, 'keep');
  tensor.moveTo(null);
  return tensor;
}
