/** Reading the files of a .tar.gz in memory: as much of POSIX ustar and pax as npm's packages use. */
import { gunzipSync } from 'node:zlib';
import { GsaError } from '../native/errors.js';

const BLOCK = 512;

export interface TarFile {
  /** As in the archive, checked to be relative and without "..". */
  readonly path: string;
  readonly bytes: Buffer;
}

/** The regular files of a gzipped tar archive. Links, devices and folders are passed over.
 * @param maxBytes unpacking more than this is refused, so that a small archive cannot fill the memory
 * @throws GsaError INVALID_FILE naming the archive when it is damaged or a path would leave the folder. */
export function readTarGz(archive: Buffer, name: string, maxBytes = 2 ** 30): TarFile[] {
  let tar: Buffer;
  try {
    tar = gunzipSync(archive, { maxOutputLength: maxBytes });
  } catch (cause) {
    throw damaged(
      name,
      `Expected a gzipped archive of at most ${maxBytes} bytes but ${(cause as Error).message}`,
    );
  }
  const files: TarFile[] = [];
  let longPath: string | null = null;
  for (let at = 0; at + BLOCK <= tar.length;) {
    const header = tar.subarray(at, at + BLOCK);
    if (header.every((byte) => byte === 0)) return files;
    checkSum(header, name);
    const size = octal(header, 124, 12, name);
    const bytes = tar.subarray(at + BLOCK, at + BLOCK + size);
    if (bytes.length < size) throw damaged(name, 'Expected a whole archive but it is truncated');
    const type = String.fromCharCode(header[156]!);
    if (type === 'x') longPath = paxPath(bytes) ?? longPath;
    else {
      if (type === '0' || type === '\0')
        files.push({ path: safePath(longPath ?? headerPath(header), name), bytes });
      longPath = null;
    }
    at += BLOCK + Math.ceil(size / BLOCK) * BLOCK;
  }
  throw damaged(name, 'Expected a whole archive but its end is missing');
}

function damaged(name: string, message: string): GsaError {
  return new GsaError('INVALID_FILE', `${name}: ${message}`, { op: 'tar' });
}

/** A text field, up to its NUL. */
function field(header: Buffer, start: number, length: number): string {
  const bytes = header.subarray(start, start + length);
  const end = bytes.indexOf(0);
  return bytes.toString('utf8', 0, end < 0 ? length : end);
}

function octal(header: Buffer, start: number, length: number, name: string): number {
  const text = field(header, start, length).trim();
  if (!/^[0-7]+$/.test(text))
    throw damaged(name, `Expected an octal number in a header but received ${text}`);
  return Number.parseInt(text, 8);
}

/** The sum of the header's bytes, its own field taken for spaces. */
function checkSum(header: Buffer, name: string): void {
  let sum = 0;
  for (let i = 0; i < BLOCK; i++) sum += i >= 148 && i < 156 ? 32 : header[i]!;
  if (sum !== octal(header, 148, 8, name)) throw damaged(name, 'Expected a header that fits its checksum');
}

function headerPath(header: Buffer): string {
  const prefix = field(header, 257, 5) === 'ustar' ? field(header, 345, 155) : '';
  const path = field(header, 0, 100);
  return prefix ? `${prefix}/${path}` : path;
}

/** The path of a pax record list, "LENGTH path=VALUE\n". */
function paxPath(bytes: Buffer): string | null {
  const match = /(?:^|\n)\d+ path=(.*)\n/.exec(bytes.toString('utf8'));
  return match ? match[1]! : null;
}

function safePath(path: string, name: string): string {
  const parts = path.split('/');
  if (path === '' || path.startsWith('/') || /[\\\0]/.test(path) || parts.includes('..'))
    throw damaged(name, `Expected paths inside the archive's folder but received ${JSON.stringify(path)}`);
  return path;
}
