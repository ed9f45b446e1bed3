import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import type { BenchReport } from '#src/bench/report.js';
import { packageRoot } from '#src/native/load.js';
import type { PeerReport } from '../../bench/compare/rows.js';
import { curvesOf, stepsOf, throughputTables } from '../../bench/compare/throughput.js';
import { throughputSvg } from '../../bench/compare/throughput-plot.js';
import { tempFolder } from '../io/temp.js';

const SMALL = 'D64L2H2M16V512';
const LARGE = 'D128L2H2M16V512';
const stamp = {
  deviceName: 'a GPU',
  date: '2026-11-27',
  command: 'test',
  version: '1',
  detail: 'x',
  commit: null,
};

function ours(pass = true): BenchReport {
  const step = (shape: string, tokensPerSecond: number, variant?: string) => ({
    name: 'training step',
    shape,
    ...(variant ? { variant } : {}),
    timing: { medianMs: 1 },
    figures: { tokensPerSecond, peakGiB: 2, wallMs: 1 },
    checks: [{ against: 'float64', error: 0, bound: 1, pass }],
  });
  return {
    kind: 'train',
    stamp,
    results: [
      step(`${SMALL}B1T4096`, 900),
      step(`${SMALL}B2T2048`, 1000),
      step(`${SMALL}B1T8192`, 800, 'recompute'),
      step(`${LARGE}B4T2048`, 300),
      { ...step(`${SMALL}B2T2048`, 5), name: 'training step: forward' },
    ],
  } as unknown as BenchReport;
}

function peer(name: string): PeerReport {
  const step = (shape: string, tokensPerSecond: number) => ({
    kind: 'train',
    name: 'training step',
    shape,
    by: 'it',
    timing: { medianMs: 2 },
    figures: { tokensPerSecond },
  });
  const failed = {
    kind: 'train',
    name: 'training step',
    shape: `${LARGE}B4T2048`,
    reason: 'out of memory: 90 GiB',
  };
  return {
    peer: name,
    version: '1',
    stamp,
    results: [step(`${SMALL}B2T2048`, 500), step(`${SMALL}B1T4096`, 600), step(`${LARGE}B2T2048`, 120)],
    failures: [failed],
  };
}

test('steps of one program, setting and number of tokens are one curve, shortest first', (t) => {
  const steps = stepsOf([ours()], [peer('a peer')]).filter(({ model }) => model === SMALL);
  t.deepEqual(
    curvesOf(steps).map(({ who, setting, tokens, steps: all }) => [
      who,
      setting,
      tokens,
      all.map((s) => s.T),
    ]),
    [
      ['flash-gsa', '', 4096, [2048, 4096]],
      ['flash-gsa', 'recompute', 8192, [8192]],
      ['a peer', '', 4096, [2048, 4096]],
    ],
  );
});

test('the tables: rates, shares of the shortest, what did not fit, and the highest rates beside each other', (t) => {
  const text = throughputTables(stepsOf([ours()], [peer('a peer')]));
  t.regex(text, /^\| flash-gsa \| {2}\| 4,096 \| 1 \| 4,096 \| 900 \| 90\.0% \| 2\.0 \|$/m);
  t.regex(text, /^\| a peer \| {2}\| 8,192 \| 4 \| 2,048 \| out of memory \| {2}\| {2}\|$/m);
  t.regex(text, /^\| 4,096 \| 900 \(batch 1\) \| 600 \(batch 1\) \| 1\.50× \|$/m);
  t.regex(text, /^\| 8,192 \| 800 \(batch 1, recompute\) \| {2}\| {2}\|$/m);
  t.regex(text, /^\| 2,048 \| 300 \(batch 4\) \| 120 \(batch 2\) \| 2\.50× \|$/m);
});

test('a step that computed something wrong is refused', (t) => {
  t.throws(() => stepsOf([ours(false)], []), { message: /wrong output/ });
});

test('the plot: a line for each curve, dashed where something is made again, higher rates higher', (t) => {
  const steps = stepsOf([ours()], [peer('a < peer')]).filter(({ model }) => model === SMALL);
  const svg = throughputSvg(steps, { title: 'rates' });
  const lines = [...svg.matchAll(/<path d="M[^"]*" fill="none"[^>]*>/g)].map(([line]) => line);
  t.is(lines.length, 3);
  t.is(lines.filter((line) => line.includes('stroke-dasharray')).length, 1);
  const dots = [...svg.matchAll(/<circle cx="([\d.]+)" cy="([\d.]+)"/g)].map(([, x, y]) => [
    Number(x),
    Number(y),
  ]);
  t.is(dots.length, 5);
  t.true(dots.every(([x, y]) => x! > 80 && x! < 640 && y! >= 64 && y! <= 480));
  t.true(dots[0]![1]! < dots[1]![1]!, 'the higher rate is higher up');
  t.regex(svg, /a &#60; peer/);
  t.notRegex(svg, /NaN|Infinity|undefined/);
});

test('the program writes tables, the plot of the model with most lengths, and a picture', (t) => {
  const folder = tempFolder(t);
  const [a, b, out] = [join(folder, 'ours.json'), join(folder, 'peer.json'), join(folder, 'c')];
  writeFileSync(a, JSON.stringify(ours()));
  writeFileSync(b, JSON.stringify(peer('a peer')));
  const program = join(packageRoot(), '.build', 'bench', 'compare', 'curve.js');
  execFileSync(process.execPath, [program, '--ours', a, '--peer', b, '--out', out, '--png']);
  t.regex(readFileSync(`${out}.md`, 'utf8'), new RegExp(`### ${SMALL}[^]*### ${LARGE}`));
  t.regex(readFileSync(`${out}.svg`, 'utf8'), new RegExp(`against sequence length, ${SMALL}<`));
  t.true(existsSync(`${out}.png`));
});
