import { execFile } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { openSafetensors, writeSafetensors } from '#src/io/safetensors.js';
import { native, packageRoot } from '#src/native/load.js';
import type { Check } from '#src/verify/compare.js';
import { verify } from '#src/verify/verify.js';
import { makeHead, opEntries, tampered, writeOpFile, type Entries } from './made.js';

const folder = mkdtempSync(join(tmpdir(), 'flash-gsa-verify-'));
test.after.always(() => rmSync(folder, { recursive: true, force: true }));

const FIXTURES = join(packageRoot(), 'test', 'fixtures');
const small = opEntries(makeHead({ T: 70, R: 2, K: 8, V: 12, M: 6 }));
const OP_CHECKS = ['chunk forward o', 'chunk forward hkT', 'chunk forward hvT']
  .concat(['dq', 'dk', 'dv', 'ds', 'dg'].map((name) => `chunk backward ${name}`))
  .concat(['recurrent o', 'recurrent hkT', 'recurrent hvT']);

let files = 0;
function write(entries: Entries, metadata?: Record<string, string>): string {
  return writeOpFile(join(folder, `op-${files++}.safetensors`), entries, metadata);
}

interface Ended {
  code: number;
  stdout: string;
  stderr: string;
}

function cli(...args: string[]): Promise<Ended> {
  const main = join(packageRoot(), 'dist', 'cli', 'main.js');
  return new Promise((resolve) =>
    execFile(process.execPath, [main, 'verify', ...args], (error, stdout, stderr) =>
      resolve({ code: error ? Number(error.code) : 0, stdout, stderr }),
    ),
  );
}

const failed = (checks: readonly Check[]) => checks.filter((check) => !check.pass);

test('all stored results of the operator are met, fp32', async (t) => {
  const checks = await verify([join(FIXTURES, 'ops')]);
  t.deepEqual(failed(checks), []);
  const names = readdirSync(join(FIXTURES, 'ops')).filter((name) => name.endsWith('.safetensors'));
  t.deepEqual(
    new Set(checks.map((check) => check.file)),
    new Set(names.map((name) => join(FIXTURES, 'ops', name))),
  );
  for (const name of OP_CHECKS)
    t.true(
      checks.some((check) => check.check === name),
      name,
    );
});

test('all stored results of small models are met, fp32', async (t) => {
  const checks = await verify([join(FIXTURES, 'models')]);
  t.deepEqual(failed(checks), []);
  for (const name of ['log-probabilities', 'loss', 'gradient lm_head.weight', 'losses of 20 training steps'])
    t.true(
      checks.some((check) => check.check === name),
      name,
    );
});

test('a made vector file, T70 HQ2 H1 K8 V12 M6 fp32: one check per result', async (t) => {
  const path = write(small);
  const seen: Check[] = [];
  const checks = await verify([path], { onCheck: (check) => seen.push(check) });
  t.deepEqual(
    checks.map((check) => check.check),
    OP_CHECKS,
  );
  t.deepEqual(failed(checks), []);
  t.deepEqual(seen, checks);
  t.true(checks.every((check) => check.file === path && check.error > 0 && check.error < check.bound));
});

for (const name of ['o', 'hkT', 'hvT', 'dq', 'dk', 'dv', 'ds', 'dg'])
  test(`a stored ${name} off by more than the bound fails its checks and no other`, async (t) => {
    const bound = name.startsWith('d') ? 1e-4 : 1e-5;
    const scaled = (factor: number) =>
      tampered(small, name, (values) => values.forEach((value, i) => (values[i] = value * (1 + factor))));
    t.deepEqual(failed(await verify([write(scaled(bound / 2))])), []);
    const wrong = failed(await verify([write(scaled(bound * 2))]));
    t.deepEqual(
      wrong.map((check) => check.check),
      OP_CHECKS.filter((check) => check.endsWith(` ${name}`)),
    );
  });

for (const bad of [NaN, Infinity])
  for (const [name, checks] of [
    ['dv', ['chunk backward dv']],
    ['v', OP_CHECKS.filter((check) => !/hkT|dv/.test(check))],
  ] as const)
    test(`${bad} in ${name} never passes`, async (t) => {
      const wrong = failed(await verify([write(tampered(small, name, (values) => values.fill(bad, 3, 4)))]));
      t.deepEqual(
        wrong.map((check) => check.check),
        checks,
      );
      t.true(wrong.every((check) => Number.isNaN(check.error)));
    });

test('gradients that cancel are measured against dv, others are not, T40 K8 V12 M6 fp32', async (t) => {
  const forget = opEntries(makeHead({ T: 40, R: 1, K: 8, V: 12, M: 6 }, { forget: true }));
  const size = (name: string) => Math.hypot(...(forget.get(name)!.data as Float32Array));
  t.true(size('dq') < 1e-7 * size('dv'), 'the made gates make dq vanish');
  const checks = await verify([write(forget)]);
  t.deepEqual(failed(checks), []);
  t.deepEqual(
    checks.filter((check) => check.check.includes('(relative to dv)')).map((check) => check.check),
    ['dq', 'dk', 'dg'].map((name) => `chunk backward ${name} (relative to dv)`),
  );
  const large = tampered(forget, 'dq', (values) => values.fill(size('dv') / 1000));
  t.deepEqual(
    failed(await verify([write(large)])).map((check) => check.check),
    ['chunk backward dq'],
  );
});

const without = (name: string) => new Map([...small].filter(([key]) => key !== name));
const reshaped = (name: string, shape: number[]) => new Map(small).set(name, { ...small.get(name)!, shape });

for (const [what, make, message] of [
  ['a missing input', () => write(without('k')), /Expected the tensors k but they are missing/],
  ['a missing gradient', () => write(without('dg')), /dg/],
  ['a missing upstream gradient', () => write(without('do')), /do/],
  [
    'an output of another shape',
    () => write(reshaped('o', [1, 140, 1, 12])),
    /Expected shape \[1, 70, 2, 12\] for o/,
  ],
  ['no scale', () => write(small, {}), /Expected a number for the metadata "scale"/],
  ['a scale that is no number', () => write(small, { scale: 'one' }), /"one"/],
  [
    'integers for floats',
    () => write(new Map(small).set('q', { ...small.get('q')!, dtype: 'int32', data: new Int32Array(1120) })),
    /Expected float32 for q but the file stores I32/,
  ],
  [
    'its end cut off',
    () => {
      const path = write(small);
      writeFileSync(path, readFileSync(path).subarray(0, -5));
      return path;
    },
    /truncated/,
  ],
  [
    'another content',
    () => {
      const path = join(folder, `text-${files++}.safetensors`);
      writeFileSync(path, 'not a safetensors file at all');
      return path;
    },
    /safetensors/,
  ],
] as const)
  test(`a vector file with ${what} is reported, and the others are still checked`, async (t) => {
    const [bad, good] = [make(), write(small)];
    const checks = await verify([bad, good]);
    const wrong = failed(checks);
    t.is(wrong.length, 1);
    t.is(wrong[0]!.file, bad);
    t.regex(wrong[0]!.message!, /^INVALID_FILE: /);
    t.regex(wrong[0]!.message!, message);
    t.is(checks.filter((check) => check.file === good && check.pass).length, OP_CHECKS.length);
  });

test('paths with nothing to check are refused', async (t) => {
  const empty = join(folder, 'empty');
  mkdirSync(empty, { recursive: true });
  await t.throwsAsync(verify([join(folder, 'absent')]), { code: 'IO', message: /absent/ });
  await t.throwsAsync(verify([empty]), { code: 'INVALID_FILE', message: /found none/ });
  await t.throwsAsync(verify([]), { code: 'INVALID_ARGUMENT' });
  await t.throwsAsync(verify([write(small)], { dtype: 'fp16' as never }), { code: 'INVALID_ARGUMENT' });
  await t.throwsAsync(verify([write(small)], { device: 'tpu' }), { code: 'INVALID_ARGUMENT' });
  const aborted = verify([write(small)], { signal: AbortSignal.abort() });
  await t.throwsAsync(aborted, { code: 'ABORTED' });
});

test('bf16 is computed in bf16 or refused by name, never in fp32', async (t) => {
  const checks = await verify([write(small)], { dtype: 'bf16' });
  t.true(checks.length > 0);
  for (const check of checks)
    if (check.message) t.regex(check.message, /bfloat16|bf16/i);
    else t.true(check.bound <= 1e-2 && check.error > 1e-5);
});

/** A copy of a model fixture with one stored result changed. */
function modelCopy(change: (name: string, values: Float32Array | Int32Array) => void): string {
  const source = join(FIXTURES, 'models', readdirSync(join(FIXTURES, 'models')).toSorted()[0]!);
  const copy = join(folder, `model-${files++}`);
  cpSync(source, copy, { recursive: true });
  const path = join(copy, 'expected.safetensors');
  using reader = openSafetensors(join(source, 'expected.safetensors'));
  const entries = reader.names.map((name) => ({ name, ...reader.read(name) }));
  for (const { name, data } of entries) change(name, data as Float32Array);
  writeSafetensors(path, entries);
  return copy;
}

for (const [name, change, expected] of [
  ['log_probs', (v) => (v[7]! += 2e-4), [/^log-probabilities$/]],
  ['loss', (v) => (v[0]! += 2e-4), [/^loss$/]],
  [
    'grad.model.norm.weight',
    (v) => v.forEach((x, i) => (v[i] = x * 1.002)),
    [/^gradient model\.norm\.weight$/],
  ],
  ['greedy', (v) => (v[v.length - 1] = (v.at(-1)! + 1) % 8), [/^greedy .*steps/, /^greedy .*passes/]],
  ['train_losses', (v) => (v[19]! += 2e-4), [/^losses of 20/]],
  ['train_grad_norms', (v) => (v[19]! *= 1.002), [/^gradient norms of 20/]],
] as [string, (values: Float32Array | Int32Array) => unknown, RegExp[]][])
  test(`a changed ${name} of a model fails its checks and no other, fp32`, async (t) => {
    const copy = modelCopy((found, values) => found === name && change(values));
    const wrong = failed(await verify([copy])).map((check) => check.check);
    t.is(wrong.length, expected.length, wrong.join());
    for (const [i, pattern] of expected.entries()) t.regex(wrong[i]!, pattern);
  });

test('model folders: the stored results are needed when it is named, a search passes over it without', async (t) => {
  const copy = modelCopy(() => {});
  rmSync(join(copy, 'expected.safetensors'));
  await t.throwsAsync(verify([copy]), { code: 'INVALID_FILE', message: /expected\.safetensors/ });
  const parent = join(folder, 'mixed');
  mkdirSync(parent);
  cpSync(copy, join(parent, 'model'), { recursive: true });
  writeOpFile(join(parent, 'op.safetensors'), small);
  const checks = await verify([parent]);
  t.deepEqual([...new Set(checks.map((check) => check.file))], [join(parent, 'op.safetensors')]);
});

// Serial: tests that run meanwhile would have tensors of their own.
test.serial('verify leaves nothing alive', async (t) => {
  const before = native().leaks();
  const bytes = native().memoryStats('cpu', 0, false).currentBytes;
  await verify([write(small), write(without('dg')), modelCopy(() => {})]);
  t.deepEqual(native().leaks(), before);
  t.is(native().memoryStats('cpu', 0, false).currentBytes, bytes);
});

test('flash-gsa verify: a line per check, JSON on demand, exit codes', async (t) => {
  const good = write(small);
  const bad = write(tampered(small, 'dk', (values) => (values[0]! += 1)));
  const text = await cli(good);
  t.is(text.code, 0, text.stderr);
  t.is(text.stdout.trimEnd().split('\n').length, OP_CHECKS.length);
  t.regex(text.stdout, /^ok {4}.*: chunk forward o +error \d.*bound 1\.0e-5$/m);
  t.regex(text.stderr, /11 of 11 checks passed/);
  const json = await cli('--json', good, bad);
  t.is(json.code, 1);
  const checks = JSON.parse(json.stdout) as Check[];
  t.is(checks.length, 2 * OP_CHECKS.length);
  for (const check of checks) t.deepEqual(Object.keys(check), ['file', 'check', 'error', 'bound', 'pass']);
  t.deepEqual(
    failed(checks).map((check) => [check.file, check.check]),
    [[bad, 'chunk backward dk']],
  );
  const failing = await cli(bad);
  t.is(failing.code, 1);
  t.regex(failing.stdout, /^FAIL {2}.*: chunk backward dk +error/m);
  t.is((await cli(join(folder, 'absent'))).code, 1);
  t.is((await cli()).code, 2);
  t.is((await cli('--dtype', 'fp16', good)).code, 2);
  t.is((await cli('--device', 'tpu', good)).code, 2);
});
