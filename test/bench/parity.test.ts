import { readFileSync, writeFileSync } from 'node:fs';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import test from 'ava';
import { packageRoot } from '#src/native/load.js';
import { tempFolder } from '../io/temp.js';
import { tinyConfig } from '../train/tiny.js';

const SCRIPT = join(packageRoot(), '.build', 'bench', 'parity', 'index.js');

function parity(...args: string[]): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(process.execPath, [SCRIPT, ...args], { encoding: 'utf8', timeout: 120_000 });
}

test('two trainings from one preparation agree to the last bit, and what differs beyond the bound fails', (t) => {
  const folder = tempFolder(t);
  const config = join(folder, 'config.json');
  const tiny = tinyConfig('unused', { steps: 12, gradientAccumulation: 1 });
  writeFileSync(config, JSON.stringify(tiny));
  const run = join(folder, 'run');
  t.is(parity('prepare', run, '--config', config).status, 0);
  for (const name of ['one', 'two']) {
    const { status, stdout, stderr } = parity('train', run, '--name', name);
    t.is(status, 0, stderr);
    t.regex(stdout, new RegExp(`^${name}: 12 steps, loss 5\\.9`));
  }
  const read = (name: string) =>
    JSON.parse(readFileSync(join(run, `losses-${name}.json`), 'utf8')) as { losses: number[] };
  t.deepEqual(read('one').losses, read('two').losses);
  t.true(read('one').losses.at(-1)! < read('one').losses[0]! - 0.5, 'it learns');
  t.regex(parity('compare', run, 'one', 'two', '--last', '5').stdout, /0\.000% apart, bound 0\.5%.*: ok/);
  const off = read('two').losses.map((loss, i) => (i < 7 ? loss : loss * 1.006));
  writeFileSync(join(run, 'losses-off.json'), JSON.stringify({ losses: off }));
  const refused = parity('compare', run, 'off', 'two', '--last', '5');
  t.is(refused.status, 1);
  t.regex(refused.stdout, /0\.600% apart.*TOO FAR/);
  t.not(parity('compare', run, 'one', 'two').status, 0, 'fewer steps than the 50 that are asked for');
});
