import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { GsaError } from '../native/errors.js';

/** A model folder as given, or the newest whole checkpoint of a training's output folder.
 * @throws GsaError INVALID_FILE when it is neither */
export async function modelFolder(path: string, argument: string): Promise<string> {
  if (existsSync(join(path, 'config.json'))) return path;
  const { latestCheckpoint } = await import('../train/checkpoint.js');
  const found = await latestCheckpoint(path);
  if (found) return found.path;
  throw new GsaError(
    'INVALID_FILE',
    `Expected a model folder (with a config.json) or the output folder of a training for ${argument} but received ${path}`,
  );
}
