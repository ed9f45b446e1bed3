import { GsaError } from '../native/errors.js';
import type { Tensor } from './tensor.js';

/** A set of tensors that end together. Tensors join the innermost open scope when they are made. */
class Scope {
  readonly members = new Set<Tensor>();
}

const stack: Scope[] = [];

/** @internal */
export function adopt(tensor: Tensor): void {
  stack.at(-1)?.members.add(tensor);
}

/** @internal */
export function forget(tensor: Tensor): void {
  for (const scope of stack) scope.members.delete(tensor);
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
 * @throws GsaError INVALID_ARGUMENT when `body` returns a Promise. */
export function scope<R>(body: () => R): R {
  const own = new Scope();
  stack.push(own);
  let kept = new Set<object>();
  try {
    const result = body();
    if (result instanceof Promise) {
      result.catch(() => {});
      throw new GsaError(
        'INVALID_ARGUMENT',
        'Expected a synchronous function for scope() but received one that returns a Promise; dispose its tensors explicitly or with `using`',
      );
    }
    collectTensors(result, (kept = new Set()));
    return result;
  } catch (error) {
    kept = new Set();
    throw error;
  } finally {
    stack.pop();
    const outer = stack.at(-1);
    for (const tensor of own.members) {
      if (kept.has(tensor)) outer?.members.add(tensor);
      else tensor.dispose();
    }
  }
}

/** Takes a tensor out of every open scope: the caller disposes it. */
export function keep<T extends Tensor>(tensor: T): T {
  forget(tensor);
  return tensor;
}
