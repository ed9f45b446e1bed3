// The CPU's numbers: `npm run bench` times every kind of work on all cores and writes bench/results/cpu.json. Run it on a
// quiet machine; the stamp keeps the load average. Arguments: --seconds N per case (default 2), --out FILE.
import { parseArgs } from 'node:util';
import { join } from 'node:path';
import { BENCH_KINDS, runBench } from '#src/bench/bench.js';
import { formatReport, type BenchReport } from '#src/bench/report.js';
import { writeFileAtomic } from '#src/io/atomic.js';
import { packageRoot } from '#src/native/load.js';
import { device } from '#src/tensor/device.js';

/** How much dearer a token of the longest sequence may be than one of the shortest: the operator is linear in T. */
const MOST_GROWTH = 1.15;

const { values } = parseArgs({
  options: { seconds: { type: 'string', default: '2' }, out: { type: 'string' } },
});
const cpu = device('cpu');
const seconds = Number(values.seconds);
if (!(seconds >= 0)) throw new Error(`Expected a number for --seconds but received "${values.seconds}"`);
const command = `npm run bench -- --seconds ${values.seconds}`;
const reports: BenchReport[] = [];
for (const kind of BENCH_KINDS) {
  const report = await runBench(kind, { device: cpu, budgetMs: seconds * 1e3, command });
  console.log(`${formatReport(report)}\n`);
  reports.push(report);
}
const out = values.out ?? join(packageRoot(), 'bench', 'results', 'cpu.json');
writeFileAtomic(out, `${JSON.stringify(reports, null, 2)}\n`);
console.log(out);
const growth = Math.max(
  ...reports.flatMap(({ results }) => results.map(({ figures }) => figures['growth'] ?? 0)),
);
console.log(
  `cost per token over the length: at most ${growth.toFixed(3)} of that at T = 512 (bound ${MOST_GROWTH})`,
);
if (!reports.every((report) => report.pass) || !(growth <= MOST_GROWTH)) process.exitCode = 1;
