import { readFileSync } from 'node:fs';
import type { z } from 'zod';
import { ioError } from '../io/files.js';
import { GsaError, show } from '../native/errors.js';
import { closest } from '../native/suggest.js';
import { FLOAT8_MULTIPLE } from '../tensor/dtype.js';
import type { TrainConfig } from './schema.js';

export type { TrainConfig, TrainConfigInput } from './schema.js';

type Path = readonly PropertyKey[];

interface SchemaNode {
  readonly properties?: Readonly<Record<string, SchemaNode>>;
  readonly anyOf?: readonly SchemaNode[];
}

function invalid(problems: readonly string[], source: string | undefined): GsaError {
  return new GsaError('INVALID_CONFIG', (source ? `${source}: ` : '') + problems.join('; '));
}

function dotted(path: Path): string {
  return path.map(String).join('.') || 'the configuration';
}

function valueAt(root: unknown, path: Path): unknown {
  return path.reduce<unknown>((at, key) => (at as Record<PropertyKey, unknown> | undefined)?.[key], root);
}

/** The keys that the schema knows at a path, through its unions. */
function keysAt(node: SchemaNode, path: Path): string[] {
  if (node.anyOf) return node.anyOf.flatMap((option) => keysAt(option, path));
  const [first, ...rest] = path;
  if (first === undefined) return Object.keys(node.properties ?? {});
  const next = node.properties?.[String(first)];
  return next ? keysAt(next, rest) : [];
}

function unknownKey(path: Path, known: readonly string[]): string {
  const guess = closest(String(path.at(-1)), known);
  const hint = guess ? `did you mean "${guess}"?` : `known here: ${known.join(', ')}`;
  return `Unknown key ${dotted(path)} (${hint})`;
}

type Issue = z.core.$ZodIssue;

function wanted(issue: Issue): string {
  switch (issue.code) {
    case 'invalid_type':
      return (
        { int: 'an integer', array: 'a list', object: 'an object', record: 'an object' }[
          issue.expected as string
        ] ?? `a ${issue.expected}`
      );
    case 'too_small':
      return issue.origin === 'array' || issue.origin === 'string'
        ? `at least ${issue.minimum} element${issue.minimum === 1 ? '' : 's'}`
        : `a number ${issue.inclusive ? 'of at least' : 'above'} ${issue.minimum}`;
    case 'too_big':
      return issue.origin === 'array' || issue.origin === 'string'
        ? `at most ${issue.maximum} elements`
        : `a number ${issue.inclusive ? 'of at most' : 'below'} ${issue.maximum}`;
    case 'invalid_format':
      return '"cpu", "cuda" or "cuda:N"';
    default:
      return issue.message;
  }
}

/** Of a union's branches the one that got furthest: its problems are the ones the user meant to have. */
function flatten(issue: Issue): Issue[] {
  if (issue.code !== 'invalid_union' || issue.errors.length === 0) return [issue];
  const depth = (list: readonly Issue[]): number => Math.max(...list.map((i) => i.path.length));
  const best = issue.errors.reduce((a, b) => (depth(b) > depth(a) ? b : a));
  if (depth(best) === 0 && best.every((i) => i.code === 'invalid_type')) {
    const kinds = issue.errors.flat().map((i) => wanted(i));
    return [{ ...issue, code: 'custom', message: [...new Set(kinds)].join(' or ') }];
  }
  return best.flatMap((i) => flatten({ ...i, path: [...issue.path, ...i.path] }));
}

function describe(issue: Issue, root: unknown, schema: SchemaNode): string[] {
  if (issue.code === 'unrecognized_keys')
    return issue.keys.map((key) => unknownKey([...issue.path, key], keysAt(schema, issue.path)));
  return [
    `Expected ${wanted(issue)} for ${dotted(issue.path)} but received ${show(valueAt(root, issue.path))}`,
  ];
}

/** Checks a training configuration and fills in every default. zod is loaded on the first call.
 * @param source where it came from, for messages
 * @throws GsaError INVALID_CONFIG that names every wrong key in one line, misspelt ones with a suggestion. */
export async function parseTrainConfig(raw: unknown, source?: string): Promise<TrainConfig> {
  const [{ trainSchema }, { z: zod }] = await Promise.all([import('./schema.js'), import('zod')]);
  const parsed = trainSchema.safeParse(raw);
  if (!parsed.success) {
    const schema = zod.toJSONSchema(trainSchema, { io: 'input' }) as SchemaNode;
    const problems = parsed.error.issues.flatMap(flatten).flatMap((i) => describe(i, raw, schema));
    throw invalid(problems, source);
  }
  const config = parsed.data;
  const lengths = (['steps', 'tokens', 'epochs'] as const).filter((key) => config[key] !== undefined);
  if (lengths.length > 1)
    throw invalid([`Expected one of steps, tokens and epochs but received ${lengths.join(' and ')}`], source);
  if (config.dtype === 'bfloat16' && config.device === 'cpu')
    throw invalid(['Expected float32 for dtype on the cpu device but received "bfloat16"'], source);
  const batch = config.batchSize * config.data.seqLen;
  if (config.matmul !== 'dtype' && batch % FLOAT8_MULTIPLE !== 0)
    throw invalid(
      [
        `Expected batchSize · data.seqLen to be a multiple of ${FLOAT8_MULTIPLE} for matmul "${config.matmul}" but received ${batch}`,
      ],
      source,
    );
  if (config.optimizer.minLr !== undefined && config.optimizer.minLr > config.optimizer.lr)
    throw invalid(
      [
        `Expected at most optimizer.lr (${config.optimizer.lr}) for optimizer.minLr but received ${config.optimizer.minLr}`,
      ],
      source,
    );
  return config;
}

/** The value of a `--set key=value`: JSON where it is JSON, else the text itself. */
function parseValue(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** Applies `a.b=value` overrides to a configuration, in order, and returns a changed copy. Missing objects on the way are
 * made; values are read as JSON, and as plain text where they are not JSON (`device=cpu`).
 * @throws GsaError INVALID_CONFIG for a malformed override or one that goes into something else than an object. */
export function applyOverrides(raw: unknown, overrides: readonly string[]): unknown {
  if (overrides.length === 0) return raw;
  const root = structuredClone(raw);
  for (const override of overrides) {
    const at = override.indexOf('=');
    const keys = override.slice(0, Math.max(at, 0)).split('.');
    if (at < 1 || keys.some((key) => key === '' || key === '__proto__'))
      throw invalid([`Expected KEY.KEY=VALUE for --set but received ${show(override)}`], undefined);
    let node = root;
    keys.forEach((key, i) => {
      if (node === null || typeof node !== 'object' || Array.isArray(node))
        throw invalid(
          [`Expected an object at ${dotted(keys.slice(0, i))} for --set ${override} but it is ${show(node)}`],
          undefined,
        );
      const object = node as Record<string, unknown>;
      if (i === keys.length - 1) object[key] = parseValue(override.slice(at + 1));
      else if (!Object.hasOwn(object, key)) object[key] = {};
      node = object[key];
    });
  }
  return root;
}

/** Reads a JSON training configuration, applies overrides and checks it.
 * @throws GsaError IO, INVALID_CONFIG */
export async function loadTrainConfig(path: string, overrides: readonly string[] = []): Promise<TrainConfig> {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    throw ioError(error, 'read', path);
  }
  let raw: unknown;
  try {
    raw = JSON.parse(text);
  } catch (cause) {
    throw new GsaError('INVALID_CONFIG', `Expected JSON in ${path} but ${(cause as Error).message}`, {
      cause,
    });
  }
  return parseTrainConfig(applyOverrides(raw, overrides), path);
}

/** What may change between the parts of one run without changing what a step computes. */
const FREE = [
  'steps',
  'tokens',
  'epochs',
  'evaluation',
  'checkpoint',
  'sample',
  'output',
  'recompute',
  'threads',
  'maxNonFinite',
];
const FREE_INNER = ['data.cache'];

/** The dotted keys in which two configurations differ, apart from those that a resumed run may change. */
export function changedKeys(before: unknown, after: unknown): string[] {
  const changed: string[] = [];
  const walk = (a: unknown, b: unknown, path: readonly string[]): void => {
    const name = path.join('.');
    if (FREE.includes(path[0] ?? '') || FREE_INNER.includes(name)) return;
    const objects = [a, b].every((v) => v !== null && typeof v === 'object' && !Array.isArray(v));
    if (!objects) {
      if (JSON.stringify(a) !== JSON.stringify(b)) changed.push(name);
      return;
    }
    const [x, y] = [a as Record<string, unknown>, b as Record<string, unknown>];
    for (const key of new Set([...Object.keys(x), ...Object.keys(y)])) walk(x[key], y[key], [...path, key]);
  };
  walk(before, after, []);
  return changed;
}
