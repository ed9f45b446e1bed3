/** Repeatable random numbers for tests. */
export interface Random {
  /** In [0, 1). */
  uniform(): number;
  normal(): number;
  /** An integer in 0 .. below-1. */
  below(limit: number): number;
}

/** xorshift32, seeded through a multiplicative hash so that neighbouring seeds differ. */
export function randomFrom(seed: number): Random {
  let state = Math.imul(seed + 1, 0x9e3779b1) >>> 0 || 1;
  const uniform = (): number => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    state >>>= 0;
    return state / 2 ** 32;
  };
  for (let i = 0; i < 8; i++) uniform();
  return {
    uniform,
    normal: () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform()),
    below: (limit) => Math.floor(uniform() * limit),
  };
}
