import { exec } from '../tensor/exec.js';
import { record, recording } from '../tensor/recorder.js';
import { scope } from '../tensor/scope.js';
import { Tensor } from '../tensor/tensor.js';
import { absMaxBeside, checkOptions } from './check.js';
import { checkGsa, emptyOutputs, zerosFor, type GsaInputs } from './gsa.js';
import { checkInputs, emptyInputs, recordInputs, type GsaInputShape } from './gsa_inputs.js';

/** What gsaLayer takes beside the joined projections. */
export type GsaLayerArgs = GsaInputShape &
  Pick<GsaInputs, 'hk0' | 'hv0' | 'cuSeqlens' | 'scale' | 'outputFinalState'>;

const NAMES = 'HQ H K V M normalizer noteAbsMax hk0 hv0 cuSeqlens scale outputFinalState'.split(' ');

/** gsaChunk(gsaInputs(x)): gated slot attention from the joined projections of a layer, rows [q | k | v | f] of
 * x [B, T, HQ K + H K + H V + H M]. Forward and backward are one op each, which on a GPU can activate projections as they
 * are read, and make their gradients without those of q, k, v, g and s in between. Differentiable in x and the initial
 * states, also through the final states.
 * @returns o [B, T, HQ, V]; with outputFinalState also hkT [N, H, K, M] and hvT [N, H, M, V]
 * @throws GsaError INVALID_ARGUMENT */
export function gsaLayer(x: Tensor, args: GsaLayerArgs): { o: Tensor; hkT?: Tensor; hvT?: Tensor } {
  checkOptions('gsaLayer', args, NAMES);
  const { hk0, hv0, cuSeqlens, scale, outputFinalState = false, ...shape } = args;
  return scope(() => {
    const inputs = checkInputs('gsaLayer', x, shape);
    const made = emptyInputs(x, inputs);
    const checked = checkGsa('gsaLayer', { ...made, hk0, hv0, cuSeqlens, scale });
    const leaves = [x, checked.hk0, checked.hv0];
    const { o, ok, states } = emptyOutputs(checked, outputFinalState, recording(leaves));
    const given = { hk0: checked.hk0, hv0: checked.hv0, cu_seqlens: checked.cuSeqlens };
    const attributes = { scale: checked.scale, normalizer: inputs.normalizer };
    exec('gsa_layer_fwd', { x, ...given }, { o, ...made, ok, ...states }, attributes);
    if (!ok) return { o, ...states };
    // For the sake of `recompute` alone: no gradient arrives at these.
    recordInputs(x, made, inputs);
    const optional = [checked.hk0, checked.hv0, checked.cuSeqlens];
    const saved = [x, made.q, made.k, made.v, made.s, made.g, ok];
    record(
      'gsaLayer',
      leaves,
      [o, ...Object.values(states)],
      [...saved, ...optional.filter((t) => t != null)],
      ([dO, dhkT, dhvT], [x, q, k, v, s, g, ok, ...rest], needs) => {
        const [hk0, hv0, cu_seqlens] = optional.map((t) => (t == null ? null : rest.shift()!));
        const dx = Tensor.emptyLike(x!);
        const absmax = inputs.noteAbsMax ? absMaxBeside(dx) : null;
        const dhk0 = needs[1] ? Tensor.emptyLike(hk0!) : null;
        const dhv0 = needs[2] ? Tensor.emptyLike(hv0!) : null;
        exec(
          'gsa_layer_bwd',
          { x, q, k, v, s, g, hk0, hv0, cu_seqlens, ok, do: dO ?? zerosFor(q!, v!), dhkT, dhvT },
          { dx, absmax, dhk0, dhv0 },
          attributes,
        );
        dx.absMax = absmax;
        return [dx, dhk0, dhv0];
      },
    );
    return { o, ...states };
  });
}
