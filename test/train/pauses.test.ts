import { setImmediate as nextTurn } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import test from 'ava';
import { GarbageCollections } from '#src/train/pauses.js';

test('a garbage collection is counted in the stretch in which it began, once', async (t) => {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  const collections = new GarbageCollections();
  const before = performance.now();
  collect();
  const after = performance.now();
  await nextTurn();
  await nextTurn();
  collect();
  const end = performance.now();
  await nextTurn();
  const first = collections.take(before, after);
  t.true(first > 0 && first <= after - before, `${first} of ${after - before} ms`);
  t.is(collections.take(before, after), 0, 'told once');
  const second = collections.take(after, end);
  t.true(second > 0 && second <= end - after, `${second} of ${end - after} ms`);
  collections.close();
  const from = performance.now();
  collect();
  await nextTurn();
  t.is(collections.take(from, performance.now()), 0, 'none after it was closed');
});
