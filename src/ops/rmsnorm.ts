import { checkOptions } from '../native/errors.js';
import { exec } from '../tensor/exec.js';
import { record } from '../tensor/recorder.js';
import { Tensor } from '../tensor/tensor.js';
import {
  absMaxBeside,
  checkFlag,
  checkNumber,
  checkOptional,
  checkSame,
  checkTensor,
  emptyBeside,
  refuse,
  rowCount,
} from './check.js';
import { shapeText } from '../tensor/shape.js';

export interface RmsNormOptions {
  /** Added to the mean square before the root; default 1e-6. */
  eps?: number;
  /** Normalise silu(h) instead of h. */
  silu?: boolean;
  /** Note the largest magnitude of the result and of the gradient, for 8-bit products after and before it. */
  noteAbsMax?: boolean;
}

/** Whether, and as what, the residual stream h is returned beside its norm: `residual`: h = x + residual, or `stream`: h is
 * x. What is added to the stream afterwards takes it from here; the gradient that comes back through it meets that of y in
 * one pass. */
export type RmsNormStream = { residual: Tensor; stream?: false } | { residual?: null; stream: true };

/** Root-mean-square normalisation over the last dimension (Zhang and Sennrich 2019): y = a / sqrt(mean(a²) + eps) *
 * weight, with a = h or silu(h). h is x, or given `residual` x + residual; it is returned where it is the residual stream.
 * x [..., D], weight float32 [D] or null for none.
 * @throws GsaError INVALID_ARGUMENT */
export function rmsNorm(
  x: Tensor,
  weight: Tensor | null | undefined,
  options: RmsNormOptions & RmsNormStream,
): { y: Tensor; h: Tensor };
export function rmsNorm(
  x: Tensor,
  weight: Tensor | null | undefined,
  options?: RmsNormOptions & { residual?: null; stream?: false },
): Tensor;
export function rmsNorm(
  x: Tensor,
  weight: Tensor | null | undefined,
  options: RmsNormOptions & { residual?: Tensor | null; stream?: boolean } = {},
): Tensor | { y: Tensor; h: Tensor } {
  checkOptions(options, ['eps', 'silu', 'stream', 'noteAbsMax', 'residual'], 'rmsNorm');
  const { silu = false, stream = false, noteAbsMax = false, residual } = options;
  checkFlag('rmsNorm', 'silu', silu);
  checkFlag('rmsNorm', 'stream', stream);
  const eps = checkNumber('rmsNorm', 'eps', options.eps ?? 1e-6, 'a number above 0', (n) => n > 0);
  checkTensor('rmsNorm', 'x', x);
  if (x.shape.length < 1 || x.shape.at(-1) === 0)
    throw refuse('rmsNorm', 'a last dimension of at least 1', 'x', `shape ${shapeText(x.shape)}`);
  const width = x.shape.at(-1)!;
  const scale = checkOptional('rmsNorm', 'weight', weight, {
    shape: [width],
    dtype: 'float32',
    device: x.device,
  });
  if (residual != null) {
    checkSame('rmsNorm', 'residual', residual, x);
    if (stream) throw refuse('rmsNorm', 'residual or stream', 'options', 'both');
  }

  const rows = rowCount(x.shape);
  const y = Tensor.emptyLike(x);
  const sum = residual == null ? null : Tensor.emptyLike(x);
  const h = sum ?? (stream ? x.alias() : null);
  using rstd = emptyBeside(x, [rows], 'float32');
  const absmax = noteAbsMax ? absMaxBeside(y) : null;
  exec('rmsnorm_fwd', { x, residual, weight: scale }, { y, h: sum, rstd, absmax }, { eps, silu: +silu });
  y.absMax = absmax;
  record(
    'rmsNorm',
    [x, residual, scale],
    h ? [y, h] : [y],
    [sum ?? x, rstd, ...(scale ? [scale] : [])],
    ([dy, dh], [h, rstd, weight], needs) => {
      // The stream's own gradient may arrive without one through y, when only h was used.
      if (!dy) return [dh!.alias(), needs[1] ? dh!.alias() : null, weight ? Tensor.zerosLike(weight) : null];
      const dx = Tensor.emptyLike(dy);
      const dweight = weight && needs[2] ? Tensor.emptyLike(weight) : null;
      const absmax = noteAbsMax ? absMaxBeside(dx) : null;
      exec('rmsnorm_bwd', { dy, dh, h, weight, rstd }, { dx, dweight, absmax }, { silu: +silu });
      dx.absMax = absmax;
      // x and residual have the same gradient. Two aliases, so that neither is added to in place.
      return needs[0] && needs[1]
        ? [dx.alias(), dx.alias(), dweight]
        : [needs[0] ? dx : null, needs[1] ? dx : null, dweight];
    },
    {
      of: [0],
      // From h as it was stored, which is what was normalised.
      make: ([h, , weight]) => {
        const again = Tensor.emptyLike(h!);
        using scratch = emptyBeside(h!, [rows], 'float32');
        exec('rmsnorm_fwd', { x: h, weight }, { y: again, rstd: scratch }, { eps, silu: +silu });
        return [again];
      },
    },
  );
  return h ? { y, h } : y;
}
