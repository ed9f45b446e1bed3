/** A model's weights as Hugging Face lays them out: model.safetensors, or shards under model.safetensors.index.json. */
import { existsSync, readFileSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { GsaError, expected, show } from '../native/errors.js';
import type { HostArray } from '../tensor/dtype.js';
import { ioError } from './files.js';
import {
  openSafetensorsFile,
  type HostTensor,
  type SafetensorsInfo,
  type SafetensorsReader,
} from './safetensors-file.js';
import { duplicateKey } from './safetensors-header.js';

export { writeSafetensors, type SafetensorsEntry } from './safetensors-write.js';
export type { HostTensor, SafetensorsInfo, SafetensorsReader } from './safetensors-file.js';

export const WEIGHTS_FILE = 'model.safetensors';
export const INDEX_FILE = 'model.safetensors.index.json';

/** Opens weights for reading.
 * @param path a .safetensors file, an index .json file, or a folder that holds `model.safetensors` (taken first) or
 * `model.safetensors.index.json`
 * @throws GsaError INVALID_FILE naming the file and the tensor when anything is malformed or the index disagrees with
 * its shards, IO when the system refuses. */
export function openSafetensors(path: string): SafetensorsReader {
  const file = isFolder(path) ? weightsIn(path) : path;
  return file.endsWith('.json') ? openIndex(file) : openSafetensorsFile(file);
}

function isFolder(path: string): boolean {
  try {
    return statSync(path).isDirectory();
  } catch (error) {
    throw ioError(error, 'read', path);
  }
}

function weightsIn(folder: string): string {
  for (const name of [WEIGHTS_FILE, INDEX_FILE]) {
    const file = join(folder, name);
    if (existsSync(file)) return file;
  }
  throw new GsaError(
    'INVALID_FILE',
    `Expected ${WEIGHTS_FILE} or ${INDEX_FILE} in the folder ${folder} but neither is there`,
  );
}

function bad(path: string, message: string, cause?: unknown): GsaError {
  return new GsaError('INVALID_FILE', `${path}: ${message}`, { op: 'safetensors', cause });
}

/** The index's weight map, checked: tensor name to shard file name. */
function readIndex(path: string): Map<string, string> {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    throw ioError(error, 'read', path);
  }
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw bad(path, `Expected JSON but ${(cause as Error).message}`, cause);
  }
  const map = (json as { weight_map?: unknown } | null)?.weight_map;
  if (map === null || typeof map !== 'object' || Array.isArray(map))
    throw bad(path, `Expected an object for weight_map but received ${show(map)}`);
  const twice = duplicateKey(text);
  if (twice !== null) throw bad(path, `Expected every key once but ${show(twice)} comes twice`);
  for (const [name, shard] of Object.entries(map))
    // A shard lies in the index's own folder: a name with a separator could reach any file of the user's.
    if (typeof shard !== 'string' || !/^[^/\\\0]+\.safetensors$/.test(shard))
      throw bad(
        path,
        `Expected a file name that ends in .safetensors, without a folder, for the shard of tensor ${show(name)} but received ${show(shard)}`,
      );
  return new Map(Object.entries(map as Record<string, string>));
}

function openIndex(path: string): SafetensorsReader {
  const shardOf = readIndex(path);
  const shards = new Map<string, SafetensorsReader>();
  try {
    for (const shard of [...new Set(shardOf.values())].toSorted()) {
      const file = join(dirname(path), shard);
      if (!existsSync(file))
        throw bad(path, `Expected the shard ${shard} beside the index but it is missing`);
      shards.set(shard, openSafetensorsFile(file));
    }
    checkAgreement(path, shardOf, shards);
    return new ShardedReader(path, shardOf, shards);
  } catch (error) {
    for (const reader of shards.values()) reader.close();
    throw error;
  }
}

function checkAgreement(
  path: string,
  shardOf: ReadonlyMap<string, string>,
  shards: ReadonlyMap<string, SafetensorsReader>,
): void {
  for (const [shard, reader] of shards)
    for (const name of reader.names)
      if (shardOf.get(name) !== shard)
        throw bad(
          path,
          `Expected tensor ${show(name)} in ${shardOf.get(name) ?? 'no shard'} but the shard ${shard} holds it`,
        );
  for (const [name, shard] of shardOf)
    if (!shards.get(shard)!.has(name))
      throw bad(path, `Expected tensor ${show(name)} in the shard ${shard} but it is not there`);
}

class ShardedReader implements SafetensorsReader {
  readonly names: readonly string[];
  readonly metadata: Readonly<Record<string, string>>;
  readonly #path: string;
  readonly #shardOf: ReadonlyMap<string, string>;
  readonly #shards: ReadonlyMap<string, SafetensorsReader>;

  constructor(
    path: string,
    shardOf: ReadonlyMap<string, string>,
    shards: ReadonlyMap<string, SafetensorsReader>,
  ) {
    this.#path = path;
    this.#shardOf = shardOf;
    this.#shards = shards;
    this.names = [...shards.values()].flatMap((reader) => reader.names);
    this.metadata = Object.assign({}, ...[...shards.values()].map((reader) => reader.metadata));
  }

  has(name: string): boolean {
    return this.#shardOf.has(name);
  }

  info(name: string): SafetensorsInfo {
    return this.#shard(name).info(name);
  }

  read(name: string): HostTensor {
    return this.#shard(name).read(name);
  }

  readInto(name: string, start: number, target: HostArray): void {
    this.#shard(name).readInto(name, start, target);
  }

  close(): void {
    for (const reader of this.#shards.values()) reader.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #shard(name: string): SafetensorsReader {
    const shard = this.#shardOf.get(name);
    if (shard === undefined)
      throw expected(`the name of a tensor in ${this.#path}`, 'name', name, 'safetensors');
    return this.#shards.get(shard)!;
  }
}
