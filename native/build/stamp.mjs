// Decides whether a part must be built again: a hash over its sources and everything else that shapes the binary.
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

/** Hex SHA-256 over the named files' contents (paths relative to `root`) and the given facts. */
export function fingerprint(root, paths, facts) {
  const hash = createHash('sha256');
  for (const path of paths.toSorted())
    hash
      .update(`${path}\0`)
      .update(readFileSync(join(root, path)))
      .update('\0');
  return hash.update(JSON.stringify(facts)).digest('hex');
}

/** A JSON file, or null when there is none or it is damaged (then whatever it describes is built again). */
export function readJson(path) {
  try {
    return existsSync(path) ? JSON.parse(readFileSync(path, 'utf8')) : null;
  } catch {
    return null;
  }
}

/** Writes beside the target and renames, so that an interrupted install leaves the old file or the new one. */
export function writeJson(path, value) {
  mkdirSync(dirname(path), { recursive: true });
  const temporary = `${path}.${process.pid}.tmp`;
  writeFileSync(temporary, `${JSON.stringify(value, null, 2)}\n`);
  renameSync(temporary, path);
}
