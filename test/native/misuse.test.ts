import { createServer } from 'node:net';
import test, { type ExecutionContext } from 'ava';
import { addon, FLOAT32, opNumber } from './raw.js';

const CODES = ['INVALID_ARGUMENT', 'UNSUPPORTED', 'OUT_OF_MEMORY', 'USE_AFTER_DISPOSE', 'NOT_BUILT'];
type AnyFunction = (...args: unknown[]) => unknown;
const functions = addon as unknown as Record<string, AnyFunction>;

const tensor = (...shape: number[]) => addon.tensor('cpu', 0, FLOAT32, shape);

function detached(): Float32Array {
  const array = new Float32Array(4);
  structuredClone(array.buffer, { transfer: [array.buffer] });
  return array;
}

function disposed(): unknown {
  const handle = tensor(2, 2);
  addon.dispose(handle);
  return handle;
}

/** Every kind of thing that no argument of the addon takes, unless a case below says otherwise. */
const BAD: [string, unknown][] = [
  ['undefined', undefined],
  ['null', null],
  ['an object', {}],
  ['NaN', NaN],
  ['-1', -1],
  ['1.5', 1.5],
  ['2^53', 2 ** 53],
  ['Infinity', Infinity],
  ['a bigint', 1n],
  ['a boolean', true],
  ['a symbol', Symbol('x')],
  ['a function', () => 0],
  ['an unknown word', 'nonsense'],
  ['a string with a zero', 'cpu\0'],
  ['an array of objects', [{}]],
  ['an array of NaN', [NaN]],
  ['an array of -1', [-1]],
  ['an array of 2^53', [2 ** 53]],
  ['a sparse array', new Array(2)],
  ['an array of length 2^32 - 1', new Array(2 ** 32 - 1)],
  ['a proxy of an array', new Proxy([1], {})],
  ['an Int32Array', Int32Array.of(2, 2)],
  ['an ArrayBuffer', new ArrayBuffer(16)],
  ['a detached Float32Array', detached()],
  ['a Float64Array of another size', new Float64Array(3)],
  ['a date', new Date()],
  ['a disposed handle', disposed()],
  ['a number that was never a handle', 2 ** 24 + 2 ** 20],
  ['a handle with a later round', tensor(2, 2) + 2 ** 24],
  ['a handle and a half', tensor(2, 2) + 0.5],
  ['a handle as an object', Object(tensor(2, 2))],
];

interface Case {
  name: string;
  valid: () => unknown[];
  /** argument number -> names in BAD that this argument does take */
  takes?: Record<number, string[]>;
}

const fill = opNumber('fill');
const CASES: Case[] = [
  {
    name: 'loadBackend',
    valid: () => ['cpu', 'any'],
    takes: { 1: ['an unknown word', 'a string with a zero'] },
  },
  { name: 'deviceCount', valid: () => ['cpu'] },
  { name: 'deviceInfo', valid: () => ['cpu', 0] },
  { name: 'tensor', valid: () => ['cpu', 0, FLOAT32, [2, 2]] },
  { name: 'view', valid: () => [tensor(2, 2), [2], [1], 1] },
  { name: 'share', valid: () => [tensor(2, 2)] },
  { name: 'dispose', valid: () => [tensor(2, 2)], takes: { 0: ['a disposed handle'] } },
  { name: 'disposeForgotten', valid: () => [tensor(2, 2)], takes: { 0: ['a disposed handle'] } },
  { name: 'write', valid: () => [tensor(2, 2), new Float32Array(4)] },
  { name: 'read', valid: () => [tensor(2, 2), new Float32Array(4)] },
  { name: 'readAsync', valid: () => [tensor(2, 2)] },
  {
    name: 'exec',
    valid: () => [fill, [], [tensor(2, 2)], [1]],
    takes: { 3: ['an array of NaN', 'an array of -1', 'an array of 2^53'] },
  },
  { name: 'synchronize', valid: () => ['cpu', 0] },
  { name: 'recordEvent', valid: () => ['cpu', 0] },
  { name: 'waitEvent', valid: () => [addon.recordEvent('cpu', 0)] },
  { name: 'elapsed', valid: () => [addon.recordEvent('cpu', 0), addon.recordEvent('cpu', 0)] },
  { name: 'memoryStats', valid: () => ['cpu', 0, false], takes: { 2: ['a boolean'] } },
  { name: 'setOption', valid: () => ['cpu', 0, 'threads', 2] },
  { name: 'getOption', valid: () => ['cpu', 0, 'threads'] },
];

function refuses(t: ExecutionContext, name: string, args: unknown[], label: string): void {
  const error = t.throws(() => functions[name]!(...args), { any: true }, `${name}: accepted ${label}`);
  if (!error) return;
  const { code, message } = error as Error & { code?: string };
  const typed = error instanceof TypeError || error instanceof RangeError || CODES.includes(code ?? '');
  t.true(typed, `${name} with ${label}: ${String(error)} (code ${code})`);
  t.true(message.length > 10, `${name} with ${label}: message "${message}"`);
}

test('every exported function has a misuse case', (t) => {
  const covered = [...CASES.map((c) => c.name), 'ops', 'loadedBackends', 'leaks'];
  const exported = Object.keys(addon).filter((name) => typeof functions[name] === 'function');
  t.deepEqual(exported.toSorted(), covered.toSorted());
});

for (const { name, valid, takes } of CASES) {
  test(`${name}: refuses every kind of bad value in every argument`, (t) => {
    t.notThrows(() => functions[name]!(...valid()));
    for (let position = 0; position < valid().length; position++) {
      for (const [label, value] of BAD) {
        if (takes?.[position]?.includes(label)) continue;
        const args = valid();
        args[position] = value;
        refuses(t, name, args, `${label} as argument ${position}`);
      }
      refuses(t, name, valid().slice(0, position), `only ${position} arguments`);
    }
  });
}

test('functions without arguments ignore what they are given', (t) => {
  for (const name of ['ops', 'loadedBackends', 'leaks'])
    for (const [label, value] of BAD) t.notThrows(() => functions[name]!(value), `${name} with ${label}`);
});

test('a handle names one tensor for ever: its place may be taken again, its number is not', (t) => {
  const seen = new Set<number>();
  for (let i = 0; i < 1000; i++) {
    const handle = tensor(1);
    t.false(seen.has(handle));
    seen.add(handle);
    addon.dispose(handle);
  }
  const alive = tensor(1);
  const { alive: before } = addon.leaks();
  for (const gone of seen) {
    addon.dispose(gone as typeof alive);
    t.throws(() => addon.read(gone as typeof alive, new Float32Array(1)), { code: 'USE_AFTER_DISPOSE' });
  }
  t.is(addon.leaks().alive, before, 'handles that are gone dispose of nothing');
  addon.read(alive, new Float32Array(1));
  addon.dispose(alive);
});

test('a handle of another addon is refused', (t) => {
  const server = createServer();
  t.teardown(() => server.close());
  return new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', () => {
      const inner = server as unknown as { _handle: { _externalStream: unknown } };
      const {
        _handle: { _externalStream: foreign },
      } = inner;
      for (const [name, args] of [
        ['dispose', [foreign]],
        ['view', [foreign, [1], [1], 0]],
        ['read', [foreign, new Float32Array(1)]],
        ['exec', [fill, [], [foreign], [1]]],
      ] as [string, unknown[]][]) {
        const error = t.throws(() => functions[name]!(...args), { instanceOf: TypeError });
        t.regex(error.message, /a foreign handle/);
      }
      resolve();
    });
  });
});

test('shapes: more than 6 dimensions, products past int64 and more than the memory', (t) => {
  const make = (shape: unknown) => functions['tensor']!('cpu', 0, FLOAT32, shape);
  t.throws(() => make([1, 1, 1, 1, 1, 1, 1]), { instanceOf: RangeError });
  t.throws(() => make([2 ** 31, 2 ** 31, 2 ** 31]), { instanceOf: RangeError });
  t.throws(() => make([2 ** 52, 2 ** 10]), { instanceOf: RangeError });
  t.throws(() => make([0, 2 ** 52, 2 ** 52]), { instanceOf: RangeError });
  t.throws(() => make([2 ** 50]), { code: 'OUT_OF_MEMORY' });
  t.throws(() => make(['2', '2']), { instanceOf: TypeError });
  for (const shape of [[], [0], [0, 5], [5, 0, 3], [1, 1, 1, 1, 1, 1]]) t.notThrows(() => make(shape));
});

test('views: outside the storage, negative strides, overflow and wrong counts', (t) => {
  const base = tensor(4, 4);
  const view = (shape: unknown, strides: unknown, offset: unknown) =>
    functions['view']!(base, shape, strides, offset);
  t.notThrows(() => view([4, 4], [1, 4], 0));
  t.notThrows(() => view([2], [5], 10));
  t.notThrows(() => view([0], [1], 16));
  t.notThrows(() => view([2 ** 40], [0], 15));
  for (const [shape, strides, offset] of [
    [[2], [5], 11],
    [[17], [1], 0],
    [[1], [1], 16],
    [[0], [1], 17],
    [[1], [1], -1],
    [[2], [-1], 4],
    [[2], [1, 1], 0],
    [[2 ** 40, 2 ** 40], [0, 0], 0],
    [[2 ** 40], [2 ** 40], 0],
    [[2], [2 ** 52], 2 ** 52],
  ])
    t.throws(
      () => view(shape, strides, offset),
      { instanceOf: RangeError },
      JSON.stringify([shape, strides, offset]),
    );
  // A view of a view is bounded by the storage, not by its base.
  const inner = addon.view(base, [2], [1], 8);
  t.notThrows(() => addon.view(inner, [1], [1], -8));
  t.throws(() => addon.view(inner, [1], [1], -9), { instanceOf: RangeError });
  t.throws(() => addon.view(inner, [1], [1], 8), { instanceOf: RangeError });
});

test('exec: wrong op numbers, counts, null for a required tensor, starred groups that do not match', (t) => {
  const a = tensor(2);
  const run = (op: unknown, inputs: unknown, outputs: unknown, attributes: unknown) =>
    functions['exec']!(op, inputs, outputs, attributes);
  t.throws(() => run(addon.ops().length, [], [a], []), { instanceOf: RangeError });
  t.throws(() => run(fill, [a], [a], [1]), { code: 'INVALID_ARGUMENT' });
  t.throws(() => run(fill, [], [a, a], [1]), { code: 'INVALID_ARGUMENT' });
  t.throws(() => run(fill, [], [a], [1, 2]), { code: 'INVALID_ARGUMENT' });
  const missing = t.throws(() => run(opNumber('cast'), [null], [a], []), { code: 'INVALID_ARGUMENT' });
  t.is((missing as Error & { op?: string }).op, 'cast');
  t.regex(missing!.message, /tensor for x/);
  const adamw = opNumber('adamw');
  const attributes = [1e-3, 0.9, 0.95, 1e-8, 0.01, 1];
  t.throws(() => run(adamw, [null, a, a], [a, a, a, a, a], attributes), { code: 'INVALID_ARGUMENT' });
  t.throws(() => run(adamw, [null], [], attributes), { code: 'INVALID_ARGUMENT' });
  t.throws(() => run(adamw, [null, a], [a, a, a, null], attributes), { code: 'INVALID_ARGUMENT' });
  t.throws(() => run(opNumber('sum_squares'), [], [a], []), { code: 'INVALID_ARGUMENT' });
});

test('getters that dispose of a tensor while the arguments are read do no harm', (t) => {
  const victim = tensor(2, 2);
  const trap: unknown[] = [victim];
  const attributes: unknown[] = [1];
  Object.defineProperty(attributes, 0, { get: () => (addon.dispose(victim), 1) });
  t.throws(() => functions['exec']!(fill, [], trap, attributes), { code: 'USE_AFTER_DISPOSE' });
  const base = tensor(2, 2);
  const shape: unknown[] = [2];
  Object.defineProperty(shape, 0, { get: () => (addon.dispose(base), 2) });
  t.throws(() => functions['view']!(base, shape, [1], 0), { code: 'USE_AFTER_DISPOSE' });
  const throwing: unknown[] = [2];
  Object.defineProperty(throwing, 0, {
    get: () => {
      throw new Error('from the getter');
    },
  });
  t.throws(() => functions['view']!(tensor(2), throwing, [1], 0), { message: 'from the getter' });
});

test('read and write: strided views, wrong sizes, detached buffers', (t) => {
  const base = tensor(2, 2);
  const column = addon.view(base, [2], [2], 0);
  t.throws(() => addon.write(column, new Float32Array(2)), { code: 'INVALID_ARGUMENT' });
  t.throws(() => addon.read(column, new Float32Array(2)), { code: 'INVALID_ARGUMENT' });
  t.throws(() => addon.write(base, new Float32Array(3)), { instanceOf: RangeError });
  t.throws(() => addon.read(base, new Uint8Array(15)), { instanceOf: RangeError });
  t.throws(() => addon.write(base, detached()), { instanceOf: RangeError });
  t.throws(() => addon.read(base, detached()), { instanceOf: RangeError });
  addon.write(base, new DataView(Float32Array.of(1, 2, 3, 4).buffer));
  const bytes = Buffer.alloc(16);
  addon.read(base, bytes);
  t.deepEqual(new Float32Array(bytes.buffer, bytes.byteOffset, 4), Float32Array.of(1, 2, 3, 4));
  const inside = new Float32Array(6);
  addon.read(base, inside.subarray(1, 5));
  t.deepEqual(inside, Float32Array.of(0, 1, 2, 3, 4, 0));
  const shared = new Float32Array(new SharedArrayBuffer(16));
  addon.read(base, shared);
  t.deepEqual([...shared], [1, 2, 3, 4]);
  t.notThrows(() => addon.write(tensor(0), new Float32Array(0)));
});
