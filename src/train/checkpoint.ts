import { createHash } from 'node:crypto';
import {
  createReadStream,
  existsSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { basename, join } from 'node:path';
import type { SamplerState } from '../data/sampler.js';
import { removeStaleTemps, writeFolderAtomic } from '../io/atomic.js';
import { ioError } from '../io/files.js';
import { GsaError, show } from '../native/errors.js';

/** trainer.json: all of a run that is neither a weight nor a moment. */
export interface TrainerState {
  readonly step: number;
  /** Counted tokens so far. */
  readonly tokens: number;
  /** Training seconds so far. */
  readonly seconds: number;
  /** Skipped updates in all, and those at the end in a row. */
  readonly skipped: number;
  readonly nonFiniteInARow: number;
  /** The sampler's position: which sequences come next. */
  readonly sampler: SamplerState;
  /** Identifies the packed tokens; a run cannot go on over other text. */
  readonly text: string;
  /** See TrainStart; kept, since it takes a pass over all of the text. */
  readonly unigramEntropy: number | null;
  /** The configuration, for the comparison at resumption. */
  readonly config: unknown;
}

interface Manifest extends TrainerState {
  readonly format: 1;
  readonly files: Readonly<Record<string, { readonly bytes: number; readonly sha256: string }>>;
}

export interface Checkpoint {
  readonly path: string;
  readonly state: TrainerState;
}

const FOLDER = /^step-(\d{6,})$/;
const MANIFEST = 'trainer.json';

export function checkpointName(step: number): string {
  return `step-${String(step).padStart(6, '0')}`;
}

/** The checkpoint folders of a run, newest first, whether they are whole or not. */
export function checkpointFolders(output: string): { step: number; path: string }[] {
  if (!existsSync(output)) return [];
  return readdirSync(output)
    .flatMap((name) => {
      const match = FOLDER.exec(name);
      return match ? [{ step: Number(match[1]), path: join(output, name) }] : [];
    })
    .toSorted((a, b) => b.step - a.step);
}

async function hashFile(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) hash.update(chunk as Buffer);
  return hash.digest('hex');
}

/** Writes `step-NNNNNN` with what `fill` puts into it and trainer.json, which names every file with size and hash; then
 * deletes the oldest folders beyond `keep`. The folder appears whole or not at all.
 * @returns its path
 * @throws GsaError IO when the system refuses (a full disk); earlier checkpoints are untouched. */
export async function saveCheckpoint(
  output: string,
  state: TrainerState,
  fill: (folder: string) => void | Promise<void>,
  keep: number,
): Promise<string> {
  const path = join(output, checkpointName(state.step));
  await writeFolderAtomic(path, async (folder) => {
    await fill(folder);
    const files: Record<string, { bytes: number; sha256: string }> = {};
    for (const name of readdirSync(folder).toSorted()) {
      const file = join(folder, name);
      files[name] = { bytes: statSync(file).size, sha256: await hashFile(file) };
    }
    const manifest: Manifest = { format: 1, ...state, files };
    writeFileSync(join(folder, MANIFEST), JSON.stringify(manifest, null, 2) + '\n');
  });
  const mine = checkpointFolders(output).filter((folder) => folder.step <= state.step);
  for (const old of mine.slice(keep)) rmSync(old.path, { recursive: true, force: true });
  return path;
}

function bad(path: string, message: string): GsaError {
  return new GsaError('INVALID_FILE', `${path}: ${message}`);
}

/** Reads and checks a checkpoint: every file that trainer.json names is there with its size and hash.
 * @throws GsaError INVALID_FILE that says what is wrong, IO */
export async function openCheckpoint(path: string): Promise<Checkpoint> {
  const file = join(path, MANIFEST);
  let manifest: Manifest;
  try {
    manifest = JSON.parse(readFileSync(file, 'utf8')) as Manifest;
  } catch (error) {
    if (error instanceof SyntaxError) throw bad(file, `Expected JSON but ${error.message}`);
    throw ioError(error, 'read', file);
  }
  if (manifest?.format !== 1 || !Number.isInteger(manifest.step) || typeof manifest.files !== 'object')
    throw bad(file, `Expected the trainer state of format 1 but received ${show(manifest?.format)}`);
  for (const [name, { bytes, sha256 }] of Object.entries(manifest.files)) {
    const part = join(path, name);
    const size = existsSync(part) ? statSync(part).size : null;
    if (size !== bytes)
      throw bad(
        part,
        `Expected ${bytes} bytes but ${size === null ? 'the file is missing' : `it has ${size}`}`,
      );
    if ((await hashFile(part)) !== sha256)
      throw bad(part, 'Expected the content that was saved but it has changed');
  }
  const { format: _format, files: _files, ...state } = manifest;
  return { path, state };
}

/** The newest whole checkpoint of a run, or null; changes nothing. A damaged one is passed over and `onSkip` told why. */
export async function latestCheckpoint(
  output: string,
  onSkip: (path: string, reason: string) => void = () => {},
): Promise<Checkpoint | null> {
  for (const { path } of checkpointFolders(output)) {
    try {
      return await openCheckpoint(path);
    } catch (error) {
      if (!(error instanceof GsaError)) throw error;
      onSkip(path, error.message);
    }
  }
  return null;
}

/** Finds where a run goes on, and readies its folder for writing: what a killed process left half-written is cleared
 * away, and damaged checkpoints are renamed to `damaged-step-NNNNNN`, each with a warning.
 * @throws GsaError IO */
export async function recoverCheckpoint(
  output: string,
  warn: (message: string) => void,
): Promise<Checkpoint | null> {
  removeStaleTemps(output);
  return latestCheckpoint(output, (path, reason) => {
    const aside = join(output, `damaged-${basename(path)}`);
    try {
      rmSync(aside, { recursive: true, force: true });
      renameSync(path, aside);
    } catch (error) {
      throw ioError(error, 'set aside', path);
    }
    warn(`${reason}; this checkpoint was set aside as ${aside}`);
  });
}
