import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test from 'ava';

const source = fileURLToPath(new URL('../../../test/native/sweep_line.cc', import.meta.url));
const compiler = process.env.CXX ?? 'c++';

test('the schedule of the sweeps covers every step once and waits for earlier clusters only, N 1..16 H 1..5 T 1..4096, 200 draws of documents', (t) => {
  // The bundle for GPU hosts runs this suite without a compiler or sources.
  if (!existsSync(source) || spawnSync(compiler, ['--version']).status !== 0) {
    t.log(`SKIPPED: needs a checkout and a C++ compiler (${compiler})`);
    return t.pass();
  }
  const folder = mkdtempSync(join(tmpdir(), 'sweep-line-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  const program = join(folder, 'sweep_line');
  execFileSync(compiler, ['-std=c++17', '-O1', source, '-o', program]);
  const run = spawnSync(program, { encoding: 'utf8' });
  t.is(run.status, 0, run.stdout);
  t.true(Number(run.stdout) > 10_000, `clusters looked at: ${run.stdout}`);
});
