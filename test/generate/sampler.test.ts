import test from 'ava';
import { GsaError } from '#src/native/errors.js';
import { checkSampling, sampleToken, uniform, type SamplingOptions } from '#src/generate/sampler.js';
import { randomFrom } from '../random.js';

const LOGITS = Float32Array.of(1, 3, 2, -1, 2.5, 0);

function softmax(logits: Float32Array, temperature = 1): number[] {
  const weights = [...logits].map((x) => Math.exp(x / temperature));
  const total = weights.reduce((a, b) => a + b);
  return weights.map((w) => w / total);
}

/** Share of each token among draws at evenly spaced u: the distribution itself, to 1 / draws. */
function shares(options: Parameters<typeof checkSampling>[0], draws = 20_000): number[] {
  const sampling = checkSampling(options);
  const counts = Array.from(LOGITS, () => 0);
  for (let i = 0; i < draws; i++) counts[sampleToken(LOGITS, sampling, (i + 0.5) / draws)]!++;
  return counts.map((n) => n / draws);
}

function close(actual: readonly number[], wanted: readonly number[]): boolean {
  return actual.every((x, i) => Math.abs(x - wanted[i]!) < 1e-3);
}

test('the plain distribution is the softmax, at any temperature', (t) => {
  t.true(close(shares({}), softmax(LOGITS)));
  t.true(close(shares({ temperature: 0.3 }), softmax(LOGITS, 0.3)));
  t.true(close(shares({ temperature: 5 }), softmax(LOGITS, 5)));
});

test('top-k keeps the k most probable and renormalises', (t) => {
  for (let k = 1; k <= 8; k++) {
    const ranked = [1, 4, 2, 0, 5, 3].slice(0, k);
    const p = softmax(LOGITS).map((x, i) => (ranked.includes(i) ? x : 0));
    const total = p.reduce((a, b) => a + b);
    t.true(
      close(
        shares({ topK: k }),
        p.map((x) => x / total),
      ),
      `k ${k}`,
    );
  }
});

test('top-p keeps the smallest set that reaches p', (t) => {
  const p = softmax(LOGITS);
  const order = [1, 4, 2, 0, 5, 3];
  for (const topP of [0.01, 0.4, 0.6, 0.81, 0.9, 0.99, 0.999, 1]) {
    let sum = 0;
    const kept = order.filter((i) => {
      const wanted = sum < topP;
      sum += wanted ? p[i]! : 0;
      return wanted;
    });
    const total = kept.reduce((a, i) => a + p[i]!, 0);
    t.true(
      close(
        shares({ topP }),
        p.map((x, i) => (kept.includes(i) ? x / total : 0)),
      ),
      `p ${topP}`,
    );
  }
});

test('ties under top-k go to the lower id', (t) => {
  const flat = Float32Array.of(1, 1, 1, 1);
  const drawn = new Set(
    Array.from({ length: 100 }, (_, i) => sampleToken(flat, checkSampling({ topK: 2 }), i / 100)),
  );
  t.deepEqual([...drawn], [0, 1]);
});

test('-Infinity is never drawn; NaN and +Infinity are refused as divergence', (t) => {
  const masked = Float32Array.of(-Infinity, 0, -Infinity);
  for (const u of [0, 0.5, 0.999999]) t.is(sampleToken(masked, checkSampling({}), u), 1);
  for (const bad of [Number.NaN, Infinity])
    t.is(
      t.throws(() => sampleToken(Float32Array.of(0, bad, 1), checkSampling({}), 0), {
        instanceOf: GsaError,
      })!.code,
      'DIVERGED',
    );
});

test('uniform numbers are even, repeatable and differ by seed, stream and index', (t) => {
  const bins = Array.from({ length: 16 }, () => 0);
  for (let i = 0; i < 16_000; i++) bins[Math.floor(uniform(7, i % 8, i >> 3) * 16)]!++;
  const chi2 = bins.reduce((sum, n) => sum + (n - 1000) ** 2 / 1000, 0);
  t.true(chi2 < 37.7, `chi squared of 15 degrees of freedom: ${chi2}`);
  t.is(uniform(1, 2, 3), uniform(1, 2, 3));
  t.is(
    new Set([uniform(1, 2, 3), uniform(2, 2, 3), uniform(1, 3, 3), uniform(1, 2, 4), uniform(2 ** 40, 2, 3)])
      .size,
    5,
  );
});

/** The definition, by sorting all tokens. */
function drawnBySorting(logits: Float32Array, options: SamplingOptions, u: number): number {
  const { temperature = 1, topK = logits.length, topP = 1 } = options;
  const top = Math.max(...logits);
  const weights = Array.from(logits, (x) => Math.exp((x - top) / temperature));
  let ids = weights.map((_, i) => i);
  if (topK < logits.length || topP < 1) ids.sort((a, b) => logits[b]! - logits[a]! || a - b);
  ids = ids.slice(0, topK);
  const mass = (of: readonly number[]) => of.reduce((sum, i) => sum + weights[i]!, 0);
  // Summed in the order of the ids where all tokens take part, as the sampler does.
  const goal = topP * mass(topK < logits.length ? ids : weights.map((_, i) => i));
  if (topP < 1) {
    let kept = 0;
    const end = ids.findIndex((i) => (kept += weights[i]!) >= goal);
    ids = end < 0 ? ids : ids.slice(0, end + 1);
  }
  let left = u * mass(ids);
  ids = ids.filter((i) => weights[i]! > 0);
  return ids.find((i) => (left -= weights[i]!) < 0) ?? ids.at(-1)!;
}

for (const options of [
  {},
  { temperature: 0.4 },
  { temperature: 30 },
  { topK: 1 },
  { topK: 40 },
  { topK: 1999 },
  { topK: 5000 },
  { topP: 0.05 },
  { topP: 0.9 },
  { topP: 0.9999 },
  { topK: 300, topP: 0.8, temperature: 1.5 },
])
  test(`every token is the one that sorting the whole vocabulary gives: ${JSON.stringify(options)}`, (t) => {
    const sampling = checkSampling(options);
    const drawn = new Set<number>();
    for (let n = 0; n < 60; n++) {
      // Of both signs and many magnitudes; every third vocabulary is coarse, so that many tokens are equal (with zeros of
      // both signs), every fifth has masked tokens, and some are offset within a larger array.
      const random = randomFrom(n);
      const values = Array.from({ length: 2003 }, (_, i) => {
        const x = 3 * random.normal();
        if (n % 5 === 4 && i % 3 === 0) return -Infinity;
        return n % 3 === 0 ? Math.trunc(x) : x;
      });
      const logits = Float32Array.from(values).subarray(n % 4);
      const u = uniform(5, n, 0);
      const token = sampleToken(logits, sampling, u);
      t.is(token, drawnBySorting(logits, options, u), `vocabulary ${n}`);
      drawn.add(token);
    }
    t.true(drawn.size > 5);
  });

for (const options of [
  { temperature: 0 },
  { temperature: Number.NaN },
  { topK: 0 },
  { topK: 1.5 },
  { topP: 0 },
  { topP: 1.1 },
  { seed: -1 },
  { seed: Number.NaN },
])
  test(`refused: ${JSON.stringify(options)}`, (t) => {
    t.is(t.throws(() => checkSampling(options), { instanceOf: GsaError })!.code, 'INVALID_ARGUMENT');
  });
