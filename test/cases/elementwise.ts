import {
  argmax,
  add,
  gsaGate,
  gsaInputs,
  narrow,
  reshape,
  scale,
  silu,
  sum,
  swiglu,
  swigluHalves,
} from '#src/ops/index.js';
import * as reference from '../reference/activation.js';
import { normal, type CaseInput, type CaseList, type OpCase } from './types.js';

const total = (x: Float64Array): number => x.reduce((a, b) => a + b, 0);

function unary(
  title: string,
  shape: readonly number[],
  run: OpCase['run'],
  ref: (x: Float64Array) => Float64Array,
  draw: CaseInput['draw'] = normal(),
): OpCase {
  return { title, seed: 11, inputs: { x: { shape, draw } }, run, reference: ({ x }) => [ref(x!)] };
}

/** Elements where rounding, saturation and signs differ: from -30 to 30, and exact zeros. */
const wide = (_: unknown, index: number): number => (index % 5 === 0 ? 0 : ((index * 37) % 61) - 30);

function narrowCase(dim: number, start: number, length: number): OpCase {
  const shape = [3, 4, 5];
  return unary(
    `narrow [${shape}] dim=${dim} ${start}+${length}`,
    shape,
    ({ x }) => [narrow(x!, dim, start, length)],
    (x) =>
      x.filter((_, i) => {
        const at = [Math.floor(i / 20), Math.floor(i / 5) % 4, i % 5][dim]!;
        return at >= start && at < start + length;
      }),
  );
}

interface LayerSizes {
  B: number;
  T: number;
  HQ: number;
  H: number;
  K: number;
  V: number;
  M: number;
  normalizer: number;
}

function gsaInputsCase(sizes: LayerSizes): OpCase {
  const { B, T, HQ, H, K, V, M, normalizer } = sizes;
  const widths = [HQ * K, H * K, H * V, H * M];
  const width = widths.reduce((a, b) => a + b);
  return {
    title: `gsaInputs B${B} T${T} HQ${HQ} H${H} K${K} V${V} M${M} normalizer=${normalizer} -30..30`,
    seed: 16,
    inputs: { x: { shape: [B, T, width], draw: wide } },
    run: ({ x }) => {
      const { q, k, v, g, s } = gsaInputs(x!, sizes);
      return [q, k, v, g, s];
    },
    reference: ({ x }) => {
      const part = (which: number): Float64Array => {
        const start = widths.slice(0, which).reduce((a, b) => a + b, 0);
        return x!.filter((_, i) => i % width >= start && i % width < start + widths[which]!);
      };
      const { g, s } = reference.gsaGate(part(3), normalizer);
      return [...[0, 1, 2].map((i) => reference.silu(part(i))), g, s];
    },
  };
}

export const cases: CaseList = {
  ops: [
    'add',
    'scale',
    'reshape',
    'narrow',
    'sum',
    'argmax',
    'silu',
    'swiglu',
    'swigluHalves',
    'gsaGate',
    'gsaInputs',
  ],
  cases: [
    {
      title: 'add [3, 5]',
      seed: 10,
      inputs: { a: { shape: [3, 5], draw: normal() }, b: { shape: [3, 5], draw: normal() } },
      run: ({ a, b }) => [add(a!, b!)],
      reference: ({ a, b }) => [a!.map((v, i) => v + b![i]!)],
    },
    {
      title: 'add of a tensor to itself [7]',
      seed: 10,
      inputs: { a: { shape: [7], draw: normal() } },
      run: ({ a }) => [add(a!, a!)],
      reference: ({ a }) => [a!.map((v) => 2 * v)],
    },
    unary(
      'scale by -0.75 [2, 9]',
      [2, 9],
      ({ x }) => [scale(x!, -0.75)],
      (x) => x.map((v) => -0.75 * v),
    ),
    {
      title: 'scale by a tensor [4, 3]',
      seed: 12,
      inputs: {
        x: { shape: [4, 3], draw: normal() },
        factor: { shape: [1], draw: normal(), grad: false, wide: true },
      },
      run: ({ x, factor }) => [scale(x!, factor!)],
      reference: ({ x, factor }) => [x!.map((v) => factor![0]! * v)],
    },
    unary(
      'reshape [2, 6] -> [3, -1]',
      [2, 6],
      ({ x }) => [reshape(x!, [3, -1])],
      (x) => x,
    ),
    narrowCase(0, 1, 2),
    narrowCase(1, 2, 2),
    narrowCase(2, 0, 1),
    unary(
      'sum [3, 4, 5]',
      [3, 4, 5],
      ({ x }) => [sum(x!)],
      (x) => Float64Array.of(total(x)),
    ),
    {
      title: 'argmax [5, 33]',
      seed: 14,
      inputs: { x: { shape: [5, 33], draw: normal(), grad: false } },
      run: ({ x }) => {
        const { index, value } = argmax(x!);
        return [index, value];
      },
      reference: ({ x }) => {
        const rows = Array.from({ length: 5 }, (_, r) => x!.subarray(r * 33, (r + 1) * 33));
        return [
          Float64Array.from(rows, (row) => row.indexOf(Math.max(...row))),
          Float64Array.from(rows, (row) => Math.max(...row)),
        ];
      },
    },
    unary(
      'sum of one element',
      [1],
      ({ x }) => [sum(x!)],
      (x) => x,
    ),
    unary('silu [3, 21] -30..30', [3, 21], ({ x }) => [silu(x!)], reference.silu, wide),
    unary('silu [1]', [1], ({ x }) => [silu(x!)], reference.silu),
    {
      title: 'swiglu [2, 35] gate -30..30',
      seed: 13,
      inputs: { gate: { shape: [2, 35], draw: wide }, up: { shape: [2, 35], draw: normal() } },
      run: ({ gate, up }) => [swiglu(gate!, up!)],
      reference: ({ gate, up }) => [reference.swiglu(gate!, up!)],
    },
    ...[
      [2, 35],
      [3, 2, 16],
    ].map((half): OpCase => {
      const width = half.at(-1)!;
      return {
        title: `swigluHalves [${half.slice(0, -1)}, 2 x ${width}] -30..30`,
        seed: 15,
        inputs: { x: { shape: [...half.slice(0, -1), 2 * width], draw: wide } },
        run: ({ x }) => [swigluHalves(x!)],
        reference: ({ x }) => {
          const side = (second: number) =>
            x!.filter((_, i) => Math.floor(i / width) % 2 === second) as Float64Array;
          return [reference.swiglu(side(0), side(1))];
        },
      };
    }),
    gsaInputsCase({ B: 2, T: 3, HQ: 4, H: 2, K: 3, V: 5, M: 7, normalizer: 8 }),
    gsaInputsCase({ B: 1, T: 9, HQ: 2, H: 2, K: 8, V: 16, M: 8, normalizer: 16 }),
    ...[1, 8, 16].map((normalizer): OpCase => ({
      title: `gsaGate [2, 3, 2, 5] f -30..30 normalizer=${normalizer}`,
      seed: 14,
      inputs: { f: { shape: [2, 3, 2, 5], draw: wide } },
      run: ({ f }) => {
        const { g, s } = gsaGate(f!, { normalizer });
        return [g, s];
      },
      reference: ({ f }) => {
        const { g, s } = reference.gsaGate(f!, normalizer);
        return [g, s];
      },
    })),
  ],
};
