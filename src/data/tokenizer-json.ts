/** Checks and rewrites of tokenizer.json (the format of Hugging Face's `tokenizers`) before the native library sees it.
 * */
import { show } from '../native/errors.js';
import { bad, isId, isObject, refuseWhatAborts, type Json } from './tokenizer-guards.js';
import { templateOf, type Template } from './tokenizer-template.js';

export interface AddedToken {
  readonly id: number;
  readonly content: string;
  readonly special: boolean;
  readonly lstrip: boolean;
  readonly rstrip: boolean;
}

/** How a text may be cut so that encoding the pieces gives the same tokens as encoding the whole.
 * `keep`: before a space between two letters, the space going to the second piece; `drop`: there too, but the space is
 * left out because the normalizer puts one in front of every piece; `whole`: nowhere that is known to be safe. */
export type CutRule = 'keep' | 'drop' | 'whole';

export interface TokenizerJson {
  readonly added: readonly AddedToken[];
  /** Number of ids: the highest one plus one. */
  readonly vocabSize: number;
  readonly cut: CutRule;
  /** What stands before and after a text when special tokens are asked for. */
  readonly template: Template;
  /** For decoding: the file's content without truncation and padding. */
  readonly forDecoding: string;
  /** For encoding: also without special tokens that a text could spell. */
  readonly forEncoding: string;
}

/** @throws GsaError INVALID_FILE naming the file and the field. */
export function parseTokenizerJson(text: string, path: string): TokenizerJson {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw bad(path, `Expected a tokenizer in JSON but ${(cause as Error).message}`, cause);
  }
  if (!isObject(json) || !isObject(json.model))
    throw bad(
      path,
      `Expected an object with a "model", as tokenizer.json files have, but received ${show(json)}`,
    );
  const added = checkAdded(json.added_tokens ?? [], path);
  refuseWhatAborts(json, path);
  const { model } = json;
  const ids = vocabIds(model, path);
  let highest = -1;
  for (const id of ids) highest = Math.max(highest, id);
  for (const { id } of added) highest = Math.max(highest, id);
  if (highest < 0) throw bad(path, 'Expected a vocabulary with at least one token');
  // Truncation and padding would silently shorten or lengthen texts; BPE dropout would make encoding random; special
  // tokens are added by id, from `template`.
  const plain = {
    ...json,
    truncation: null,
    padding: null,
    post_processor: null,
    model: { ...model, dropout: null },
  };
  if (model.dropout === undefined) delete (plain.model as Json).dropout;
  return {
    added,
    vocabSize: highest + 1,
    cut: cutRule(json, added),
    template: templateOf(json.post_processor, path),
    forDecoding: JSON.stringify(plain),
    forEncoding: JSON.stringify(withoutSpecials(plain, added)),
  };
}

function checkAdded(value: unknown, path: string): AddedToken[] {
  if (!Array.isArray(value))
    throw bad(path, `Expected an array for added_tokens but received ${show(value)}`);
  const contents = new Set<string>();
  return value.map((token: unknown) => {
    if (!isObject(token)) throw bad(path, `Expected objects in added_tokens but received ${show(token)}`);
    const { id, content } = token;
    if (typeof content !== 'string' || content === '' || contents.has(content))
      throw bad(path, `Expected a content that no other added token has but received ${show(content)}`);
    if (!isId(id))
      throw bad(path, `Expected an id for the added token ${show(content)} but received ${show(id)}`);
    contents.add(content);
    const flag = (name: string) => token[name] === true;
    return { id, content, special: flag('special'), lstrip: flag('lstrip'), rstrip: flag('rstrip') };
  });
}

function vocabIds(model: Json, path: string): number[] {
  const { vocab } = model;
  // Unigram keeps [piece, score] pairs whose place is the id; the others keep piece to id.
  if (Array.isArray(vocab)) return vocab.map((_, i) => i);
  if (!isObject(vocab)) throw bad(path, `Expected an object for model.vocab but received ${show(vocab)}`);
  return Object.entries(vocab).map(([token, id]) => {
    if (!isId(id)) throw bad(path, `Expected an id for token ${show(token)} but received ${show(id)}`);
    return id;
  });
}

/** A stand-in that no text spells: a text's own NUL would have to be followed by the same words. */
const unspellable = (id: number) => `\0flash-gsa special ${id}\0`;

/** Renames special tokens, wherever the file spells them, so that "</s>" in a text stays text. Their ids stay. */
function withoutSpecials(json: Json, added: readonly AddedToken[]): Json {
  const names = new Map(added.filter((token) => token.special).map((t) => [t.content, unspellable(t.id)]));
  const rename = (name: unknown) => (typeof name === 'string' ? (names.get(name) ?? name) : name);
  const model = json.model as Json;
  const { vocab } = model;
  const renamed: Json = { ...model };
  if (Array.isArray(vocab))
    renamed.vocab = vocab.map((pair) => (Array.isArray(pair) ? [rename(pair[0]), ...pair.slice(1)] : pair));
  else
    renamed.vocab = Object.fromEntries(Object.entries(vocab as Json).map(([name, id]) => [rename(name), id]));
  if ('unk_token' in model) renamed.unk_token = rename(model.unk_token);
  const tokens = (json.added_tokens ?? []) as Json[];
  return {
    ...json,
    added_tokens: tokens.map((token) => ({ ...token, content: rename(token.content) })),
    model: renamed,
  };
}

/** Patterns of byte-level vocabularies (GPT-2, Llama 3, Qwen 2 and descendants). In none of them does a match cross from
 * a letter over a space to a letter. */
const WORD_PATTERNS = new Set([
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
]);

function cutRule(json: Json, added: readonly AddedToken[]): CutRule {
  // An added token that holds or eats white space could cross a cut.
  const crosses = added.some((t) => !t.special && (t.lstrip || t.rstrip || /[\s\u2581]/.test(t.content)));
  const model = json.model as Json;
  if (
    crosses ||
    (model.type ?? 'BPE') !== 'BPE' ||
    model.continuing_subword_prefix ||
    model.end_of_word_suffix
  )
    return 'whole';
  if (splitsWords(json.pre_tokenizer) && isNoneOrNfc(json.normalizer)) return 'keep';
  return putsSpaceFirst(json) && model.ignore_merges !== true && noInnerSpace(model.vocab) ? 'drop' : 'whole';
}

const isNoneOrNfc = (normalizer: unknown) =>
  normalizer == null || (isObject(normalizer) && normalizer.type === 'NFC');

function splitsWords(pre: unknown): boolean {
  if (!isObject(pre)) return false;
  if (pre.type === 'ByteLevel') return pre.add_prefix_space === false && pre.use_regex !== false;
  const parts = pre.type === 'Sequence' ? pre.pretokenizers : null;
  const [split, bytes, ...rest] = Array.isArray(parts) ? (parts as unknown[]) : [];
  return (
    rest.length === 0 &&
    isObject(split) &&
    split.type === 'Split' &&
    split.behavior === 'Isolated' &&
    split.invert === false &&
    isObject(split.pattern) &&
    WORD_PATTERNS.has(split.pattern.Regex as string) &&
    isObject(bytes) &&
    bytes.type === 'ByteLevel' &&
    bytes.add_prefix_space === false &&
    bytes.use_regex === false
  );
}

const SPACE = '\u2581';

/** The Llama 2 and Mistral forms: "▁" in front of every text, and for every space; no further pre-tokenizing. */
function putsSpaceFirst({ normalizer, pre_tokenizer: pre }: Json): boolean {
  if (normalizer == null)
    return (
      isObject(pre) &&
      pre.type === 'Metaspace' &&
      pre.replacement === SPACE &&
      (pre.prepend_scheme === 'first' || pre.prepend_scheme === 'always') &&
      pre.split === false
    );
  if (pre != null || !isObject(normalizer) || normalizer.type !== 'Sequence') return false;
  const parts = normalizer.normalizers;
  const [prepend, replace, ...rest] = Array.isArray(parts) ? (parts as (Json | null)[]) : [];
  return (
    rest.length === 0 &&
    prepend?.type === 'Prepend' &&
    prepend.prepend === SPACE &&
    replace?.type === 'Replace' &&
    replace.content === SPACE &&
    isObject(replace.pattern) &&
    replace.pattern.String === ' '
  );
}

/** Whether "▁" only ever starts a token: then no token crosses from a letter to the next word. */
function noInnerSpace(vocab: unknown): boolean {
  if (!isObject(vocab) || !Object.hasOwn(vocab, SPACE)) return false;
  return Object.keys(vocab).every((token) => !/[^\u2581]\u2581/.test(token));
}
