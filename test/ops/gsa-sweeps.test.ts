import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test from 'ava';
import { testDevices } from '../devices.js';

const SUITES = ['bfloat16', 'gsa', 'gsa-layer', 'gsa-slots', 'gsa-traps'];

const gpus = testDevices().filter(({ backend }) => backend === 'cuda');
if (gpus.length === 0) test.skip(`suites ${SUITES.join(', ')} with each path forced, on a GPU`, () => {});

// Test shapes are small, and small ones take the exact kernels unless this is said in the environment before the process
// starts.
for (const { environment, path } of [
  { environment: { FLASH_GSA_SWEEP: '1' }, path: 'sweep' },
  { environment: { FLASH_GSA_SWEEP: '0' }, path: 'exact tensor-core' },
  { environment: { FLASH_GSA_SWEEP: '0', FLASH_GSA_EXACT: '0' }, path: 'tensor-core' },
])
  for (const dev of gpus)
    test(`${dev} suites ${SUITES.join(', ')} with ${JSON.stringify(environment)}`, (t) => {
      t.timeout(200_000);
      const root = fileURLToPath(new URL('../../../', import.meta.url));
      const run = spawnSync(
        process.execPath,
        [
          join(root, 'node_modules/ava/entrypoints/cli.mjs'),
          '--concurrency',
          '3',
          ...SUITES.map((name) => `.build/test/ops/${name}.test.js`),
        ],
        {
          cwd: root,
          encoding: 'utf8',
          env: { ...process.env, ...environment, FLASH_GSA_TRACE: '1' },
          maxBuffer: 1 << 28,
        },
      );
      const log = run.stdout + run.stderr;
      const taken = (name: string): number =>
        log.split('\n').filter((line) => line.includes(`: ${name} path, bfloat16`)).length;
      const paths = ['sweep', 'exact tensor-core', 'tensor-core'];
      t.log(paths.map((name) => `${taken(name)} calls took the ${name} path`).join(', '));
      t.is(run.status, 0, run.stdout.slice(-4000));
      t.true(taken(path) > 0, `no call took the ${path} path`);
      if (environment.FLASH_GSA_SWEEP === '0') t.is(taken('sweep'), 0);
      if (environment.FLASH_GSA_SWEEP === '1')
        for (const M of [64, 128]) t.regex(log, new RegExp(`sweep path, bfloat16.* M ${M} `));
      if (environment.FLASH_GSA_EXACT === '0') t.is(taken('exact tensor-core'), 0);
      // Other numbers of slots than 64 are never a reason for the general path.
      for (const M of [16, 20, 32, 128]) t.regex(log, new RegExp(`tensor-core path, bfloat16.* M ${M} `));
    });
