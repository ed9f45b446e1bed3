import type { Device } from '#src/tensor/device.js';
import { fromBFloat16, toBFloat16, type DType } from '#src/tensor/dtype.js';
import { scope } from '#src/tensor/scope.js';
import { Tensor } from '#src/tensor/tensor.js';
import { randomFrom } from '../random.js';
import type { CaseInput, CaseValues, OpCase } from './types.js';

/** What a case is computed in. */
export type ComputeDType = 'float32' | 'bfloat16';

function dtypeOf({ dtype = 'float32', wide = false }: CaseInput, computed: ComputeDType): DType {
  return dtype === 'float32' && !wide ? computed : dtype;
}

/** The inputs of a case as float64 that are exact in the dtypes they will have. */
export function drawInputs(one: OpCase, computed: ComputeDType = 'float32'): CaseValues {
  const random = randomFrom(one.seed);
  return Object.fromEntries(
    Object.entries(one.inputs).map(([name, input]) => {
      const { shape, draw } = input;
      const size = shape.reduce((n, extent) => n * extent, 1);
      const round =
        dtypeOf(input, computed) === 'bfloat16' ? (x: number) => fromBFloat16(toBFloat16(x)) : Math.fround;
      return [name, Float64Array.from({ length: size }, (_, i) => round(draw(random, i)))];
    }),
  );
}

/** They on a device, asking for gradients where the case does. */
export function toTensors(
  one: OpCase,
  values: CaseValues,
  device: Device,
  computed: ComputeDType = 'float32',
): Record<string, Tensor> {
  return Object.fromEntries(
    Object.entries(one.inputs).map(([name, input]) => {
      const { shape, grad } = input;
      const dtype = dtypeOf(input, computed);
      const data = dtype === 'int32' ? Int32Array.from(values[name]!) : Float32Array.from(values[name]!);
      const tensor = Tensor.from(data, shape, { device, dtype });
      tensor.requiresGrad = grad ?? dtype !== 'int32';
      return [name, tensor];
    }),
  );
}

/** Random weights of the outputs: the loss under test is their weighted sum. */
export function outputWeights(one: OpCase, outputs: readonly Float64Array[]): Float64Array[] {
  const random = randomFrom(one.seed + 1000);
  return outputs.map((y) => y.map(() => Math.fround(random.normal())));
}

/** d(weighted sum of the reference's outputs) / d(inputs) by central differences in float64: good to about 1e-9. */
export function referenceGradients(
  one: OpCase,
  values: CaseValues,
  weights: readonly Float64Array[],
): Record<string, Float64Array> {
  const loss = (at: CaseValues): number =>
    one
      .reference(at)
      .reduce((sum, y, i) => sum + y.reduce((part, value, j) => part + value * weights[i]![j]!, 0), 0);
  const gradients: Record<string, Float64Array> = {};
  for (const [name, { dtype = 'float32', grad = dtype === 'float32' }] of Object.entries(one.inputs)) {
    if (!grad) continue;
    const moved = Float64Array.from(values[name]!);
    const at = { ...values, [name]: moved };
    gradients[name] = moved.map((x, i) => {
      const h = 1e-5 * Math.max(1, Math.abs(x));
      moved[i] = x + h;
      const up = loss(at);
      moved[i] = x - h;
      const down = loss(at);
      moved[i] = x;
      return (up - down) / (2 * h);
    });
  }
  return gradients;
}

/** ‖x − reference‖ / ‖reference‖; the plain norm of x where the reference is zero. NaN and infinity count as infinite. */
export function relativeError(x: ArrayLike<number>, reference: ArrayLike<number>): number {
  if (x.length !== reference.length) return Infinity;
  let difference = 0;
  let size = 0;
  for (let i = 0; i < x.length; i++) {
    difference += (x[i]! - reference[i]!) ** 2;
    size += reference[i]! ** 2;
  }
  if (!Number.isFinite(difference)) return Infinity;
  return Math.sqrt(difference) / (size > 0 ? Math.sqrt(size) : 1);
}

/** Runs a case without recording and returns its outputs on the host. */
export function runOnHost(
  one: OpCase,
  values: CaseValues,
  device: Device,
  computed: ComputeDType = 'float32',
): Float32Array[] {
  return scope(() => one.run(toTensors(one, values, device, computed)).map((y) => y.toFloat32()));
}

/** Names of the arrays that are not the same bits. (deepEqual takes seconds for arrays of this size.) */
export function differing(a: Record<string, Float32Array>, b: Record<string, Float32Array>): string[] {
  const bits = (x: Float32Array) => Buffer.from(x.buffer, x.byteOffset, x.byteLength);
  return Object.keys(a).filter((name) => !bits(a[name]!).equals(bits(b[name]!)));
}
