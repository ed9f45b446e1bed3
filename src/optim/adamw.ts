import { GsaError, checkOptions, expected, show } from '../native/errors.js';
import { exec } from '../tensor/exec.js';
import { sameShape, shapeText } from '../tensor/shape.js';
import { Tensor } from '../tensor/tensor.js';
import { disposeSlot, makeSlot, stateOf, type Slot, type StateTensor } from './state.js';

export type NamedParameter = readonly [name: string, parameter: Tensor];

/** Parameters that share settings. */
export interface ParameterGroup {
  readonly params: readonly NamedParameter[];
  /** Replaces the optimizer's weight decay. */
  readonly weightDecay?: number;
  /** Multiplies the learning rate; default 1. */
  readonly lrScale?: number;
}

export interface AdamWOptions {
  /** Used by step() when it is given none; default 1e-3. */
  lr?: number;
  /** Decay rates of the two moments; default [0.9, 0.999]. */
  betas?: readonly [number, number];
  /** Default 1e-8. */
  eps?: number;
  /** Decoupled: a parameter shrinks by lr · weightDecay of itself per step. Default 0.01. */
  weightDecay?: number;
}

export interface StepOptions {
  lr?: number;
  /** Factor for the gradients on the parameters' device, from clipScale(). Where it is not finite the parameters and
   * moments stay as they are. */
  scale?: Tensor | null;
  /** False when the gradients are known not to be finite: the step is counted in `skipped` and not made. */
  finite?: boolean;
}

interface Group {
  /** All of one dtype: the native op takes remainders for every parameter or for none. */
  readonly slots: readonly Slot[];
  readonly weightDecay: number;
  readonly lrScale: number;
}

/** AdamW (Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization", algorithm 2, with bias correction):
 *
 *     m ← β1 m + (1 − β1) g,  v ← β2 v + (1 − β2) g²
 *     θ ← θ − lr · weightDecay · θ − lr · (m / (1 − β1ᵗ)) / (sqrt(v / (1 − β2ᵗ)) + eps)
 *
 * Moments are float32 on the parameters' device and belong to the optimizer: dispose() it.
 *
 * Updates of a bfloat16 parameter add up in float32 masters, of which it is the rounding (to nearest, ties to even). They are
 * kept exactly, as the 16 bits beside the parameter that rounding took away. When something else writes the parameter,
 * training goes on from there: from what was written and the remainder that was kept, at most half a step of bfloat16 apart. */
export class AdamW {
  readonly #groups: readonly Group[];
  /** Those of all groups. */
  readonly #slots: readonly Slot[];
  readonly #lr: number;
  readonly #betas: readonly [number, number];
  readonly #eps: number;
  /** Steps made so far (t of the bias correction). */
  stepCount = 0;
  /** Steps not made because gradients were not finite. */
  skipped = 0;

  /** @param params named parameters (model.namedParameters()), or groups of them; each parameter once
   * @throws GsaError INVALID_ARGUMENT */
  constructor(params: readonly NamedParameter[] | readonly ParameterGroup[], options: AdamWOptions = {}) {
    checkOptions(options, ['lr', 'betas', 'eps', 'weightDecay'], 'AdamW');
    const { lr = 1e-3, betas = [0.9, 0.999], eps = 1e-8, weightDecay = 0.01 } = options;
    this.#lr = atLeastZero('lr', lr);
    atLeastZero('weightDecay', weightDecay);
    if (!Array.isArray(betas as unknown) || betas.length !== 2)
      throw expected('two numbers', 'betas', betas, 'AdamW');
    for (const beta of betas as readonly unknown[])
      if (typeof beta !== 'number' || !(beta >= 0 && beta < 1))
        throw expected('a number of at least 0 and below 1', 'betas', betas, 'AdamW');
    this.#betas = [betas[0], betas[1]];
    if (typeof eps !== 'number' || !(eps > 0)) throw expected('a number above 0', 'eps', eps, 'AdamW');
    this.#eps = eps;
    const groups = asGroups(params);
    checkNames(groups.flatMap((group) => group.params));
    const made: Slot[] = [];
    try {
      this.#groups = groups.flatMap((group) => {
        const decay = atLeastZero('weightDecay', group.weightDecay ?? weightDecay);
        const lrScale = atLeastZero('lrScale', group.lrScale ?? 1);
        const slots = group.params.map(([name, parameter]) => {
          const slot = makeSlot(name, parameter);
          made.push(slot);
          return slot;
        });
        return [slots.filter((s) => !s.remainder), slots.filter((s) => s.remainder)]
          .filter((part) => part.length > 0)
          .map((part) => ({ slots: part, weightDecay: decay, lrScale }));
      });
    } catch (error) {
      for (const slot of made) disposeSlot(slot);
      throw error;
    }
    this.#slots = this.#groups.flatMap((group) => group.slots);
  }

  /** One update from the parameters' gradients, which stay.
   * @throws GsaError INVALID_ARGUMENT naming a parameter that has no gradient; nothing is changed then */
  step(options: StepOptions = {}): void {
    checkOptions(options, ['lr', 'scale', 'finite'], 'AdamW');
    const { scale, finite = true } = options;
    if (scale && !(scale instanceof Tensor)) throw expected('a Tensor', 'scale', scale, 'AdamW');
    if (typeof finite !== 'boolean') throw expected('true or false', 'finite', finite, 'AdamW');
    const lr = atLeastZero('lr', options.lr ?? this.#lr);
    for (const { name, parameter } of this.#slots)
      if (!parameter.grad)
        throw new GsaError(
          'INVALID_ARGUMENT',
          `Expected a gradient for ${name} but it has none; run backward() first, or leave the parameter out of the optimizer`,
          { op: 'AdamW' },
        );
    if (!finite) {
      this.skipped++;
      return;
    }
    const [beta1, beta2] = this.#betas;
    const step = this.stepCount + 1;
    for (const { slots, weightDecay, lrScale } of this.#groups)
      exec(
        'adamw',
        { scale, grad: slots.map((s) => s.parameter.grad!) },
        {
          param: slots.map((s) => s.parameter),
          m: slots.map((s) => s.m),
          v: slots.map((s) => s.v),
          remainder: slots[0]!.remainder ? slots.map((s) => s.remainder!) : undefined,
        },
        { lr: lr * lrScale, beta1, beta2, eps: this.#eps, weight_decay: weightDecay, step },
      );
    this.stepCount = step;
  }

  /** Moves the step just made from `stepCount` to `skipped`, once the host knows that its `scale` was not finite, so that
   * the device changed nothing. Before the next step: the bias correction goes by the count. */
  uncountStep(): void {
    if (this.stepCount === 0)
      throw new GsaError('INVALID_ARGUMENT', 'Expected a step to take back but none was made', {
        op: 'AdamW',
      });
    this.stepCount--;
    this.skipped++;
  }

  /** Disposes the gradients. */
  zeroGrad(): void {
    for (const { parameter } of this.#slots) {
      parameter.grad?.dispose();
      parameter.grad = null;
    }
  }

  /** The moments and masters, as "<parameter>.exp_avg", ".exp_avg_sq" and ".master" (of bfloat16 parameters). Writing masters
   * writes the parameter too, which is their rounding. */
  state(): Map<string, StateTensor> {
    return new Map(this.#slots.flatMap(stateOf));
  }

  /** Copies a saved state() in, bfloat16 parameters with it; with it goes `stepCount`.
   * @throws GsaError INVALID_ARGUMENT naming what is missing, unexpected or of another shape; nothing is changed then.
   * OUT_OF_MEMORY as StateTensor.write(), once what came before that tensor is loaded */
  loadState(state: ReadonlyMap<string, Pick<StateTensor, 'shape' | 'read'>>, stepCount: number): void {
    if (!Number.isSafeInteger(stepCount) || stepCount < 0)
      throw expected('an integer of at least 0', 'stepCount', stepCount, 'AdamW');
    if (!(state instanceof Map)) throw expected('a Map', 'state', state, 'AdamW');
    const own = this.state();
    for (const name of state.keys())
      if (!own.has(name)) throw expected('state of a parameter in this optimizer', 'name', name, 'AdamW');
    for (const [name, to] of own) {
      const from = state.get(name);
      if (!from) throw expected(`a tensor named ${show(name)}`, 'state', undefined, 'AdamW');
      if (!sameShape(from.shape, to.shape))
        throw expected(shapeText(to.shape), name, shapeText(from.shape), 'AdamW');
    }
    for (const [name, to] of own) to.write(state.get(name)!.read());
    this.stepCount = stepCount;
  }

  /** Disposes moments and remainders; the parameters stay. Twice is harmless. */
  dispose(): void {
    for (const slot of this.#slots) disposeSlot(slot);
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

function atLeastZero(name: string, value: unknown): number {
  if (typeof value !== 'number' || !Number.isFinite(value) || value < 0)
    throw expected('a finite number of at least 0', name, value, 'AdamW');
  return value;
}

function isGroup(item: NamedParameter | ParameterGroup): item is ParameterGroup {
  return item !== null && typeof item === 'object' && 'params' in item && Array.isArray(item.params);
}

function asGroups(params: readonly NamedParameter[] | readonly ParameterGroup[]): ParameterGroup[] {
  if (!Array.isArray(params) || params.length === 0)
    throw expected('named parameters or groups of them', 'params', params, 'AdamW');
  const items: readonly (NamedParameter | ParameterGroup)[] = params;
  const groups = items.filter(isGroup);
  if (groups.length === items.length) return groups;
  if (groups.length > 0) throw expected('only groups or only parameters', 'params', params, 'AdamW');
  return [{ params: items as readonly NamedParameter[] }];
}

function checkNames(params: readonly NamedParameter[]): void {
  const names = new Set<string>();
  const tensors = new Set<Tensor>();
  for (const item of params) {
    if (!Array.isArray(item) || typeof item[0] !== 'string' || !(item[1] instanceof Tensor))
      throw expected('a pair of name and Tensor', 'params', item, 'AdamW');
    const [name, tensor] = item;
    if (names.has(name) || tensors.has(tensor))
      throw expected('each parameter once', 'params', name, 'AdamW');
    names.add(name);
    tensors.add(tensor);
  }
}

/** Two groups: parameters of two and more dimensions decay, the others (norm weights, biases) do not.
 * @throws GsaError INVALID_ARGUMENT */
export function decayGroups(params: readonly NamedParameter[], weightDecay: number): ParameterGroup[] {
  if (!Array.isArray(params as unknown)) throw expected('named parameters', 'params', params, 'decayGroups');
  checkNames(params);
  atLeastZero('weightDecay', weightDecay);
  const decays = ([, tensor]: NamedParameter) => tensor.shape.length >= 2;
  return [
    { params: params.filter(decays), weightDecay },
    { params: params.filter((p) => !decays(p)), weightDecay: 0 },
  ].filter((group) => group.params.length > 0);
}
