import { exec } from '../tensor/exec.js';
import { record, recording } from '../tensor/recorder.js';
import { scope } from '../tensor/scope.js';
import { Tensor } from '../tensor/tensor.js';
import { absMaxBeside, checkArguments } from './check.js';
import { checkHeads, checkRest, emptyOutputs, zerosLike, type GsaInputs } from './gsa.js';
import {
  checkInputs,
  emptyGates,
  emptyInputs,
  recordGates,
  recordInputs,
  type CheckedInputs,
  type GsaInputShape,
} from './gsa_inputs.js';

/** What gsaLayer takes beside the joined projections. */
export type GsaLayerArgs = GsaInputShape &
  Pick<GsaInputs, 'hk0' | 'hv0' | 'cuSeqlens' | 'scale' | 'outputFinalState'>;

const NAMES = 'HQ H K V M normalizer noteAbsMax hk0 hv0 cuSeqlens scale outputFinalState'.split(' ');

/** Whether q, k and v are kept for the backward: where forward and backward are surely two ops each. Elsewhere a GPU may make
 * them as it reads x (native/ops/gsa/README-sweeps.md, "Layer form"), and what cannot makes them again in the backward. */
function keepsRows(x: Tensor, { HQ, H, M, noteAbsMax }: CheckedInputs): boolean {
  return x.dtype !== 'bfloat16' || HQ !== H || M !== 64 || noteAbsMax === true;
}

/** gsaChunk(gsaInputs(x)): gated slot attention from the joined projections of a layer, rows [q | k | v | f] of
 * x [B, T, HQ K + H K + H V + H M]. Forward and backward are one op each, which on a GPU can activate projections as they
 * are read, and make their gradients without those of q, k, v, g and s in between. Differentiable in x and the initial
 * states, also through the final states.
 * @returns o [B, T, HQ, V]; with outputFinalState also hkT [N, H, K, M] and hvT [N, H, M, V]
 * @throws GsaError INVALID_ARGUMENT */
export function gsaLayer(x: Tensor, args: GsaLayerArgs): { o: Tensor; hkT?: Tensor; hvT?: Tensor } {
  checkArguments('gsaLayer', args, NAMES);
  const { hk0, hv0, cuSeqlens, scale, outputFinalState = false, ...shape } = args;
  return scope(() => {
    const inputs = checkInputs('gsaLayer', x, shape);
    const { HQ, H, K, V, M, normalizer } = inputs;
    checkHeads('gsaLayer', HQ, H);
    const [B, T] = x.shape as [number, number];
    const extents = { B, T, H, K, V, M };
    const checked = checkRest('gsaLayer', { hk0, hv0, cuSeqlens, scale }, extents, x.device);
    const leaves = [x, checked.hk0, checked.hv0];
    const outputs = { ...checked, shape: [B, T, HQ, V], M };
    const keeps = recording(leaves);
    const { o, ok, states } = emptyOutputs(x, outputs, outputFinalState, keeps);
    const whole = keeps && keepsRows(x, inputs) ? emptyInputs(x, inputs) : null;
    const { g, s } = whole ?? emptyGates(x, inputs);
    const given = { hk0: checked.hk0, hv0: checked.hv0, cu_seqlens: checked.cuSeqlens };
    const attributes = { scale: checked.scale, normalizer };
    exec('gsa_layer_fwd', { x, ...given }, { o, ...whole, g, s, ok, ...states }, attributes);
    if (!ok) return { o, ...states };
    // For the sake of `recompute` alone: no gradient arrives at these.
    if (whole) recordInputs(x, whole, inputs);
    else recordGates(x, { g, s }, inputs);
    const optional = [whole?.q, whole?.k, whole?.v, checked.hk0, checked.hv0, checked.cuSeqlens];
    record(
      'gsaLayer',
      leaves,
      [o, ...Object.values(states)],
      [x, s, g, ok, ...optional.filter((t) => t != null)],
      ([dO, dhkT, dhvT], [x, s, g, ok, ...rest], needs) => {
        const [q, k, v, hk0, hv0, cu_seqlens] = optional.map((t) => (t == null ? null : rest.shift()!));
        const dx = Tensor.emptyLike(x!);
        const absmax = inputs.noteAbsMax ? absMaxBeside(dx) : null;
        const dhk0 = needs[1] ? Tensor.emptyLike(hk0!) : null;
        const dhv0 = needs[2] ? Tensor.emptyLike(hv0!) : null;
        const d_o = dO ?? zerosLike(x!, outputs.shape);
        exec(
          'gsa_layer_bwd',
          { x, q, k, v, s, g, hk0, hv0, cu_seqlens, ok, do: d_o, dhkT, dhvT },
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
