import type { GsaArrays, GsaDims, GsaUpstream } from '../reference/gsa.js';
import { randomFrom, type Random } from '../random.js';

/** How the log forget gates are drawn.
 * layer: as the model's layers make them, logsigmoid(normal) / 8. zero: nothing is forgotten. cut: -1e4 everywhere.
 * mixed: 0, -1e4 and small ones side by side, slot by slot and token by token. A number: about so many nats a token. */
export type GateKind = 'layer' | 'zero' | 'cut' | 'mixed' | number;

export interface GsaCase extends GsaDims {
  readonly title: string;
  readonly seed: number;
  readonly gate: GateKind;
  /** Initial states, and gradients on the final ones. */
  readonly states: boolean;
  readonly cuSeqlens?: readonly number[];
  readonly scale: number;
}

export type GsaInputs = GsaArrays & GsaUpstream;

function drawGate(kind: GateKind, random: Random): number {
  if (kind === 'zero') return 0;
  if (kind === 'cut') return -1e4;
  if (kind === 'layer') return -Math.log1p(Math.exp(-random.normal())) / 8;
  if (kind === 'mixed') return [0, -1e4, -0.1 * random.uniform()][random.below(3)]!;
  return -kind * (0.8 + 0.4 * random.uniform());
}

/** The inputs and upstream gradients of a case, exact in float32. Write strengths are drawn apart from the gates: with
 * s = 1 - exp(g) and strong gates all slots are nearly equal, and the gradients of q and k are rounding errors. */
export function drawGsa(one: GsaCase): GsaInputs {
  const { B, T, HQ, H, K, V, M, cuSeqlens, scale } = one;
  const random = randomFrom(one.seed);
  const draw = (size: number, value: () => number): Float32Array =>
    Float32Array.from({ length: size }, value);
  const silu = () => {
    const x = random.normal();
    return x / (1 + Math.exp(-x));
  };
  const N = cuSeqlens ? cuSeqlens.length - 1 : B;
  const inputs = {
    q: draw(B * T * HQ * K, silu),
    k: draw(B * T * H * K, silu),
    v: draw(B * T * H * V, silu),
    s: draw(B * T * H * M, () => random.uniform()),
    g: draw(B * T * H * M, () => drawGate(one.gate, random)),
    do: draw(B * T * HQ * V, () => random.normal()),
  };
  const state = (size: number, scale: number): Float32Array => draw(size, () => scale * random.normal());
  const states = one.states
    ? {
        hk0: state(N * H * K * M, 0.3),
        hv0: state(N * H * M * V, 1),
        dhkT: state(N * H * K * M, 0.3),
        dhvT: state(N * H * M * V, 1),
      }
    : {};
  return { B, T, HQ, H, K, V, M, cuSeqlens, scale, ...inputs, ...states };
}

/** A case of these options; its seed follows from its title. */
export function gsaCase(options: Partial<Omit<GsaCase, 'title' | 'seed'>>): GsaCase {
  const base = {
    B: 1,
    T: 70,
    HQ: 1,
    H: 1,
    K: 16,
    V: 16,
    M: 8,
    gate: 'layer',
    states: false,
    scale: 1,
  } as const;
  const c = { ...base, ...options };
  const marks = [c.gate !== 'layer' && `gates ${c.gate}`, c.states && 'states'];
  if (c.cuSeqlens) marks.push(`cuSeqlens=[${c.cuSeqlens}]`);
  const dims = `B=${c.B} T=${c.T} HQ=${c.HQ} H=${c.H} K=${c.K} V=${c.V} M=${c.M}`;
  const title = [dims, ...marks.filter(Boolean)].join(' ');
  const seed = [...title].reduce((hash, letter) => (hash * 31 + letter.charCodeAt(0)) % 65536, 0);
  return { ...c, title, seed };
}

/** Grouped queries, states and a length that is no multiple of a block. */
export const grouped = gsaCase({ B: 2, T: 150, HQ: 6, H: 2, K: 24, V: 40, M: 24, states: true });

/** Empty and one-chunk sequences. */
export const ragged = gsaCase({ T: 70, HQ: 4, H: 2, cuSeqlens: [0, 0, 5, 5, 70, 70], states: true });

/** Chunks of 64 tokens, blocks of 16 and vectors of 4, 8 and 16 floats all have their edges in this list. */
export const cases: readonly GsaCase[] = [
  ...[0, 1, 2, 15, 16, 17, 63, 64, 65, 127, 128, 129, 300].map((T) => gsaCase({ B: 2, T, states: true })),
  ...(['zero', 'cut', 'mixed', 0.3, 1, 5, 6, 20] as const).map((gate) =>
    gsaCase({ T: 150, HQ: 2, K: 20, V: 12, M: 17, gate, states: true, scale: 0.7 }),
  ),
  grouped,
  ragged,
  gsaCase({ T: 66, HQ: 5, H: 1, K: 8, V: 8, M: 4 }),
  gsaCase({ T: 66, HQ: 3, H: 3, K: 8, V: 8, M: 4 }),
  gsaCase({ K: 1, V: 1, M: 1, states: true }),
  gsaCase({ K: 3, V: 5, M: 2, states: true }),
  gsaCase({ K: 7, V: 130, M: 3 }),
  gsaCase({ K: 33, V: 31, M: 129, states: true, scale: 0.2 }),
  gsaCase({ K: 64, V: 64, M: 64, scale: 0.125 }),
  gsaCase({ T: 150, HQ: 4, H: 2, cuSeqlens: [0, 64, 128, 129, 150], states: true }),
  gsaCase({ T: 4, cuSeqlens: [0, 1, 2, 3, 4], states: true }),
  gsaCase({ T: 0, cuSeqlens: [0, 0, 0], states: true }),
  gsaCase({ T: 200, cuSeqlens: [0, 200], gate: 'mixed' }),
];
