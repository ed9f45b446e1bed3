import { checkOptions } from '../native/errors.js';
import { exec } from '../tensor/exec.js';
import { record } from '../tensor/recorder.js';
import { scope } from '../tensor/scope.js';
import { Tensor } from '../tensor/tensor.js';
import { checkFlag, checkOffsets, checkOptional, checkTensor, emptyBeside, refuse } from './check.js';
import { convert } from './elementwise.js';

export interface ShortConvOptions {
  /** Apply silu to the result; default true. */
  silu?: boolean;
  /** The last W - 1 inputs before each sequence [N, D, W - 1]; zeros when absent. */
  state?: Tensor | null;
  /** int32 [N + 1]: where each sequence starts along T, and T; needs B = 1. */
  cuSeqlens?: Tensor | null;
  /** Return the state after each sequence. */
  outputState?: boolean;
}

/** Causal depthwise convolution along T: y_t = act(sum over j of weight[:, j] · x_{t - (W - 1) + j}), for x [B, T, D] and
 * weight [D, W]. Computed in float32; on the CPU bfloat16 tensors are converted for it.
 * @returns y [B, T, D] and, with outputState, the state [N, D, W - 1]
 * @throws GsaError INVALID_ARGUMENT */
export function shortConv(
  x: Tensor,
  weight: Tensor,
  options: ShortConvOptions = {},
): { y: Tensor; state?: Tensor } {
  const op = 'shortConv';
  checkOptions(options, ['silu', 'state', 'cuSeqlens', 'outputState'], op);
  const { silu = true } = options;
  checkFlag(op, 'silu', silu);
  checkTensor(op, 'x', x, { ndim: 3 });
  const { dtype, device } = x;
  const [B, T, D] = x.shape as [number, number, number];
  checkTensor(op, 'weight', weight, { shape: [D, null], dtype, device });
  const W = weight.shape[1]!;
  if (W < 1) throw refuse(op, 'at least one tap', 'weight', `shape [${D}, ${W}]`);
  const cuSeqlens = checkOptional(op, 'cuSeqlens', options.cuSeqlens, { ndim: 1, dtype: 'int32', device });
  if (cuSeqlens && B !== 1)
    throw refuse(op, 'batch size 1 (sequences joined along T)', 'x with cuSeqlens', `batch size ${B}`);
  checkOffsets(op, cuSeqlens, T);
  const stateShape = [cuSeqlens ? cuSeqlens.size - 1 : B, D, W - 1];
  const state = checkOptional(op, 'state', options.state, { shape: stateShape, dtype, device });
  if (dtype !== 'float32' && device.backend === 'cpu') return convolvedWide(x, weight, { ...options, state });

  const y = Tensor.emptyLike(x);
  const next = options.outputState ? emptyBeside(x, stateShape) : undefined;
  exec(
    'short_conv_fwd',
    { x, weight, state, cu_seqlens: cuSeqlens },
    { y, state_out: next },
    { silu: +silu },
  );
  const optional = [state, cuSeqlens];
  record(
    op,
    [x, weight, state],
    next ? [y, next] : [y],
    [x, weight, ...optional.filter((t) => t !== null)],
    ([dy, dstate_out], [x, weight, ...rest], needs) => {
      const [state, cu_seqlens] = optional.map((t) => (t === null ? null : rest.shift()!));
      const dx = Tensor.emptyLike(x!);
      const dweight = Tensor.emptyLike(weight!);
      const dstate = needs[2] ? Tensor.emptyLike(state!) : null;
      exec(
        'short_conv_bwd',
        { dy: dy ?? Tensor.zerosLike(x!), x, weight, state, cu_seqlens, dstate_out },
        { dx, dweight, dstate },
        { silu: +silu },
      );
      return [dx, dweight, dstate];
    },
  );
  return next ? { y, state: next } : { y };
}

function convolvedWide(x: Tensor, weight: Tensor, options: ShortConvOptions): { y: Tensor; state?: Tensor } {
  return scope(() => {
    const state = options.state && convert(options.state, 'float32');
    const wide = shortConv(convert(x, 'float32'), convert(weight, 'float32'), { ...options, state });
    const y = convert(wide.y, x.dtype);
    return wide.state ? { y, state: convert(wide.state, x.dtype) } : { y };
  });
}
