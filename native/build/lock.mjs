// One build of a checkout at a time: two in the same folders would delete each other's files.
import { createHash } from 'node:crypto';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

const POLL_MS = 300;
const PATIENCE_MS = 20 * 60_000;

/** The lock file of a checkout: outside it, since a build empties its own folders. */
export function lockPath(root) {
  return join(
    tmpdir(),
    `flash-gsa-build-${createHash('sha256').update(root).digest('hex').slice(0, 16)}.lock`,
  );
}

/** The number of the process that holds the lock, or null when there is none or it is gone. */
function holder(path) {
  let pid = null;
  try {
    pid = Number(readFileSync(path, 'utf8'));
    process.kill(pid, 0); // asks only whether it lives
    return pid;
  } catch (error) {
    return error.code === 'EPERM' ? pid : null; // another user's process lives, too
  }
}

function tryLock(path) {
  try {
    writeFileSync(path, String(process.pid), { flag: 'wx' });
    return true;
  } catch (error) {
    if (error.code !== 'EEXIST') throw error;
    return false;
  }
}

/** Runs `body` while no other process builds the same checkout.
 * @throws Error when another one holds on for 20 minutes. */
export async function withLock(root, say, body) {
  const path = lockPath(root);
  const deadline = Date.now() + PATIENCE_MS;
  let told = false;
  while (!tryLock(path)) {
    const pid = holder(path);
    if (pid === null) {
      rmSync(path, { force: true }); // left behind by a build that was killed
      continue;
    }
    if (!told) say(`waiting for another build of this folder (process ${pid})`);
    told = true;
    if (Date.now() > deadline)
      throw new Error(`another build still holds ${path}; end it or delete that file`);
    await delay(POLL_MS);
  }
  try {
    return await body();
  } finally {
    rmSync(path, { force: true });
  }
}
