import test from 'ava';
import * as fc from 'fast-check';
import { GsaError } from '#src/native/errors.js';
import { warmupCosine } from '#src/optim/schedule.js';

test('the first step is not 0, the peak and the end are hit exactly', (t) => {
  const lr = warmupCosine({ peak: 3e-4, min: 3e-5, warmup: 7, total: 100 });
  t.is(lr(0), 3e-4 / 7);
  t.is(lr(6), 3e-4);
  t.is(lr(99), 3e-5);
  t.is(lr(100), 3e-5);
  t.is(lr(10_000), 3e-5);
  t.true(Math.abs(lr(6 + 93 / 3) - (3e-5 + (2.7e-4 * (1 + Math.cos(Math.PI / 3))) / 2)) < 1e-18);
});

test('any schedule rises to its peak, falls to its minimum and never leaves their range', (t) => {
  const settings = fc
    .record({
      total: fc.integer({ min: 1, max: 400 }),
      part: fc.double({ min: 0, max: 1, noNaN: true }),
      peak: fc.double({ min: 1e-9, max: 10, noNaN: true }),
      floor: fc.double({ min: 0, max: 1, noNaN: true }),
    })
    .map(({ total, part, peak, floor }) => ({
      peak,
      min: peak * floor,
      warmup: Math.floor(part * total),
      total,
    }));
  fc.assert(
    fc.property(settings, (options) => {
      const { peak, min, warmup, total } = options;
      const lr = warmupCosine(options);
      const top = Math.max(warmup - 1, 0);
      const rates = Array.from({ length: total }, (_, step) => lr(step));
      t.is(rates[top], peak);
      if (top < total - 1) t.is(rates[total - 1], min);
      for (let i = 1; i < total; i++) {
        if (i <= top) t.true(rates[i]! > rates[i - 1]!);
        else t.true(rates[i]! <= rates[i - 1]!);
      }
      t.true(rates.every((rate, i) => rate > 0 || (i === total - 1 && min === 0)));
      t.true(rates.every((rate, i) => i < top || (rate >= min && rate <= peak)));
    }),
  );
});

test('no warm-up starts at the peak; a warm-up over everything ends at it', (t) => {
  const none = warmupCosine({ peak: 1, warmup: 0, total: 3 });
  t.deepEqual([none(0), none(1), none(2)], [1, 0.5, 0]);
  const all = warmupCosine({ peak: 1, warmup: 4, total: 4 });
  t.deepEqual([0, 1, 2, 3].map(all), [0.25, 0.5, 0.75, 1]);
  t.is(warmupCosine({ peak: 1, warmup: 0, total: 1 })(0), 1);
});

test('settings without sense are refused', (t) => {
  const base = { peak: 1, min: 0, warmup: 2, total: 10 };
  for (const bad of [
    { peak: NaN },
    { peak: -1 },
    { min: 2 },
    { min: -1 },
    { warmup: 11 },
    { warmup: 1.5 },
    { total: 0 },
    { total: NaN },
  ])
    t.throws(
      () => warmupCosine({ ...base, ...bad }),
      { instanceOf: GsaError, code: 'INVALID_ARGUMENT' },
      JSON.stringify(bad),
    );
  for (const step of [-1, 0.5, NaN])
    t.throws(() => warmupCosine(base)(step), { instanceOf: GsaError, code: 'INVALID_ARGUMENT' });
});
