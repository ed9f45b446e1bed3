import { GsaError, checkOptions, expected, show } from '../native/errors.js';
import { exec } from '../tensor/exec.js';
import { noGrad, setRecorder, type Part, type Recorder, type Remake, type Vjp } from '../tensor/recorder.js';
import { keep, scope } from '../tensor/scope.js';
import { sameShape, shapeText } from '../tensor/shape.js';
import { Tensor } from '../tensor/tensor.js';

/** Where a gradient goes: to a leaf (a tensor with requiresGrad) or to output `output` of entry `entry`. */
type Target = { readonly leaf: Tensor } | { readonly entry: number; readonly output: number } | null;

/** An output of `entry` that is made again instead of kept: number `place` of what its rule makes. */
interface Again {
  readonly entry: Entry;
  readonly place: number;
}

interface Entry {
  readonly op: string;
  readonly inputs: readonly Target[];
  readonly saved: readonly (Tensor | Again)[];
  readonly vjp: Vjp;
  readonly remake: Remake | null;
  /** What `remake` has made, while entries that want it are to come: `users` of them. */
  made: readonly Tensor[] | null;
  users: number;
  /** Gradients with respect to the outputs that have arrived so far. */
  readonly grads: (Arrived | null)[];
}

/** A gradient and whether its storage is this tape's alone, so that it may be added to in place. */
interface Arrived {
  tensor: Tensor;
  owned: boolean;
}

interface Link {
  readonly tape: Tape;
  readonly generation: number;
  readonly entry: number;
  readonly output: number;
}

/** What a tape makes again in the backward instead of keeping it. false: nothing. true: what is quickly made from what is
 * kept anyway (outputs of norms, activations and gates; never of products). "blocks": all that is in a block of a model, of
 * which only the inputs are kept. */
export type Recompute = boolean | 'blocks';

/**
 * Reverse-mode differentiation over the ops of src/ops: run() records, backward() replays in reverse and frees what was
 * saved as it goes. One tape serves one step after another.
 *
 *     const tape = new Tape();
 *     const loss = tape.run(() => model.loss(tokens, labels));
 *     tape.backward(loss);            // fills .grad of every parameter that took part
 *
 * With `recompute` it keeps less, for more time: the gradients are the same to the last bit.
 */
export class Tape implements Recorder {
  readonly #recompute: Recompute;
  #entries: Entry[] = [];
  #generation = 0;

  /** @throws GsaError INVALID_ARGUMENT */
  constructor(options: { recompute?: Recompute } = {}) {
    checkOptions(options, ['recompute'], 'Tape');
    const { recompute = false } = options;
    if (typeof recompute !== 'boolean' && recompute !== 'blocks')
      throw expected('true, false or "blocks"', 'recompute', recompute, 'Tape');
    this.#recompute = recompute;
  }

  /** Runs `body` with its ops recorded. Tensors made in it and not returned are disposed, as in scope(); what the backward
   * needs is kept by the tape until backward() or dispose().
   * @throws GsaError INVALID_ARGUMENT when `body` is no function, or returns a Promise */
  run<R>(body: () => R): R {
    const previous = setRecorder(this);
    try {
      return scope(body);
    } catch (error) {
      this.dispose();
      throw error;
    } finally {
      setRecorder(previous);
    }
  }

  /** The number of ops recorded and not yet replayed. */
  get length(): number {
    return this.#entries.length;
  }

  #target(tensor: Tensor | null): Target {
    if (tensor === null) return null;
    if (tensor.gradLink instanceof Tensor) return this.#target(tensor.gradLink);
    const link = tensor.gradLink as Link | null;
    if (link && link.tape === this && link.generation === this.#generation)
      return { entry: link.entry, output: link.output };
    return tensor.requiresGrad ? { leaf: tensor } : null;
  }

  /** @internal */
  wants(tensor: Tensor): boolean {
    return this.#target(tensor) !== null;
  }

  /** @internal */
  record(
    op: string,
    inputs: readonly (Tensor | null)[],
    outputs: readonly Tensor[],
    saved: readonly Tensor[],
    vjp: Vjp,
    remake?: Remake,
  ): void {
    const targets = inputs.map((t) => this.#target(t));
    const held = saved.map((t) => this.#again(t) ?? keep(t.alias()));
    for (const one of held) if (!(one instanceof Tensor)) one.entry.users++;
    const entry = this.#entries.length;
    const generation = this.#generation;
    outputs.forEach((t, output) => (t.gradLink = { tape: this, generation, entry, output } satisfies Link));
    const grads = outputs.map(() => null);
    this.#entries.push({
      op,
      inputs: targets,
      saved: held,
      vjp,
      remake: remake ?? null,
      made: null,
      users: 0,
      grads,
    });
  }

  /** @internal */
  part(inputs: readonly (Tensor | null)[], body: Part): readonly Tensor[] {
    if (this.#recompute !== 'blocks') return body(inputs);
    return scope(() => {
      // Recorded, and the recording dropped: ops that know no gradient is asked for may compute something else.
      using tape = new Tape();
      const leaves = inputs.map((tensor) => tensor && asLeaf(tensor, this.wants(tensor)));
      const outputs = tape.run(() => body(leaves));
      if (!outputs.some((output) => tape.wants(output))) return outputs;
      const there = inputs.filter((tensor) => tensor !== null);
      this.record('part', inputs, outputs, there, (grads, saved, needs) => {
        const rest = saved.values();
        const again = inputs.map((tensor, i) => tensor && asLeaf(rest.next().value!, needs[i]!));
        return partGradients(again, body, grads);
      });
      return outputs;
    });
  }

  /** Where `tensor` can be made again; null where it is to be kept. */
  #again(tensor: Tensor): Again | null {
    if (!this.#recompute) return null;
    const target = this.#target(tensor);
    if (target === null || 'leaf' in target) return null;
    const entry = this.#entries[target.entry]!;
    const place = entry.remake?.of.indexOf(target.output) ?? -1;
    return place < 0 ? null : { entry, place };
  }

  /** Adds d(loss)/d(leaf) to `.grad` of every leaf that took part, and forgets the recording. `seed` is the gradient of
   * whatever follows with respect to `loss` (default 1). Several losses are several ends of one computation, each with a
   * seed of its own.
   * @throws GsaError INVALID_ARGUMENT when a loss was not computed by this tape, or is not one number and has no seed, or a
   * seed does not fit; an error of a gradient rule passes through, and leaves may then hold part of their gradients. */
  backward(loss: Tensor | readonly Tensor[], seed?: Tensor | readonly Tensor[]): void {
    const losses = loss instanceof Tensor ? [loss] : loss;
    const seeds = seed === undefined || seed instanceof Tensor ? [seed] : seed;
    if (!Array.isArray(losses)) throw expected('a Tensor or a list of them', 'loss', loss, 'backward');
    if (!Array.isArray(seeds)) throw expected('a Tensor or a list of them', 'seed', seed, 'backward');
    // Array.from: a hole is looked at, too.
    const ends = Array.from(losses as Tensor[], (one, i) => this.#end(one, (seeds as Tensor[])[i]));
    try {
      noGrad(() => {
        for (const { target, loss, seed } of ends) {
          const first = seed
            ? seed.alias()
            : Tensor.full(loss.shape, 1, { device: loss.device, dtype: loss.dtype });
          this.#arrive(target, keep(first));
        }
        while (this.#entries.length > 0) this.#replay(this.#entries.pop()!);
      });
    } finally {
      this.dispose();
    }
  }

  #end(loss: Tensor, seed?: Tensor): { target: NonNullable<Target>; loss: Tensor; seed?: Tensor } {
    const refuse = (message: string) => new GsaError('INVALID_ARGUMENT', message, { op: 'backward' });
    if (seed !== undefined && !(seed instanceof Tensor))
      throw refuse(`Expected a Tensor for seed but received ${show(seed)}`);
    if (!(loss instanceof Tensor)) throw refuse(`Expected a Tensor for loss but received ${show(loss)}`);
    const target = this.#target(loss);
    if (target === null || 'leaf' in target)
      throw refuse(
        'Expected a loss computed inside run() of this tape from tensors with requiresGrad, and not used in backward() before',
      );
    if (!seed && loss.size !== 1)
      throw refuse(`Expected a loss of one element (or a seed) but received shape ${shapeText(loss.shape)}`);
    if (seed && !(sameShape(seed.shape, loss.shape) && seed.dtype === loss.dtype))
      throw refuse(`Expected a seed like ${loss} but received ${seed}`);
    return { target, loss, seed };
  }

  #replay(entry: Entry): void {
    try {
      if (entry.grads.every((g) => g === null)) return;
      const into = entry.inputs.map((t) => (t && 'leaf' in t && !t.leaf.disposed ? t.leaf.grad : null));
      const saved = savedBy(entry);
      const grads = scope(() =>
        entry.vjp(
          entry.grads.map((g) => g?.tensor ?? null),
          saved,
          entry.inputs.map((t) => t !== null),
          into,
        ),
      );
      const pending = new Set<Tensor>();
      for (const grad of grads) if (grad && !into.includes(grad)) pending.add(keep(grad));
      try {
        grads.forEach((grad, i) => {
          const to = entry.inputs[i] ?? null;
          // What the rule has added to in place is where it belongs.
          if (grad === null || to === null || grad === into[i]) return;
          pending.delete(grad);
          this.#arrive(to, grad);
        });
      } finally {
        for (const unused of pending) unused.dispose();
      }
    } finally {
      release(entry);
    }
  }

  #arrive(target: NonNullable<Target>, grad: Tensor): void {
    if ('leaf' in target) {
      const leaf = target.leaf;
      if (leaf.disposed) {
        grad.dispose();
        return;
      }
      if (leaf.grad) {
        exec('add', { a: leaf.grad, b: grad }, { y: leaf.grad }, { alpha: 1, beta: 1 });
        grad.dispose();
      } else if (grad.isView) {
        // Its storage may also be another leaf's gradient, and both will be added to in place.
        leaf.grad = keep(grad.contiguousCopy());
        grad.dispose();
      } else {
        leaf.grad = grad;
      }
      return;
    }
    const grads = this.#entries[target.entry]!.grads;
    const there = grads[target.output];
    if (!there) {
      grads[target.output] = { tensor: grad, owned: !grad.isView };
      return;
    }
    const sum = there.owned ? there.tensor : keep(Tensor.emptyLike(there.tensor));
    exec('add', { a: there.tensor, b: grad }, { y: sum }, { alpha: 1, beta: 1 });
    if (!there.owned) there.tensor.dispose();
    grads[target.output] = { tensor: sum, owned: true };
    grad.dispose();
  }

  /** Drops the recording and all it kept. */
  dispose(): void {
    for (const entry of this.#entries) release(entry);
    this.#entries = [];
    this.#generation++;
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** The same elements for a tape of its own, which is to find their gradient if it is `wanted`. */
function asLeaf(tensor: Tensor, wanted: boolean): Tensor {
  const leaf = tensor.alias();
  leaf.gradLink = null;
  leaf.requiresGrad = wanted;
  return leaf;
}

/** Runs a part again and through its backward: gradients of its inputs are returned, those of leaves in it arrive there. */
function partGradients(
  leaves: readonly (Tensor | null)[],
  body: Part,
  grads: readonly (Tensor | null)[],
): (Tensor | null)[] {
  using tape = new Tape();
  const outputs = tape.run(() => body(leaves));
  const arrived = outputs.flatMap((output, i) =>
    grads[i] && tape.wants(output) ? [{ output, grad: grads[i] }] : [],
  );
  tape.backward(
    arrived.map(({ output }) => output),
    arrived.map(({ grad }) => grad),
  );
  return leaves.map((leaf) => {
    const grad = leaf?.grad ?? null;
    if (leaf) leaf.grad = null; // which would end with it
    return grad;
  });
}

/** What an entry saved, and what it can make again made. */
function savedBy(entry: Entry): readonly Tensor[] {
  return entry.saved.map((one) => {
    if (one instanceof Tensor) return one;
    const from = one.entry;
    from.made ??= scope(() => from.remake!.make(savedBy(from))).map((tensor) => keep(tensor));
    return from.made[one.place]!;
  });
}

function release(entry: Entry): void {
  for (const one of entry.saved) {
    if (one instanceof Tensor) one.dispose();
    else if (--one.entry.users === 0) disposeMade(one.entry);
  }
  disposeMade(entry);
  entry.grads.forEach((grad, i) => {
    grad?.tensor.dispose();
    entry.grads[i] = null;
  });
}

function disposeMade(entry: Entry): void {
  for (const tensor of entry.made ?? []) tensor.dispose();
  entry.made = null;
}
