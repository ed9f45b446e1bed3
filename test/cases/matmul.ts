import { linear, linearJoined, matmul } from '#src/ops/index.js';
import { matmul as reference } from '../reference/dense.js';
import { normal, type CaseList, type OpCase } from './types.js';

interface Sizes {
  batch?: number;
  M: number;
  K: number;
  N: number;
  transA?: boolean;
  transB?: boolean;
  bias?: boolean;
}

function matmulCase(sizes: Sizes, seed: number): OpCase {
  const { batch, M, K, N, transA = false, transB = false, bias = false } = sizes;
  const lead = batch === undefined ? [] : [batch];
  const marks = [batch && `batch ${batch}`, transA && 'transA', transB && 'transB', bias && 'bias'];
  return {
    title: `matmul M=${M} K=${K} N=${N} ${marks.filter(Boolean).join(' ')}`.trim(),
    seed,
    inputs: {
      a: { shape: [...lead, ...(transA ? [K, M] : [M, K])], draw: normal() },
      b: { shape: [...lead, ...(transB ? [N, K] : [K, N])], draw: normal() },
      ...(bias ? { bias: { shape: [N], draw: normal() } } : {}),
    },
    run: ({ a, b, bias }) => [matmul(a!, b!, { transA, transB, bias })],
    reference: ({ a, b, bias }) => [reference(a!, b!, { batch, M, K, N, transA, transB }, bias)],
  };
}

function linearCase(
  shape: readonly number[],
  out: number,
  { bias = false, residual = false }: { bias?: boolean; residual?: boolean },
  seed: number,
): OpCase {
  const K = shape.at(-1)!;
  const M = shape.slice(0, -1).reduce((n, e) => n * e, 1);
  return {
    title: `linear x=[${shape}] out=${out}${bias ? ' bias' : ''}${residual ? ' residual' : ''}`,
    seed,
    inputs: {
      x: { shape, draw: normal() },
      weight: { shape: [out, K], draw: normal(0.3) },
      ...(bias ? { bias: { shape: [out], draw: normal() } } : {}),
      ...(residual ? { residual: { shape: [...shape.slice(0, -1), out], draw: normal() } } : {}),
    },
    run: ({ x, weight, bias, residual }) => [linear(x!, weight!, bias, residual)],
    reference: ({ x, weight, bias, residual }) => {
      const y = reference(x!, weight!, { M, K, N: out, transB: true }, bias);
      return [residual ? y.map((value, i) => value + residual[i]!) : y];
    },
  };
}

function joinedCase(shape: readonly number[], outs: readonly number[], seed: number): OpCase {
  const K = shape.at(-1)!;
  const M = shape.slice(0, -1).reduce((n, e) => n * e, 1);
  return {
    title: `linearJoined x=[${shape}] outs=${outs}`,
    seed,
    inputs: {
      x: { shape, draw: normal() },
      ...Object.fromEntries(outs.map((out, i) => [`w${i}`, { shape: [out, K], draw: normal(0.3) }])),
    },
    run: ({ x, ...weights }) => [linearJoined(x!, Object.values(weights))],
    reference: ({ x, ...weights }) => {
      const all = Object.values(weights).flatMap((w) => [...w]);
      const N = all.length / K;
      return [reference(x!, Float64Array.from(all), { M, K, N, transB: true })];
    },
  };
}

const flags = [false, true];
export const cases: CaseList = {
  ops: ['matmul', 'linear', 'linearJoined'],
  cases: [
    ...flags.flatMap((transA) => flags.map((transB) => matmulCase({ M: 5, K: 7, N: 4, transA, transB }, 1))),
    ...flags.flatMap((transA) =>
      flags.map((transB) => matmulCase({ batch: 3, M: 2, K: 5, N: 3, transA, transB, bias: transA }, 2)),
    ),
    matmulCase({ M: 1, K: 1, N: 1, bias: true }, 3),
    matmulCase({ M: 1, K: 33, N: 17, bias: true }, 4),
    matmulCase({ M: 17, K: 1, N: 9 }, 5),
    linearCase([3, 4], 5, { bias: true }, 6),
    linearCase([2, 3, 9], 7, {}, 7),
    linearCase([6], 3, { bias: true }, 8),
    linearCase([2, 3, 9], 7, { residual: true }, 11),
    linearCase([5, 16], 8, { bias: true, residual: true }, 12),
    linearCase([4, 64], 33, { residual: true }, 13),
    joinedCase([2, 3, 9], [4, 2, 5], 9),
    joinedCase([4, 6], [7], 10),
  ],
};
