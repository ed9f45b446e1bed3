import { checkFunction } from '../native/errors.js';
import type { Tensor } from './tensor.js';

/** Gradients of a loss with respect to an op's inputs, given those with respect to its outputs (null: none flowed).
 * `saved` are the tensors handed to record(), kept alive by the recorder. `needs[i]` says whether input i wants a
 * gradient; the function may return null (or anything) where it does not. Returned tensors belong to the caller.
 * `into[i]` is the gradient that input i has already, where the sum may be made in place: a rule that adds to it returns
 * it; one that returns another tensor leaves the addition to the caller. */
export type Vjp = (
  grads: readonly (Tensor | null)[],
  saved: readonly Tensor[],
  needs: readonly boolean[],
  into: readonly (Tensor | null)[],
) => readonly (Tensor | null)[];

/** How an op makes some of its outputs again from what it saves, bit for bit, for less time than keeping them is worth
 * memory: output `of[i]` is make(saved)[i]. */
export interface Remake {
  readonly of: readonly number[];
  readonly make: (saved: readonly Tensor[]) => readonly Tensor[];
}

/** A part of a computation: new tensors from `inputs` and from leaves, the same bits from the same inputs every time. */
export type Part = (inputs: readonly (Tensor | null)[]) => readonly Tensor[];

/** Something that listens to ops: the autograd tape. Ops know only this interface, so that they stand below it. */
export interface Recorder {
  wants(tensor: Tensor): boolean;
  record(
    op: string,
    inputs: readonly (Tensor | null)[],
    outputs: readonly Tensor[],
    saved: readonly Tensor[],
    vjp: Vjp,
    remake?: Remake,
  ): void;
  part(inputs: readonly (Tensor | null)[], body: Part): readonly Tensor[];
}

let active: Recorder | null = null;

/** Makes `next` the listener and returns the one before it. */
export function setRecorder(next: Recorder | null): Recorder | null {
  const previous = active;
  active = next;
  return previous;
}

/** True when some input's gradient will be asked for: an op may then keep what only its backward needs. */
export function recording(inputs: readonly (Tensor | null | undefined)[]): boolean {
  return active !== null && inputs.some((t) => t != null && active!.wants(t));
}

/** Called by every differentiable op after its forward. `saved` may contain inputs and outputs. With `remake` a recorder may
 * drop outputs that later ops save, and make them again. */
export function record(
  op: string,
  inputs: readonly (Tensor | null | undefined)[],
  outputs: readonly Tensor[],
  saved: readonly Tensor[],
  vjp: Vjp,
  remake?: Remake,
): void {
  if (!recording(inputs)) return;
  active!.record(
    op,
    inputs.map((t) => t ?? null),
    outputs,
    saved,
    vjp,
    remake,
  );
}

/** Runs `body` on `inputs`. A recorder may keep these alone, and run it again for the gradients: it must use no other tensor
 * that is not a leaf. */
export function part(inputs: readonly (Tensor | null)[], body: Part): readonly Tensor[] {
  return active ? active.part(inputs, body) : body(inputs);
}

/** Runs `body` with nothing recorded.
 * @throws GsaError INVALID_ARGUMENT when `body` is no function */
export function noGrad<R>(body: () => R): R {
  checkFunction(body, 'body', 'noGrad');
  const previous = setRecorder(null);
  try {
    return body();
  } finally {
    setRecorder(previous);
  }
}
