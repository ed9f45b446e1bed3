import { embedding } from '#src/ops/index.js';
import { embedding as reference } from '../reference/dense.js';
import { integer, normal, type CaseList } from './types.js';

export const cases: CaseList = {
  ops: ['embedding'],
  cases: [
    {
      title: 'embedding [11, 6] by ids [3, 7], repeated',
      seed: 30,
      inputs: {
        weight: { shape: [11, 6], draw: normal() },
        ids: { shape: [3, 7], draw: integer(11), dtype: 'int32' },
      },
      run: ({ weight, ids }) => [embedding(weight!, ids!)],
      reference: ({ weight, ids }) => [reference(weight!, ids!, 6)],
    },
    {
      title: 'embedding [3, 17] by one id 64 times',
      seed: 31,
      inputs: {
        weight: { shape: [3, 17], draw: normal() },
        ids: { shape: [64], draw: () => 2, dtype: 'int32' },
      },
      run: ({ weight, ids }) => [embedding(weight!, ids!)],
      reference: ({ weight, ids }) => [reference(weight!, ids!, 17)],
    },
  ],
};
