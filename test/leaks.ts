import type { ExecutionContext } from 'ava';
import { native } from '#src/native/load.js';

/** Runs `body` and asserts that it left as many storages alive as it found, and that none had to be finalized. */
export function assertNoLeak(t: ExecutionContext, body: () => void): void {
  const before = native().leaks();
  body();
  const after = native().leaks();
  t.is(after.alive, before.alive, 'storages alive');
  t.is(after.finalized, before.finalized, 'storages freed by garbage collection');
}
