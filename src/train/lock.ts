import { linkSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { ioError } from '../io/files.js';
import { GsaError } from '../native/errors.js';

interface Owner {
  readonly pid: number;
  readonly host: string;
  /** When the process started, in the kernel's ticks, where the system tells: process ids are used again. */
  readonly started: string | null;
}

function startOf(pid: number): string | null {
  try {
    // Field 22; the command in field 2 may hold spaces and parentheses.
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? null;
  } catch {
    return null;
  }
}

function alive(owner: Owner): boolean {
  try {
    process.kill(owner.pid, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return false;
  }
  const now = startOf(owner.pid);
  return owner.started === null || now === null || owner.started === now;
}

function readOwner(path: string): Owner | null {
  try {
    const owner = JSON.parse(readFileSync(path, 'utf8')) as Owner;
    return Number.isInteger(owner.pid) && typeof owner.host === 'string' ? owner : null;
  } catch {
    return null;
  }
}

/** Keeps two trainings out of one folder: `<folder>/.lock` names the process that writes there. A lock whose process has
 * died (or that is unreadable, which linking a complete file rules out for ours) is taken over.
 * @returns a function that gives the lock back
 * @throws GsaError IO when a live process, or one on another machine, holds it, or the system refuses. */
export function lockFolder(folder: string): () => void {
  const path = join(folder, '.lock');
  const mine = join(folder, `.lock.${process.pid}`);
  const owner: Owner = { pid: process.pid, host: hostname(), started: startOf(process.pid) };
  try {
    writeFileSync(mine, JSON.stringify(owner));
    for (let attempt = 0; ; attempt++) {
      try {
        // link() fails when the name exists, and the file is complete from its first moment on.
        linkSync(mine, path);
        break;
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EEXIST' || attempt === 3) throw error;
        takeStale(path, `${mine}.stale`);
      }
    }
  } catch (error) {
    throw ioError(error, 'lock', path);
  } finally {
    rmSync(mine, { force: true });
  }
  return () => {
    if (readOwner(path)?.pid === process.pid) rmSync(path, { force: true });
  };
}

function takeStale(path: string, aside: string): void {
  const holder = readOwner(path);
  if (holder) refuseLive(holder, path);
  try {
    renameSync(path, aside);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return;
    throw error;
  }
  try {
    // Between the look and the rename another process may have taken the stale lock over: give that one back.
    const moved = readOwner(aside);
    if (moved && JSON.stringify(moved) !== JSON.stringify(holder)) linkSync(aside, path);
  } finally {
    rmSync(aside, { force: true });
  }
}

function refuseLive(holder: Owner, path: string): void {
  if (holder.host !== hostname())
    throw new GsaError(
      'IO',
      `Expected an output folder that no other training uses, but ${path} is held by process ${holder.pid} on ${holder.host}; wait for it, choose another output, or delete that file if it no longer runs`,
    );
  if (alive(holder))
    throw new GsaError(
      'IO',
      `Expected an output folder that no other training uses, but process ${holder.pid} is training in it (${path}); stop it or choose another output`,
    );
}
