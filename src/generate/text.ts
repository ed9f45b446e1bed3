import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { loadTokenizer, TOKENIZER_FILE, Tokenizer } from '../data/tokenizer.js';
import { GSAForCausalLM, type ModelOptions } from '../models/index.js';
import { GsaError, checkFunction, checkOptions, checkPath, expected } from '../native/errors.js';
import { generate, type GenerateOptions, type Generation } from './generate.js';

export interface TextGeneration extends Generation {
  prompt: string;
  /** What follows the prompt. */
  text: string;
}

export interface GenerateTextOptions extends Omit<GenerateOptions, 'onToken'> {
  /** Called with each new piece of text; a piece ends between characters. */
  onText?: (sequence: number, text: string) => void;
}

/** Enough tokens before a new one for the decoder to know whether a space belongs between them. */
const CONTEXT_TOKENS = 8;

/** Tokens to text as they come: what a token adds can depend on those before it (spaces, characters of several tokens),
 * so each is decoded behind a few of its predecessors, and half a character is held back. */
class TextStream {
  readonly #tokenizer: Tokenizer;
  readonly #ids: number[];
  #prefix = 0;
  #read: number;

  constructor(tokenizer: Tokenizer, context: readonly number[]) {
    this.#tokenizer = tokenizer;
    this.#ids = context.slice(-CONTEXT_TOKENS);
    this.#read = this.#ids.length;
  }

  async push(token: number): Promise<string> {
    this.#ids.push(token);
    return this.#next(false);
  }

  /** What was held back. */
  async end(): Promise<string> {
    return this.#next(true);
  }

  async #next(all: boolean): Promise<string> {
    const known = await this.#tokenizer.decode(this.#ids.slice(this.#prefix, this.#read));
    const now = await this.#tokenizer.decode(this.#ids.slice(this.#prefix));
    if (now.length <= known.length || (now.endsWith('\ufffd') && !all)) return '';
    this.#prefix = this.#read;
    this.#read = this.#ids.length;
    return now.slice(known.length);
  }
}

/** A prompt's ids, never none: an empty prompt starts a new document, where training has put the end of the one before. */
async function promptIds(tokenizer: Tokenizer, prompt: string): Promise<number[]> {
  const ids = [...(await tokenizer.encode(prompt, { addSpecialTokens: true }))];
  if (ids.length > 0) return ids;
  const start = tokenizer.bosId ?? tokenizer.eosId;
  if (start !== null) return [start];
  throw new GsaError(
    'INVALID_ARGUMENT',
    'Expected a prompt with at least one character, because the tokenizer has no token that starts a document',
    { op: 'generate' },
  );
}

/** Continues texts, all in one batch; see generate() for the options.
 * @throws GsaError INVALID_ARGUMENT, UNSUPPORTED for a text that the vocabulary cannot spell */
export async function generateText(
  model: GSAForCausalLM,
  tokenizer: Tokenizer,
  prompts: readonly string[],
  options: GenerateTextOptions = {},
): Promise<TextGeneration[]> {
  if (!(tokenizer instanceof Tokenizer))
    throw expected('a Tokenizer', 'tokenizer', tokenizer, 'generateText');
  if (!(model instanceof GSAForCausalLM)) throw expected('a GSAForCausalLM', 'model', model, 'generateText');
  if (!Array.isArray(prompts)) throw expected('a list of texts', 'prompts', prompts, 'generateText');
  checkOptions(options, undefined, 'generateText');
  if (options.onText !== undefined) checkFunction(options.onText, 'onText', 'generateText');
  const { onText, ...rest } = options;
  const ids: number[][] = [];
  for (const prompt of prompts) ids.push(await promptIds(tokenizer, prompt));
  const streams = ids.map((context) => new TextStream(tokenizer, context));
  const texts = prompts.map(() => '');
  const emit = (i: number, piece: string): void => {
    texts[i] += piece;
    if (piece) onText?.(i, piece);
  };
  const stopTokens = options.stopTokens ?? stopsOf(model, tokenizer);
  const results = await generate(model, ids, {
    ...rest,
    stopTokens,
    onToken: async (i, token) => emit(i, await streams[i]!.push(token)),
  });
  for (const [i, stream] of streams.entries()) emit(i, await stream.end());
  return results.map((result, i) => ({ prompt: prompts[i]!, text: texts[i]!, ...result }));
}

/** The configuration's end token where it has one in the vocabulary, and the tokenizer's. */
function stopsOf(model: GSAForCausalLM, tokenizer: Tokenizer): number[] {
  const eos = model.config.eos_token_id;
  return [
    ...(typeof eos === 'number' ? [eos] : (eos ?? [])),
    ...(tokenizer.eosId === null ? [] : [tokenizer.eosId]),
  ];
}

/** Loads a model folder with the tokenizer.json in it.
 * @throws GsaError INVALID_CONFIG, INVALID_FILE (also when the tokenizer is missing), IO */
export function loadForGeneration(
  folder: string,
  options: ModelOptions = {},
): { model: GSAForCausalLM; tokenizer: Tokenizer } {
  checkPath(folder, 'folder', 'loadForGeneration');
  const file = join(folder, TOKENIZER_FILE);
  if (!existsSync(file))
    throw new GsaError(
      'INVALID_FILE',
      `Expected ${TOKENIZER_FILE} in ${folder} but it is missing; copy the one that the model was trained with`,
    );
  const tokenizer = loadTokenizer(file);
  const model = GSAForCausalLM.load(folder, options);
  if (tokenizer.vocabSize > model.config.vocab_size) {
    model.dispose();
    throw new GsaError(
      'INVALID_FILE',
      `${file}: Expected at most ${model.config.vocab_size} tokens, the rows of the model's embeddings, but it has ${tokenizer.vocabSize}`,
    );
  }
  return { model, tokenizer };
}
