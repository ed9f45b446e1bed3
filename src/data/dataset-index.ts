import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { GsaError, checkPath } from '../native/errors.js';
import { ioError } from '../io/files.js';

export const INDEX_NAME = 'index.json';

const count = z.int().min(0);
const sha256 = z.string().regex(/^[0-9a-f]{64}$/);

const splitSchema = z.strictObject({
  documents: count,
  /** Of the text in UTF-8, for bits per byte. */
  textBytes: count,
  /** End-of-document tokens included. */
  tokens: count,
  shards: z.array(
    z.strictObject({
      // A file of this folder and nothing else, whoever wrote the index.
      file: z.string().regex(/^(train|validation)-\d{5,}\.bin$/),
      tokens: z.int().min(1),
      sha256,
    }),
  ),
});

const indexSchema = z.strictObject({
  format: z.literal('flash-gsa tokens'),
  version: z.literal(1),
  tokenizer: z.strictObject({ sha256, vocabSize: z.int().min(1) }),
  /** Ends every document. */
  eosId: count,
  bytesPerToken: z.union([z.literal(2), z.literal(4)]),
  reading: z.strictObject({ textField: z.string(), separator: z.string().nullable() }),
  heldOut: z.strictObject({ fraction: z.number().min(0).max(0.5), seed: count }),
  sources: z.array(z.strictObject({ path: z.string(), bytes: count, modified: z.number(), sha256 })),
  /** Documents without text, which were skipped. */
  emptyDocuments: count,
  splits: z.strictObject({ train: splitSchema, validation: splitSchema }),
});

/** What index.json of a token folder says. */
export type DatasetIndex = z.output<typeof indexSchema>;
export type SplitName = keyof DatasetIndex['splits'];
export type SourceFile = DatasetIndex['sources'][number];

/** @throws GsaError INVALID_FILE naming the file and the field, IO when the system refuses. */
export function readIndex(folder: string): DatasetIndex {
  const path = join(checkPath(folder, 'folder'), INDEX_NAME);
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
    throw malformed(path, `Expected JSON but ${(cause as Error).message}`);
  }
  const parsed = indexSchema.safeParse(json);
  if (!parsed.success) throw malformed(path, z.prettifyError(parsed.error).replaceAll('\n', ' '));
  const { eosId, tokenizer } = parsed.data;
  if (eosId >= tokenizer.vocabSize)
    throw malformed(path, `Expected an eosId below ${tokenizer.vocabSize} but received ${eosId}`);
  for (const [name, split] of Object.entries(parsed.data.splits)) {
    const sum = split.shards.reduce((total, shard) => total + shard.tokens, 0);
    if (sum !== split.tokens)
      throw malformed(
        path,
        `Expected the shards of ${name} to hold ${split.tokens} tokens but they hold ${sum}`,
      );
  }
  return parsed.data;
}

function malformed(path: string, message: string): GsaError {
  return new GsaError('INVALID_FILE', `${path}: ${message}; delete its folder to build it again`);
}
