/** Text to token ids and back, for any tokenizer.json, through Hugging Face's own library. */
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { Tokenizer as Library } from 'tokenizers';
import { GsaError, checkOptions, checkPath, expected, show } from '../native/errors.js';
import { ioError } from '../io/files.js';
import { cutText } from './cut-text.js';
import { parseTokenizerJson, type AddedToken, type TokenizerJson } from './tokenizer-json.js';

export const TOKENIZER_FILE = 'tokenizer.json';

/** Pieces of about this length are encoded several times faster than long texts, on every core. */
const PIECE_CHARACTERS = 1024;
/** The library holds about 100 bytes a character until its results are collected; this bounds what one call holds. */
const BATCH_CHARACTERS = 1 << 19;

export interface TokenizerOptions {
  /** The token that ends a document, by its text; looked up in tokenizer_config.json beside the file, then among the
   * usual names, when absent. */
  eosToken?: string;
  /** The token that begins a text; looked up as eosToken. */
  bosToken?: string;
}

const USUAL = {
  eos_token: ['</s>', '<|endoftext|>', '<|end_of_text|>', '<eos>', '[SEP]'],
  bos_token: ['<s>', '<|begin_of_text|>', '<bos>', '[CLS]'],
};

/** A loaded tokenizer. Texts are only ever text: "</s>" in a text becomes the tokens of its characters, never the control
 * token. */
export class Tokenizer {
  /** The highest id plus one: the rows that an embedding needs. */
  readonly vocabSize: number;
  /** The token that ends a document; null when there is none. */
  readonly eosId: number | null;
  readonly bosId: number | null;
  /** The content of tokenizer.json, for saving beside a model. */
  readonly json: string;
  /** SHA-256 of that content, in hex. */
  readonly sha256: string;
  readonly #decoding: Library;
  readonly #encoding: Library;
  readonly #parts: TokenizerJson;

  /** @internal Use loadTokenizer() or parseTokenizer(). */
  constructor(json: string, path: string, folder: string | null, options: TokenizerOptions) {
    checkOptions(options, ['eosToken', 'bosToken'], 'Tokenizer');
    for (const [name, token] of Object.entries(options))
      if (token !== undefined && typeof token !== 'string')
        throw expected('the text of a token', name, token, 'Tokenizer');
    this.json = json;
    this.sha256 = createHash('sha256').update(json).digest('hex');
    this.#parts = parseTokenizerJson(json, path);
    this.vocabSize = this.#parts.vocabSize;
    this.#decoding = construct(this.#parts.forDecoding, path);
    this.#encoding = construct(this.#parts.forEncoding, path);
    for (const token of this.#parts.added) checkId(this.#decoding, token, path);
    this.eosId = this.#named('eos_token', options.eosToken, path, folder);
    this.bosId = this.#named('bos_token', options.bosToken, path, folder);
  }

  /** The ids of a text.
   * @param options.addSpecialTokens adds what the file's template puts around a text (for example the beginning token)
   * @throws GsaError INVALID_ARGUMENT unless `text` is a string; UNSUPPORTED when the vocabulary cannot spell it. */
  async encode(text: string, options: { addSpecialTokens?: boolean } = {}): Promise<Int32Array> {
    checkOptions(options, ['addSpecialTokens'], 'encode');
    const [ids] = await this.encodeBatch([text]);
    if (!options.addSpecialTokens) return ids!;
    const { before, after } = this.#parts.template;
    return Int32Array.from([...before, ...ids!, ...after]);
  }

  /** The ids of many texts, on every core; the result for a text does not depend on its neighbours.
   * @throws GsaError as encode(). */
  async encodeBatch(texts: readonly string[]): Promise<Int32Array[]> {
    if (!Array.isArray(texts)) throw expected('a list of texts', 'texts', texts);
    for (const text of texts) if (typeof text !== 'string') throw expected('a string', 'text', text);
    const pieces: string[] = [];
    const counts = texts.map((text) => {
      const cut = cutText(text, PIECE_CHARACTERS, this.#parts.cut);
      for (const piece of cut) pieces.push(piece);
      return cut.length;
    });
    const encoded = await this.#encodePieces(pieces);
    let next = 0;
    return counts.map((count) => concat(encoded.slice(next, (next += count))));
  }

  /** The text of some ids.
   * @param options.skipSpecialTokens leaves special tokens out (default), else shows them by name
   * @throws GsaError INVALID_ARGUMENT for an id outside [0, vocabSize). */
  async decode(ids: ArrayLike<number>, options: { skipSpecialTokens?: boolean } = {}): Promise<string> {
    checkOptions(options, ['skipSpecialTokens'], 'decode');
    if (typeof (ids as ArrayLike<number> | null)?.length !== 'number' || typeof ids === 'string')
      throw expected(`integers in [0, ${this.vocabSize})`, 'ids', ids, 'decode');
    const list = Array.from(ids);
    for (const id of list)
      if (!Number.isInteger(id) || id < 0 || id >= this.vocabSize)
        throw expected(`integers in [0, ${this.vocabSize})`, 'ids', id, 'decode');
    return this.#decoding.decode(list, options.skipSpecialTokens ?? true);
  }

  /** The id of a token by its text, or null. @throws GsaError INVALID_ARGUMENT for what is no string */
  tokenToId(token: string): number | null {
    if (typeof token !== 'string') throw expected('the text of a token', 'token', token, 'tokenToId');
    return this.#decoding.tokenToId(token);
  }

  /** The text of a token by its id, as the vocabulary spells it, or null. */
  idToToken(id: number): string | null {
    return Number.isInteger(id) && id >= 0 && id < this.vocabSize ? this.#decoding.idToToken(id) : null;
  }

  /** The ids of special tokens, ascending. */
  specialIds(): number[] {
    const special = this.#parts.added.filter((token) => token.special);
    return special.map((token) => token.id).toSorted((a, b) => a - b);
  }

  async #encodePieces(pieces: readonly string[]): Promise<number[][]> {
    const result: number[][] = [];
    for (let start = 0; start < pieces.length;) {
      let end = start;
      for (let size = 0; end < pieces.length && size < BATCH_CHARACTERS; end++)
        size += pieces[end]!.length + 1;
      try {
        const batch = pieces.slice(start, end);
        const encodings = await this.#encoding.encodeBatch(batch, { addSpecialTokens: false });
        for (const encoding of encodings) result.push(encoding.getIds());
      } catch (cause) {
        throw new GsaError(
          'UNSUPPORTED',
          `Expected a text that the vocabulary can spell but ${(cause as Error).message}`,
          { op: 'encode', cause },
        );
      }
      start = end;
    }
    return result;
  }

  #named(
    kind: keyof typeof USUAL,
    wanted: string | undefined,
    path: string,
    folder: string | null,
  ): number | null {
    if (wanted !== undefined) {
      const id = this.tokenToId(wanted);
      if (id === null) throw expected(`a token of ${path}`, kind, wanted);
      return id;
    }
    const configured = folder === null ? null : configuredToken(folder, kind);
    if (configured !== null) {
      const id = this.tokenToId(configured);
      if (id !== null) return id;
      throw new GsaError(
        'INVALID_FILE',
        `${folder}: Expected the ${kind} ${show(configured)} of tokenizer_config.json in the vocabulary but it is not there`,
        { op: 'tokenizer' },
      );
    }
    const special = this.#parts.added.filter((token) => token.special);
    for (const name of USUAL[kind]) {
      const found = special.find((token) => token.content === name);
      if (found) return found.id;
    }
    return null;
  }
}

function concat(parts: readonly number[][]): Int32Array {
  let length = 0;
  for (const part of parts) length += part.length;
  const ids = new Int32Array(length);
  let at = 0;
  for (const part of parts) {
    ids.set(part, at);
    at += part.length;
  }
  return ids;
}

function construct(json: string, path: string): Library {
  try {
    return Library.fromString(json);
  } catch (cause) {
    throw new GsaError('INVALID_FILE', `${path}: Expected a tokenizer but ${(cause as Error).message}`, {
      op: 'tokenizer',
      cause,
    });
  }
}

/** The library numbers added tokens itself and only warns when the file says otherwise: every later id would be wrong. */
function checkId(library: Library, { id, content }: AddedToken, path: string): void {
  const given = library.tokenToId(content);
  if (given !== id)
    throw new GsaError(
      'INVALID_FILE',
      `${path}: Expected ids without gaps after the vocabulary but the added token ${show(content)} has id ${id} where ${given} is next`,
      { op: 'tokenizer' },
    );
}

/** A token that tokenizer_config.json names, as a string or as {content}; null when it names none. */
function configuredToken(folder: string, kind: string): string | null {
  const path = join(folder, 'tokenizer_config.json');
  if (!existsSync(path)) return null;
  let value: unknown;
  try {
    value = JSON.parse(readFileSync(path, 'utf8'))?.[kind];
  } catch (cause) {
    throw new GsaError('INVALID_FILE', `${path}: Expected JSON but ${(cause as Error).message}`, { cause });
  }
  if (typeof value === 'string') return value;
  const content = (value as { content?: unknown } | null | undefined)?.content;
  return typeof content === 'string' ? content : null;
}

/** Loads a tokenizer.
 * @param path a tokenizer.json, or a folder that holds one
 * @throws GsaError INVALID_FILE naming the file and what is malformed, IO when the system refuses, INVALID_ARGUMENT when
 * a token named in `options` is not in the vocabulary. */
export function loadTokenizer(path: string, options: TokenizerOptions = {}): Tokenizer {
  checkPath(path, 'path', 'loadTokenizer');
  let file = path;
  let json: string;
  try {
    if (statSync(path).isDirectory()) file = join(path, TOKENIZER_FILE);
    json = readFileSync(file, 'utf8');
  } catch (error) {
    throw ioError(error, 'read', file);
  }
  return new Tokenizer(json, file, dirname(file), options);
}

/** A tokenizer from the content of a tokenizer.json.
 * @throws GsaError as loadTokenizer(). */
export function parseTokenizer(json: string, options: TokenizerOptions = {}): Tokenizer {
  if (typeof json !== 'string')
    throw expected('the content of a tokenizer.json', 'json', json, 'parseTokenizer');
  return new Tokenizer(json, TOKENIZER_FILE, null, options);
}
