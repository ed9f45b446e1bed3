import { checkOptions } from '../native/errors.js';
import { exec } from '../tensor/exec.js';
import { record } from '../tensor/recorder.js';
import { Tensor } from '../tensor/tensor.js';
import { absMaxBeside, checkNumber, checkTensor, emptyBeside } from './check.js';

/** Extents of a gated-slot-attention layer. */
export interface GsaInputShape {
  /** Query heads, and key/value heads. */
  HQ: number;
  H: number;
  /** Width of a head's queries and keys, and of its values. */
  K: number;
  V: number;
  /** Slots of a head. */
  M: number;
  /** g = logsigmoid(f) / normalizer; default 8. */
  normalizer?: number;
  /** Note the gradient's largest magnitude, for an 8-bit product before. */
  noteAbsMax?: boolean;
}

/** What gated slot attention takes. */
export interface GsaMade {
  q: Tensor;
  k: Tensor;
  v: Tensor;
  g: Tensor;
  s: Tensor;
}

/** What gated slot attention takes, from the joined projections of a layer: a row of x [B, T, HQ K + H K + H V + H M] is
 * [q | k | v | f] of one token. q, k and v are silu of theirs; g = logsigmoid(f) / normalizer and s = 1 − exp(g), both
 * float32 (arXiv 2409.07146, section 3.3).
 * @returns q [B, T, HQ, K], k [B, T, H, K], v [B, T, H, V], g and s [B, T, H, M]
 * @throws GsaError INVALID_ARGUMENT */
export function gsaInputs(x: Tensor, shape: GsaInputShape): GsaMade {
  checkOptions(shape ?? null, undefined, 'gsaInputs');
  const checked = checkInputs('gsaInputs', x, shape);
  const made = makeInputs(x, checked);
  recordInputs(x, made, checked);
  return made;
}

/** @internal */
export interface CheckedInputs extends GsaInputShape {
  normalizer: number;
}
/** @internal */
export function checkInputs(op: string, x: unknown, shape: GsaInputShape): CheckedInputs {
  const { HQ, H, K, V, M } = shape;
  for (const [name, extent] of Object.entries({ HQ, H, K, V, M }))
    checkNumber(op, name, extent, 'an integer above 0', (n) => Number.isInteger(n) && n > 0);
  const normalizer = checkNumber(op, 'normalizer', shape.normalizer ?? 8, 'a number above 0', (n) => n > 0);
  checkTensor(op, 'x', x, { shape: [null, null, HQ * K + H * K + H * V + H * M] });
  return { ...shape, normalizer };
}

/** @internal */
export function emptyInputs(x: Tensor, checked: CheckedInputs): GsaMade {
  const [B, T] = x.shape as [number, number];
  const { HQ, H, K, V } = checked;
  return {
    q: emptyBeside(x, [B, T, HQ, K]),
    k: emptyBeside(x, [B, T, H, K]),
    v: emptyBeside(x, [B, T, H, V]),
    ...emptyGates(x, checked),
  };
}

/** @internal */
export function emptyGates(x: Tensor, { H, M }: CheckedInputs): Pick<GsaMade, 'g' | 's'> {
  const [B, T] = x.shape as [number, number];
  return {
    g: emptyBeside(x, [B, T, H, M], 'float32'),
    s: emptyBeside(x, [B, T, H, M], 'float32'),
  };
}

function makeInputs(x: Tensor, checked: CheckedInputs): GsaMade {
  const made = emptyInputs(x, checked);
  exec('gsa_inputs_fwd', { x }, { ...made }, { normalizer: checked.normalizer });
  return made;
}

/** `made` from x, by this op or, with the same bits, by another: its gradient, and how it is made again.
 * @internal */
export function recordInputs(x: Tensor, made: GsaMade, checked: CheckedInputs): void {
  const { normalizer, noteAbsMax = false } = checked;
  const outputs = Object.values(made) as Tensor[];
  const shapes = outputs.map((t) => ({ shape: t.shape, dtype: t.dtype }));
  record(
    'gsaInputs',
    [x],
    outputs,
    [x],
    (arrived, [x]) => {
      const [dq, dk, dv, dg, ds] = arrived.map(
        (d, i) => d ?? Tensor.zeros(shapes[i]!.shape, { dtype: shapes[i]!.dtype, device: x!.device }),
      );
      const dx = Tensor.emptyLike(x!);
      const absmax = noteAbsMax ? absMaxBeside(dx) : null;
      exec('gsa_inputs_bwd', { dq, dk, dv, dg, ds, x }, { dx, absmax }, { normalizer });
      dx.absMax = absmax;
      return [dx];
    },
    { of: [0, 1, 2, 3, 4], make: ([x]) => Object.values(makeInputs(x!, checked)) },
  );
}

/** How g and s are made again, where nobody keeps q, k and v: for the sake of `recompute` alone, since no gradient arrives
 * at them.
 * @internal */
export function recordGates(x: Tensor, { g, s }: Pick<GsaMade, 'g' | 's'>, checked: CheckedInputs): void {
  const make = ([x]: readonly Tensor[]) => {
    const gates = emptyGates(x!, checked);
    exec('gsa_inputs_fwd', { x }, { ...gates }, { normalizer: checked.normalizer });
    return [gates.g, gates.s];
  };
  record('gsaInputs', [x], [g, s], [x], () => [null], { of: [0, 1], make });
}
