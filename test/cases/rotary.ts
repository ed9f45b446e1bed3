import { rotary } from '#src/ops/index.js';
import { normal, type CaseList, type OpCase } from './types.js';

/** As complex numbers: channels i and i + D/2 are one number, times e^(i angle). */
function reference(
  x: Float64Array,
  [, T, H, D]: readonly number[],
  theta: number,
  offset: number,
): Float64Array {
  const y = new Float64Array(x.length);
  x.forEach((value, at) => {
    const channel = at % D!;
    const i = channel % (D! / 2);
    const t = Math.floor(at / (H! * D!)) % T!;
    const angle = (offset + t) / theta ** ((2 * i) / D!);
    const first = channel < D! / 2;
    const partner = x[first ? at + D! / 2 : at - D! / 2]!;
    y[at] = value * Math.cos(angle) + (first ? -partner : partner) * Math.sin(angle);
  });
  return y;
}

function rotaryCase(shape: readonly number[], theta: number, offset: number): OpCase {
  return {
    title: `rotary [${shape}] theta=${theta} offset=${offset}`,
    seed: 21,
    inputs: { x: { shape, draw: normal() } },
    run: ({ x }) => [rotary(x!, { theta, offset })],
    reference: ({ x }) => [reference(x!, shape, theta, offset)],
  };
}

export const cases: CaseList = {
  ops: ['rotary'],
  cases: [
    rotaryCase([1, 1, 1, 2], 10000, 0),
    rotaryCase([2, 5, 3, 8], 10000, 0),
    rotaryCase([1, 4, 2, 6], 500000, 7),
    rotaryCase([1, 2, 1, 64], 10000, 100000),
    rotaryCase([2, 3, 2, 32], 10000, 1),
  ],
};
