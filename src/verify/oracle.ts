/** Gated slot attention of one sequence and one key/value head in double precision, one token after another: the
 * yardstick of the benches and of doctor's probe, where no stored result fits. Zhang et al. 2024 (arXiv 2409.07146),
 * section 3; the closed form of the backward is derived in native/ops/gsa/README.md. Arrays are dense, row-major. */
export interface GsaHead {
  readonly T: number;
  /** Query heads that share this key/value head. */
  readonly R: number;
  readonly K: number;
  readonly V: number;
  readonly M: number;
  readonly scale: number;
  readonly q: ArrayLike<number>; // [T, R, K]
  readonly k: ArrayLike<number>; // [T, K]
  readonly v: ArrayLike<number>; // [T, V]
  readonly s: ArrayLike<number>; // [T, M]
  readonly g: ArrayLike<number>; // [T, M]
}

export interface GsaHeadResult {
  readonly o: Float64Array; // [T, R, V]
  readonly hkT: Float64Array; // [K, M]
  readonly hvT: Float64Array; // [M, V]
}

export interface GsaHeadGradients {
  readonly dq: Float64Array; // [T, R, K]
  readonly dk: Float64Array; // [T, K]
  readonly dv: Float64Array; // [T, V]
  readonly ds: Float64Array; // [T, M]
  readonly dg: Float64Array; // [T, M]
}

/** Per token and query head, what the reverse sweep needs from the forward one. */
interface Saved {
  readonly p: Float64Array; // [T, R, M] softmax over the slots
  readonly dok: Float64Array; // [T, R, M] gradient of its logits
  readonly dgTerm: Float64Array; // [T, M] ok ⊙ dok + p ⊙ dp, summed over the query heads
}

/** h[rows, columns] += x ⊗ y */
function addOuter(h: Float64Array, x: ArrayLike<number>, xAt: number, rows: number, y: Float64Array): void {
  const columns = y.length;
  for (let i = 0, at = 0; i < rows; i++) {
    const xi = x[xAt + i]!;
    for (let j = 0; j < columns; j++, at++) h[at]! += xi * y[j]!;
  }
}

/** out[i] = Σ_j h[i, j] y[j] */
function rowsTimes(h: Float64Array, y: Float64Array, out: Float64Array, outAt: number, rows: number): void {
  const columns = y.length;
  for (let i = 0, at = 0; i < rows; i++) {
    let sum = 0;
    for (let j = 0; j < columns; j++, at++) sum += h[at]! * y[j]!;
    out[outAt + i] = sum;
  }
}

/** out[j] = Σ_i x[i] h[i, j] */
function timesRows(
  x: ArrayLike<number>,
  xAt: number,
  rows: number,
  h: Float64Array,
  out: Float64Array,
): void {
  out.fill(0);
  for (let i = 0, at = 0; i < rows; i++) {
    const xi = x[xAt + i]!;
    for (let j = 0; j < out.length; j++, at++) out[j]! += xi * h[at]!;
  }
}

function slice(values: ArrayLike<number>, at: number, length: number): Float64Array {
  return Float64Array.from({ length }, (_, i) => values[at + i]!);
}

function softmax(x: Float64Array): Float64Array {
  const top = x.reduce((a, b) => Math.max(a, b), -Infinity);
  const p = x.map((value) => Math.exp(value - top));
  const sum = p.reduce((a, b) => a + b, 0);
  return p.map((value) => value / sum);
}

/** hk[K, M] ← hk · diag(exp g); hv[M, V] ← diag(exp g) · hv, with the gates of token t. */
function decay(head: GsaHead, t: number, hk: Float64Array, hv: Float64Array): void {
  const { K, V, M } = head;
  const keepShare = slice(head.g, t * M, M).map((value) => Math.exp(value));
  for (let i = 0, at = 0; i < K; i++) for (let m = 0; m < M; m++, at++) hk[at]! *= keepShare[m]!;
  for (let m = 0, at = 0; m < M; m++) for (let i = 0; i < V; i++, at++) hv[at]! *= keepShare[m]!;
}

/** The forward recurrence; `visit` sees the states after each token. */
function sweep(head: GsaHead, visit: (t: number, hk: Float64Array, hv: Float64Array) => void): GsaHeadResult {
  const { T, R, K, V, M } = head;
  const hk = new Float64Array(K * M);
  const hv = new Float64Array(M * V);
  const o = new Float64Array(T * R * V);
  const logits = new Float64Array(M);
  const row = new Float64Array(V);
  for (let t = 0; t < T; t++) {
    decay(head, t, hk, hv);
    addOuter(hk, head.k, t * K, K, slice(head.s, t * M, M));
    addOuter(hv, head.s, t * M, M, slice(head.v, t * V, V));
    for (let r = 0; r < R; r++) {
      timesRows(head.q, (t * R + r) * K, K, hk, logits);
      const p = softmax(logits.map((value) => value * head.scale));
      timesRows(p, 0, M, hv, row);
      o.set(row, (t * R + r) * V);
    }
    visit(t, hk, hv);
  }
  return { o, hkT: hk, hvT: hv };
}

/** Outputs and final states, from zero initial states. */
export function gsaOracle(head: GsaHead): GsaHeadResult {
  return sweep(head, () => {});
}

/** Gradients of sum(o · upstream); `upstream` is [T, R, V]. */
export function gsaOracleBackward(head: GsaHead, upstream: ArrayLike<number>): GsaHeadGradients {
  const { T, R, K, M } = head;
  const dq = new Float64Array(T * R * K);
  const saved: Saved = {
    p: new Float64Array(T * R * M),
    dok: new Float64Array(T * R * M),
    dgTerm: new Float64Array(T * M),
  };
  sweep(head, (t, hk, hv) => {
    for (let r = 0; r < R; r++) logitGradient(head, upstream, t, r, hk, hv, dq, saved);
  });
  return { dq, ...reverse(head, upstream, saved) };
}

function logitGradient(
  head: GsaHead,
  upstream: ArrayLike<number>,
  t: number,
  r: number,
  hk: Float64Array,
  hv: Float64Array,
  dq: Float64Array,
  saved: Saved,
): void {
  const { R, K, V, M, scale } = head;
  const row = t * R + r;
  const logits = new Float64Array(M);
  timesRows(head.q, row * K, K, hk, logits);
  const ok = logits.map((value) => value * scale);
  const p = softmax(ok);
  const dp = new Float64Array(M);
  rowsTimes(hv, slice(upstream, row * V, V), dp, 0, M);
  const mean = p.reduce((sum, value, m) => sum + value * dp[m]!, 0);
  const dok = p.map((value, m) => value * (dp[m]! - mean));
  rowsTimes(hk, dok, dq, row * K, K);
  for (let i = 0; i < K; i++) dq[row * K + i]! *= scale;
  saved.p.set(p, row * M);
  saved.dok.set(dok, row * M);
  for (let m = 0; m < M; m++) saved.dgTerm[t * M + m]! += ok[m]! * dok[m]! + p[m]! * dp[m]!;
}

function reverse(head: GsaHead, upstream: ArrayLike<number>, saved: Saved): Omit<GsaHeadGradients, 'dq'> {
  const { T, R, K, V, M, scale } = head;
  const [dk, dv] = [new Float64Array(T * K), new Float64Array(T * V)];
  const [ds, dg] = [new Float64Array(T * M), new Float64Array(T * M)];
  const [dhk, dhv] = [new Float64Array(K * M), new Float64Array(M * V)];
  const [fromKey, running] = [new Float64Array(M), new Float64Array(M)];
  for (let t = T - 1; t >= 0; t--) {
    if (t + 1 < T) decay(head, t + 1, dhk, dhv);
    for (let r = 0; r < R; r++) {
      const row = t * R + r;
      const dok = slice(saved.dok, row * M, M).map((value) => value * scale);
      addOuter(dhk, head.q, row * K, K, dok);
      addOuter(dhv, saved.p, row * M, M, slice(upstream, row * V, V));
    }
    const strength = slice(head.s, t * M, M);
    rowsTimes(dhk, strength, dk, t * K, K);
    const valueGrad = new Float64Array(V);
    timesRows(strength, 0, M, dhv, valueGrad);
    dv.set(valueGrad, t * V);
    rowsTimes(dhv, slice(head.v, t * V, V), ds, t * M, M);
    timesRows(head.k, t * K, K, dhk, fromKey);
    for (let m = 0; m < M; m++) {
      ds[t * M + m]! += fromKey[m]!;
      running[m]! += saved.dgTerm[t * M + m]! - strength[m]! * ds[t * M + m]!;
      dg[t * M + m] = running[m]!;
    }
  }
  return { dk, dv, ds, dg };
}
