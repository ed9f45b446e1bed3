import test from 'ava';
import * as fc from 'fast-check';
import { tokensInMemory } from '#src/data/dataset.js';
import { countTokens, unigramEntropy } from '#src/data/entropy.js';
import { Permutation } from '#src/data/permutation.js';
import { BatchSampler, IGNORED, validationBatches, type Batch } from '#src/data/sampler.js';
import { GsaError } from '#src/native/errors.js';

const EOS = 0;

/** Tokens that tell their place: 1, 2, 3, ... without the end-of-document token. */
function counting(length: number) {
  const ids = Int32Array.from({ length }, (_, i) => i + 1);
  return tokensInMemory(ids, { eosId: EOS, vocabSize: length + 1 });
}

/** The windows in a batch, by number. */
function windowsOf(batch: Batch, seqLen: number): number[] {
  const windows: number[] = [];
  for (let row = 0; row < batch.ids.length; row += seqLen) windows.push((batch.ids[row]! - 1) / seqLen);
  return windows;
}

test('a permutation visits every place once, for any size, and depends on seed and epoch', (t) => {
  const visit = (size: number, seed: number, epoch: number) => {
    const permutation = new Permutation(size, seed, epoch);
    return Array.from({ length: size }, (_, i) => permutation.at(i));
  };
  for (let size = 1; size <= 70; size++)
    t.deepEqual(
      visit(size, 1, 0).toSorted((a, b) => a - b),
      Array.from({ length: size }, (_, i) => i),
    );
  fc.assert(
    fc.property(fc.integer({ min: 2, max: 3000 }), fc.nat(), fc.nat(9), (size, seed, epoch) => {
      t.is(new Set(visit(size, seed, epoch)).size, size);
    }),
    { numRuns: 50, seed: 8 },
  );
  t.deepEqual(visit(50, 7, 3), visit(50, 7, 3));
  const others = [visit(50, 8, 3), visit(50, 7, 4), visit(50, 7 + 2 ** 32, 3), visit(50, 7, 3 + 2 ** 32)];
  for (const other of others) t.notDeepEqual(other, visit(50, 7, 3));
});

test('a permutation is close to uniform: places, neighbours and fixed points', (t) => {
  const size = 64;
  const draws = 6400;
  const atZero = new Float64Array(size);
  let neighbours = 0;
  let fixed = 0;
  for (let epoch = 0; epoch < draws; epoch++) {
    const permutation = new Permutation(size, 42, epoch);
    atZero[permutation.at(0)]!++;
    if (permutation.at(11) === permutation.at(10) + 1) neighbours++;
    for (let i = 0; i < size; i++) if (permutation.at(i) === i) fixed++;
  }
  // Chi-squared with 63 degrees of freedom stays below 110 but for one case in 5000.
  const chi = atZero.reduce((sum, count) => sum + (count - draws / size) ** 2 / (draws / size), 0);
  t.true(chi < 110, `chi-squared ${chi}`);
  t.true(Math.abs(neighbours - draws * (63 / 64 / 63)) < 50, `${neighbours} neighbours, 100 expected`);
  t.true(Math.abs(fixed / draws - 1) < 0.06, `${fixed / draws} fixed points, 1 expected`);
});

test('a permutation of 2^40 places stays inside and does not repeat', (t) => {
  const permutation = new Permutation(2 ** 40 - 3, 5, 1);
  const seen = new Set(Array.from({ length: 20_000 }, (_, i) => permutation.at(i * 50_000_000)));
  t.is(seen.size, 20_000);
  for (const place of seen) t.true(Number.isInteger(place) && place >= 0 && place < 2 ** 40 - 3);
});

for (const [batch, seqLen, length] of [
  [1, 1, 2],
  [3, 4, 101],
  [4, 8, 80],
  [8, 5, 23],
] as const)
  test(`every window once an epoch, labels one further, B=${batch} T=${seqLen} of ${length} tokens, int32`, (t) => {
    const sampler = new BatchSampler(counting(length), { batch, seqLen, seed: 1 });
    const windows = Math.floor((length - 1) / seqLen);
    t.is(sampler.windows, windows);
    const order: number[] = [];
    for (let i = 0; i < Math.ceil((3 * windows) / batch); i++) {
      const { ids, labels, shape, tokens, cuSeqlens } = sampler.next();
      t.deepEqual(shape, [batch, seqLen]);
      t.is(tokens, batch * seqLen);
      t.is(cuSeqlens, null);
      t.deepEqual(
        labels,
        ids.map((id) => id + 1),
      );
      order.push(...windowsOf({ ids, labels, shape, tokens, cuSeqlens }, seqLen));
    }
    for (let epoch = 0; epoch < 3; epoch++) {
      const part = order.slice(epoch * windows, (epoch + 1) * windows);
      t.deepEqual(
        part.toSorted((a, b) => a - b),
        Array.from({ length: windows }, (_, i) => i),
      );
    }
    t.is(sampler.epochs, order.length / windows);
  });

test('epochs are shuffled differently, seeds too, and the same seed the same', (t) => {
  const order = (seed: number) => {
    const sampler = new BatchSampler(counting(401), { batch: 1, seqLen: 4, seed });
    return Array.from({ length: 200 }, () => windowsOf(sampler.next(), 4)[0]!);
  };
  const one = order(1);
  t.deepEqual(order(1), one);
  t.notDeepEqual(order(2), one);
  t.notDeepEqual(one.slice(0, 100), one.slice(100));
  t.notDeepEqual(
    one.slice(0, 100),
    one.slice(0, 100).toSorted((a, b) => a - b),
  );
});

test('batch size, accumulation and ranks cut one sequence of windows', (t) => {
  const options = { seqLen: 4, seed: 9 };
  const whole = new BatchSampler(counting(150), { ...options, batch: 12 });
  const micro = new BatchSampler(counting(150), { ...options, batch: 3 });
  const ranks = [0, 1, 2].map(
    (rank) => new BatchSampler(counting(150), { ...options, batch: 4, rank, world: 3 }),
  );
  for (let step = 0; step < 12; step++) {
    const wanted = windowsOf(whole.next(), 4);
    t.deepEqual(
      [0, 1, 2, 3].flatMap(() => windowsOf(micro.next(), 4)),
      wanted,
    );
    t.deepEqual(
      ranks.flatMap((rank) => windowsOf(rank.next(), 4)),
      wanted,
    );
    for (const rank of ranks) t.deepEqual(rank.state(), whole.state());
  }
});

test('a restored sampler goes on exactly, at every place of two epochs', (t) => {
  const create = () => new BatchSampler(counting(60), { batch: 3, seqLen: 7, seed: 4 });
  const straight = create();
  for (let i = 0; i < 6; i++) {
    const state = JSON.parse(JSON.stringify(straight.state()));
    const resumed = create();
    resumed.restore(state);
    t.deepEqual(resumed.state(), straight.state());
    const ahead = create();
    ahead.restore(state);
    t.deepEqual(ahead.next(), resumed.next());
    t.deepEqual(ahead.next(), resumed.next());
    const wanted = straight.next();
    const again = create();
    again.restore(state);
    t.deepEqual(again.next(), wanted);
  }
});

test('a state of another run is refused', (t) => {
  const sampler = new BatchSampler(counting(60), { batch: 3, seqLen: 7, seed: 4 });
  const state = sampler.state();
  const wrong: [object, RegExp][] = [
    [{ seed: 5 }, /seed/],
    [{ seqLen: 8 }, /seqLen/],
    [{ windows: 9 }, /windows/],
    [{ index: 8 }, /index/],
    [{ index: -1 }, /index/],
    [{ epoch: Number.NaN }, /epoch/],
  ];
  for (const [change, message] of wrong)
    t.throws(() => sampler.restore({ ...state, ...change }), { instanceOf: GsaError, message });
  t.throws(() => sampler.restore(undefined as never), { instanceOf: GsaError });
  t.deepEqual(sampler.state(), state);
});

test('wrong options are refused', (t) => {
  const good = { batch: 2, seqLen: 4, seed: 0 };
  const wrong: [object, RegExp][] = [
    [{ batch: 0 }, /batch/],
    [{ seqLen: 0.5 }, /seqLen/],
    [{ seed: -1 }, /seed/],
    [{ seed: Number.NaN }, /seed/],
    [{ world: 0 }, /world/],
    [{ rank: 1 }, /rank/],
    [{ seqLen: 20 }, /at least 21 tokens/],
  ];
  for (const [change, message] of wrong)
    t.throws(() => new BatchSampler(counting(20), { ...good, ...change }), { instanceOf: GsaError, message });
  t.throws(() => new BatchSampler(counting(0), good), { instanceOf: GsaError, message: /has 0/ });
  for (const change of [{ batch: 0 }, { seqLen: -1 }, { limit: 0 }])
    t.throws(() => validationBatches(counting(20), { ...good, ...change }).next(), {
      instanceOf: GsaError,
      message: new RegExp(`for ${Object.keys(change)[0]} `),
    });
  t.throws(() => validationBatches(counting(1), good).next(), { instanceOf: GsaError, message: /2 tokens/ });
});

test('document rows: sequences start at windows and documents, and no label crosses, B=4 T=6', (t) => {
  // Documents of 1 to 7 tokens, each ended by EOS.
  const ids: number[] = [];
  for (let i = 0; ids.length < 200; i++) {
    for (let k = 0; k <= (i * 5) % 7; k++) ids.push(1 + (ids.length % 97));
    ids.push(EOS);
  }
  const source = tokensInMemory(Int32Array.from(ids), { eosId: EOS, vocabSize: 98 });
  const options = { batch: 4, seqLen: 6, seed: 2 };
  const sampler = new BatchSampler(source, { ...options, documents: true });
  const plain = new BatchSampler(source, options);
  for (let step = 0; step < 20; step++) {
    const row = sampler.next();
    const same = plain.next();
    t.deepEqual(row.shape, [1, 24]);
    t.deepEqual(row.ids, same.ids);
    const starts = [...row.cuSeqlens!];
    t.is(starts[0], 0);
    t.is(starts.at(-1), 24);
    for (let i = 0; i < 24; i++) {
      const last = row.ids[i] === EOS;
      t.is(row.labels[i], last ? IGNORED : same.labels[i]!);
      t.is(starts.includes(i), i % 6 === 0 || row.ids[i - 1] === EOS);
    }
    t.true(starts.every((start, i) => i === 0 || start > starts[i - 1]!));
    t.is(row.tokens, row.labels.filter((label) => label !== IGNORED).length);
  }
  t.deepEqual(sampler.state(), plain.state());
});

test('validation counts every token but the first exactly once, in order', (t) => {
  for (const [length, batch, seqLen] of [
    [2, 1, 1],
    [2, 4, 8],
    [33, 4, 8],
    [34, 4, 8],
    [64, 3, 5],
    [65, 2, 64],
  ] as const) {
    const seen: number[] = [];
    let tokens = 0;
    for (const part of validationBatches(counting(length), { batch, seqLen })) {
      t.is(part.ids.length, part.shape[0] * part.shape[1]);
      t.is(part.labels.length, part.ids.length);
      t.is(part.shape[1], seqLen);
      t.true(part.shape[0] <= batch);
      part.labels.forEach((label, i) => {
        if (label === IGNORED) return t.is(part.ids[i], EOS);
        t.is(label, part.ids[i]! + 1);
        seen.push(label);
      });
      tokens += part.tokens;
    }
    t.deepEqual(
      seen,
      Array.from({ length: length - 1 }, (_, i) => i + 2),
      `${length} ${batch} ${seqLen}`,
    );
    t.is(tokens, length - 1);
  }
  t.is([...validationBatches(counting(100), { batch: 2, seqLen: 8, limit: 3 })].length, 3);
});

test('unigram entropy, by hand', (t) => {
  const train = tokensInMemory(Int32Array.of(0, 0, 0, 1), { eosId: 0, vocabSize: 3 });
  const validation = tokensInMemory(Int32Array.of(0, 1, 1, 2), { eosId: 0, vocabSize: 3 });
  t.deepEqual(countTokens(validation), Float64Array.of(1, 2, 1));
  const { crossEntropy, entropy } = unigramEntropy(train, validation);
  const p = [4 / 7, 2 / 7, 1 / 7];
  t.true(Math.abs(crossEntropy + (Math.log(p[0]!) + 2 * Math.log(p[1]!) + Math.log(p[2]!)) / 4) < 1e-12);
  t.true(Math.abs(entropy - 1.5 * Math.LN2) < 1e-12);
  t.true(crossEntropy >= entropy);
  const none = tokensInMemory(new Int32Array(0), { eosId: 0, vocabSize: 3 });
  t.throws(() => unigramEntropy(train, none), { instanceOf: GsaError });
});
