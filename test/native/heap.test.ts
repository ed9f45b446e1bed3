import test from 'ava';
import { runCompiled } from './compiled.js';

test('blocks of the device heap do not overlap, have memory, grow together again, and repeat from step to step: 60,000 random calls', (t) => {
  const printed = runCompiled(t, 'heap.cc');
  if (printed === null) return;
  t.is(Number(printed), 60_000);
});
