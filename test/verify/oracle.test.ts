import test from 'ava';
import { relativeError } from '#src/verify/compare.js';
import { gsaOracle, gsaOracleBackward, type GsaHead } from '#src/verify/oracle.js';
import { makeHead, uniform } from './made.js';

const NAMES = ['q', 'k', 'v', 's', 'g'] as const;

type Five = [Float64Array, Float64Array, Float64Array, Float64Array, Float64Array];

/** sum(o · upstream) */
function lossOf(head: GsaHead, upstream: Float64Array): number {
  return gsaOracle(head).o.reduce((sum, value, i) => sum + value * upstream[i]!, 0);
}

for (const extents of [
  { T: 7, R: 1, K: 3, V: 4, M: 5 },
  { T: 5, R: 2, K: 4, V: 3, M: 2 },
  { T: 2, R: 3, K: 2, V: 1, M: 3 },
])
  test(`the oracle's gradients are its central differences, ${JSON.stringify(extents)} float64`, (t) => {
    const single = makeHead(extents);
    const [q, k, v, s, g] = NAMES.map((name) => Float64Array.from(single[name])) as Five;
    const head = { ...single, scale: 0.7, q, k, v, s, g };
    const next = uniform(5);
    const upstream = Float64Array.from({ length: extents.T * extents.R * extents.V }, next);
    const grads = gsaOracleBackward(head, upstream);
    const h = 1e-5;
    for (const name of NAMES) {
      const numeric = head[name].map((value, i) => {
        const at = (x: number) => lossOf({ ...head, [name]: head[name].with(i, x) }, upstream);
        return (at(value + h) - at(value - h)) / (2 * h);
      });
      t.true(relativeError(grads[`d${name}`], numeric) < 1e-8, `d${name}`);
    }
  });

test('the oracle follows the recurrence by hand, T2 R1 K1 V1 M2 float64', (t) => {
  const head: GsaHead = {
    T: 2,
    R: 1,
    K: 1,
    V: 1,
    M: 2,
    scale: 2,
    q: [1, 3],
    k: [1, 2],
    v: [5, -1],
    s: [0.5, 0.25, 0.75, 0],
    g: [-9, -9, Math.log(0.5), 0],
  };
  const { o, hkT, hvT } = gsaOracle(head);
  // Hk: (0.5, 0.25), then (0.25 + 1.5, 0.25); Hv: (2.5, 1.25), then (1.25 - 0.75, 1.25)
  t.deepEqual([...hkT], [1.75, 0.25]);
  t.deepEqual([...hvT], [0.5, 1.25]);
  const first = 1 / (1 + Math.exp(-2 * 0.25));
  const second = 1 / (1 + Math.exp(-6 * 1.5));
  t.true(Math.abs(o[0]! - (first * 2.5 + (1 - first) * 1.25)) < 1e-15);
  t.true(Math.abs(o[1]! - (second * 0.5 + (1 - second) * 1.25)) < 1e-15);
});
