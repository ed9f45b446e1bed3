import { join } from 'node:path';
import { packageRoot } from '#src/native/load.js';

/** A path under test/fixtures. */
export function fixture(...parts: string[]): string {
  return join(packageRoot(), 'test', 'fixtures', ...parts);
}
