import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { GsaError } from '#src/native/errors.js';
import { lockFolder } from '#src/train/lock.js';
import { tempFolder } from '../io/temp.js';

test('a second lock is refused while the first is held, by this and by another process', async (t) => {
  const folder = tempFolder(t);
  const unlock = lockFolder(folder);
  const error = t.throws(() => lockFolder(folder), { instanceOf: GsaError })!;
  t.is(error.code, 'IO');
  t.regex(error.message, new RegExp(`process ${process.pid} is training in it`));
  unlock();
  unlock();
  t.deepEqual(readdirSync(folder), []);

  const script = `import(${JSON.stringify(import.meta.resolve('#src/train/lock.js'))}).then(({ lockFolder }) => { lockFolder(${JSON.stringify(folder)}); console.log('held'); setInterval(() => {}, 1000); })`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(child.stdout, 'data');
  t.throws(() => lockFolder(folder), { message: new RegExp(`process ${child.pid} is training`) });
  child.kill('SIGKILL');
  await once(child, 'exit');
  lockFolder(folder)();
  t.deepEqual(readdirSync(folder), [], 'the lock of the killed process was taken over');
});

test('stale and unreadable locks are taken over; another host is not guessed about', (t) => {
  const folder = tempFolder(t);
  const path = join(folder, '.lock');
  const dead = spawnSync(process.execPath, ['-e', '']).pid;
  writeFileSync(path, JSON.stringify({ pid: dead, host: hostname(), started: null }));
  lockFolder(folder)();
  writeFileSync(path, '{"pid"');
  lockFolder(folder)();
  writeFileSync(path, JSON.stringify({ pid: dead, host: 'elsewhere.example', started: null }));
  t.throws(() => lockFolder(folder), { message: /on elsewhere\.example/ });
  t.true(readFileSync(path, 'utf8').includes('elsewhere'));
});

test('a living process that has the id of a dead holder does not keep the lock', (t) => {
  if (!existsSync('/proc/self/stat')) return t.pass('this system does not tell when a process started');
  const folder = tempFolder(t);
  writeFileSync(join(folder, '.lock'), JSON.stringify({ pid: process.pid, host: hostname(), started: '1' }));
  lockFolder(folder)();
  t.deepEqual(readdirSync(folder), []);
});
