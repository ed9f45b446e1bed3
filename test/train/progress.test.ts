import { Writable } from 'node:stream';
import test from 'ava';
import { bytes, compact, duration } from '#src/train/format.js';
import type { TrainEvent } from '#src/train/events.js';
import { Progress } from '#src/train/progress.js';

/** Collects what is written; looks like a terminal when asked. */
class Screen extends Writable {
  text = '';
  readonly columns = 120;
  constructor(readonly isTTY: boolean) {
    super();
  }
  override _write(chunk: unknown, _encoding: unknown, done: () => void): void {
    this.text += String(chunk);
    done();
  }
  cursorTo(): boolean {
    return true;
  }
  clearLine(): boolean {
    return true;
  }
  moveCursor(): boolean {
    return true;
  }
}

const START: TrainEvent = {
  type: 'start',
  output: 'x',
  parameters: 4_600_000,
  steps: 50,
  resumedFrom: 10,
  tokensPerStep: 2048,
  matmul: 'fp8',
  trainTokens: 2_500_000,
  validationTokens: 130_000,
  unigramEntropy: 6.5,
};

const step = (n: number, skipped = false): TrainEvent => ({
  type: 'step',
  step: n,
  loss: skipped ? null : 5.25,
  lr: 1e-3,
  gradNorm: skipped ? null : 0.5,
  tokens: 2048,
  tokensPerSecond: 4096,
  seconds: 0.5,
  ...(skipped ? { skipped } : {}),
});

async function show(isTTY: boolean, color: boolean, events: readonly TrainEvent[]): Promise<string> {
  const screen = new Screen(isTTY);
  const progress = await Progress.create(screen as unknown as NodeJS.WriteStream, { color });
  for (const event of events) progress.handle(event);
  progress.stop();
  progress.stop();
  return screen.text;
}

test('plain lines where there is no terminal: the first and the last step, skipped ones, and every message', async (t) => {
  const text = await show(false, false, [
    { type: 'status', message: 'packing' },
    START,
    ...Array.from({ length: 40 }, (_, i) => step(i + 11, i === 5)),
    { type: 'evaluation', step: 50, validationLoss: 5, validationPerplexity: 148.4131, validationTokens: 9 },
    { type: 'sample', step: 50, prompt: 'We ', text: 'the\n' },
    { type: 'warning', message: 'careful' },
  ]);
  t.deepEqual(text.split('\n'), [
    'packing',
    '4.6M parameters, 2.5M training and 130K validation tokens, 50 steps of 2.05K tokens, products of the blocks in fp8, resumed from step 10',
    'unigram entropy of the validation text: 6.5000 nats per token',
    'step 11/50 | loss 5.2500 | lr 1.00e-3 | norm 0.500 | 4.1K tok/s | ETA 20s',
    'step 16/50 | loss not finite (skipped) | lr 1.00e-3 | norm not finite | 4.1K tok/s | ETA 17s',
    'step 50/50 | loss 5.2500 | lr 1.00e-3 | norm 0.500 | 4.1K tok/s | ETA 0s',
    'step 50: validation loss 5.0000, perplexity 148.41',
    'step 50: "We the\\n"',
    'warning: careful',
    '',
  ]);
});

test('a bar on a terminal shows the figures; colours only when wanted', async (t) => {
  const events = [START, step(11), step(50)];
  const plain = await show(true, false, events);
  t.regex(plain, /█+ 50\/50 \| loss 5\.2500 \| lr 1\.00e-3 \| norm 0\.500 \| 4\.1K tok\/s \| ETA 0s/);
  // eslint-disable-next-line no-control-regex
  const colours = /\x1b\[3[0-7]m/;
  t.notRegex(plain, colours);
  t.regex(await show(true, true, events), colours);
});

test('showing a bar installs no handler of signals', async (t) => {
  const progress = await Progress.create(new Screen(true) as unknown as NodeJS.WriteStream, { color: false });
  const before = ['SIGINT', 'SIGTERM'].map((name) => process.listenerCount(name));
  progress.handle(START);
  t.deepEqual(
    ['SIGINT', 'SIGTERM'].map((name) => process.listenerCount(name)),
    before,
  );
  progress.stop();
});

test('numbers for people', (t) => {
  t.deepEqual([0, 7, 999, 1234, 47072, 1.377e9, 3e12].map(compact), [
    '0',
    '7',
    '999',
    '1.23K',
    '47.1K',
    '1.38B',
    '3T',
  ]);
  t.deepEqual([0, 59.4, 61, 3599, 7265].map(duration), ['0s', '59s', '1m01s', '59m59s', '2h01m']);
  t.deepEqual([0, 1023, 1024, 1.5 * 2 ** 30].map(bytes), ['0 B', '1023 B', '1 KiB', '1.5 GiB']);
});
