import { show } from '../native/errors.js';
import { bad, isId, isObject, type Json } from './tokenizer-guards.js';

/** The ids that a tokenizer's post-processor puts around a single text. */
export interface Template {
  readonly before: readonly number[];
  readonly after: readonly number[];
}

const NONE: Template = { before: [], after: [] };

/** Reads the template from the post-processor of a tokenizer.json. Read here, not asked of the library, because a
 * template that names an undefined token makes it abort.
 * @throws GsaError INVALID_FILE naming the file and the part, also for a post-processor that is not known. */
export function templateOf(processor: unknown, path: string): Template {
  if (processor == null) return NONE;
  if (!isObject(processor))
    throw bad(path, `Expected an object for post_processor but received ${show(processor)}`);
  switch (processor.type) {
    case 'ByteLevel': // only moves offsets
      return NONE;
    case 'TemplateProcessing':
      return fromTemplate(processor, path);
    case 'BertProcessing':
    case 'RobertaProcessing':
      return { before: [pairId(processor, 'cls', path)], after: [pairId(processor, 'sep', path)] };
    case 'Sequence': {
      const inner = processor.processors;
      if (!Array.isArray(inner))
        throw bad(path, `Expected an array for post_processor.processors but received ${show(inner)}`);
      // Each wraps what the one before it gave.
      return inner.reduce<Template>((all, one: unknown) => {
        const { before, after } = templateOf(one, path);
        return { before: [...before, ...all.before], after: [...all.after, ...after] };
      }, NONE);
    }
    default:
      throw bad(path, `Expected a known post_processor but received ${show(processor.type)}`);
  }
}

function pairId(processor: Json, name: string, path: string): number {
  const pair = processor[name];
  const id: unknown = Array.isArray(pair) ? pair[1] : undefined;
  if (!isId(id))
    throw bad(path, `Expected [token, id] for post_processor.${name} but received ${show(pair)}`);
  return id;
}

function fromTemplate({ single, special_tokens: specials }: Json, path: string): Template {
  const before: number[] = [];
  const after: number[] = [];
  let texts = 0;
  for (const piece of Array.isArray(single) ? (single as unknown[]) : []) {
    if (isObject(piece) && isObject(piece.Sequence)) texts++;
    else (texts === 0 ? before : after).push(...specialIds(piece, specials, path));
  }
  if (texts !== 1)
    throw bad(path, `Expected a template with the text once in post_processor.single but received ${texts}`);
  return { before, after };
}

function specialIds(piece: unknown, specials: unknown, path: string): number[] {
  const name = isObject(piece) && isObject(piece.SpecialToken) ? piece.SpecialToken.id : undefined;
  const known = typeof name === 'string' && isObject(specials) && Object.hasOwn(specials, name);
  const entry: unknown = known ? specials[name] : undefined;
  const ids = isObject(entry) ? entry.ids : undefined;
  if (!Array.isArray(ids) || !ids.every(isId))
    throw bad(path, `Expected ids for the token ${show(name)} in post_processor.special_tokens`);
  return ids;
}
