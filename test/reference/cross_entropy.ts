/** log softmax over rows of C. */
export function logSoftmax(x: Float64Array, C: number): Float64Array {
  const y = new Float64Array(x.length);
  for (let row = 0; row < x.length; row += C) {
    const logits = x.subarray(row, row + C);
    const top = Math.max(...logits);
    const lse = top + Math.log(logits.reduce((sum, value) => sum + Math.exp(value - top), 0));
    for (let c = 0; c < C; c++) y[row + c] = logits[c]! - lse;
  }
  return y;
}

/** One loss per row; rows whose label is `ignore` have loss 0. */
export function crossEntropy(
  logits: Float64Array,
  labels: Float64Array,
  C: number,
  ignore = -100,
): Float64Array {
  const logP = logSoftmax(logits, C);
  return labels.map((label, row) => (label === ignore ? 0 : -logP[row * C + label]!));
}
