import { silu } from './activation.js';

/** y = a / sqrt(mean(a²) + eps) · weight over rows of D, a = h or silu(h), h = x + residual. */
export function rmsNorm(
  x: Float64Array,
  D: number,
  options: { weight?: Float64Array; residual?: Float64Array; eps: number; silu?: boolean },
): { y: Float64Array; h: Float64Array } {
  const { weight, residual, eps } = options;
  const h = residual ? x.map((value, i) => value + residual[i]!) : x;
  const a = options.silu ? silu(h) : h;
  const y = new Float64Array(a.length);
  for (let row = 0; row < a.length; row += D) {
    const squares = a.subarray(row, row + D).reduce((sum, value) => sum + value * value, 0);
    const scale = 1 / Math.sqrt(squares / D + eps);
    for (let d = 0; d < D; d++) y[row + d] = a[row + d]! * scale * (weight ? weight[d]! : 1);
  }
  return { y, h };
}
