import {
  closeSync,
  existsSync,
  fstatSync,
  mkdirSync,
  openSync,
  readSync,
  statSync,
  writeSync,
} from 'node:fs';
import { dirname, resolve } from 'node:path';
import { GsaError, expected } from '../native/errors.js';

/** One readSync or writeSync never moves more than this: the system calls stop at 2 GiB, and a smaller piece keeps the
 * kernel from copying through more memory than it needs. */
const PIECE_BYTES = 64 * 1024 * 1024;

/** Turns an error of the operating system into GsaError IO that names the file; a GsaError passes unchanged. What cannot be
 * a path (a number, a string with a zero) is INVALID_ARGUMENT. */
export function ioError(error: unknown, action: string, path: string): GsaError {
  if (error instanceof GsaError) return error;
  const { code } = error as { code?: unknown };
  if (code === 'ERR_INVALID_ARG_TYPE' || code === 'ERR_INVALID_ARG_VALUE')
    return expected('a path', `what to ${action}`, path);
  const reason = error instanceof Error ? error.message : String(error);
  return new GsaError('IO', `Expected to ${action} ${path} but the system refused: ${reason}`, {
    cause: error,
  });
}

/** Makes a folder and those above it; where it is there already, nothing. One by one: mkdirSync with `recursive` never returns
 * where the system says of a folder that its parent is missing though it is there, as below /proc.
 * @throws GsaError IO when the system refuses, or something else is in the folder's place */
export function makeFolder(path: string): void {
  try {
    if (isFolder(path)) return;
    const missing = [resolve(path)];
    while (!existsSync(dirname(missing[0]!))) missing.unshift(dirname(missing[0]!));
    for (const folder of missing) makeOne(folder);
  } catch (error) {
    throw ioError(error, 'make the folder', path);
  }
}

function makeOne(folder: string): void {
  try {
    mkdirSync(folder);
  } catch (error) {
    // Another process may have made it meanwhile.
    if (!isFolder(folder)) throw error;
  }
}

function isFolder(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
}

/** Opens a regular file for reading.
 * @throws GsaError IO when the system refuses, INVALID_FILE when it is no regular file (a folder, a device, a pipe). */
export function openForReading(path: string): { fd: number; bytes: number } {
  let fd = -1;
  try {
    // Checked before opening too: opening a pipe would block for ever.
    if (!statSync(path).isFile()) throw notRegular(path);
    fd = openSync(path, 'r');
    const info = fstatSync(fd);
    if (!info.isFile()) throw notRegular(path);
    return { fd, bytes: info.size };
  } catch (error) {
    if (fd >= 0) closeSync(fd);
    throw ioError(error, 'read', path);
  }
}

function notRegular(path: string): GsaError {
  return new GsaError('INVALID_FILE', `Expected a regular file at ${path} but it is something else`);
}

/** The bytes of any view, without a copy. */
export function bytesOf(view: ArrayBufferView): Uint8Array {
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
}

/** Fills `target` from `position` on, in bounded pieces; positions and sizes past 4 GiB are fine.
 * @throws GsaError INVALID_FILE when the file ends early, IO when the system refuses. */
export function readFully(fd: number, target: ArrayBufferView, position: number, path: string): void {
  const bytes = bytesOf(target);
  let done = 0;
  while (done < bytes.length) {
    let got: number;
    try {
      got = readSync(fd, bytes, done, Math.min(PIECE_BYTES, bytes.length - done), position + done);
    } catch (error) {
      throw ioError(error, 'read', path);
    }
    if (got === 0)
      throw new GsaError(
        'INVALID_FILE',
        `Expected ${bytes.length} bytes at offset ${position} of ${path} but the file ends after ${done} of them`,
      );
    done += got;
  }
}

/** Writes all of `source` at the file's current position, in bounded pieces. */
export function writeFully(fd: number, source: ArrayBufferView): void {
  const bytes = bytesOf(source);
  let done = 0;
  while (done < bytes.length) done += writeSync(fd, bytes, done, Math.min(PIECE_BYTES, bytes.length - done));
}
