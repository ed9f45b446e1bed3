import { readdirSync } from 'node:fs';
import test from 'ava';
import { verifyOpFile } from '#src/verify/op_file.js';
import { relativeError } from '../cases/drive.js';
import { cases, drawGsa, gsaCase } from '../cases/gsa.js';
import { testDevices } from '../devices.js';
import { fixture } from '../paths.js';
import { gsaBackward, gsaForward } from '../reference/gsa.js';
import { chunkBackward, chunkForward, recurrent, type Arrays } from './gsa_run.js';

const FORWARD_BOUND = 1e-5;
const GRADIENT_BOUND = 1e-4;

/** The array of `actual` that is furthest from the one of that name in `expected`. */
function worst(actual: Arrays<string>, expected: object): [name: string, error: number] {
  const reference = expected as Record<string, Float64Array>;
  return Object.entries(actual)
    .map(([name, x]): [string, number] => [name, relativeError(x, reference[name]!)])
    .reduce((a, b) => (b[1] > a[1] ? b : a));
}

for (const dev of testDevices()) {
  for (const one of cases) {
    const x = drawGsa(one);

    test(`${dev} float32 gsa ${one.title}: both forms agree with the float64 recurrence to ${FORWARD_BOUND}`, (t) => {
      const expected = gsaForward(x);
      for (const actual of [chunkForward(x, dev), recurrent(x, dev)]) {
        const [name, error] = worst(actual, expected);
        t.true(error <= FORWARD_BOUND, `${name}: relative error ${error}`);
      }
    });

    test(`${dev} float32 gsa ${one.title}: gradients agree with float64 to ${GRADIENT_BOUND}`, (t) => {
      const [name, error] = worst(chunkBackward(x, chunkForward(x, dev).ok, dev), gsaBackward(x, x));
      t.true(error <= GRADIENT_BOUND, `${name}: relative error ${error}`);
    });
  }

  for (const file of readdirSync(fixture('ops')).filter((name) => name.endsWith('.safetensors')))
    test(`${dev} float32 gsa: golden vectors of ${file}`, (t) => {
      const checks = [...verifyOpFile(fixture('ops', file), file, dev, 'fp32')];
      t.true(checks.length >= 11, `${checks.length} checks`);
      for (const { check, error, bound, pass } of checks) t.true(pass, `${check}: ${error} against ${bound}`);
    });
}

test('float64 gsa B=1 T=3 HQ=2 H=1 K=2 V=3 M=2 states: the reference gradients are central differences', (t) => {
  const small = { T: 3, HQ: 2, K: 2, V: 3, M: 2, gate: 0.5, states: true, scale: 0.7 };
  const x = drawGsa(gsaCase(small));
  const dot = (a: ArrayLike<number>, b: Float64Array): number => b.reduce((sum, y, i) => sum + y * a[i]!, 0);
  const loss = (at: typeof x): number => {
    const { o, hkT, hvT } = gsaForward(at);
    return dot(x.do, o) + dot(x.dhkT!, hkT) + dot(x.dhvT!, hvT);
  };
  const gradients = gsaBackward(x, x);
  for (const name of ['q', 'k', 'v', 's', 'g', 'hk0', 'hv0'] as const) {
    const values = Float64Array.from(x[name]!);
    const numeric = values.map((value, i) => {
      const moved = (by: number) => loss({ ...x, [name]: values.with(i, value + by) });
      return (moved(1e-5) - moved(-1e-5)) / 2e-5;
    });
    const error = relativeError(gradients[`d${name}`], numeric);
    t.true(error < 1e-8, `d${name}: relative error ${error}`);
  }
});
