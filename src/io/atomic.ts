/** Files and folders that appear whole or not at all: written beside their place, flushed to disk, then renamed. */
import { randomBytes } from 'node:crypto';
import {
  closeSync,
  existsSync,
  fsyncSync,
  lstatSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
} from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { GsaError, checkPath } from '../native/errors.js';
import { ioError, makeFolder, writeFully } from './files.js';

/** ".NAME.PID-RANDOM.tmp" is being written by process PID; "….old" is what a folder held before its replacement. */
const TEMPORARY = /^\.(.+)\.(\d+)-[0-9a-f]{12}\.(tmp|old)$/;

function beside(path: string, kind: 'tmp' | 'old'): string {
  const mark = `${process.pid}-${randomBytes(6).toString('hex')}`;
  return join(dirname(path), `.${basename(path)}.${mark}.${kind}`);
}

function syncPath(path: string): void {
  const fd = openSync(path, 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** Flushes a file, or a folder with all that lies in it, to disk. */
function syncTree(path: string): void {
  const info = lstatSync(path);
  if (info.isDirectory()) for (const name of readdirSync(path)) syncTree(join(path, name));
  if (info.isDirectory() || info.isFile()) syncPath(path);
}

/** Receives a file's bytes in order, any number of times. */
export type WriteBytes = (bytes: ArrayBufferView) => void;

/** Writes a file so that `path` holds either its old content or all of the new one, whatever happens meanwhile: a
 * temporary file in the same folder, fsync, rename, fsync of the folder. Missing parent folders are made.
 * @param data the content, or a function that hands it over piece by piece (for files larger than memory)
 * @throws GsaError IO when the system refuses; errors of the `data` function pass through. The old file is then
 * untouched and no temporary file is left. */
export function writeFileAtomic(
  path: string,
  data: string | ArrayBufferView | ((write: WriteBytes) => void),
): void {
  const target = resolve(path);
  const temp = beside(target, 'tmp');
  let fd = -1;
  try {
    makeFolder(dirname(target));
    fd = openSync(temp, 'wx');
    if (typeof data === 'function') data((bytes) => writePiece(fd, bytes, target));
    else writeFully(fd, typeof data === 'string' ? Buffer.from(data) : data);
    fsyncSync(fd);
    closeSync(fd);
    fd = -1;
    renameSync(temp, target);
    syncPath(dirname(target));
  } catch (error) {
    if (fd >= 0) closeSync(fd);
    discard(temp);
    throw isSystemError(error) ? ioError(error, 'write', target) : error;
  }
}

function writePiece(fd: number, bytes: ArrayBufferView, path: string): void {
  try {
    writeFully(fd, bytes);
  } catch (error) {
    throw ioError(error, 'write', path);
  }
}

/** Best effort: the error that led here is the one to tell, and removeStaleTemps() comes later. */
function discard(temp: string): void {
  try {
    rmSync(temp, { recursive: true, force: true });
  } catch {
    // As above.
  }
}

function isSystemError(error: unknown): boolean {
  return error instanceof Error && typeof (error as NodeJS.ErrnoException).syscall === 'string';
}

/** Makes a folder so that `path` is either as before or complete. `fill` writes into the temporary folder it is given;
 * all of it is flushed to disk before the rename. No system call swaps two folders here, so replacing an existing folder
 * takes two renames; a crash between them is mended by removeStaleTemps().
 * @throws GsaError IO when the system refuses; errors of `fill` pass through. `path` is then as before. */
export async function writeFolderAtomic(
  path: string,
  fill: (folder: string) => void | Promise<void>,
): Promise<void> {
  const target = resolve(checkPath(path, 'the folder to write'));
  const temp = beside(target, 'tmp');
  try {
    makeFolder(temp);
    await fill(temp);
    syncTree(temp);
    moveIntoPlace(temp, target);
    syncPath(dirname(target));
  } catch (error) {
    discard(temp);
    throw isSystemError(error) ? ioError(error, 'write', target) : error;
  }
}

function moveIntoPlace(temp: string, target: string): void {
  if (!existsSync(target)) return renameSync(temp, target);
  if (!lstatSync(target).isDirectory())
    throw new GsaError('IO', `Expected a folder or nothing at ${target} but there is a file; move it away`);
  const old = beside(target, 'old');
  renameSync(target, old);
  try {
    renameSync(temp, target);
  } catch (error) {
    renameSync(old, target);
    throw error;
  }
  rmSync(old, { recursive: true, force: true });
}

/** Clears what processes that no longer run left half-written in `folder`, and puts a folder back that was being
 * replaced when its process died. Call it before reading a folder of checkpoints. What other programs wrote, and what a
 * live process is writing, stays.
 * @returns the names removed and restored
 * @throws GsaError IO when the system refuses. */
export function removeStaleTemps(folder: string): { removed: string[]; restored: string[] } {
  const removed: string[] = [];
  const restored: string[] = [];
  try {
    if (!existsSync(folder)) return { removed, restored };
    for (const name of readdirSync(folder).toSorted()) {
      const match = TEMPORARY.exec(name);
      if (!match || isAlive(Number(match[2]))) continue;
      const target = match[1]!;
      if (match[3] === 'old' && !existsSync(join(folder, target))) {
        renameSync(join(folder, name), join(folder, target));
        restored.push(target);
      } else {
        rmSync(join(folder, name), { recursive: true, force: true });
        removed.push(name);
      }
    }
    return { removed, restored };
  } catch (error) {
    throw ioError(error, 'clear temporary files in', folder);
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
