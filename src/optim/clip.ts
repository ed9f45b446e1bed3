import { checkOptions, expected } from '../native/errors.js';
import { exec } from '../tensor/exec.js';
import { Tensor } from '../tensor/tensor.js';

function checkTensors(name: string, value: unknown, op: string): void {
  if (!Array.isArray(value) || !value.every((one) => one instanceof Tensor))
    throw expected('a list of tensors', name, value, op);
}

/** Gradients of the parameters that have one.
 * @throws GsaError INVALID_ARGUMENT when none has */
function gradients(params: readonly Tensor[], op: string): Tensor[] {
  checkTensors('params', params, op);
  const grads = params.map((p) => p.grad).filter((g) => g !== null);
  if (grads.length === 0) throw expected('parameters with gradients', 'params', params, op);
  return grads;
}

/** What clipping needs, without waiting for the device: `norm` is the Euclidean norm of all gradients together times
 * `gradScale`, and `scale` = gradScale · min(1, maxNorm / (norm + 1e-6)) the factor to hand to AdamW.step(). `gradScale`
 * turns summed gradients into means (one over the number of tokens). Both are float32 of shape []; they are not finite
 * when a gradient is not, or one of `losses` (float32, of shape []).
 * @throws GsaError INVALID_ARGUMENT */
export function clipScale(
  params: readonly Tensor[],
  options: { maxNorm?: number; gradScale?: number; losses?: readonly Tensor[] } = {},
): { scale: Tensor; norm: Tensor } {
  checkOptions(options, ['maxNorm', 'gradScale', 'losses'], 'clipScale');
  const { maxNorm = Infinity, gradScale = 1, losses = [] } = options;
  checkTensors('losses', losses, 'clipScale');
  if (typeof maxNorm !== 'number' || !(maxNorm > 0))
    throw expected('a number above 0 (Infinity: no clipping)', 'maxNorm', maxNorm, 'clipScale');
  if (!(Number.isFinite(gradScale) && gradScale > 0))
    throw expected('a finite number above 0', 'gradScale', gradScale, 'clipScale');
  const grads = gradients(params, 'clipScale');
  const device = grads[0]!.device;
  using squares = Tensor.empty([], { device });
  exec('sum_squares', { x: grads }, { y: squares }, {});
  // Zero times a loss is zero, or NaN when the loss is not finite.
  for (const b of losses) exec('add', { a: squares, b }, { y: squares }, { alpha: 1, beta: 0 });
  const scale = Tensor.empty([], { device });
  const norm = Tensor.empty([], { device });
  exec('clip_scale', { sum_squares: squares }, { scale, norm }, { max_norm: maxNorm, grad_scale: gradScale });
  return { scale, norm };
}

/** The Euclidean norm of all gradients together, float32 of shape [].
 * @throws GsaError INVALID_ARGUMENT when no parameter has a gradient */
export function globalNorm(params: readonly Tensor[]): Tensor {
  const { scale, norm } = clipScale(params);
  scale.dispose();
  return norm;
}
