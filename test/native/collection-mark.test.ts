import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test from 'ava';

const source = fileURLToPath(new URL('../../../test/native/collection_mark.cc', import.meta.url));
const compiler = process.env.CXX ?? 'c++';

test('no step of a training after the first 50 is stopped for a collection, and forgotten tensors do not pile up', (t) => {
  // The bundle for GPU hosts runs this suite without a compiler or sources.
  if (!existsSync(source) || spawnSync(compiler, ['--version']).status !== 0) {
    t.log(`SKIPPED: needs a checkout and a C++ compiler (${compiler})`);
    return t.pass();
  }
  const folder = mkdtempSync(join(tmpdir(), 'collection-mark-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  const program = join(folder, 'collection_mark');
  execFileSync(compiler, ['-std=c++17', '-O1', source, '-o', program]);
  const run = spawnSync(program, { encoding: 'utf8' });
  t.is(run.status, 0, run.stdout);
  t.log(run.stdout);
  const counted = new Map(
    [...run.stdout.matchAll(/^(.+): (\d+) now, (\d+) soon, (\d+) MiB$/gm)].map(([, name, ...numbers]) => {
      const [now, soon, most] = numbers.map(Number) as [number, number, number];
      return [name!, { now, soon, most }];
    }),
  );
  const steps = counted.get('2,000 more')!;
  t.is(steps.now, 0);
  t.true(steps.soon <= 8);
  for (const name of ['forgetting', 'forgetting after 50 GiB']) {
    t.true(counted.get(name)!.most < 3 * 1024, name);
    t.true(counted.get(name)!.now > 100, name);
  }
});
