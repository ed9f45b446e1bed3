import { expected } from '../native/errors.js';
import { exec } from '../tensor/exec.js';
import { keep } from '../tensor/scope.js';
import type { Shape } from '../tensor/shape.js';
import { Tensor } from '../tensor/tensor.js';

/** One tensor of an optimizer's state: float32 on the host, however the device holds it. */
export interface StateTensor {
  readonly shape: Shape;
  /** A copy. Waits for the device.
   * @throws GsaError OUT_OF_MEMORY where the device has no room for the float32 copy that it goes through */
  read(): Float32Array;
  /** @throws GsaError INVALID_ARGUMENT unless it is a Float32Array of this many elements, OUT_OF_MEMORY as read(); nothing is
   * written then */
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

/** What a checkpoint holds of it: "<parameter>.exp_avg", ".exp_avg_sq" and, for a bfloat16 parameter, ".master". */
export function stateOf({ name, parameter, m, v, remainder }: Slot): [string, StateTensor][] {
  const { shape, size, device } = parameter;
  const entry = (
    kind: string,
    read: () => Float32Array,
    write: (values: Float32Array) => void,
  ): [string, StateTensor] => {
    const checked = (values: Float32Array): void => {
      if (!(values instanceof Float32Array) || values.length !== size)
        throw expected(`a Float32Array of ${size} elements`, `${name}.${kind}`, values, 'AdamW');
      write(values);
    };
    return [`${name}.${kind}`, { shape, read, write: checked }];
  };
  const plain = (kind: string, tensor: Tensor) =>
    entry(
      kind,
      () => tensor.toHost() as Float32Array,
      (values) => tensor.write(values),
    );
  if (!remainder) return [plain('exp_avg', m), plain('exp_avg_sq', v)];

  const held = { param: parameter, remainder, v };
  // One float32 copy on the device at a time: a training that fills it must still be able to save.
  const converted = (kind: 'exp_avg_sq' | 'master') =>
    entry(
      kind,
      () => {
        using copy = Tensor.empty(shape, { device });
        exec('adamw_state_read', held, { [kind]: copy }, {});
        return copy.toHost() as Float32Array;
      },
      (values) => {
        using copy = Tensor.empty(shape, { device });
        copy.write(values);
        exec('adamw_state_write', { [kind]: copy }, held, {});
      },
    );
  return [plain('exp_avg', m), converted('exp_avg_sq'), converted('master')];
}
