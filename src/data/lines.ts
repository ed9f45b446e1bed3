import { createReadStream } from 'node:fs';
import { GsaError } from '../native/errors.js';
import { ioError } from '../io/files.js';

const CHUNK_BYTES = 1 << 20;
const NEWLINE = 0x0a;

/** Some whole lines of a file, the last of which may lack its newline at the end of the file. */
export interface LineBlock {
  readonly bytes: Buffer;
  /** The number of the first line, from 1. */
  readonly line: number;
}

/** A file in blocks of whole lines, split at the newline byte alone: it is part of no other UTF-8 character, while a
 * split at "any line terminator" would cut JSON strings at U+2028. A line is bounded by memory only.
 * @param onBytes sees every byte of the file in order, for a checksum
 * @throws GsaError IO when the system refuses. */
export async function* lineBlocks(
  path: string,
  onBytes: (bytes: Buffer) => void = () => undefined,
): AsyncGenerator<LineBlock> {
  let pending: Buffer[] = [];
  let line = 1;
  for await (const chunk of chunks(path)) {
    onBytes(chunk);
    const end = chunk.lastIndexOf(NEWLINE) + 1;
    if (end > 0) {
      const bytes = Buffer.concat([...pending, chunk.subarray(0, end)]);
      yield { bytes, line };
      line += countNewlines(bytes);
      pending = [];
    }
    if (end < chunk.length) pending.push(chunk.subarray(end));
  }
  if (pending.length > 0) yield { bytes: Buffer.concat(pending), line };
}

async function* chunks(path: string): AsyncGenerator<Buffer> {
  try {
    for await (const chunk of createReadStream(path, { highWaterMark: CHUNK_BYTES })) yield chunk as Buffer;
  } catch (error) {
    throw ioError(error, 'read', path);
  }
}

function countNewlines(bytes: Buffer): number {
  let count = 0;
  for (let at = bytes.indexOf(NEWLINE); at >= 0; at = bytes.indexOf(NEWLINE, at + 1)) count++;
  return count;
}

/** The lines of a block without their newline. */
export function* linesOf(block: LineBlock): Generator<LineBlock> {
  let { line } = block;
  for (let start = 0; start < block.bytes.length; line++) {
    const newline = block.bytes.indexOf(NEWLINE, start);
    const end = newline < 0 ? block.bytes.length : newline;
    yield { bytes: block.bytes.subarray(start, end), line };
    start = end + 1;
  }
}

export function invalidLine(path: string, line: number, message: string, cause?: unknown): GsaError {
  return new GsaError('INVALID_FILE', `${path}, line ${line}: ${message}`, { cause });
}

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** The text of a block; a byte order mark at the start of the file is dropped.
 * @throws GsaError INVALID_FILE naming the file and the line that is not UTF-8. */
export function decodeBlock(block: LineBlock, path: string): string {
  try {
    const text = decoder.decode(block.bytes);
    return block.line === 1 && text.startsWith('\ufeff') ? text.slice(1) : text;
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'ERR_ENCODING_INVALID_ENCODED_DATA')
      throw invalidLine(path, block.line, `Expected text but ${(cause as Error).message}`, cause);
    throw invalidLine(path, firstInvalidLine(block), 'Expected UTF-8 text but received other bytes', cause);
  }
}

function firstInvalidLine(block: LineBlock): number {
  for (const { bytes, line } of linesOf(block)) {
    try {
      decoder.decode(bytes);
    } catch {
      return line;
    }
  }
  return block.line;
}
