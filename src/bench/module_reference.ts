/** The modules' functions in double precision, from their definitions, for small shapes. Arrays are dense, row-major. */
type Values = ArrayLike<number>;

export const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));
const silu = (x: number): number => x * sigmoid(x);

/** [N, D]: a / sqrt(mean(a²) + eps) · weight, a = h or silu(h). */
export function rmsNorm(h: Values, weight: Values, eps: number, withSilu: boolean): Float64Array {
  const D = weight.length;
  const y = new Float64Array(h.length);
  for (let at = 0; at < h.length; at += D) {
    let squares = 0;
    for (let d = 0; d < D; d++) {
      const a = withSilu ? silu(h[at + d]!) : h[at + d]!;
      y[at + d] = a;
      squares += a * a;
    }
    const rstd = 1 / Math.sqrt(squares / D + eps);
    for (let d = 0; d < D; d++) y[at + d]! *= rstd * weight[d]!;
  }
  return y;
}

export function swiglu(gate: Values, up: Values): Float64Array {
  return Float64Array.from(gate, (x, i) => silu(x) * up[i]!);
}

/** [N]: log Σ exp(logits) − logits[label], for logits [N, C]. */
export function crossEntropy(logits: Values, labels: Values): Float64Array {
  const C = logits.length / labels.length;
  return Float64Array.from(labels, (label, n) => {
    let [top, sum] = [-Infinity, 0];
    for (let c = 0; c < C; c++) top = Math.max(top, logits[n * C + c]!);
    for (let c = 0; c < C; c++) sum += Math.exp(logits[n * C + c]! - top);
    return top + Math.log(sum) - logits[n * C + label]!;
  });
}

/** The sum of crossEntropy(hidden weightᵀ, labels), for hidden [N, D] and weight [C, D]. */
export function linearCrossEntropy(hidden: Values, weight: Values, labels: Values): Float64Array {
  const D = hidden.length / labels.length;
  const C = weight.length / D;
  const logits = new Float64Array(labels.length * C);
  for (let n = 0; n < labels.length; n++)
    for (let c = 0; c < C; c++) {
      let sum = 0;
      for (let d = 0; d < D; d++) sum += hidden[n * D + d]! * weight[c * D + d]!;
      logits[n * C + c] = sum;
    }
  return Float64Array.of(crossEntropy(logits, labels).reduce((a, b) => a + b, 0));
}

/** Rows of weight [C, D]. */
export function embedding(weight: Values, ids: Values, D: number): Float64Array {
  return Float64Array.from(
    { length: ids.length * D },
    (_, i) => weight[ids[Math.floor(i / D)]! * D + (i % D)]!,
  );
}

/** silu(Σ_j weight[d, j] x[t − (W − 1) + j]), for x [B, T, D] and weight [D, W]. */
export function shortConv(x: Values, weight: Values, T: number, D: number): Float64Array {
  const W = weight.length / D;
  return Float64Array.from({ length: x.length }, (_, i) => {
    const t = Math.floor(i / D) % T;
    let sum = 0;
    for (let j = Math.max(0, W - 1 - t); j < W; j++)
      sum += weight[(i % D) * W + j]! * x[i - (W - 1 - j) * D]!;
    return silu(sum);
  });
}

/** Channels d and d + D/2 of x [B, T, H, D] turned by t · 10000^(−2d/D). */
export function rotary(x: Values, T: number, H: number, D: number): Float64Array {
  const half = D / 2;
  return Float64Array.from({ length: x.length }, (_, i) => {
    const d = i % D;
    const angle = (Math.floor(i / (H * D)) % T) * 10000 ** ((-2 * (d % half)) / D);
    const other = d < half ? -x[i + half]! : x[i - half]!;
    return x[i]! * Math.cos(angle) + other * Math.sin(angle);
  });
}

/** g = logsigmoid(f) / normalizer and s = 1 − exp(g). */
export function gsaGate(f: Values, normalizer: number): [g: Float64Array, s: Float64Array] {
  const g = Float64Array.from(f, (x) => -(Math.log1p(Math.exp(-Math.abs(x))) + Math.max(-x, 0)) / normalizer);
  return [g, g.map((x) => -Math.expm1(x))];
}

export interface AdamWSettings {
  readonly lr: number;
  readonly beta1: number;
  readonly beta2: number;
  readonly eps: number;
  readonly weightDecay: number;
}

/** A parameter after `steps` equal gradients, from moments of zero (Loshchilov and Hutter 2019, algorithm 2). */
export function adamw(
  parameter: Values,
  gradient: Values,
  steps: number,
  settings: AdamWSettings,
): Float64Array {
  const { lr, beta1, beta2, eps, weightDecay } = settings;
  return Float64Array.from(parameter, (start, i) => {
    const grad = gradient[i]!;
    let [p, m, v] = [start, 0, 0];
    for (let t = 1; t <= steps; t++) {
      m = beta1 * m + (1 - beta1) * grad;
      v = beta2 * v + (1 - beta2) * grad * grad;
      p -= lr * weightDecay * p;
      p -= (lr * (m / (1 - beta1 ** t))) / (Math.sqrt(v / (1 - beta2 ** t)) + eps);
    }
    return p;
  });
}
