import test from 'ava';
import {
  judge,
  largestDifference,
  largestRelativeDifference,
  mismatches,
  norm,
  relativeError,
} from '#src/verify/compare.js';

test('errors are what their names say', (t) => {
  t.is(norm([3, 4]), 5);
  t.is(relativeError([3, 4.5], [3, 4]), 0.1);
  t.is(relativeError([3, 4.5], [3, 4], 50), 0.01);
  t.is(largestDifference([1, -2], [1.5, -4]), 2);
  t.is(largestRelativeDifference([1.1, 4], [1, 4]), 1.1 - 1);
  t.is(mismatches([1, 2, 3], [1, 5, 4]), 2);
});

test('equal values have no error, whatever their norm', (t) => {
  t.is(relativeError([0, 0], [0, 0]), 0);
  t.is(relativeError([1], [1], 0), 0);
  t.is(relativeError([], []), 0);
  t.is(relativeError([1e-9], [0]), Infinity);
  t.is(largestRelativeDifference([0], [0]), 0);
});

test('a value that is not finite never passes', (t) => {
  for (const bad of [NaN, Infinity, -Infinity])
    for (const measure of [relativeError, largestDifference, largestRelativeDifference]) {
      t.false(judge('f', 'c', measure([1, bad], [1, 2]), Infinity).pass, `${measure.name} actual ${bad}`);
      t.false(judge('f', 'c', measure([1, 2], [1, bad]), Infinity).pass, `${measure.name} expected ${bad}`);
      t.false(judge('f', 'c', measure([1, bad], [1, bad]), Infinity).pass, `${measure.name} both ${bad}`);
    }
  t.false(judge('f', 'c', NaN, 1).pass);
});

test('an error at the bound passes, above it not', (t) => {
  t.true(judge('f', 'c', 1e-5, 1e-5).pass);
  t.false(judge('f', 'c', 1.0000001e-5, 1e-5).pass);
});

test('lists of different lengths are a malformed file', (t) => {
  for (const measure of [relativeError, largestDifference, largestRelativeDifference, mismatches])
    t.throws(() => measure([1], [1, 2]), { code: 'INVALID_FILE' });
});
