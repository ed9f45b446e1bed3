import { expected } from '../native/errors.js';
import { keep } from '../tensor/scope.js';
import type { Shape } from '../tensor/shape.js';
import { Tensor } from '../tensor/tensor.js';
import { joinMasters, secondMoments, splitMasters, withSigns } from './master.js';

/** One tensor of an optimizer's state: float32 on the host, however the device holds it. */
export interface StateTensor {
  readonly shape: Shape;
  /** A copy. Waits for the device. */
  read(): Float32Array;
  /** @throws GsaError INVALID_ARGUMENT unless it is a Float32Array of this many elements */
  write(values: Float32Array): void;
}

/** A parameter and what the optimizer keeps for it. */
export interface Slot {
  readonly name: string;
  readonly parameter: Tensor;
  readonly m: Tensor;
  /** With remainders, its signs belong to them: see native/ops/optimizer/master.h. */
  readonly v: Tensor;
  /** int16, beside a bfloat16 parameter: what makes float32 masters of it, which the updates add up in. */
  readonly remainder: Tensor | null;
}

export function makeSlot(name: string, parameter: Tensor): Slot {
  const { shape, device } = parameter;
  const made: Tensor[] = [];
  const zeros = (dtype: 'float32' | 'int16'): Tensor => {
    const tensor = keep(Tensor.zeros(shape, { device, dtype }));
    made.push(tensor);
    return tensor;
  };
  try {
    const [m, v] = [zeros('float32'), zeros('float32')];
    return { name, parameter, m, v, remainder: parameter.dtype === 'float32' ? null : zeros('int16') };
  } catch (error) {
    for (const tensor of made) tensor.dispose();
    throw error;
  }
}

export function disposeSlot({ m, v, remainder }: Slot): void {
  for (const tensor of [m, v, remainder]) tensor?.dispose();
}

function stateTensor(
  name: string,
  shape: Shape,
  read: () => Float32Array,
  write: (values: Float32Array) => void,
): [string, StateTensor] {
  const size = shape.reduce((n, extent) => n * extent, 1);
  const checked = (values: Float32Array): void => {
    if (!(values instanceof Float32Array) || values.length !== size)
      throw expected(`a Float32Array of ${size} elements`, name, values, 'AdamW');
    write(values);
  };
  return [name, { shape, read, write: checked }];
}

/** What a checkpoint holds of it: "<parameter>.exp_avg", ".exp_avg_sq" and, for a bfloat16 parameter, ".master". */
export function stateOf({ name, parameter, m, v, remainder }: Slot): [string, StateTensor][] {
  const entry = (
    kind: string,
    read: () => Float32Array,
    write: (values: Float32Array) => void,
  ): [string, StateTensor] => stateTensor(`${name}.${kind}`, parameter.shape, read, write);
  const host = (tensor: Tensor) => tensor.toHost() as Float32Array;
  const first = entry(
    'exp_avg',
    () => host(m),
    (values) => m.write(values),
  );
  if (!remainder)
    return [
      first,
      entry(
        'exp_avg_sq',
        () => host(v),
        (values) => v.write(values),
      ),
    ];

  const readMasters = (): Float32Array =>
    joinMasters({
      weights: parameter.toHost() as Uint16Array,
      remainders: remainder.toHost() as Int16Array,
      v: host(v),
    });
  const writeMasters = (masters: Float32Array): void => {
    const split = splitMasters(masters, host(v));
    parameter.write(split.weights);
    remainder.write(split.remainders);
    v.write(split.v);
  };
  return [
    first,
    entry(
      'exp_avg_sq',
      () => secondMoments(host(v)),
      (values) => v.write(withSigns(values, host(v))),
    ),
    entry('master', readMasters, writeMasters),
  ];
}
