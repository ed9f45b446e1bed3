// Runs the README: every fenced code block, in order, in an empty folder inside the checkout (so that npm and imports of
// "flash-gsa" find this package). What a block's language means:
//   sh              run by bash, must exit 0
//   ts              type-checked against the package and run by node
//   json NAME       parsed, and written to NAME for the blocks after it
//   text NAME       written to NAME
// A block in any other language, or a block that cannot be run, is a failure: an example that nobody runs rots.
//
//   node test/readme/run.mjs [--skip TEXT]...     leaves out sh blocks that contain TEXT (CI runs those by themselves)
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const folder = join(root, '.build', 'readme');
const skips = process.argv.flatMap((arg, i, all) => (arg === '--skip' && all[i + 1] ? [all[i + 1]] : []));

function blocksOf(markdown) {
  return [...markdown.matchAll(/^```([^\n]*)\n([\s\S]*?)^```$/gm)].map((match) => {
    const [language = '', name = ''] = match[1].trim().split(/\s+/);
    return { language, name, code: match[2], line: markdown.slice(0, match.index).split('\n').length };
  });
}

function run(command, args) {
  const started = Date.now();
  const { status, error } = spawnSync(command, args, {
    cwd: folder,
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  if (error) throw error;
  if (status !== 0) throw new Error(`${command} exited with ${status}`);
  console.log(`--- ok, ${((Date.now() - started) / 1000).toFixed(1)} s`);
}

function file(block, fallback) {
  const name = block.name || fallback;
  if (!/^[\w.-]+$/.test(name)) throw new Error(`Expected a plain file name but received ${name}`);
  const path = join(folder, name);
  writeFileSync(path, block.code);
  return path;
}

const runners = {
  sh: (block) => run('bash', ['-euo', 'pipefail', '-c', block.code]),
  ts: (block) => {
    const source = file(block, `block-${block.line}.ts`);
    const tsc = join(root, 'node_modules', 'typescript', 'bin', 'tsc');
    const options = [
      '--ignoreConfig',
      '--strict',
      '--target',
      'es2022',
      '--module',
      'nodenext',
      '--types',
      'node',
    ];
    run(process.execPath, [tsc, ...options, '--lib', 'es2023,esnext.disposable', '--skipLibCheck', source]);
    run(process.execPath, [source.replace(/\.ts$/, '.js')]);
  },
  json: (block) => {
    JSON.parse(block.code);
    file(block, `block-${block.line}.json`);
  },
  text: (block) => {
    file(block, `block-${block.line}.txt`);
  },
};

rmSync(folder, { recursive: true, force: true });
mkdirSync(folder, { recursive: true });
const blocks = blocksOf(readFileSync(join(root, 'README.md'), 'utf8'));
if (blocks.length === 0) throw new Error('Expected code blocks in README.md but found none');
for (const block of blocks) {
  console.log(`\n--- README.md:${block.line} (${block.language} ${block.name})\n${block.code}`);
  if (block.language === 'sh' && skips.some((text) => block.code.includes(text))) {
    console.log('--- left out: run by itself');
    continue;
  }
  const runner = runners[block.language];
  if (!runner)
    throw new Error(
      `README.md:${block.line}: expected sh, ts, json or text but received "${block.language}"`,
    );
  runner(block);
}
console.log(`\n${blocks.length} code blocks of README.md ran`);
