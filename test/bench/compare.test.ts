import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { runBench } from '#src/bench/bench.js';
import type { BenchReport } from '#src/bench/report.js';
import { packageRoot } from '#src/native/load.js';
import { device } from '#src/tensor/device.js';
import { comparisonSvg } from '../../bench/compare/plot.js';
import { matchRows, readOurs, readPeers, type PeerReport } from '../../bench/compare/rows.js';
import { comparisonTable } from '../../bench/compare/table.js';

function tempFolder(t: ExecutionContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'flash-gsa-compare-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

let measured: Promise<BenchReport> | null = null;
function ours(): Promise<BenchReport> {
  measured ??= runBench('modules', {
    device: device('cpu'),
    shapes: ['swiglu:N5D16'],
    minIterations: 2,
    budgetMs: 0,
    smallPeaks: true,
    command: 'test',
  });
  return measured;
}

/** A peer that takes `factor` times as long at the forward. */
function peerOf(report: BenchReport, factor: number, name = 'a peer'): PeerReport {
  const { name: work, shape, timing } = report.results[0]!;
  return {
    peer: name,
    version: '1.2',
    stamp: { deviceName: report.stamp.deviceName, date: '2026-11-25', command: 'peer' },
    results: [
      {
        kind: 'modules',
        name: work,
        shape,
        by: 'its_swiglu',
        timing: { medianMs: factor * timing.medianMs },
        figures: { gbPerSecond: 3 },
      },
    ],
    failures: [],
  };
}

test('each of our results meets the fastest peer of the same kind, name, shape and variant', async (t) => {
  const report = await ours();
  const other = peerOf(report, 1);
  const strangers = ['kind', 'name', 'shape', 'variant'].map((key) => ({
    ...other,
    results: [{ ...other.results[0]!, [key]: 'another' }],
  }));
  const rows = matchRows([report], [peerOf(report, 3, 'slow'), peerOf(report, 2, 'fast'), ...strangers]);
  t.deepEqual(
    rows.map((row) => row.name),
    ['swiglu forward', 'swiglu forward + backward'],
  );
  t.is(rows[0]!.peer!.peer, 'fast');
  t.true(Math.abs(rows[0]!.factor! - 2) < 1e-9);
  t.is(rows[1]!.peer, null);
  t.is(rows[1]!.factor, null);
  t.true(rows[0]!.ours.checked);
});

test('the table says which kinds were measured at which commit, where there are several', async (t) => {
  const report = await ours();
  const at = (commit: string | null, kind: BenchReport['kind']): BenchReport => ({
    ...report,
    kind,
    stamp: { ...report.stamp, commit },
  });
  const first = (...reports: BenchReport[]) => comparisonTable([], reports, []).split('\n')[0]!;
  t.regex(first(at('abc', 'gsa'), at('abc', 'gemm')), / at abc; peers/);
  t.regex(
    first(at('abc', 'gsa'), at('def', 'gemm'), at('abc', 'train'), at(null, 'decode')),
    / at abc \(gsa, train\) and def \(gemm\) and no commit \(decode\); peers/,
  );
});

test('times of other devices are not compared', async (t) => {
  const report = await ours();
  const peer = peerOf(report, 2);
  const elsewhere = { ...peer, stamp: { ...peer.stamp, deviceName: 'another GPU' } };
  t.throws(() => matchRows([report], [elsewhere]), { message: /one kind of device .*another GPU/ });
});

test('the table: a line for each result, factors, who was measured, and wrong outputs in bold', async (t) => {
  const report = await ours();
  const peers = [peerOf(report, 2)];
  const table = comparisonTable(matchRows([report], peers), [report], peers);
  t.regex(table, /^\| swiglu forward \| N5D16 \|.* 2\.00× \|.*$/m);
  t.regex(table, /^\| swiglu forward \+ backward \| N5D16 \|/m);
  t.regex(table, /a peer 1\.2/);
  t.regex(table, /its_swiglu \(a peer\)/);
  t.notRegex(table, /WRONG/);
  const check = { against: 'x', error: 1, bound: 0, pass: false };
  const wrong = { ...report, results: [{ ...report.results[0]!, checks: [check] }] };
  t.regex(comparisonTable(matchRows([wrong], peers), [wrong], peers), /\*\*WRONG OUTPUT\*\*/);
});

test('what a peer could not do is said in its place', async (t) => {
  const report = await ours();
  const { results, ...peer } = peerOf(report, 2);
  const { kind, name, shape } = results[0]!;
  const failures = [{ kind, name, shape, reason: 'out of memory: tried to allocate 3 GiB' }];
  const failed = [{ ...peer, results: [], failures }];
  const rows = matchRows([report], failed);
  t.is(rows[0]!.failure, failures[0]!.reason);
  t.is(rows[1]!.failure, null);
  t.regex(comparisonTable(rows, [report], failed), /^\| swiglu forward \| N5D16 \|.* out of memory \|/m);
  t.is(matchRows([report], [...failed, peerOf(report, 2)])[0]!.failure, null);
});

test('the plot has a bar for each result that has a peer, none outside the drawing', async (t) => {
  const report = await ours();
  for (const factor of [0.01, 0.9, 1, 40]) {
    const svg = comparisonSvg(matchRows([report], [peerOf(report, factor)]), { title: 'a < b' });
    const bars = [...svg.matchAll(/<rect x="([\d.]+)" y="[\d.]+" width="([\d.]+)"/g)];
    t.is(bars.length, 1);
    const [from, width] = [Number(bars[0]![1]), Number(bars[0]![2])];
    t.true(from >= 520 && from + width <= 950, `${factor}: ${from} ${width}`);
    t.regex(svg, /a &#60; b/);
    t.notRegex(svg, /NaN|Infinity|undefined/);
  }
});

test('a malformed peer file is refused with its name and the place', async (t) => {
  const folder = tempFolder(t);
  const file = join(folder, 'peer.json');
  const peer = peerOf(await ours(), 2);
  writeFileSync(file, JSON.stringify(peer));
  t.deepEqual(readPeers([file]), [peer]);
  const broken = { ...peer, results: [{ ...peer.results[0]!, timing: { medianMs: -1 } }] };
  writeFileSync(file, JSON.stringify(broken));
  t.throws(() => readPeers([file]), { message: /peer\.json: results\.0\.timing\.medianMs: / });
  writeFileSync(file, '[{"peer": "x"}]');
  t.throws(() => readOurs([file]), { message: /flash-gsa bench --json/ });
});

test('the program writes table, plot and picture', async (t) => {
  const folder = tempFolder(t);
  const [a, b] = [join(folder, 'ours.json'), join(folder, 'peer.json')];
  writeFileSync(a, JSON.stringify(await ours()));
  writeFileSync(b, JSON.stringify(peerOf(await ours(), 2)));
  const program = join(packageRoot(), '.build', 'bench', 'compare', 'index.js');
  const out = join(folder, 'c');
  const said = execFileSync(process.execPath, [program, '--ours', a, '--peer', b, '--out', out, '--png']);
  t.regex(said.toString(), /2 rows/);
  t.regex(readFileSync(`${out}.md`, 'utf8'), /2\.00×/);
  t.regex(readFileSync(`${out}.svg`, 'utf8'), /^<svg /);
  t.true(existsSync(`${out}.png`));
});
