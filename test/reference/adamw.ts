/** One parameter and its moments, in float64. */
export interface AdamWSlot {
  parameter: Float64Array;
  m: Float64Array;
  v: Float64Array;
}

export interface AdamWSettings {
  lr: number;
  betas: readonly [number, number];
  eps: number;
  weightDecay: number;
}

/** Loshchilov and Hutter 2019, algorithm 2, step `t` (from 1). */
export function adamwStep(slot: AdamWSlot, gradient: Float64Array, t: number, settings: AdamWSettings): void {
  const { lr, betas, eps, weightDecay } = settings;
  gradient.forEach((g, i) => {
    slot.m[i] = betas[0] * slot.m[i]! + (1 - betas[0]) * g;
    slot.v[i] = betas[1] * slot.v[i]! + (1 - betas[1]) * g * g;
    const m = slot.m[i]! / (1 - betas[0] ** t);
    const v = slot.v[i]! / (1 - betas[1] ** t);
    slot.parameter[i] = slot.parameter[i]! * (1 - lr * weightDecay) - (lr * m) / (Math.sqrt(v) + eps);
  });
}
