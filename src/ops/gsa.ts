import { GsaError } from '../native/errors.js';
import { exec } from '../tensor/exec.js';
import { record, recording } from '../tensor/recorder.js';
import type { Device } from '../tensor/device.js';
import { Tensor } from '../tensor/tensor.js';
import {
  checkNumber,
  checkOffsets,
  checkOptional,
  checkArguments,
  checkTensor,
  emptyBeside,
  refuse,
} from './check.js';

/** Arguments of gated slot attention. N is the number of sequences: B, or one less than the length of cuSeqlens. */
export interface GsaInputs {
  /** Queries [B, T, HQ, K]; HQ is a multiple of H. */
  q: Tensor;
  /** Keys [B, T, H, K]. */
  k: Tensor;
  /** Values [B, T, H, V]. */
  v: Tensor;
  /** Write strengths [B, T, H, M], float32. */
  s: Tensor;
  /** Log forget gates [B, T, H, M], float32, at most 0. */
  g: Tensor;
  /** State of the keys before each sequence [N, H, K, M], float32; zeros when absent. */
  hk0?: Tensor | null;
  /** State of the values before each sequence [N, H, M, V], float32; zeros when absent. */
  hv0?: Tensor | null;
  /** int32 [N + 1]: where each sequence starts along T, and T; needs B = 1. */
  cuSeqlens?: Tensor | null;
  /** Of the slot logits; default 1. */
  scale?: number;
  /** Return the states after each sequence (gsaChunk; gsaRecurrent always does). */
  outputFinalState?: boolean;
}

const NAMES = ['q', 'k', 'v', 's', 'g', 'hk0', 'hv0', 'cuSeqlens', 'scale', 'outputFinalState'];

/** @internal */
export interface CheckedRest extends Pick<GsaInputs, 'hk0' | 'hv0' | 'cuSeqlens'> {
  scale: number;
  /** [N, H, K, M] and [N, H, M, V] */
  hkShape: number[];
  hvShape: number[];
}
export type Checked = GsaInputs & CheckedRest;

/** @internal */
export function checkGsa(op: string, args: GsaInputs): Checked {
  checkArguments(op, args, NAMES);
  const q = checkTensor(op, 'q', args.q, { ndim: 4 });
  const { dtype, device } = q;
  const [B, T, HQ, K] = q.shape as [number, number, number, number];
  const k = checkTensor(op, 'k', args.k, { shape: [B, T, null, K], dtype, device });
  const H = k.shape[2]!;
  const v = checkTensor(op, 'v', args.v, { shape: [B, T, H, null], dtype, device });
  const V = v.shape[3]!;
  const s = checkTensor(op, 's', args.s, { shape: [B, T, H, null], dtype: 'float32', device });
  const M = s.shape[3]!;
  const g = checkTensor(op, 'g', args.g, { shape: [B, T, H, M], dtype: 'float32', device });
  checkHeads(op, HQ, H);
  return { q, k, v, s, g, ...checkRest(op, args, { B, T, H, K, V, M }, device) };
}

/** @internal */
export function checkHeads(op: string, HQ: number, H: number): void {
  if (H < 1 || HQ % H !== 0)
    throw refuse(op, `a multiple of the ${H} key/value heads`, 'the heads of q', `${HQ}`);
}

/** What stands beside the rows.
 * @internal */
export function checkRest(
  op: string,
  args: Pick<GsaInputs, 'hk0' | 'hv0' | 'cuSeqlens' | 'scale'>,
  { B, T, H, K, V, M }: Record<'B' | 'T' | 'H' | 'K' | 'V' | 'M', number>,
  device: Device,
): CheckedRest {
  const cuSeqlens = checkOptional(op, 'cuSeqlens', args.cuSeqlens, { ndim: 1, dtype: 'int32', device });
  if (cuSeqlens && cuSeqlens.size < 2)
    throw refuse(op, 'at least 2 offsets', 'cuSeqlens', `${cuSeqlens.size}`);
  if (cuSeqlens && B !== 1)
    throw refuse(op, 'batch size 1 (sequences joined along T)', 'the rows with cuSeqlens', `batch size ${B}`);
  checkOffsets(op, cuSeqlens, T);
  const N = cuSeqlens ? cuSeqlens.size - 1 : B;
  const hkShape = [N, H, K, M];
  const hvShape = [N, H, M, V];
  const hk0 = checkOptional(op, 'hk0', args.hk0, { shape: hkShape, dtype: 'float32', device });
  const hv0 = checkOptional(op, 'hv0', args.hv0, { shape: hvShape, dtype: 'float32', device });
  const scale = checkNumber(op, 'scale', args.scale ?? 1);
  return { hk0, hv0, cuSeqlens, scale, hkShape, hvShape };
}

function outputLike(q: Tensor, v: Tensor): Tensor {
  return emptyBeside(q, outputShape(q, v));
}
function outputShape(q: Tensor, v: Tensor): number[] {
  return [...q.shape.slice(0, 3), v.shape[3]!];
}

/** Gated slot attention over whole sequences, chunk by chunk (Zhang et al. 2024, arXiv 2409.07146, section 3):
 *
 *     Hk_t = Hk_{t-1} diag(exp g_t) + k_t s_tᵀ,  Hv_t = diag(exp g_t) Hv_{t-1} + s_t v_tᵀ
 *     o_t = Hv_tᵀ softmax(scale · Hk_tᵀ q_t)
 *
 * Differentiable in q, k, v, s, g and the initial states, also through the final states.
 * @returns o [B, T, HQ, V]; with outputFinalState also hkT [N, H, K, M] and hvT [N, H, M, V]
 * @throws GsaError INVALID_ARGUMENT */
export function gsaChunk(args: GsaInputs): { o: Tensor; hkT?: Tensor; hvT?: Tensor } {
  const checked = checkGsa('gsaChunk', args);
  const { q, k, v, s, g, hk0, hv0, cuSeqlens, scale } = checked;
  const inputs = [q, k, v, s, g, hk0, hv0];
  const extents = { shape: outputShape(q, v), M: s.shape[3]! };
  const { o, states, ...kept } = emptyOutputs(
    q,
    { ...checked, ...extents },
    args.outputFinalState ?? false,
    recording(inputs),
  );
  using ok = kept.ok;
  exec('gsa_chunk_fwd', { q, k, v, s, g, hk0, hv0, cu_seqlens: cuSeqlens }, { o, ok, ...states }, { scale });
  if (!ok) return { o, ...states };
  const optional = [hk0, hv0, cuSeqlens];
  const outputs = [o, ...Object.values(states)];
  const saved = [q, k, v, s, g, ok, ...optional.filter((t) => t != null)];
  record('gsaChunk', inputs, outputs, saved, ([dO, dhkT, dhvT], [q, k, v, s, g, ok, ...rest], needs) => {
    const [hk0, hv0, cu_seqlens] = optional.map((t) => (t == null ? null : rest.shift()!));
    const grads = [q, k, v, s, g].map((t) => Tensor.emptyLike(t!));
    const [dq, dk, dv, ds, dg] = grads;
    const dhk0 = needs[5] ? Tensor.emptyLike(hk0!) : null;
    const dhv0 = needs[6] ? Tensor.emptyLike(hv0!) : null;
    exec(
      'gsa_chunk_bwd',
      { q, k, v, s, g, hk0, hv0, cu_seqlens, ok, do: dO ?? zerosLike(q!, outputShape(q!, v!)), dhkT, dhvT },
      { dq, dk, dv, ds, dg, dhk0, dhv0 },
      { scale },
    );
    return [...grads, dhk0, dhv0];
  });
  return { o, ...states };
}

/** Where a forward writes, o of `shape`; `ok`, the logits, which the backward wants, where they are to be kept.
 * @internal */
export function emptyOutputs(
  beside: Tensor,
  { shape, M, hkShape, hvShape }: Pick<CheckedRest, 'hkShape' | 'hvShape'> & { shape: number[]; M: number },
  outputFinalState: boolean,
  keepLogits: boolean,
): { o: Tensor; ok: Tensor | null; states: { hkT?: Tensor; hvT?: Tensor } } {
  const states = outputFinalState
    ? { hkT: emptyBeside(beside, hkShape, 'float32'), hvT: emptyBeside(beside, hvShape, 'float32') }
    : {};
  const ok = keepLogits ? emptyBeside(beside, [...shape.slice(0, 3), M], 'float32') : null;
  return { o: emptyBeside(beside, shape), ok, states };
}

/** @internal */
export function zerosLike(beside: Tensor, shape: readonly number[]): Tensor {
  return Tensor.zeros(shape, { dtype: beside.dtype, device: beside.device });
}

/** The same function as gsaChunk, one token after another: for decoding. The given states are not changed.
 * @returns o [B, T, HQ, V] and the states after each sequence, hk [N, H, K, M] and hv [N, H, M, V]
 * @throws GsaError INVALID_ARGUMENT; UNSUPPORTED inside Tape.run() when a gradient would be asked for */
export function gsaRecurrent(args: GsaInputs): { o: Tensor; hk: Tensor; hv: Tensor } {
  const { q, k, v, s, g, hk0, hv0, cuSeqlens, scale, hkShape, hvShape } = checkGsa('gsaRecurrent', args);
  if (recording([q, k, v, s, g, hk0, hv0]))
    throw new GsaError(
      'UNSUPPORTED',
      'Expected inputs that need no gradient but received some that do; use gsaChunk, which computes the same function',
      { op: 'gsaRecurrent' },
    );
  const o = outputLike(q, v);
  const hk = emptyBeside(q, hkShape, 'float32');
  const hv = emptyBeside(q, hvShape, 'float32');
  exec(
    'gsa_recurrent',
    { q, k, v, s, g, hk: hk0, hv: hv0, cu_seqlens: cuSeqlens },
    { o, hk_out: hk, hv_out: hv },
    { scale },
  );
  return { o, hk, hv };
}
