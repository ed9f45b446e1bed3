import { checkOptions, expected } from '../native/errors.js';

export interface WarmupCosineOptions {
  /** Learning rate at the end of the warm-up. */
  peak: number;
  /** Learning rate of the last step; default 0. */
  min?: number;
  /** Steps of linear warm-up; 0 starts at the peak. */
  warmup: number;
  /** Steps in all. */
  total: number;
}

/** Linear warm-up, then half a cosine down to `min` (Loshchilov and Hutter 2017, "SGDR", equation 5, without restarts). The
 * result maps a step (0 is the first) to its learning rate: peak / warmup at step 0, exactly `peak` at step warmup − 1,
 * exactly `min` at step total − 1 and after it.
 * @throws GsaError INVALID_ARGUMENT */
export function warmupCosine(options: WarmupCosineOptions): (step: number) => number {
  const op = 'warmupCosine';
  checkOptions(options ?? null, ['peak', 'min', 'warmup', 'total'], op);
  const { peak, min = 0, warmup, total } = options;
  if (!(Number.isFinite(peak) && peak >= 0))
    throw expected('a finite number of at least 0', 'peak', peak, op);
  if (!(Number.isFinite(min) && min >= 0 && min <= peak))
    throw expected(`a number in 0..${peak}`, 'min', min, op);
  if (!Number.isSafeInteger(total) || total < 1) throw expected('an integer above 0', 'total', total, op);
  if (!Number.isSafeInteger(warmup) || warmup < 0 || warmup > total)
    throw expected(`an integer in 0..${total}`, 'warmup', warmup, op);
  const top = Math.max(warmup - 1, 0);
  const last = total - 1;
  return (step) => {
    if (!Number.isSafeInteger(step) || step < 0) throw expected('an integer of at least 0', 'step', step, op);
    if (step === top) return peak;
    if (step < top) return (peak * (step + 1)) / warmup;
    if (step >= last) return min;
    return min + ((peak - min) * (1 + Math.cos((Math.PI * (step - top)) / (last - top)))) / 2;
  };
}
