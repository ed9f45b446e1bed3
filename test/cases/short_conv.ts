import { shortConv } from '#src/ops/index.js';
import { shortConv as reference } from '../reference/short_conv.js';
import { normal, type CaseList, type OpCase } from './types.js';

interface Options {
  B?: number;
  T: number;
  D?: number;
  W?: number;
  silu?: boolean;
  state?: boolean;
  cuSeqlens?: readonly number[];
}

function shortConvCase(options: Options): OpCase {
  const { B = 1, T, D = 3, W = 4, silu = true, state = false, cuSeqlens } = options;
  const starts = cuSeqlens ? cuSeqlens.slice(0, -1) : Array.from({ length: B }, (_, b) => b * T);
  const marks = [silu && 'silu', state && 'state', cuSeqlens && `cuSeqlens=[${cuSeqlens}]`];
  return {
    title: `shortConv B=${B} T=${T} D=${D} W=${W} ${marks.filter(Boolean).join(' ')}`,
    seed: 40,
    inputs: {
      x: { shape: [B, T, D], draw: normal() },
      weight: { shape: [D, W], draw: normal(0.6) },
      ...(state ? { state: { shape: [starts.length, D, W - 1], draw: normal() } } : {}),
      ...(cuSeqlens
        ? { cuSeqlens: { shape: [cuSeqlens.length], draw: (_, i) => cuSeqlens[i]!, dtype: 'int32' } }
        : {}),
    },
    run: ({ x, weight, state, cuSeqlens }) => {
      const out = shortConv(x!, weight!, { silu, state, cuSeqlens, outputState: true });
      return [out.y, out.state!];
    },
    reference: ({ x, weight, state }) => {
      const out = reference(x!, weight!, { rows: B * T, D, W, starts, silu }, state);
      return [out.y, out.state];
    },
  };
}

export const cases: CaseList = {
  ops: ['shortConv'],
  cases: [
    shortConvCase({ B: 2, T: 6 }),
    shortConvCase({ B: 2, T: 6, silu: false }),
    shortConvCase({ B: 2, T: 5, state: true }),
    shortConvCase({ B: 1, T: 1, state: true }),
    shortConvCase({ B: 3, T: 2, state: true, silu: false }),
    shortConvCase({ B: 1, T: 1 }),
    shortConvCase({ B: 1, T: 9, D: 17, W: 3 }),
    shortConvCase({ B: 2, T: 4, W: 2, state: true }),
    shortConvCase({ T: 11, cuSeqlens: [0, 4, 5, 11] }),
    shortConvCase({ T: 8, cuSeqlens: [0, 1, 1, 3, 8], state: true }),
    // Widths whose channels a GPU reads 16 bytes at once, and one of half of that.
    shortConvCase({ B: 2, T: 9, D: 16, state: true }),
    shortConvCase({ B: 1, T: 7, D: 24, W: 3, silu: false }),
    shortConvCase({ B: 2, T: 5, D: 12, W: 2, state: true }),
    shortConvCase({ T: 13, D: 16, cuSeqlens: [0, 0, 1, 3, 3, 13], state: true }),
  ],
};
