import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test from 'ava';

const source = fileURLToPath(new URL('../../../test/native/heap.cc', import.meta.url));
const compiler = process.env.CXX ?? 'c++';

test('blocks of the device heap do not overlap, have memory, grow together again, and repeat from step to step: 60,000 random calls', (t) => {
  // The bundle for GPU hosts runs this suite without a compiler or sources.
  if (!existsSync(source) || spawnSync(compiler, ['--version']).status !== 0) {
    t.log(`SKIPPED: needs a checkout and a C++ compiler (${compiler})`);
    return t.pass();
  }
  const folder = mkdtempSync(join(tmpdir(), 'heap-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  const program = join(folder, 'heap');
  execFileSync(compiler, ['-std=c++17', '-O1', source, '-o', program]);
  const run = spawnSync(program, { encoding: 'utf8' });
  t.is(run.status, 0, run.stdout);
  t.is(Number(run.stdout), 60_000);
});
