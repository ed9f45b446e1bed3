import { add, narrow, reshape, scale, sum, silu, swiglu, gsaGate } from '#src/ops/index.js';
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

export const cases: CaseList = {
  ops: ['add', 'scale', 'reshape', 'narrow', 'sum', 'silu', 'swiglu', 'gsaGate'],
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
