import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import * as fc from 'fast-check';
import { GsaError, type GsaErrorCode } from '#src/native/errors.js';
import { openSafetensors, writeSafetensors } from '#src/io/safetensors.js';
import { tempFolder } from './temp.js';

function fileBytes(header: string | Uint8Array, dataBytes = 0, length?: bigint): Buffer {
  const json = Buffer.from(header as string);
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(length ?? BigInt(json.length));
  return Buffer.concat([prefix, json, Buffer.alloc(dataBytes)]);
}

const tensor = (fields: object) =>
  JSON.stringify({ 'layer.weight': { dtype: 'F32', shape: [2], data_offsets: [0, 8], ...fields } });
const two = (a: [number, number], b: [number, number]) =>
  JSON.stringify({
    a: { dtype: 'I32', shape: [(a[1] - a[0]) / 4], data_offsets: a },
    b: { dtype: 'I32', shape: [(b[1] - b[0]) / 4], data_offsets: b },
  });

const MALFORMED: Record<string, { bytes: Buffer; message: RegExp }> = {
  'an empty file': { bytes: Buffer.alloc(0), message: /at least 8 bytes/ },
  'seven bytes': { bytes: Buffer.alloc(7), message: /at least 8 bytes/ },
  'a header length past the file': { bytes: fileBytes('{}', 0, 3n), message: /header of 3 bytes/ },
  'a header length past 100 MB': { bytes: fileBytes('{}', 0, 100_000_001n), message: /at most 100000000/ },
  'a header length of 2^64 - 1': {
    bytes: fileBytes('{}', 0, 2n ** 64n - 1n),
    message: /1844674407370955161/,
  },
  'a header of no bytes': { bytes: fileBytes(''), message: /starts with "\{"/ },
  'a header that starts with a space': { bytes: fileBytes(' {}'), message: /starts with "\{"/ },
  'a byte order mark': { bytes: fileBytes('\ufeff{}'), message: /starts with "\{"/ },
  'an array for the header': { bytes: fileBytes('[]'), message: /starts with "\{"/ },
  'broken JSON': { bytes: fileBytes('{"a":'), message: /JSON header/ },
  'text after the JSON': { bytes: fileBytes('{} x'), message: /JSON header/ },
  'invalid UTF-8': { bytes: fileBytes(Uint8Array.of(0x7b, 0x22, 0xff, 0x22)), message: /UTF-8/ },
  'a repeated tensor': {
    bytes: fileBytes('{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"\\u0061":{}}'),
    message: /"a" comes twice/,
  },
  'a repeated field': {
    bytes: fileBytes('{"a":{"dtype":"U8","dtype" :"I8","shape":[0],"data_offsets":[0,0]}}'),
    message: /"dtype" comes twice/,
  },
  'metadata that is no object': { bytes: fileBytes('{"__metadata__":[]}'), message: /__metadata__/ },
  'metadata that is no string': { bytes: fileBytes('{"__metadata__":{"k":1}}'), message: /"k".*received 1/ },
  'a tensor that is no object': { bytes: fileBytes('{"w":null}'), message: /"w" but received null/ },
  'an unknown field': {
    bytes: fileBytes(tensor({ strides: [1] }), 8),
    message: /only the fields.*"strides"/,
  },
  'no dtype': { bytes: fileBytes(tensor({ dtype: undefined }), 8), message: /dtype.*"layer.weight"/ },
  'an unknown dtype': { bytes: fileBytes(tensor({ dtype: 'F31' }), 8), message: /dtype.*"F31"/ },
  'the dtype "constructor"': { bytes: fileBytes(tensor({ dtype: 'constructor' }), 8), message: /dtype/ },
  'a shape that is no array': { bytes: fileBytes(tensor({ shape: 2 }), 8), message: /shape.*received 2/ },
  'a negative extent': { bytes: fileBytes(tensor({ shape: [-2] }), 8), message: /non-negative integers/ },
  'a fractional extent': {
    bytes: fileBytes(tensor({ shape: [0.5, 4] }), 8),
    message: /non-negative integers/,
  },
  'an extent past 2^53': { bytes: fileBytes(tensor({ shape: [2 ** 53] }), 8), message: /non-negative/ },
  'an overflow hidden by a zero': {
    bytes: fileBytes(tensor({ shape: [2 ** 40, 2 ** 40, 0], data_offsets: [0, 0] })),
    message: /2\^53/,
  },
  'one offset': { bytes: fileBytes(tensor({ data_offsets: [0] }), 8), message: /data_offsets/ },
  'offsets in text': { bytes: fileBytes(tensor({ data_offsets: ['0', '8'] }), 8), message: /data_offsets/ },
  'offsets in reverse': { bytes: fileBytes(tensor({ data_offsets: [8, 0] }), 8), message: /8 bytes/ },
  'a size unequal to the shape': { bytes: fileBytes(tensor({ shape: [3] }), 8), message: /12 bytes \(F32/ },
  'a sub-byte size': { bytes: fileBytes(tensor({ dtype: 'F4', shape: [15] }), 8), message: /7.5 bytes/ },
  'a hole at the start': { bytes: fileBytes(tensor({ data_offsets: [4, 12] }), 12), message: /leave a hole/ },
  'a hole between tensors': { bytes: fileBytes(two([0, 4], [8, 12]), 12), message: /"b".*leave a hole/ },
  'tensors that overlap': { bytes: fileBytes(two([0, 8], [4, 12]), 12), message: /"b".*overlap/ },
  'a truncated file': { bytes: fileBytes(tensor({}), 7), message: /truncated/ },
  'bytes after the last tensor': { bytes: fileBytes(tensor({}), 9), message: /longer than its header/ },
};

function refuses(
  t: ExecutionContext,
  path: string,
  message: RegExp,
  code: GsaErrorCode = 'INVALID_FILE',
): void {
  const error = t.throws(() => openSafetensors(path), { instanceOf: GsaError, message })!;
  t.is(error.code, code);
  t.true(error.message.includes(path), `the message names the file: ${error.message}`);
}

for (const [title, { bytes, message }] of Object.entries(MALFORMED))
  test(`a safetensors file with ${title} is refused`, (t) => {
    const path = join(tempFolder(t), 'bad.safetensors');
    writeFileSync(path, bytes);
    refuses(t, path, message);
  });

test('a missing file and a folder without weights are refused', (t) => {
  const folder = tempFolder(t);
  refuses(t, join(folder, 'none.safetensors'), /no such file/, 'IO');
  refuses(t, folder, /model\.safetensors/);
});

test('random bytes and mutations of a valid file give a reader or a GsaError', (t) => {
  const path = join(tempFolder(t), 'fuzz.safetensors');
  const valid = fileBytes(
    JSON.stringify({
      __metadata__: { format: 'pt' },
      a: { dtype: 'F32', shape: [2, 1], data_offsets: [0, 8] },
      b: { dtype: 'BF16', shape: [], data_offsets: [8, 10] },
      c: { dtype: 'F16', shape: [1, 0], data_offsets: [10, 10] },
    }),
    10,
  );
  let opened = 0;
  const open = (bytes: Uint8Array) => {
    writeFileSync(path, bytes);
    try {
      using reader = openSafetensors(path);
      opened++;
      for (const name of reader.names) if (reader.info(name).dtype) reader.read(name);
    } catch (error) {
      if (!(error instanceof GsaError)) throw error;
    }
  };
  open(valid);
  t.is(opened, 1);
  const edit = fc.record({ at: fc.nat(valid.length - 1), byte: fc.nat(255) });
  fc.assert(
    fc.property(fc.array(edit, { minLength: 1, maxLength: 4 }), (edits) => {
      const bytes = Buffer.from(valid);
      for (const { at, byte } of edits) bytes[at] = byte;
      open(bytes);
    }),
    { numRuns: 600, seed: 1 },
  );
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => open(fileBytes(bytes, 4))),
    { numRuns: 200, seed: 2 },
  );
  fc.assert(
    fc.property(fc.json(), fc.nat(16), (json, dataBytes) => open(fileBytes(json, dataBytes))),
    { numRuns: 200, seed: 3 },
  );
});

const scalar = (name: string) => ({ name, dtype: 'float32' as const, shape: [1], data: Float32Array.of(1) });

function sharded(t: ExecutionContext, index: unknown): string {
  const folder = tempFolder(t);
  mkdirSync(join(folder, 'sub'));
  writeSafetensors(join(folder, 's1.safetensors'), [scalar('a'), scalar('b')], { format: 'pt' });
  writeSafetensors(join(folder, 's2.safetensors'), [scalar('c')]);
  writeSafetensors(join(folder, 'sub', 's3.safetensors'), [scalar('d')]);
  const path = join(folder, 'model.safetensors.index.json');
  writeFileSync(path, typeof index === 'string' ? index : JSON.stringify(index));
  return path;
}

const good = { a: 's1.safetensors', b: 's1.safetensors', c: 's2.safetensors' };
const BAD_INDEX: Record<string, { index: unknown; message: RegExp }> = {
  'broken JSON': { index: '{', message: /Expected JSON/ },
  null: { index: null, message: /weight_map/ },
  'no weight_map': { index: { metadata: {} }, message: /weight_map/ },
  'an array for weight_map': { index: { weight_map: [] }, message: /weight_map/ },
  'a tensor twice': {
    index: '{"weight_map":{"c":"s2.safetensors","c":"s1.safetensors"}}',
    message: /"c" comes twice/,
  },
  'a missing shard': {
    index: { weight_map: { ...good, z: 's9.safetensors' } },
    message: /s9\.safetensors.*missing/,
  },
  'a tensor in the wrong shard': {
    index: { weight_map: { ...good, b: 's2.safetensors' } },
    message: /"b" in s2/,
  },
  'a tensor that no shard holds': {
    index: { weight_map: { ...good, e: 's2.safetensors' } },
    message: /"e" in the shard s2/,
  },
  'a tensor left out': { index: { weight_map: { a: 's1.safetensors' } }, message: /"b" in no shard/ },
  'a number for a shard': { index: { weight_map: { ...good, c: 2 } }, message: /"c" but received 2/ },
  'a shard in another folder': {
    index: { weight_map: { d: 'sub/s3.safetensors' } },
    message: /without a folder/,
  },
  'a shard outside': { index: { weight_map: { d: '../x.safetensors' } }, message: /without a folder/ },
  'an absolute shard': { index: { weight_map: { d: '/etc/x.safetensors' } }, message: /without a folder/ },
  'a backslash': { index: { weight_map: { d: '..\\x.safetensors' } }, message: /without a folder/ },
  'a shard of another kind': { index: { weight_map: { d: 'passwd' } }, message: /ends in \.safetensors/ },
};

for (const [title, { index, message }] of Object.entries(BAD_INDEX))
  test(`a sharded index with ${title} is refused`, (t) => refuses(t, sharded(t, index), message));

test('a sharded folder reads as one file', (t) => {
  const path = sharded(t, { metadata: { total_size: 12 }, weight_map: good });
  using reader = openSafetensors(join(path, '..'));
  t.deepEqual(reader.names, ['a', 'b', 'c']);
  t.deepEqual(reader.metadata, { format: 'pt' });
  t.deepEqual(reader.read('c').data, Float32Array.of(1));
  t.true(reader.has('b'));
  t.false(reader.has('d'));
  t.throws(() => reader.info('d'), { instanceOf: GsaError, message: /"d"/ });
});
