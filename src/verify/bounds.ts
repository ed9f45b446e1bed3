/** What `flash-gsa verify` computes in. */
export type VerifyDType = 'fp32' | 'bf16';

/** The largest relative error ‖x − ref‖ / ‖ref‖ of the operator. Results are stored from a float64 program. */
export const OP_BOUNDS: Readonly<Record<VerifyDType, { output: number; gradient: number }>> = {
  fp32: { output: 1e-5, gradient: 1e-4 },
  bf16: { output: 1e-2, gradient: 1e-2 },
};

/** In bf16 an error may also not exceed this many times that of the same maths in fp32 on inputs rounded to bf16. Where
 * storing the exact result in bf16 alone costs more than that, it is this many times the cost of storing: no program can
 * do better than 1.41 times the larger of the two. */
export const BF16_OVER_ROUNDED_INPUTS = 1.5;

/** A gradient whose norm is below this share of dv's is a difference of numbers that float32 cannot tell apart (2^-23 is
 * its spacing at 1): two double-precision programs already disagree on it. Its error is measured against the norm of dv.
 * It happens when the slots are nearly equal, so that the softmax over them has almost no gradient. */
export const CANCELLED_GRADIENT = 2 ** -23;

/** Models, whose results are stored in float32. Gradients and gradient norms are relative to themselves, the losses of the
 * training (6.4 at its start, 0.2 at its end) are differences. fp32: the largest difference of a log-probability and of
 * the loss. bf16: these two relative. */
export const MODEL_BOUNDS: Readonly<
  Record<VerifyDType, { logProbs: number; loss: number; gradient: number; training: number }>
> = {
  fp32: { logProbs: 1e-4, loss: 1e-4, gradient: 1e-3, training: 1e-4 },
  bf16: { logProbs: 1e-2, loss: 1e-2, gradient: 5e-2, training: 2e-2 },
};
