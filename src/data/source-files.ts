import { createHash } from 'node:crypto';
import { createReadStream, statSync } from 'node:fs';
import { ioError } from '../io/files.js';
import type { DatasetIndex, SourceFile } from './dataset-index.js';
import { listTextFiles } from './files.js';
import type { HeldOut } from './held-out.js';
import type { Tokenizer } from './tokenizer.js';

interface Wanted {
  readonly paths: readonly string[];
  readonly tokenizer: Tokenizer;
  readonly textField?: string;
  readonly separator?: string;
  readonly heldOut?: HeldOut;
}

/** What differs between the text and settings that tokens were packed from and those wanted now, in words; null when
 * nothing does.
 * @throws GsaError IO when a file cannot be read, INVALID_ARGUMENT when there is none. */
export async function changedSetting(index: DatasetIndex, wanted: Wanted): Promise<string | null> {
  const { tokenizer, textField = 'text', separator = null, heldOut } = wanted;
  if (index.tokenizer.sha256 !== tokenizer.sha256) return 'the tokenizer';
  if (index.eosId !== tokenizer.eosId) return 'the end-of-document token';
  if (index.reading.textField !== textField) return 'textField';
  if (index.reading.separator !== separator) return 'separator';
  if (index.heldOut.fraction !== (heldOut?.fraction ?? 0)) return 'heldOut.fraction';
  if (index.heldOut.fraction > 0 && index.heldOut.seed !== heldOut?.seed) return 'heldOut.seed';
  const files = listTextFiles(wanted.paths);
  if (files.length !== index.sources.length)
    return `the number of files (${index.sources.length}, now ${files.length})`;
  for (const [i, path] of files.entries())
    if (!(await isUnchanged(path, index.sources[i]!))) return `the file ${path}`;
  return null;
}

/** The same size and time of change at the same path is taken for the same content; else the content decides, so that a
 * copied or moved folder of text is known again. */
async function isUnchanged(path: string, source: SourceFile): Promise<boolean> {
  try {
    const info = statSync(path);
    if (info.size !== source.bytes) return false;
    if (path === source.path && info.mtimeMs === source.modified) return true;
    const hash = createHash('sha256');
    for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer);
    return hash.digest('hex') === source.sha256;
  } catch (error) {
    throw ioError(error, 'read', path);
  }
}
