import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, readdirSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { readMetrics } from '#src/train/metrics.js';
import type { TrainConfigInput } from '#src/train/schema.js';
import { tempFolder } from '../io/temp.js';
import { tinyConfig } from '../train/tiny.js';
import { MAIN, parseLines, run, start } from './run.js';

/** Writes a configuration; its output is `<folder>/run`. */
function setUp(folder: string, changes: Partial<TrainConfigInput> = {}): { config: string; output: string } {
  const output = join(folder, 'run');
  const config = join(folder, 'config.json');
  writeFileSync(config, JSON.stringify(tinyConfig(output, changes)));
  return { config, output };
}

const losses = (output: string): (number | null)[] => readMetrics(output).steps.map((r) => r.loss);

test('16 steps straight, and 8 + 8 across a kill -9 in step 11, have equal losses to the last bit', async (t) => {
  const straight = setUp(tempFolder(t));
  t.is((await run(['train', '--config', straight.config])).code, 0);

  const broken = setUp(tempFolder(t));
  const script = `
    import { train } from ${JSON.stringify(import.meta.resolve('#src/train/loop.js'))};
    import { loadTrainConfig } from ${JSON.stringify(import.meta.resolve('#src/train/config.js'))};
    await train(await loadTrainConfig(${JSON.stringify(broken.config)}), {
      onEvent: (event) => event.type === 'step' && event.step === 10 && process.kill(process.pid, 'SIGKILL'),
    });`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: 'inherit' });
  const [, signal] = (await once(child, 'exit')) as [number | null, string | null];
  t.is(signal, 'SIGKILL');
  t.is(readMetrics(broken.output).steps.length, 10);
  t.true(existsSync(join(broken.output, '.lock')), 'a killed process leaves its lock');

  const resumed = await run(['train', '--config', broken.config, '--resume', '--json']);
  t.is(resumed.code, 0, resumed.stderr);
  const events = parseLines(resumed.stdout);
  t.is(events.find((e) => e['type'] === 'start')!['resumedFrom'], 8);
  t.is(events.filter((e) => e['type'] === 'step').length, 8);
  t.is(losses(straight.output).length, 16);
  t.deepEqual(losses(broken.output), losses(straight.output));
  const weights = (output: string): Buffer => readFileSync(join(output, 'step-000016', 'model.safetensors'));
  t.true(weights(broken.output).equals(weights(straight.output)));
});

for (const [signal, code] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
] as const)
  test(`${signal} finishes the step, saves and exits with ${code}; the run then goes on to equal losses`, async (t) => {
    const { config, output } = setUp(tempFolder(t), { steps: 100_000 });
    const running = start(['train', '--config', config, '--json']);
    await running.waitFor(/"type":"step","step":3,/);
    running.child.kill(signal);
    const ended = await running.done;
    t.is(ended.code, code, ended.stderr);
    t.regex(ended.stderr, new RegExp(`${signal}: finishing this step and saving`));
    const events = parseLines(ended.stdout);
    const end = events.at(-1)!;
    t.is(end['type'], 'end');
    t.is(end['status'], 'interrupted');
    const step = end['step'] as number;
    t.true(step >= 3 && step < 100_000);
    t.true(existsSync(join(output, `step-${String(step).padStart(6, '0')}`, 'trainer.json')));

    const total = `steps=${step + 4}`;
    t.is((await run(['train', '--config', config, '--set', total])).code, 0);
    const straight = setUp(tempFolder(t));
    t.is((await run(['train', '--config', straight.config, '--set', total])).code, 0);
    t.deepEqual(losses(output), losses(straight.output));
  });

test('a second signal leaves at once, while the first is still being answered', async (t) => {
  const script = `
    import { withSignals } from ${JSON.stringify(import.meta.resolve('#src/cli/signals.js'))};
    setInterval(() => {}, 1000);
    await withSignals((name) => console.log(name), () => { console.log('ready'); return new Promise(() => {}); });`;
  for (const [first, second] of [
    ['SIGINT', 'SIGINT'],
    ['SIGTERM', 'SIGINT'],
  ] as const) {
    const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await once(child.stdout, 'data');
    child.kill(first);
    const [answer] = (await once(child.stdout, 'data')) as [Buffer];
    t.is(String(answer).trim(), first);
    // Sent until it is seen: one that arrives in the very moment in which the handler is taken away may be lost.
    const timer = setInterval(() => child.kill(second), 50);
    const [code, signal] = (await once(child, 'exit')) as [number | null, string | null];
    clearInterval(timer);
    t.true(code === 130 || signal === second, `${code} ${signal}`);
  }
});

test('--json prints one object a line and nothing else on stdout; messages on stderr have no colours', async (t) => {
  const { config } = setUp(tempFolder(t), { evaluation: { interval: 8, batches: 1 } });
  const { code, stdout, stderr } = await run(['train', '--config', config, '--json'], {
    env: { NO_COLOR: '1' },
  });
  t.is(code, 0);
  const types = parseLines(stdout).map((e) => e['type']);
  t.is(types.filter((type) => type === 'step').length, 16);
  t.is(types.at(-1), 'end');
  for (const type of ['status', 'start', 'evaluation', 'checkpoint']) t.true(types.includes(type), type);
  t.regex(stderr, /^step 16\/16 \| loss \d\.\d{4} \| lr 3\.00e-3 \| norm [\d.]+ \| \S+ tok\/s \| ETA 0s$/m);
  t.false(stderr.includes('\x1b'));
});

test('without --json the summary is on stdout and progress on stderr', async (t) => {
  const { config, output } = setUp(tempFolder(t));
  const { code, stdout, stderr } = await run(['train', '--config', config]);
  t.is(code, 0);
  t.regex(stdout, /^completed at step 16 of 16, 4096 tokens, /);
  t.regex(stdout, /^validation loss {4}\d\.\d{4} nats per token \(perplexity \d+\.\d\d\)$/m);
  t.regex(stdout, /^unigram entropy {4}4\.0989 nats per token$/m);
  t.true(stdout.endsWith(`checkpoint         ${join(output, 'step-000016')}\n`));
  t.regex(stderr, /47\.1K parameters/);
  const again = await run(['train', '--config', config]);
  t.is(again.stdout, stdout);
  t.regex(again.stderr, /is complete; --fresh starts it over/);
});

test('a reader that closes the pipe stops nothing', async (t) => {
  const { config, output } = setUp(tempFolder(t));
  const running = start(['train', '--config', config, '--json']);
  await running.waitFor(/\n/);
  running.child.stdout!.destroy();
  const { code, stderr } = await running.done;
  t.is(code, 0, stderr);
  t.is(losses(output).length, 16);
  t.notRegex(stderr, /EPIPE|at .*\.js:\d/);
});

test('--dry-run tells parameters, memory and steps, and writes nothing', async (t) => {
  const folder = tempFolder(t);
  const { config } = setUp(folder);
  const { code, stdout } = await run(['train', '--config', config, '--dry-run', '--json']);
  t.is(code, 0);
  const [plan] = parseLines(stdout);
  t.is(plan!['parameters'], 47072);
  t.is(plan!['steps'], 16);
  t.is(plan!['tokensPerStep'], 256);
  const memory = plan!['memory'] as Record<string, number>;
  t.is(memory['weights'], 4 * 47072);
  t.true(memory['total']! > 16 * 47072);
  t.deepEqual(readdirSync(folder), ['config.json']);
  const epochs = await run(['train', '--config', config, '--dry-run', '--set', 'steps=null']);
  t.is(epochs.code, 2);
  const text = await run(['train', '--config', config, '--dry-run']);
  t.regex(text.stdout, /^parameters {3}47072 \(47\.1K\)$/m);
});

test('a run that is going on keeps others out of its folder', async (t) => {
  const { config } = setUp(tempFolder(t), { steps: 100_000 });
  const running = start(['train', '--config', config, '--json']);
  await running.waitFor(/"type":"step"/);
  const other = await run(['train', '--config', config]);
  t.is(other.code, 1);
  t.regex(other.stderr, new RegExp(`process ${running.child.pid} is training in it`));
  running.child.kill('SIGTERM');
  t.is((await running.done).code, 143);
});

test('a damaged checkpoint is passed over: training goes on from the one before, to the same losses', async (t) => {
  const { config, output } = setUp(tempFolder(t));
  t.is((await run(['train', '--config', config])).code, 0);
  const before = losses(output);
  const file = join(output, 'step-000016', 'optimizer.safetensors');
  truncateSync(file, statSync(file).size - 1);
  const { code, stderr } = await run(['train', '--config', config]);
  t.is(code, 0, stderr);
  t.regex(
    stderr,
    /warning: .*optimizer\.safetensors: Expected \d+ bytes but it has \d+; this checkpoint was set aside/,
  );
  t.regex(stderr, /resumed from step 8/);
  t.deepEqual(losses(output), before);
});

test('a changed configuration exits with 2 and names the keys; --fresh starts over', async (t) => {
  const { config, output } = setUp(tempFolder(t));
  t.is((await run(['train', '--config', config, '--set', 'steps=4'])).code, 0);
  const changed = [
    'train',
    '--config',
    config,
    '--set',
    'steps=4',
    '--set',
    'optimizer.lr=0.02',
    '--set',
    'optimizer.minLr=0.02',
  ];
  const refused = await run(changed);
  t.is(refused.code, 2);
  t.regex(refused.stderr, /but optimizer\.lr, optimizer\.minLr differ; set it back, start over with --fresh/);
  t.is((await run([...changed, '--fresh'])).code, 0);
  t.is(losses(output).length, 4);
});

test('an output that cannot be made, and a disk that is full, exit with 1 and keep the earlier checkpoints', async (t) => {
  const folder = tempFolder(t);
  const { config, output } = setUp(folder);
  const blocked = await run(['train', '--config', config, '--set', `output=${join(config, 'below')}`]);
  t.is(blocked.code, 1);
  t.regex(blocked.stderr, /^error: Expected to make the folder .* but the system refused: ENOTDIR/);

  t.is((await run(['train', '--config', config, '--set', 'steps=8'])).code, 0);
  // A limit on the size of files refuses the write of the weights as a full disk would.
  const limited = spawn(
    'bash',
    ['-c', 'ulimit -f 100; exec "$@"', 'bash', process.execPath, MAIN, 'train', '--config', config],
    { stdio: ['ignore', 'ignore', 'pipe'] },
  );
  let stderr = '';
  limited.stderr.on('data', (chunk) => (stderr += String(chunk)));
  const [code] = (await once(limited, 'close')) as [number | null];
  t.is(code, 1, stderr);
  t.regex(stderr, /error: Expected to write .*model\.safetensors but the system refused: EFBIG/);
  t.deepEqual(
    readdirSync(output).filter((name) => name.includes('step-')),
    ['step-000008'],
  );
  t.is((await run(['train', '--config', config])).code, 0);
  t.is(losses(output).length, 16);
});

test('generate continues from a run or a model folder, streams text, and repeats itself for a seed', async (t) => {
  const { config, output } = setUp(tempFolder(t));
  t.is((await run(['train', '--config', config])).code, 0);
  const args = ['generate', '--prompt', 'The harbour', '--max-tokens', '12', '--seed', '3', '--threads', '1'];
  const fromRun = await run([...args, '--model', output]);
  t.is(fromRun.code, 0, fromRun.stderr);
  t.true(fromRun.stdout.startsWith('The harbour') && fromRun.stdout.length > 13);
  t.is((await run([...args, '--model', join(output, 'step-000016')])).stdout, fromRun.stdout);
  t.not((await run([...args, '--model', output, '--seed', '4'])).stdout, fromRun.stdout);
  const json = await run([...args, '--model', output, '--prompt', '', '--json']);
  const records = parseLines(json.stdout);
  t.is(records.length, 2);
  t.is(`${records[0]!['prompt']}${records[0]!['text']}\n`, fromRun.stdout);
  t.is((records[0]!['tokens'] as number[]).length, 12);
  const none = await run([...args, '--model', tempFolder(t)]);
  t.is(none.code, 1);
  t.regex(none.stderr, /Expected a model folder/);
});

test('plot draws a run while it is unfinished', async (t) => {
  const { config, output } = setUp(tempFolder(t), { steps: 100_000 });
  const running = start(['train', '--config', config, '--json']);
  await running.waitFor(/"type":"step","step":3,/);
  const plotted = await run(['plot', output, '--json', '--title', 'half way']);
  running.child.kill('SIGTERM');
  await running.done;
  t.is(plotted.code, 0, plotted.stderr);
  t.deepEqual(parseLines(plotted.stdout), [{ svg: join(output, 'loss.svg'), png: join(output, 'loss.png') }]);
  t.true(readFileSync(join(output, 'loss.svg'), 'utf8').includes('>half way</text>'));
  t.is((await run(['plot', tempFolder(t)])).code, 1);
});
