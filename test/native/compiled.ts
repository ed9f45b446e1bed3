import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { ExecutionContext } from 'ava';

const compiler = process.env.CXX ?? 'c++';

/** Compiles and runs a C++ program of this folder, which must succeed.
 * @returns what it printed; null where there is no source or no compiler, as in the bundle for GPU hosts, and then the test
 * has passed, saying so */
export function runCompiled(t: ExecutionContext, name: string): string | null {
  const source = fileURLToPath(new URL(`../../../test/native/${name}`, import.meta.url));
  if (!existsSync(source) || spawnSync(compiler, ['--version']).status !== 0) {
    t.log(`SKIPPED: needs a checkout and a C++ compiler (${compiler})`);
    t.pass();
    return null;
  }
  const folder = mkdtempSync(join(tmpdir(), 'flash-gsa-compiled-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  const program = join(folder, 'program');
  execFileSync(compiler, ['-std=c++17', '-O1', source, '-o', program]);
  const { status, stdout } = spawnSync(program, { encoding: 'utf8' });
  t.is(status, 0, stdout);
  return stdout;
}
