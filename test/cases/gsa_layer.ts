import { gsaLayer } from '#src/ops/index.js';
import * as reference from '../reference/activation.js';
import { gsaForward } from '../reference/gsa.js';
import { normal, type CaseInput, type CaseList, type OpCase } from './types.js';

interface Sizes {
  B: number;
  T: number;
  HQ: number;
  H: number;
  K: number;
  V: number;
  M: number;
  scale?: number;
  normalizer?: number;
  states?: boolean;
  cuSeqlens?: readonly number[];
}

function gsaLayerCase(sizes: Sizes): OpCase {
  const { B, T, HQ, H, K, V, M, scale = 1, normalizer = 8, states = false, cuSeqlens } = sizes;
  const widths = [HQ * K, H * K, H * V, H * M];
  const width = widths.reduce((a, b) => a + b);
  const N = cuSeqlens ? cuSeqlens.length - 1 : B;
  const state: Record<string, CaseInput> = states
    ? {
        hk0: { shape: [N, H, K, M], draw: normal(0.3), wide: true },
        hv0: { shape: [N, H, M, V], draw: normal(), wide: true },
      }
    : {};
  const offsets: Record<string, CaseInput> = cuSeqlens
    ? { cuSeqlens: { shape: [N + 1], dtype: 'int32', draw: (_, i) => cuSeqlens[i]! } }
    : {};
  const marks = `${states ? ' states' : ''}${cuSeqlens ? ` cuSeqlens=[${cuSeqlens}]` : ''}`;
  return {
    title: `gsaLayer B${B} T${T} HQ${HQ} H${H} K${K} V${V} M${M} scale=${scale} normalizer=${normalizer}${marks}`,
    seed: 31,
    inputs: { x: { shape: [B, T, width], draw: normal(1.5) }, ...state, ...offsets },
    run: ({ x, hk0, hv0, cuSeqlens }) => {
      const shape = { HQ, H, K, V, M, normalizer };
      const { o, hkT, hvT } = gsaLayer(x!, { ...shape, hk0, hv0, cuSeqlens, scale, outputFinalState: true });
      return [o, hkT!, hvT!];
    },
    reference: ({ x, hk0, hv0 }) => {
      const part = (which: number): Float64Array => {
        const start = widths.slice(0, which).reduce((a, b) => a + b, 0);
        return x!.filter((_, i) => i % width >= start && i % width < start + widths[which]!);
      };
      const [q, k, v] = [0, 1, 2].map((i) => reference.silu(part(i))) as [
        Float64Array,
        Float64Array,
        Float64Array,
      ];
      const gates = reference.gsaGate(part(3), normalizer);
      const { o, hkT, hvT } = gsaForward({
        ...gates,
        ...sizes,
        q,
        k,
        v,
        hk0,
        hv0,
        scale,
      });
      return [o, hkT, hvT];
    },
  };
}

export const cases: CaseList = {
  ops: ['gsaLayer'],
  cases: [
    gsaLayerCase({ B: 2, T: 5, HQ: 2, H: 2, K: 3, V: 4, M: 5, states: true, normalizer: 2 }),
    gsaLayerCase({ B: 1, T: 6, HQ: 4, H: 2, K: 4, V: 3, M: 3, scale: 0.7, states: true }),
    gsaLayerCase({ B: 1, T: 7, HQ: 1, H: 1, K: 2, V: 2, M: 4, cuSeqlens: [0, 0, 3, 7], normalizer: 16 }),
    gsaLayerCase({ B: 1, T: 19, HQ: 2, H: 1, K: 4, V: 4, M: 4 }),
  ],
};
