/** Gated slot attention one token after another in double precision, forward and backward in closed form (Zhang et al.
 * 2024, arXiv 2409.07146, section 3; the backward is derived in native/ops/gsa/README.md). Arrays are dense, row-major. */

export interface GsaDims {
  readonly B: number;
  readonly T: number;
  readonly HQ: number;
  readonly H: number;
  readonly K: number;
  readonly V: number;
  readonly M: number;
}

export interface GsaArrays extends GsaDims {
  readonly q: ArrayLike<number>; // [B, T, HQ, K]
  readonly k: ArrayLike<number>; // [B, T, H, K]
  readonly v: ArrayLike<number>; // [B, T, H, V]
  readonly s: ArrayLike<number>; // [B, T, H, M]
  readonly g: ArrayLike<number>; // [B, T, H, M]
  readonly hk0?: ArrayLike<number>; // [N, H, K, M]
  readonly hv0?: ArrayLike<number>; // [N, H, M, V]
  /** [N + 1] with B = 1; absent: every batch item is a sequence. */
  readonly cuSeqlens?: readonly number[];
  readonly scale: number;
}

export interface GsaUpstream {
  readonly do: ArrayLike<number>; // [B, T, HQ, V]
  readonly dhkT?: ArrayLike<number>; // [N, H, K, M]
  readonly dhvT?: ArrayLike<number>; // [N, H, M, V]
}

export interface GsaOutputs {
  readonly o: Float64Array; // [B, T, HQ, V]
  readonly ok: Float64Array; // [B, T, HQ, M] scaled slot logits
  readonly hkT: Float64Array; // [N, H, K, M]
  readonly hvT: Float64Array; // [N, H, M, V]
}

export interface GsaGradients {
  readonly dq: Float64Array;
  readonly dk: Float64Array;
  readonly dv: Float64Array;
  readonly ds: Float64Array;
  readonly dg: Float64Array;
  readonly dhk0: Float64Array;
  readonly dhv0: Float64Array;
}

/** First and last + 1 of the B · T token rows of every sequence. */
export function gsaSequences({ B, T, cuSeqlens }: GsaArrays): { begin: number; end: number }[] {
  if (cuSeqlens) return cuSeqlens.slice(1).map((end, n) => ({ begin: cuSeqlens[n]!, end }));
  return Array.from({ length: B }, (_, b) => ({ begin: b * T, end: (b + 1) * T }));
}

/** The states of one sequence and head before its first token and after each. */
interface States {
  readonly hk: Float64Array[]; // [K, M]
  readonly hv: Float64Array[]; // [M, V]
}

const part = (x: ArrayLike<number> | undefined, index: number, size: number): Float64Array =>
  Float64Array.from({ length: size }, (_, i) => x?.[index * size + i] ?? 0);

function stepStates(x: GsaArrays, n: number, h: number, begin: number, end: number): States {
  const { H, K, V, M } = x;
  const states = { hk: [part(x.hk0, n * H + h, K * M)], hv: [part(x.hv0, n * H + h, M * V)] };
  for (let row = begin; row < end; row++) {
    const at = row * H + h;
    const hk = states.hk.at(-1)!.slice();
    const hv = states.hv.at(-1)!.slice();
    for (let m = 0; m < M; m++) {
      const keep = Math.exp(x.g[at * M + m]!);
      const s = x.s[at * M + m]!;
      for (let c = 0; c < K; c++) hk[c * M + m] = hk[c * M + m]! * keep + x.k[at * K + c]! * s;
      for (let c = 0; c < V; c++) hv[m * V + c] = hv[m * V + c]! * keep + s * x.v[at * V + c]!;
    }
    states.hk.push(hk);
    states.hv.push(hv);
  }
  return states;
}

/** Logits and weights of the slots for one query. */
function attend(x: GsaArrays, queryRow: number, hk: Float64Array): { ok: Float64Array; p: Float64Array } {
  const { K, M } = x;
  const ok = new Float64Array(M);
  for (let c = 0; c < K; c++)
    for (let m = 0; m < M; m++) ok[m]! += x.scale * x.q[queryRow * K + c]! * hk[c * M + m]!;
  const top = ok.reduce((a, b) => Math.max(a, b), -Infinity);
  const e = ok.map((value) => Math.exp(value - top));
  const sum = e.reduce((a, b) => a + b, 0);
  return { ok, p: e.map((value) => value / sum) };
}

export function gsaForward(x: GsaArrays): GsaOutputs {
  const { B, T, HQ, H, K, V, M } = x;
  const sequences = gsaSequences(x);
  const o = new Float64Array(B * T * HQ * V);
  const ok = new Float64Array(B * T * HQ * M);
  const hkT = new Float64Array(sequences.length * H * K * M);
  const hvT = new Float64Array(sequences.length * H * M * V);
  sequences.forEach(({ begin, end }, n) => {
    for (let h = 0; h < H; h++) {
      const { hk, hv } = stepStates(x, n, h, begin, end);
      for (let row = begin; row < end; row++)
        for (let head = (h * HQ) / H; head < ((h + 1) * HQ) / H; head++) {
          const at = row * HQ + head;
          const seen = attend(x, at, hk[row - begin + 1]!);
          ok.set(seen.ok, at * M);
          const values = hv[row - begin + 1]!;
          for (let m = 0; m < M; m++)
            for (let c = 0; c < V; c++) o[at * V + c]! += seen.p[m]! * values[m * V + c]!;
        }
      hkT.set(hk.at(-1)!, (n * H + h) * K * M);
      hvT.set(hv.at(-1)!, (n * H + h) * M * V);
    }
  });
  return { o, ok, hkT, hvT };
}

/** Gradients of sum(o · do) + sum(hkT · dhkT) + sum(hvT · dhvT). */
export function gsaBackward(x: GsaArrays, up: GsaUpstream): GsaGradients {
  const { H, K, V, M } = x;
  const like = (values: ArrayLike<number>): Float64Array => new Float64Array(values.length);
  const sequences = gsaSequences(x);
  const grads = {
    dq: like(x.q),
    dk: like(x.k),
    dv: like(x.v),
    ds: like(x.s),
    dg: like(x.g),
    dhk0: new Float64Array(sequences.length * H * K * M),
    dhv0: new Float64Array(sequences.length * H * M * V),
  };
  sequences.forEach(({ begin, end }, n) => {
    for (let h = 0; h < H; h++) {
      const { hk, hv } = stepStates(x, n, h, begin, end);
      const dhk = part(up.dhkT, n * H + h, K * M);
      const dhv = part(up.dhvT, n * H + h, M * V);
      for (let row = end - 1; row >= begin; row--) {
        const now = row - begin + 1;
        readBackward(x, up, row, h, hk[now]!, hv[now]!, dhk, dhv, grads);
        writeBackward(x, row * H + h, hk[now - 1]!, hv[now - 1]!, dhk, dhv, grads);
      }
      grads.dhk0.set(dhk, (n * H + h) * K * M);
      grads.dhv0.set(dhv, (n * H + h) * M * V);
    }
  });
  return grads;
}

/** o_t = Hvᵀ softmax(scale · Hkᵀ q) backward, for the query heads of key/value head h: dq, and what they add to the
 * gradients of the states after token t. */
function readBackward(
  x: GsaArrays,
  up: GsaUpstream,
  row: number,
  h: number,
  hk: Float64Array,
  hv: Float64Array,
  dhk: Float64Array,
  dhv: Float64Array,
  grads: GsaGradients,
): void {
  const { HQ, H, K, V, M, scale } = x;
  for (let head = (h * HQ) / H; head < ((h + 1) * HQ) / H; head++) {
    const at = row * HQ + head;
    const { p } = attend(x, at, hk);
    const dp = new Float64Array(M);
    for (let m = 0; m < M; m++)
      for (let c = 0; c < V; c++) {
        dp[m]! += hv[m * V + c]! * up.do[at * V + c]!;
        dhv[m * V + c]! += p[m]! * up.do[at * V + c]!;
      }
    const mean = p.reduce((sum, value, m) => sum + value * dp[m]!, 0);
    for (let m = 0; m < M; m++) {
      const dok = p[m]! * (dp[m]! - mean);
      for (let c = 0; c < K; c++) {
        grads.dq[at * K + c]! += scale * hk[c * M + m]! * dok;
        dhk[c * M + m]! += scale * x.q[at * K + c]! * dok;
      }
    }
  }
}

/** Hk ← Hk · diag(exp g) + k sᵀ and Hv ← diag(exp g) · Hv + s vᵀ backward. dhk and dhv enter as gradients of the states
 * after the token, and leave as those of the states before it, whose values are hkBefore and hvBefore. */
function writeBackward(
  x: GsaArrays,
  at: number,
  hkBefore: Float64Array,
  hvBefore: Float64Array,
  dhk: Float64Array,
  dhv: Float64Array,
  grads: GsaGradients,
): void {
  const { K, V, M } = x;
  for (let m = 0; m < M; m++) {
    const s = x.s[at * M + m]!;
    const keep = Math.exp(x.g[at * M + m]!);
    let ds = 0;
    let dg = 0;
    for (let c = 0; c < K; c++) {
      const d = dhk[c * M + m]!;
      grads.dk[at * K + c]! += d * s;
      ds += d * x.k[at * K + c]!;
      dg += d * hkBefore[c * M + m]! * keep;
      dhk[c * M + m] = d * keep;
    }
    for (let c = 0; c < V; c++) {
      const d = dhv[m * V + c]!;
      grads.dv[at * V + c]! += d * s;
      ds += d * x.v[at * V + c]!;
      dg += d * hvBefore[m * V + c]! * keep;
      dhv[m * V + c] = d * keep;
    }
    grads.ds[at * M + m] = ds;
    grads.dg[at * M + m] = dg;
  }
}
