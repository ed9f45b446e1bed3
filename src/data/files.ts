import { readdirSync, statSync } from 'node:fs';
import { extname, join } from 'node:path';
import { GsaError, expected, show } from '../native/errors.js';
import { ioError } from '../io/files.js';

const ENDINGS = ['.txt', '.jsonl'];
const isText = (name: string) => ENDINGS.includes(extname(name).toLowerCase());

/** The .txt and .jsonl files among `paths`, each file once. Folders are searched with all below them, in the order of
 * their names' code units, so that every machine sees the same order; names that start with a dot are left out, links to
 * files are followed, links to folders are not (they could lead in a circle).
 * @throws GsaError INVALID_ARGUMENT for a file of another kind or when nothing is found, IO when the system refuses. */
export function listTextFiles(paths: readonly string[]): string[] {
  const files: string[] = [];
  if (!Array.isArray(paths)) throw expected('a list of files and folders', 'paths', paths);
  for (const path of paths as readonly unknown[]) {
    if (typeof path !== 'string' || path === '')
      throw expected('the path of a file or folder', 'paths', path);
    const info = stat(path);
    if (info.isDirectory()) collect(path, files);
    else if (info.isFile() && isText(path)) files.push(path);
    else throw expected(`a folder or a file that ends in ${ENDINGS.join(' or ')}`, 'paths', path);
  }
  if (files.length === 0)
    throw new GsaError(
      'INVALID_ARGUMENT',
      `Expected at least one ${ENDINGS.join(' or ')} file in ${paths.map(show).join(', ') || 'paths'} but found none`,
    );
  return [...new Set(files)];
}

function stat(path: string) {
  try {
    return statSync(path);
  } catch (error) {
    throw ioError(error, 'read', path);
  }
}

function collect(folder: string, files: string[]): void {
  let entries;
  try {
    entries = readdirSync(folder, { withFileTypes: true });
  } catch (error) {
    throw ioError(error, 'read', folder);
  }
  for (const entry of entries.toSorted((a, b) => (a.name < b.name ? -1 : 1))) {
    const path = join(folder, entry.name);
    if (entry.name.startsWith('.')) continue;
    if (entry.isDirectory()) collect(path, files);
    else if (isText(entry.name) && (entry.isFile() || (entry.isSymbolicLink() && stat(path).isFile())))
      files.push(path);
  }
}
