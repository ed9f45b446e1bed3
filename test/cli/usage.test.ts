import { existsSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { ENVIRONMENT, EXIT_CODES } from '#src/cli/exit.js';
import { packageRoot } from '#src/native/load.js';
import { tempFolder } from '../io/temp.js';
import { parseLines, run } from './run.js';

const COMMANDS = [
  'quickstart',
  'corpus',
  'train',
  'generate',
  'logits',
  'plot',
  'steps',
  'params',
  'verify',
  'doctor',
  'bench',
];

test('--help lists every command and --version the package version, exit 0', async (t) => {
  const help = await run(['--help']);
  t.is(help.code, 0);
  for (const name of COMMANDS) t.regex(help.stdout, new RegExp(`^  ${name}\\b`, 'm'));
  const version = await run(['--version']);
  const manifest = JSON.parse(readFileSync(join(packageRoot(), 'package.json'), 'utf8')) as {
    version: string;
  };
  t.is(version.stdout, `${manifest.version}\n`);
});

test('every command has --help and --json', async (t) => {
  for (const name of COMMANDS) {
    const { code, stdout } = await run([name, '--help']);
    t.is(code, 0, name);
    t.regex(stdout, /--json/, name);
  }
});

const USAGE: readonly (readonly [args: string[], message: RegExp])[] = [
  [[], /Usage: flash-gsa/],
  [['trian'], /unknown command 'trian'[^]*Did you mean train\?/],
  [['train'], /required option '--config <file>' not specified/],
  [['train', '--config', 'x', '--confg', 'x'], /unknown option '--confg'[^]*Did you mean --config\?/],
  [['train', '--config', 'x', '--resume', '--fresh'], /cannot be used with/],
  [['generate', '--model', 'x', '--prompt', 'x', '--temperature', 'NaN'], /Expected a number above 0/],
  [['generate', '--model', 'x', '--prompt', 'x', '--temperature', '0'], /Expected a number above 0/],
  [
    ['generate', '--model', 'x', '--prompt', 'x', '--max-tokens', '1e9x'],
    /Expected an integer of at least 1/,
  ],
  [['generate', '--model', 'x', '--prompt', 'x', '--max-tokens', ''], /Expected an integer of at least 1/],
  [['generate', '--model', 'x', '--prompt', 'x', '--top-p', '1.5'], /above 0 and at most 1/],
  [['generate', '--model', 'x', '--prompt', 'x', '--seed', '-1'], /Expected an integer of at least 0/],
  [['quickstart', '--minutes', '0'], /Expected a number above 0/],
  [['logits', 'x', '--ids', 'x'], /required option '--out <file>' not specified/],
  [['corpus'], /missing required argument 'dir'/],
  [['steps', 'x', '--warmup', '-1'], /Expected an integer of at least 0/],
  [['plot'], /missing required argument 'run'/],
  [['params'], /missing required argument 'config'/],
];

for (const [args, message] of USAGE)
  test(`wrong usage exits with 2 and writes to stderr only: flash-gsa ${args.join(' ')}`, async (t) => {
    const { code, stdout, stderr } = await run(args);
    t.is(code, 2, stderr);
    t.is(stdout, '');
    t.regex(stderr, message);
  });

test('a refused configuration exits with 2, a missing file with 1; one line each, a stack when asked', async (t) => {
  const folder = tempFolder(t);
  const config = join(folder, 'c.json');
  writeFileSync(config, '{"model": {}, "data": {"train": "x"}, "batchsize": 1}');
  const refused = await run(['train', '--config', config]);
  t.is(refused.code, 2);
  t.is(refused.stderr, `error: ${config}: Unknown key batchsize (did you mean "batchSize"?)\n`);
  const missing = await run(['train', '--config', join(folder, 'no.json')]);
  t.is(missing.code, 1);
  t.regex(missing.stderr, /^error: Expected to read .*no\.json but the system refused: ENOENT[^\n]*\n$/);
  const debug = await run(['train', '--config', join(folder, 'no.json')], { env: { FLASH_GSA_DEBUG: '1' } });
  t.is(debug.code, 1);
  t.regex(debug.stderr, /^error: \[IO\] GsaError: [^]*\n +at /);
});

test('params counts the parameters of published configurations without allocating them', async (t) => {
  const folder = join(packageRoot(), 'test', 'fixtures', 'configs');
  const configs = [
    'gsa-1.3B-100B.json',
    'gsa-2.7B-100B.json',
    'gsa-7B-mistral-100B.json',
    'gsa-16M-test.json',
  ].map((name) => join(folder, name));
  const { code, stdout } = await run(['params', '--json', ...configs]);
  t.is(code, 0);
  const records = parseLines(stdout);
  t.deepEqual(
    records.map((r) => r['path']),
    configs,
  );
  for (const record of records) {
    const parts = Object.values(record['parts'] as Record<string, number>);
    const sum = parts.reduce((a, b) => a + b);
    t.is(sum, record['parameters'] as number);
  }
  // 24 layers of q, k, v, o (4 * 2048^2), f (2048 * 256), gate, up, down (3 * 2048 * 5632) and two norms; the embeddings
  // and the output matrix (2 * 32000 * 2048) and the last norm.
  t.is(
    records[0]!['parameters'],
    24 * (4 * 2048 ** 2 + 2048 * 256 + 3 * 2048 * 5632 + 2 * 2048) + 2 * 32000 * 2048 + 2048,
  );
});

test('docs/cli.md prints the exit codes and environment variables that the code defines', (t) => {
  const text = readFileSync(join(packageRoot(), 'docs', 'cli.md'), 'utf8').replaceAll(/ +\|/g, ' |');
  for (const [code, meaning] of Object.entries(EXIT_CODES))
    t.true(text.includes(`\`${code}\` | ${meaning} |`), code);
  for (const [name, meaning] of Object.entries(ENVIRONMENT))
    t.true(text.includes(`\`${name}\` | ${meaning} |`), name);
  for (const name of COMMANDS) t.true(text.includes(`flash-gsa ${name}`), name);
});

test('docs/cli.md names every environment variable of its own that the package reads, and no other', (t) => {
  const root = packageRoot();
  if (!existsSync(join(root, 'src'))) {
    t.log('SKIPPED: needs the sources of a checkout');
    return t.pass();
  }
  const read = new Set<string>();
  for (const folder of ['src', 'native'])
    for (const entry of readdirSync(join(root, folder), { withFileTypes: true, recursive: true }))
      if (entry.isFile() && /\.(ts|cc|cu|h|cuh|inl|mjs)$/.test(entry.name))
        for (const [name] of readFileSync(join(entry.parentPath, entry.name), 'utf8').matchAll(
          /FLASH_GSA_[A-Z_]*[A-Z]/g,
        ))
          read.add(name);
  read.delete('FLASH_GSA_DEBUG_FAULTS'); // for tests of a fault: docs/cuda.md
  const table = readFileSync(join(root, 'docs', 'cli.md'), 'utf8').matchAll(/^\| `(FLASH_GSA_\w+)`/gm);
  t.deepEqual([...table].map(([, name]) => name).toSorted(), [...read].toSorted());
});

test('the compiled program is executable, as npx runs it from a checkout', (t) => {
  t.truthy(statSync(new URL('../../../dist/cli/main.js', import.meta.url)).mode & 0o100);
});
