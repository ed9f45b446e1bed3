import { rmsNorm } from '#src/ops/index.js';
import { rmsNorm as reference } from '../reference/rmsnorm.js';
import { normal, type CaseList, type OpCase } from './types.js';

interface Options {
  weight: boolean;
  residual: boolean;
  silu: boolean;
  stream?: boolean;
  eps?: number;
}

function rmsNormCase(shape: readonly number[], options: Options): OpCase {
  const { weight, residual, silu, stream = false, eps = 1e-6 } = options;
  const D = shape.at(-1)!;
  const marks = [weight && 'weight', residual && 'residual', silu && 'silu', stream && 'stream']
    .filter(Boolean)
    .join(' ');
  return {
    title: `rmsNorm [${shape}] eps=${eps} ${marks}`.trim(),
    seed: 20,
    inputs: {
      x: { shape, draw: normal(1.5) },
      ...(weight ? { weight: { shape: [D], draw: normal(0.3, 1), wide: true } } : {}),
      ...(residual ? { residual: { shape, draw: normal() } } : {}),
    },
    run: ({ x, weight, residual }) => {
      if (!residual && !stream) return [rmsNorm(x!, weight, { eps, silu })];
      const { y, h } = rmsNorm(x!, weight, { eps, silu, ...(residual ? { residual } : { stream: true }) });
      return [y, h];
    },
    reference: ({ x, weight, residual }) => {
      const { y, h } = reference(x!, D, { weight, residual, eps, silu });
      return residual || stream ? [y, h] : [y];
    },
  };
}

const flags = [false, true];
export const cases: CaseList = {
  ops: ['rmsNorm'],
  cases: [
    ...flags.flatMap((weight) =>
      flags.flatMap((residual) => flags.map((silu) => rmsNormCase([2, 3, 19], { weight, residual, silu }))),
    ),
    rmsNormCase([4, 1], { weight: true, residual: false, silu: false, eps: 1e-2 }),
    rmsNormCase([33], { weight: true, residual: true, silu: false, eps: 1e-5 }),
    rmsNormCase([65, 16], { weight: true, residual: true, silu: false }),
    rmsNormCase([3, 16], { weight: true, residual: true, silu: true }),
    rmsNormCase([5, 19], { weight: true, residual: false, silu: false, stream: true }),
    rmsNormCase([3, 16], { weight: false, residual: false, silu: true, stream: true }),
  ],
};
