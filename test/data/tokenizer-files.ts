import { BYTE_CHARACTERS, countWords, learnMerges } from '#src/data/bpe.js';
import { PROSE } from './texts.js';

/** Contents of tokenizer.json files for tests, in the forms that public models use. */

const SPECIALS = ['<unk>', '<s>', '</s>'];

export function addedToken(id: number, content: string, special: boolean, flags: object = {}) {
  return {
    id,
    content,
    special,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    ...flags,
  };
}

const decoder = { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true };
const bpe = {
  type: 'BPE',
  dropout: null,
  unk_token: null,
  continuing_subword_prefix: null,
  end_of_word_suffix: null,
  fuse_unk: false,
  byte_fallback: false,
  ignore_merges: false,
};

/** GPT-2's form, its vocabulary learnt from PROSE, with "</s>" outside the vocabulary as Llama 3 has its special tokens. */
export function byteLevel() {
  const counts = new Map<string, number>();
  countWords(PROSE, counts);
  const { tokens, merges } = learnMerges(counts, 400);
  return {
    version: '1.0',
    truncation: null as unknown,
    padding: null as unknown,
    added_tokens: [addedToken(400, '</s>', true), addedToken(401, '<tool>', false)],
    normalizer: null as unknown,
    pre_tokenizer: {
      type: 'ByteLevel',
      add_prefix_space: false,
      trim_offsets: true,
      use_regex: true,
    } as unknown,
    post_processor: null as unknown,
    decoder,
    model: { ...bpe, vocab: Object.fromEntries(tokens.map((token, id) => [token, id])), merges },
  };
}

/** Llama 3's form: its pattern as a Split before ByteLevel. */
export function splitLevel(pattern: string) {
  const split = { type: 'Split', pattern: { Regex: pattern }, behavior: 'Isolated', invert: false };
  const bytes = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false };
  return {
    ...byteLevel(),
    normalizer: { type: 'NFC' },
    pre_tokenizer: { type: 'Sequence', pretokenizers: [split, bytes] },
  };
}

export const LLAMA_3 =
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/** Llama 2's and Mistral's form: "▁" for spaces and in front, bytes where the vocabulary has no character. */
export function metaspace(options: { inner?: boolean } = {}) {
  const characters = [...'▁abcdefghijklmnopqrstuvwxyzT.,'];
  const bytes = BYTE_CHARACTERS.map((_, i) => `<0x${i.toString(16).toUpperCase().padStart(2, '0')}>`);
  const merges = ['▁ t', 'h e', '▁t he', '▁ a', 'n d', '▁a nd', '▁ s', 'e r', '▁ ▁', 'i n', 't h', 'o u'];
  // A token with "▁" inside crosses from one word to the next.
  if (options.inner) merges.push('e ▁', 'd ▁');
  const tokens = [...SPECIALS, ...bytes, ...characters, ...merges.map((merge) => merge.replace(' ', ''))];
  return {
    version: '1.0',
    truncation: null as unknown,
    padding: null as unknown,
    added_tokens: SPECIALS.map((content, id) => addedToken(id, content, true)),
    normalizer: {
      type: 'Sequence',
      normalizers: [
        { type: 'Prepend', prepend: '▁' },
        { type: 'Replace', pattern: { String: ' ' }, content: '▁' },
      ],
    } as unknown,
    pre_tokenizer: null as unknown,
    post_processor: {
      type: 'TemplateProcessing',
      single: [{ SpecialToken: { id: '<s>', type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
      pair: [{ Sequence: { id: 'A', type_id: 0 } }, { Sequence: { id: 'B', type_id: 1 } }],
      special_tokens: { '<s>': { id: '<s>', ids: [1], tokens: ['<s>'] } },
    } as unknown,
    decoder: {
      type: 'Sequence',
      decoders: [
        { type: 'Replace', pattern: { String: '▁' }, content: ' ' },
        { type: 'ByteFallback' },
        { type: 'Fuse' },
        { type: 'Strip', content: ' ', start: 1, stop: 0 },
      ],
    },
    model: {
      ...bpe,
      unk_token: '<unk>',
      fuse_unk: true,
      byte_fallback: true,
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
      merges: merges.map((merge) => merge.split(' ')),
    },
  };
}

/** T5's form, without its character map. Its best split of "</s>" would be the control token. */
export function unigram() {
  const pieces: [string, number][] = [
    ['<unk>', 0],
    ['<s>', 0],
    ['</s>', 0],
    ['▁', -2],
    ['▁the', -4],
    ...[...'abcdefghijklmnopqrstuvwxyz.</>'].map((c): [string, number] => [c, -5]),
  ];
  return {
    ...metaspace(),
    normalizer: { type: 'NFKC' },
    pre_tokenizer: { type: 'Metaspace', replacement: '▁', prepend_scheme: 'always', split: true },
    decoder: { type: 'Metaspace', replacement: '▁', prepend_scheme: 'always', split: true },
    post_processor: null,
    model: { type: 'Unigram', unk_id: 0, vocab: pieces, byte_fallback: false },
  };
}
