import { silu } from './activation.js';

/** Causal depthwise convolution of x [B, T, D] with weight [D, W]; `starts` are the rows of B·T where sequences begin.
 * state [N, D, W - 1] holds the inputs before each sequence; so does the returned one after it. */
export function shortConv(
  x: Float64Array,
  weight: Float64Array,
  sizes: { rows: number; D: number; W: number; starts: readonly number[]; silu: boolean },
  state?: Float64Array,
): { y: Float64Array; state: Float64Array } {
  const { rows, D, W, starts } = sizes;
  const y = new Float64Array(rows * D);
  const next = new Float64Array(starts.length * D * (W - 1));
  starts.forEach((start, n) => {
    const end = starts[n + 1] ?? rows;
    for (let d = 0; d < D; d++) {
      // Input t of the sequence, where negative t reaches into the state.
      const at = (t: number): number =>
        t >= 0 ? x[(start + t) * D + d]! : state ? state[(n * D + d) * (W - 1) + (W - 1 + t)]! : 0;
      for (let t = 0; t < end - start; t++) {
        let sum = 0;
        for (let j = 0; j < W; j++) sum += weight[d * W + j]! * at(t - (W - 1) + j);
        y[(start + t) * D + d] = sum;
      }
      for (let j = 0; j < W - 1; j++) next[(n * D + d) * (W - 1) + j] = at(end - start - (W - 1) + j);
    }
  });
  return { y: sizes.silu ? silu(y) : y, state: next };
}
