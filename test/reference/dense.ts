/** c[M, N] = op(a) op(b) + bias, for `batch` pairs of matrices. */
export function matmul(
  a: Float64Array,
  b: Float64Array,
  sizes: { batch?: number; M: number; K: number; N: number; transA?: boolean; transB?: boolean },
  bias?: Float64Array,
): Float64Array {
  const { batch = 1, M, K, N, transA = false, transB = false } = sizes;
  const c = new Float64Array(batch * M * N);
  for (let z = 0; z < batch; z++)
    for (let i = 0; i < M; i++)
      for (let j = 0; j < N; j++) {
        let sum = bias ? bias[j]! : 0;
        for (let k = 0; k < K; k++)
          sum +=
            a[z * M * K + (transA ? k * M + i : i * K + k)]! *
            b[z * K * N + (transB ? j * K + k : k * N + j)]!;
        c[(z * M + i) * N + j] = sum;
      }
  return c;
}

/** Rows of weight [, D] by id. */
export function embedding(weight: Float64Array, ids: Float64Array, D: number): Float64Array {
  const y = new Float64Array(ids.length * D);
  ids.forEach((id, i) => y.set(weight.subarray(id * D, (id + 1) * D), i * D));
  return y;
}
