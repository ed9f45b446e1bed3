import { exec } from '../tensor/exec.js';
import { record, recording } from '../tensor/recorder.js';
import { scope } from '../tensor/scope.js';
import { Tensor } from '../tensor/tensor.js';
import { absMaxBeside } from './check.js';
import { checkGsa, runChunk, zerosFor, type GsaInputs } from './gsa.js';
import { gsaInputs, type GsaInputShape } from './gsa_inputs.js';

/** What gsaLayer takes beside the joined projections. */
export type GsaLayerArgs = GsaInputShape &
  Pick<GsaInputs, 'hk0' | 'hv0' | 'cuSeqlens' | 'scale' | 'outputFinalState'>;

/** gsaChunk(gsaInputs(x)): gated slot attention from the joined projections of a layer, rows [q | k | v | f] of
 * x [B, T, HQ K + H K + H V + H M]. The backward is one op, which on a GPU can make the gradients of the projections without
 * those of q, k, v, g and s in between. Differentiable in x and the initial states, also through the final states.
 * @returns o [B, T, HQ, V]; with outputFinalState also hkT [N, H, K, M] and hvT [N, H, M, V]
 * @throws GsaError INVALID_ARGUMENT */
export function gsaLayer(x: Tensor, args: GsaLayerArgs): { o: Tensor; hkT?: Tensor; hvT?: Tensor } {
  const { hk0, hv0, cuSeqlens, scale, outputFinalState = false, ...shape } = args;
  const { normalizer = 8, noteAbsMax = false } = shape;
  return scope(() => {
    // Recorded for the sake of `recompute` alone: no gradient arrives at these.
    const made = gsaInputs(x, shape);
    const checked = checkGsa('gsaLayer', { ...made, hk0, hv0, cuSeqlens, scale });
    const inputs = [x, checked.hk0, checked.hv0];
    const { o, logits, ...states } = runChunk(checked, outputFinalState, recording(inputs));
    if (!logits) return { o, ...states };
    const optional = [checked.hk0, checked.hv0, checked.cuSeqlens];
    const saved = [x, made.q, made.k, made.v, made.s, made.g, logits];
    record(
      'gsaLayer',
      inputs,
      [o, ...Object.values(states)],
      [...saved, ...optional.filter((t) => t != null)],
      ([dO, dhkT, dhvT], [x, q, k, v, s, g, ok, ...rest], needs) => {
        const [hk0, hv0, cu_seqlens] = optional.map((t) => (t == null ? null : rest.shift()!));
        const dx = Tensor.emptyLike(x!);
        const absmax = noteAbsMax ? absMaxBeside(dx) : null;
        const dhk0 = needs[1] ? Tensor.emptyLike(hk0!) : null;
        const dhv0 = needs[2] ? Tensor.emptyLike(hv0!) : null;
        exec(
          'gsa_layer_bwd',
          { x, q, k, v, s, g, hk0, hv0, cu_seqlens, ok, do: dO ?? zerosFor(q!, v!), dhkT, dhvT },
          { dx, absmax, dhk0, dhv0 },
          { scale: checked.scale, normalizer },
        );
        dx.absMax = absmax;
        return [dx, dhk0, dhv0];
      },
    );
    return { o, ...states };
  });
}
