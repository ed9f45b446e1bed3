/** Documents from .txt and .jsonl files, streamed. */
import { extname } from 'node:path';
import { GsaError, checkFunction, checkOptions, expected, show } from '../native/errors.js';
import { listTextFiles } from './files.js';
import { decodeBlock, invalidLine, lineBlocks, linesOf } from './lines.js';

export interface ReadOptions {
  /** The field of a .jsonl line that holds its text; "text" when absent. */
  textField?: string;
  /** Cuts a .txt file into documents wherever this string stands, for example "<|endoftext|>" or "\n\n\n"; the whole
   * file is one document when absent. */
  separator?: string;
  /** Sees every byte of every file in order. */
  onBytes?: (path: string, bytes: Buffer) => void;
  signal?: AbortSignal;
}

export interface Document {
  readonly text: string;
  /** The file it came from. */
  readonly source: string;
  /** Its number among the file's documents, from 0, empty ones counted. */
  readonly index: number;
}

/** The documents of files and folders in a fixed order; iterate it once, then read its counters. In .txt files a line
 * ends with "\n" whether the file says "\n" or "\r\n". In .jsonl files every line that is not blank is one document. */
export class DocumentReader implements AsyncIterable<Document> {
  /** In reading order. */
  readonly files: readonly string[];
  /** Documents given out so far. */
  documents = 0;
  /** Documents skipped because they hold nothing but white space. */
  empty = 0;
  readonly #options: ReadOptions;

  /** @internal Use readDocuments(). */
  constructor(paths: readonly string[], options: ReadOptions) {
    checkOptions(options, undefined, 'readDocuments');
    const { separator, textField, onBytes } = options;
    if (onBytes !== undefined) checkFunction(onBytes, 'onBytes', 'readDocuments');
    if (separator !== undefined && (typeof separator !== 'string' || separator === ''))
      throw expected('a string that is not empty', 'separator', separator);
    if (textField !== undefined && typeof textField !== 'string')
      throw expected('the name of a field', 'textField', textField);
    this.files = listTextFiles(paths);
    this.#options = options;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Document> {
    for (const source of this.files) {
      let index = 0;
      for await (const text of textsOf(source, this.#options)) {
        if (this.#options.signal?.aborted)
          throw new GsaError('ABORTED', `Reading ${source} was aborted by the caller`);
        if (text.trim() === '') this.empty++;
        else {
          this.documents++;
          yield { text, source, index };
        }
        index++;
      }
    }
  }
}

/** Reads the documents of .txt and .jsonl files and of folders searched for them.
 * @throws GsaError INVALID_ARGUMENT when there is no such file; while iterating INVALID_FILE naming file and line for
 * broken JSON, a missing field or invalid UTF-8, IO when the system refuses, ABORTED by the signal. */
export function readDocuments(paths: readonly string[], options: ReadOptions = {}): DocumentReader {
  return new DocumentReader(paths, options);
}

function textsOf(path: string, options: ReadOptions): AsyncGenerator<string> {
  const onBytes = (bytes: Buffer) => options.onBytes?.(path, bytes);
  if (extname(path).toLowerCase() === '.jsonl') return jsonLines(path, options.textField ?? 'text', onBytes);
  return plainText(path, options.separator, onBytes);
}

async function* plainText(
  path: string,
  separator: string | undefined,
  onBytes: (bytes: Buffer) => void,
): AsyncGenerator<string> {
  let text = '';
  for await (const block of lineBlocks(path, onBytes)) {
    const searched = Math.max(0, text.length - (separator?.length ?? 0) + 1);
    text = append(text, decodeBlock(block, path).replaceAll('\r\n', '\n'), path);
    if (separator === undefined) continue;
    let start = 0;
    let at = text.indexOf(separator, searched);
    for (; at >= 0; at = text.indexOf(separator, start)) {
      yield text.slice(start, at);
      start = at + separator.length;
    }
    text = text.slice(start);
  }
  // What follows the last separator is a document only if it holds something.
  if (separator === undefined || text.trim() !== '') yield text;
}

function append(text: string, more: string, path: string): string {
  try {
    return text + more;
  } catch (cause) {
    throw new GsaError(
      'INVALID_FILE',
      `${path}: Expected a document of fewer than 2^29 characters but it is longer; cut the file into documents with a separator`,
      { cause },
    );
  }
}

async function* jsonLines(
  path: string,
  field: string,
  onBytes: (bytes: Buffer) => void,
): AsyncGenerator<string> {
  for await (const block of lineBlocks(path, onBytes))
    for (const line of linesOf(block)) {
      const text = decodeBlock(line, path);
      if (text.trim() !== '') yield textField(text, field, path, line.line);
    }
}

function textField(json: string, field: string, path: string, line: number): string {
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch (cause) {
    throw invalidLine(path, line, `Expected one JSON object but ${(cause as Error).message}`, cause);
  }
  if (value === null || typeof value !== 'object' || Array.isArray(value))
    throw invalidLine(path, line, `Expected a JSON object but received ${show(value)}`);
  const text = Object.hasOwn(value, field) ? (value as Record<string, unknown>)[field] : undefined;
  if (typeof text !== 'string') {
    const fields = Object.keys(value).map(show).join(', ') || 'none';
    throw invalidLine(
      path,
      line,
      `Expected a string in the field ${show(field)} but received ${show(text)} (its fields: ${fields})`,
    );
  }
  // A "\ud800" escape passes JSON.parse but is no text: no UTF-8 exists for half a character.
  if (/\p{Surrogate}/u.test(text))
    throw invalidLine(path, line, `Expected text in the field ${show(field)} but it holds half a character`);
  return text;
}
