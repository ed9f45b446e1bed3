import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import test from 'ava';

interface Measured {
  finalized: number;
  alive: number;
  currentBytes: number;
  cachedBytes: number;
  peakBytes: number;
  rss: number;
}

interface Ended {
  code: number | string;
  signal: string | null;
  stdout: string;
  stderr: string;
}

// The young generation of the JavaScript heap grows by itself; held small, what is left is this package's doing.
const NODE_FLAGS = ['--expose-gc', '--max-semi-space-size=1'];

// How much scratch memory kernels of several threads hold at one time, and so what is kept of it, is up to their timing.
const ONE_THREAD = { ...process.env, FLASH_GSA_THREADS: '1' };

function child(...args: string[]): Promise<Ended> {
  const script = fileURLToPath(new URL('memory_child.js', import.meta.url));
  return new Promise((resolve) =>
    execFile(
      process.execPath,
      [...NODE_FLAGS, script, ...args],
      { env: ONE_THREAD },
      (error, stdout, stderr) =>
        resolve({ code: error?.code ?? 0, signal: error?.signal ?? null, stdout, stderr }),
    ),
  );
}

test('1000 training steps of a tiny model, fp32: native memory stays to the byte, the process does not grow', async (t) => {
  const ended = await child();
  t.is(ended.code, 0, ended.stderr);
  const { first, last, before, after } = JSON.parse(ended.stdout) as {
    first: number;
    last: number;
    before: Measured;
    after: Measured;
  };
  t.true(last < first / 2, `the loss fell from ${first} to ${last}: the steps were real`);
  for (const name of ['alive', 'currentBytes', 'cachedBytes', 'peakBytes'] as const)
    t.is(after[name], before[name], name);
  t.is(after.finalized, 0, 'nothing was left to garbage collection');
  const grown = (after.rss - before.rss) / 2 ** 20;
  t.true(grown < 12, `the process grew by ${grown.toFixed(1)} MiB in 800 steps`);
});

test('a process that ends with a live model, optimizer and tape ends cleanly', async (t) => {
  const { code, signal, stderr } = await child('keep');
  t.deepEqual({ code, signal, stderr }, { code: 0, signal: null, stderr: '' });
});
