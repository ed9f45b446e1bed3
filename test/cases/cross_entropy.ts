import { crossEntropy, linearCrossEntropy, logSoftmax } from '#src/ops/index.js';
import * as reference from '../reference/cross_entropy.js';
import { matmul } from '../reference/dense.js';
import { integer, normal, type CaseInput, type CaseList, type OpCase } from './types.js';

const total = (x: Float64Array): number => x.reduce((a, b) => a + b, 0);

function labelsOf(shape: readonly number[], classes: number, ignoreEvery: number): CaseInput {
  const draw = integer(classes);
  return {
    shape,
    dtype: 'int32',
    draw: (random, i) => (ignoreEvery > 0 && i % ignoreEvery === 0 ? -100 : draw(random)),
  };
}

function crossEntropyCase(
  rows: readonly number[],
  C: number,
  reduction: 'none' | 'sum' | 'mean',
  ignoreEvery: number,
  spread = 2,
): OpCase {
  return {
    title: `crossEntropy [${rows}] C=${C} ${reduction}${ignoreEvery ? `, label ignored every ${ignoreEvery}` : ''}, logits of size ${spread}`,
    seed: 50,
    inputs: {
      logits: { shape: [...rows, C], draw: normal(spread) },
      labels: labelsOf(rows, C, ignoreEvery),
    },
    run: ({ logits, labels }) => [crossEntropy(logits!, labels!, { reduction })],
    reference: ({ logits, labels }) => {
      const losses = reference.crossEntropy(logits!, labels!, C);
      if (reduction === 'none') return [losses];
      const count = labels!.filter((label) => label !== -100).length;
      return [Float64Array.of(total(losses) / (reduction === 'sum' ? 1 : count))];
    },
  };
}

function linearCase(
  rows: readonly number[],
  D: number,
  C: number,
  chunkRows: number,
  ignoreEvery: number,
): OpCase {
  return {
    title: `linearCrossEntropy [${rows}] D=${D} C=${C} chunkRows=${chunkRows}`,
    seed: 51,
    inputs: {
      hidden: { shape: [...rows, D], draw: normal() },
      weight: { shape: [C, D], draw: normal(0.7) },
      labels: labelsOf(rows, C, ignoreEvery),
    },
    run: ({ hidden, weight, labels }) => [linearCrossEntropy(hidden!, weight!, labels!, { chunkRows })],
    reference: ({ hidden, weight, labels }) => {
      const logits = matmul(hidden!, weight!, { M: labels!.length, K: D, N: C, transB: true });
      return [Float64Array.of(total(reference.crossEntropy(logits, labels!, C)))];
    },
  };
}

export const cases: CaseList = {
  ops: ['crossEntropy', 'linearCrossEntropy', 'logSoftmax'],
  cases: [
    crossEntropyCase([5], 7, 'none', 0),
    crossEntropyCase([2, 4], 19, 'none', 3),
    crossEntropyCase([6], 33, 'sum', 2),
    crossEntropyCase([6], 9, 'mean', 4),
    crossEntropyCase([4], 6, 'sum', 0, 60),
    crossEntropyCase([3], 2, 'sum', 1),
    linearCase([7], 5, 11, 3, 3),
    linearCase([6], 5, 16, 4, 3),
    linearCase([2, 5], 4, 9, 10, 0),
    linearCase([5], 6, 7, 1, 2),
    linearCase([4], 3, 5, 100, 1),
    {
      title: 'logSoftmax [3, 2, 21] of size 20',
      seed: 52,
      inputs: { x: { shape: [3, 2, 21], draw: normal(20), grad: false } },
      run: ({ x }) => [logSoftmax(x!)],
      reference: ({ x }) => [reference.logSoftmax(x!, 21)],
    },
  ],
};
