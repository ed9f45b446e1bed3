import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { removeStaleTemps, writeFileAtomic, writeFolderAtomic } from '#src/io/atomic.js';
import { makeFolder, openForReading } from '#src/io/files.js';
import { GsaError } from '#src/native/errors.js';
import { tempFolder } from './temp.js';

/** The id of a process that has ended. */
function deadPid(): number {
  return spawnSync(process.execPath, ['-e', '']).pid;
}

test('a file is replaced whole, from text, bytes or pieces; missing folders are made', (t) => {
  const folder = tempFolder(t);
  const path = join(folder, 'a', 'b', 'file');
  writeFileAtomic(path, 'text ✓');
  t.is(readFileSync(path, 'utf8'), 'text ✓');
  writeFileAtomic(path, Uint8Array.of(1, 2));
  t.deepEqual([...readFileSync(path)], [1, 2]);
  writeFileAtomic(path, (write) => {
    write(Uint16Array.of(0x0201));
    t.deepEqual([...readFileSync(path)], [1, 2], 'the old content stays until the end');
    write(Buffer.from('x'));
  });
  t.deepEqual([...readFileSync(path)], [1, 2, 0x78]);
  t.deepEqual(readdirSync(join(folder, 'a', 'b')), ['file']);
});

test('a write that fails leaves the old file, no temporary one, and the error', (t) => {
  const folder = tempFolder(t);
  const path = join(folder, 'file');
  writeFileAtomic(path, 'old');
  t.throws(
    () =>
      writeFileAtomic(path, (write) => {
        write(Buffer.from('half'));
        throw new Error('mine');
      }),
    { message: 'mine' },
  );
  t.is(readFileSync(path, 'utf8'), 'old');
  t.deepEqual(readdirSync(folder), ['file']);
  const error = t.throws(() => writeFileAtomic(join(path, 'below'), 'x'), { instanceOf: GsaError })!;
  t.is(error.code, 'IO');
  mkdirSync(join(folder, 'taken', 'x'), { recursive: true });
  t.throws(() => writeFileAtomic(join(folder, 'taken'), 'x'), { instanceOf: GsaError });
  t.deepEqual(readdirSync(folder).toSorted(), ['file', 'taken']);
});

test('a folder is made or replaced whole', async (t) => {
  const folder = tempFolder(t);
  const path = join(folder, 'step-1');
  await writeFolderAtomic(path, (temp) => {
    mkdirSync(join(temp, 'deep'));
    writeFileSync(join(temp, 'deep', 'a'), '1');
    t.false(existsSync(path));
  });
  t.is(readFileSync(join(path, 'deep', 'a'), 'utf8'), '1');
  await writeFolderAtomic(path, async (temp) => {
    await new Promise((resolve) => setImmediate(resolve));
    writeFileSync(join(temp, 'b'), '2');
    t.true(existsSync(join(path, 'deep')));
  });
  t.deepEqual(readdirSync(path), ['b']);
  const mine = new Error('mine');
  const thrown = await t.throwsAsync(
    writeFolderAtomic(path, (temp) => {
      writeFileSync(join(temp, 'c'), '3');
      throw mine;
    }),
  );
  t.is(thrown, mine);
  t.deepEqual(readdirSync(path), ['b']);
  t.deepEqual(readdirSync(folder), ['step-1']);
});

test('a folder does not replace a file', async (t) => {
  const folder = tempFolder(t);
  writeFileSync(join(folder, 'taken'), 'x');
  await t.throwsAsync(
    writeFolderAtomic(join(folder, 'taken'), () => undefined),
    {
      instanceOf: GsaError,
      message: /there is a file/,
    },
  );
  t.deepEqual(readdirSync(folder), ['taken']);
});

test('what dead processes left is removed, and a folder lost in replacement is put back', (t) => {
  const folder = tempFolder(t);
  const dead = deadPid();
  const mark = '0123456789ab';
  const stale = `.a.${dead}-${mark}.tmp`;
  const live = `.a.${process.pid}-${mark}.tmp`;
  const lost = `.step-2.${dead}-${mark}.old`;
  const replaced = `.step-1.${dead}-${mark}.old`;
  for (const name of [stale, lost, replaced, 'step-1']) {
    mkdirSync(join(folder, name));
    writeFileSync(join(folder, name, 'id'), name);
  }
  for (const name of [live, '.hidden.tmp', 'a.tmp', `.a.${dead}-xyz.tmp`])
    writeFileSync(join(folder, name), '');
  t.deepEqual(removeStaleTemps(folder), { removed: [replaced, stale].toSorted(), restored: ['step-2'] });
  t.deepEqual(
    readdirSync(folder).toSorted(),
    [live, '.hidden.tmp', 'a.tmp', `.a.${dead}-xyz.tmp`, 'step-1', 'step-2'].toSorted(),
  );
  t.is(readFileSync(join(folder, 'step-1', 'id'), 'utf8'), 'step-1');
  t.is(readFileSync(join(folder, 'step-2', 'id'), 'utf8'), lost);
  t.deepEqual(removeStaleTemps(join(folder, 'none')), { removed: [], restored: [] });
});

test('a process killed while it writes leaves the old file, and its leftovers are found', (t) => {
  const folder = tempFolder(t);
  const path = join(folder, 'file');
  writeFileAtomic(path, 'old');
  const script = `import { writeFileAtomic } from ${JSON.stringify(import.meta.resolve('#src/io/atomic.js'))};
    writeFileAtomic(${JSON.stringify(path)}, (write) => {
      write(Buffer.alloc(1000));
      process.kill(process.pid, 'SIGKILL');
      for (;;);
    });`;
  t.is(spawnSync(process.execPath, ['--input-type=module', '-e', script]).signal, 'SIGKILL');
  t.is(readFileSync(path, 'utf8'), 'old');
  t.is(readdirSync(folder).length, 2);
  t.is(removeStaleTemps(folder).removed.length, 1);
  t.deepEqual(readdirSync(folder), ['file']);
});

test('only regular files are opened, links to them included', (t) => {
  const folder = tempFolder(t);
  const error = t.throws(() => openForReading(folder), { instanceOf: GsaError })!;
  t.is(error.code, 'INVALID_FILE');
  spawnSync('mkfifo', [join(folder, 'pipe')]);
  t.throws(() => openForReading(join(folder, 'pipe')), { instanceOf: GsaError });
  writeFileSync(join(folder, 'real'), 'abc');
  symlinkSync('real', join(folder, 'link'));
  t.is(openForReading(join(folder, 'link')).bytes, 3);
});

test('folders are made, those above them too, and what cannot be one is an error that names it', async (t) => {
  const folder = tempFolder(t);
  makeFolder(join(folder, 'a', 'b'));
  makeFolder(join(folder, 'a', 'b'));
  t.true(existsSync(join(folder, 'a', 'b')));
  writeFileSync(join(folder, 'file'), '');
  symlinkSync(join(folder, 'nowhere'), join(folder, 'dangling'));
  // Below /proc the system says ENOENT of every new folder, which Node's own recursive way never returns from.
  for (const path of [
    join(folder, 'file'),
    join(folder, 'file', 'x'),
    join(folder, 'dangling'),
    '/proc/x/y',
  ]) {
    const error = t.throws(() => makeFolder(path), { instanceOf: GsaError })!;
    t.is(error.code, 'IO', path);
    t.true(error.message.includes(path), error.message);
  }
  t.is(t.throws(() => writeFileAtomic('/proc/x/file', ''), { instanceOf: GsaError })!.code, 'IO');
  const thrown = await t.throwsAsync(
    writeFolderAtomic('/proc/x/folder', () => {}),
    { instanceOf: GsaError },
  );
  t.is(thrown!.code, 'IO');
  t.is(t.throws(() => makeFolder(join(folder, 'a\0b')), { instanceOf: GsaError })!.code, 'INVALID_ARGUMENT');
});
