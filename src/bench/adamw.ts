import { AdamW } from '../optim/index.js';
import { scope } from '../tensor/scope.js';
import { Tensor } from '../tensor/tensor.js';
import { norm, relativeError } from '../verify/compare.js';
import { finiteError, outputCheck } from './check.js';
import { adamwCount } from './counts.js';
import { adamw, type AdamWSettings } from './module_reference.js';
import { rates } from './peaks.js';
import type { BenchContext, BenchResult } from './report.js';
import { parseShape, shapeName } from './shape.js';
import { measureTogether } from './timing.js';

/** The size of a projection of the 1.3B model. */
const LARGEST = 2048 * 2048;
const SAMPLE = 2 ** 14;
const SETTINGS: AdamWSettings = { lr: 1e-3, beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.01 };

/** Updates of P parameters in tensors of up to 2048 x 2048, all in one call; in bfloat16 with float32 masters.
 *
 * Checked: after all timed steps, how far the first 16,384 elements of the first and of the last tensor moved, against the
 * same number of steps in float64; and that everything is finite.
 * @throws GsaError INVALID_ARGUMENT for a malformed shape */
export function benchAdamW(
  { device, dtype, watch, measure, peaks }: BenchContext,
  text: string,
): BenchResult[] {
  const shape = parseShape(text, ['P'] as const);
  const { lr, beta1, beta2, eps, weightDecay } = SETTINGS;
  return scope(() => {
    const sizes: number[] = [];
    for (let left = shape.P; left > 0; left -= LARGEST) sizes.push(Math.min(left, LARGEST));
    const parameters = sizes.map((n, i) => {
      const parameter = Tensor.randn([n], { device, dtype, seed: 1, stream: i, std: 0.02 });
      parameter.grad = Tensor.randn([n], { device, dtype, seed: 2, stream: i });
      return parameter;
    });
    const named = parameters.map((parameter, i) => [`p${i}`, parameter] as const);
    using optimizer = new AdamW(named, { lr, betas: [beta1, beta2], eps, weightDecay });
    const sampled = [parameters[0]!, parameters.at(-1)!];
    const sample = (tensor: Tensor) =>
      scope(() => tensor.narrow(0, 0, Math.min(SAMPLE, tensor.size)).toFloat32());
    const before = sampled.map(sample);
    const timing = measureTogether(watch, [() => optimizer.step()], measure)[0]!;

    const errors = sampled.map((p, i) => {
      const masters = optimizer.state().get(`p${i === 0 ? 0 : parameters.length - 1}.master`);
      const weights = masters ? masters.read().subarray(0, SAMPLE) : sample(p);
      const exact = adamw(before[i]!, sample(p.grad!), optimizer.stepCount, SETTINGS);
      const moved = exact.map((value, j) => value - before[i]![j]!);
      return relativeError(weights, exact, norm(moved));
    });
    const steps = `${optimizer.stepCount} steps in float64, how far the weights moved`;
    const figures = rates(adamwCount(shape, dtype === 'float32' ? 4 : 2), timing.medianMs, peaks);
    const checks = [
      ...errors.map((error) => outputCheck(steps, error, 1e-4)),
      outputCheck('all weights are finite', finiteError(parameters), 0),
    ];
    return [{ name: 'adamw step', shape: shapeName(shape), timing, figures, checks }];
  });
}
