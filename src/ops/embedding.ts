import { exec } from '../tensor/exec.js';
import { record } from '../tensor/recorder.js';
import type { Tensor } from '../tensor/tensor.js';
import { checkTensor, emptyBeside } from './check.js';

/** `ids` as int32 on its device: itself, or a copy that the caller disposes. */
export function asInt32(op: string, name: string, ids: unknown, like: Tensor): { ids: Tensor; own: boolean } {
  const checked = checkTensor(op, name, ids, { dtype: ['int32', 'int64'], device: like.device });
  if (checked.dtype === 'int32') return { ids: checked, own: false };
  return { ids: checked.to({ dtype: 'int32' }), own: true };
}

/** Rows of weight [vocabulary, D] by ids [...] (int32 or int64) -> [..., D].
 * @throws GsaError INVALID_ARGUMENT, also for an id outside the vocabulary (CPU). */
export function embedding(weight: Tensor, ids: Tensor): Tensor {
  checkTensor('embedding', 'weight', weight, { ndim: 2 });
  const { ids: ids32, own } = asInt32('embedding', 'ids', ids, weight);
  const [vocabulary, width] = weight.shape as [number, number];
  const y = emptyBeside(weight, [...ids.shape, width]);
  using y2 = y.view([ids.size, width]);
  using flat = ids32.view([ids.size]);
  exec('embedding_fwd', { weight, ids: flat }, { y: y2 }, {});
  record('embedding', [weight], [y], [flat], ([dy], [ids]) => {
    const dweight = emptyBeside(dy!, [vocabulary, width]);
    exec('embedding_bwd', { dy: dy!.view([ids!.size, width]), ids }, { dweight }, {});
    return [dweight];
  });
  if (own) ids32.dispose();
  return y;
}
