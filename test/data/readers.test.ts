import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { listTextFiles } from '#src/data/files.js';
import { readDocuments, type ReadOptions } from '#src/data/readers.js';
import { GsaError } from '#src/native/errors.js';
import { tempFolder } from '../io/temp.js';

async function read(path: string, options: ReadOptions = {}) {
  const reader = readDocuments([path], options);
  const documents = [];
  for await (const document of reader) documents.push(document);
  if (documents.length !== reader.documents) throw new Error(`${reader.documents} documents were counted`);
  return { texts: documents.map((document) => document.text), documents, empty: reader.empty };
}

function file(t: ExecutionContext, name: string, content: string | Uint8Array): string {
  const path = join(tempFolder(t), name);
  writeFileSync(path, content);
  return path;
}

async function refuses(t: ExecutionContext, path: string, message: RegExp, options: ReadOptions = {}) {
  const error = await t.throwsAsync(read(path, options), { instanceOf: GsaError, message });
  t.is(error?.code, 'INVALID_FILE');
  t.true(error?.message.includes(path));
}

test('a .txt file is one document, with "\\n" for "\\r\\n" and no byte order mark', async (t) => {
  const path = file(t, 'a.txt', '\ufeffone\r\ntwo\rthree\n\u2028four\u0085 \ufeff');
  t.deepEqual((await read(path)).texts, ['one\ntwo\rthree\n\u2028four\u0085 \ufeff']);
});

test('a separator cuts a .txt file, wherever it lies', async (t) => {
  const path = file(t, 'a.txt', 'a<|sep|>b\n<|sep|>\n<|sep|>c c<|sep|>\n');
  const { texts, documents, empty } = await read(path, { separator: '<|sep|>' });
  t.deepEqual(texts, ['a', 'b\n', 'c c']);
  t.deepEqual(
    documents.map((document) => document.index),
    [0, 1, 3],
  );
  t.is(empty, 1);
  const long = 'word word\n'.repeat(150_000);
  const many = file(t, 'many.txt', [long, 'x', `${long}y`, 'end'].join('|-|'));
  t.deepEqual((await read(many, { separator: '|-|' })).texts, [long, 'x', `${long}y`, 'end']);
});

// Chunks of a read are 1 MiB: shift characters of 1 to 4 bytes over that boundary, in one line and in many.
for (const ending of ['', '\n', '\r\n'])
  test(`characters of 1 to 4 bytes survive every split of the file, with lines ending in ${JSON.stringify(ending)}`, async (t) => {
    const unit = `aé漢😀\u2028${ending}`;
    for (let shift = 0; shift < 12; shift++) {
      const text = 'x'.repeat(shift) + unit.repeat(Math.ceil(2 ** 21 / Buffer.byteLength(unit)));
      const path = file(t, 'a.txt', text);
      const { texts } = await read(path);
      t.true(texts.length === 1 && texts[0] === text.replaceAll('\r\n', '\n'), `shift ${shift}`);
    }
  });

test('a .jsonl file is a document a line, split at newlines alone', async (t) => {
  const lines = [
    '\ufeff{"text":"a\u2028b\u2029c\u0085","other":1}\r',
    '{"text":"\\u2028 \\ud83d\\ude00 \\r\\n"}',
    '',
    '   \t\r',
    '{"text":""}',
    '{"text":" \\n\\t\\u00a0"}',
    '{"text":"last"}',
  ];
  const { texts, documents, empty } = await read(file(t, 'a.jsonl', lines.join('\n')));
  t.deepEqual(texts, ['a\u2028b\u2029c\u0085', '\u2028 😀 \r\n', 'last']);
  t.is(empty, 2);
  t.deepEqual(
    documents.map((document) => document.index),
    [0, 1, 4],
  );
});

test('a .jsonl line longer than every buffer is one document', async (t) => {
  const text = '長い'.repeat(600_000);
  const path = file(t, 'a.jsonl', `${JSON.stringify({ text })}\n${JSON.stringify({ text: 'b' })}\n`);
  const { texts } = await read(path);
  t.true(texts.length === 2 && texts[0] === text && texts[1] === 'b');
});

test('another field can hold the text', async (t) => {
  const path = file(t, 'a.jsonl', '{"text":"no","content":"yes"}');
  t.deepEqual((await read(path, { textField: 'content' })).texts, ['yes']);
});

const BAD_LINES: Record<string, { line: string; message: RegExp }> = {
  'broken JSON': { line: '{"text":', message: /line 3: Expected one JSON object/ },
  'two objects': { line: '{"text":"a"}{"text":"b"}', message: /line 3: Expected one JSON object/ },
  'an array': { line: '["text"]', message: /line 3: Expected a JSON object/ },
  null: { line: 'null', message: /line 3: .*received null/ },
  'a missing field': { line: '{"Text":"a"}', message: /line 3: .*"text" but received undefined.*"Text"/ },
  'an inherited field': { line: '{}', message: /line 3: .*"toString"/ },
  'a number': { line: '{"text":5}', message: /line 3: .*received 5/ },
  'half a surrogate pair': { line: '{"text":"\\ud800x"}', message: /line 3: .*half a character/ },
};

for (const [title, { line, message }] of Object.entries(BAD_LINES))
  test(`a .jsonl line with ${title} is reported by file and line`, async (t) => {
    const path = file(t, 'a.jsonl', `{"text":"a","toString":"b"}\r\n\n${line}\n{"text":"c","toString":"d"}`);
    await refuses(t, path, message, title === 'an inherited field' ? { textField: 'toString' } : {});
  });

test('invalid UTF-8 is reported by file and line', async (t) => {
  const bytes = Buffer.concat([
    Buffer.from('ok\n漢\n\nbad '),
    Buffer.of(0xe6, 0xbc),
    Buffer.from('\nmore\n'),
  ]);
  await refuses(t, file(t, 'a.txt', bytes), /line 4: Expected UTF-8/);
  await refuses(
    t,
    file(t, 'b.txt', Buffer.concat([Buffer.alloc(2 ** 20 + 5, 'a\n'), bytes])),
    /line 524294: /,
  );
  await refuses(t, file(t, 'cut.txt', Buffer.of(0x61, 0xf0, 0x9f)), /line 1: Expected UTF-8/);
  const line = Buffer.concat([
    Buffer.from('{"text":"a"}\n{"text":"'),
    Buffer.of(0xc0, 0x80),
    Buffer.from('"}'),
  ]);
  await refuses(t, file(t, 'a.jsonl', line), /line 2: Expected UTF-8/);
});

test('folders are searched in the order of names, links to files followed, others and hidden files left out', (t) => {
  const folder = tempFolder(t);
  for (const name of ['b', 'a', '.git', 'Z', 'a/deep']) mkdirSync(join(folder, name));
  for (const name of [
    'b/1.txt',
    'a/2.TXT',
    'a/deep/3.jsonl',
    'Z/4.txt',
    '.git/5.txt',
    '.6.txt',
    '7.md',
    'a10.txt',
    'a9.txt',
  ])
    writeFileSync(join(folder, name), 'x');
  symlinkSync(join(folder, 'b', '1.txt'), join(folder, 'link.txt'));
  symlinkSync(folder, join(folder, 'circle.txt'));
  symlinkSync(folder, join(folder, 'circle'));
  const names = ['Z/4.txt', 'a/2.TXT', 'a/deep/3.jsonl', 'a10.txt', 'a9.txt', 'b/1.txt', 'link.txt'];
  const paths = names.map((name) => join(folder, name));
  t.deepEqual(listTextFiles([folder]), paths);
  t.deepEqual(
    listTextFiles([paths[5]!, folder]),
    [paths[5]!, ...paths.filter((_, i) => i !== 5)],
    'each file once',
  );
});

test('nothing to read, other files and other values are refused', (t) => {
  const folder = tempFolder(t);
  writeFileSync(join(folder, 'a.md'), 'x');
  const refused: [string[], RegExp][] = [
    [[folder], /at least one \.txt or \.jsonl/],
    [[join(folder, 'a.md')], /ends in \.txt or \.jsonl/],
    [[join(folder, 'none.txt')], /no such file/],
    [[], /at least one/],
    [[5 as unknown as string], /path of a file/],
  ];
  for (const [paths, message] of refused)
    t.throws(() => listTextFiles(paths), { instanceOf: GsaError, message });
  t.throws(() => readDocuments([folder], { separator: '' }), { instanceOf: GsaError, message: /separator/ });
});

test('a signal stops reading', async (t) => {
  const controller = new AbortController();
  const path = file(t, 'a.jsonl', '{"text":"a"}\n'.repeat(10));
  const seen: string[] = [];
  const reading = async () => {
    for await (const { text } of readDocuments([path], { signal: controller.signal })) {
      seen.push(text);
      if (seen.length === 3) controller.abort();
    }
  };
  const error = await t.throwsAsync(reading(), { instanceOf: GsaError });
  t.is(error?.code, 'ABORTED');
  t.is(seen.length, 3);
});
