import { existsSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { ioError } from '../io/files.js';
import { INDEX_FILE, WEIGHTS_FILE, openSafetensors } from '../io/safetensors.js';
import { GsaError, expected } from '../native/errors.js';
import { EXPECTED_FILE } from './model_folder.js';
import { OP_FILE_MARKS } from './op_file.js';

/** Something that can be checked. `path` is also its name in the checks. */
export interface Target {
  readonly kind: 'op' | 'model';
  readonly path: string;
}

function isModelFolder(folder: string): boolean {
  const weights = [WEIGHTS_FILE, INDEX_FILE].some((name) => existsSync(join(folder, name)));
  return weights && existsSync(join(folder, 'config.json'));
}

/** Whether a safetensors file found in a search is one of operator vectors. A malformed one counts: it must be reported. */
function looksLikeOpFile(path: string): boolean {
  try {
    using reader = openSafetensors(path);
    return OP_FILE_MARKS.every((name) => reader.has(name));
  } catch {
    return true;
  }
}

function search(folder: string, found: Target[]): void {
  if (isModelFolder(folder)) {
    if (existsSync(join(folder, EXPECTED_FILE))) found.push({ kind: 'model', path: folder });
    return;
  }
  for (const entry of readdirSync(folder, { withFileTypes: true }).toSorted((a, b) =>
    a.name < b.name ? -1 : 1,
  )) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) search(path, found);
    else if (entry.isFile() && entry.name.endsWith('.safetensors') && looksLikeOpFile(path))
      found.push({ kind: 'op', path });
  }
}

function targetsOf(path: string): Target[] {
  let folder: boolean;
  try {
    folder = statSync(path).isDirectory();
  } catch (error) {
    throw ioError(error, 'read', path);
  }
  if (!folder) return [{ kind: 'op', path }];
  if (isModelFolder(path)) {
    if (existsSync(join(path, EXPECTED_FILE))) return [{ kind: 'model', path }];
    throw new GsaError(
      'INVALID_FILE',
      `Expected ${EXPECTED_FILE} in the model folder ${path} but it is missing; there is nothing to compare with`,
      { op: 'verify' },
    );
  }
  const found: Target[] = [];
  try {
    search(path, found);
  } catch (error) {
    throw ioError(error, 'search', path);
  }
  if (found.length > 0) return found;
  throw new GsaError(
    'INVALID_FILE',
    `Expected operator vectors (*.safetensors) or model folders with ${EXPECTED_FILE} below ${path} but found none`,
    { op: 'verify' },
  );
}

/** What there is to check in a vector file, a model folder, or a folder that is searched for both, in the order of names.
 * Nothing is loaded yet.
 * @throws GsaError IO for a path that cannot be read, INVALID_FILE where there is nothing to check, INVALID_ARGUMENT for
 * an empty list */
export function findTargets(paths: readonly string[]): Target[] {
  if (!Array.isArray(paths) || paths.length === 0 || !paths.every((path) => typeof path === 'string'))
    throw expected('one or more paths', 'paths', paths, 'verify');
  return paths.flatMap(targetsOf);
}
