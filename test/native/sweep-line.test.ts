import test from 'ava';
import { runCompiled } from './compiled.js';

test('the schedule of the sweeps covers every step once and waits for earlier clusters only, N 1..16 H 1..5 T 1..4096, 200 draws of documents', (t) => {
  const printed = runCompiled(t, 'sweep_line.cc');
  if (printed === null) return;
  t.true(Number(printed) > 10_000, `clusters looked at: ${printed}`);
});
