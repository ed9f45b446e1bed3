export function sigmoid(x: number): number {
  return 1 / (1 + Math.exp(-x));
}

export function silu(x: Float64Array): Float64Array {
  return x.map((value) => value * sigmoid(value));
}

export function swiglu(gate: Float64Array, up: Float64Array): Float64Array {
  return silu(gate).map((value, i) => value * up[i]!);
}

/** g = logsigmoid(f) / normalizer and s = 1 - exp(g), accurate where s is small. */
export function gsaGate(f: Float64Array, normalizer: number): { g: Float64Array; s: Float64Array } {
  const g = f.map((x) => (Math.min(x, 0) - Math.log1p(Math.exp(-Math.abs(x)))) / normalizer);
  return { g, s: g.map((value) => -Math.expm1(value)) };
}
