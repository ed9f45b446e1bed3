import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { z } from 'zod';
import { packageRoot } from '#src/native/load.js';
import { trainSchema } from '#src/train/schema.js';

interface Node {
  readonly type?: string;
  readonly description?: string;
  readonly default?: unknown;
  readonly properties?: Readonly<Record<string, Node>>;
  readonly anyOf?: readonly Node[];
  readonly items?: Node;
  readonly prefixItems?: readonly Node[];
  readonly pattern?: string;
  readonly required?: readonly string[];
}

function typeOf(node: Node): string {
  if (node.anyOf) return node.anyOf.map(typeOf).join(' or ');
  if (node.prefixItems) return `[${node.prefixItems.map(typeOf).join(', ')}]`;
  if (node.type === 'array') return `list of ${typeOf(node.items!)}s`;
  return node.type ?? 'any';
}

/** Objects with keys of their own get a line and then their keys; alternatives of one key are one line. */
function* rows(node: Node, prefix: string): Generator<string> {
  for (const [name, child] of Object.entries(node.properties ?? {})) {
    const path = prefix + name;
    if (child.properties) {
      yield* rows(child, `${path}.`);
      continue;
    }
    const given = child.default === undefined ? '' : `\`${JSON.stringify(child.default)}\``;
    const value = node.required?.includes(name) ? '**required**' : given;
    yield `| \`${path}\` | ${typeOf(child)} | ${value} | ${child.description} |`;
  }
}

const BEGIN = '<!-- generated from src/train/schema.ts: UPDATE_DOCS=1 npm test -- config-docs -->';
const END = '<!-- end of the generated part -->';

/** The formatter pads the columns of a table. */
function unpadded(table: string): string {
  return table.replaceAll(/ +\|/g, ' |').replaceAll(/\| +/g, '| ').replaceAll(/-{3,}/g, '---');
}

test('every field is described, and docs/training-config.md says what the schema says', (t) => {
  const schema = z.toJSONSchema(trainSchema, { io: 'input' }) as Node;
  const lines = [...rows(schema, '')];
  for (const line of lines) t.false(line.includes('undefined'), line);
  const table = ['| key | type | default | meaning |', '| --- | --- | --- | --- |', ...lines].join('\n');
  const path = join(packageRoot(), 'docs', 'training-config.md');
  let text = readFileSync(path, 'utf8');
  const [from, to] = [text.indexOf(BEGIN), text.indexOf(END)];
  t.true(from >= 0 && to > from, 'the marks of the generated part');
  if (process.env['UPDATE_DOCS']) {
    text = `${text.slice(0, from)}${BEGIN}\n\n${table}\n\n${text.slice(to)}`;
    writeFileSync(path, text);
  }
  const shown = text.slice(from + BEGIN.length, text.indexOf(END)).trim();
  t.is(unpadded(shown), unpadded(table), 'stale: run this test with UPDATE_DOCS=1');
});
