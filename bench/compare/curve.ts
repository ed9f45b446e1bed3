// Training throughput against the length of a sequence, ours and peers': what is measured and how is in docs/bench.md.
//
//   node .build/bench/compare/curve.js --ours FILE... [--peer FILE...] --out PREFIX [--png]
//
// writes PREFIX.md, and PREFIX.svg and with --png PREFIX.png of the model that was measured at most lengths.
import { parseArgs } from 'node:util';
import { writeFileAtomic } from '#src/io/atomic.js';
import { checkOneDevice, readOurs, readPeers } from './rows.js';
import { png } from './svg.js';
import { origin } from './table.js';
import { modelsOf, stepsOf, throughputTables } from './throughput.js';
import { throughputSvg } from './throughput-plot.js';

const { values } = parseArgs({
  options: {
    ours: { type: 'string', multiple: true, default: [] },
    peer: { type: 'string', multiple: true, default: [] },
    out: { type: 'string' },
    png: { type: 'boolean', default: false },
  },
});
if (values.ours.length === 0 || !values.out)
  throw new Error('Expected --ours FILE and --out PREFIX; see docs/bench.md');

const ours = readOurs(values.ours);
const peers = readPeers(values.peer);
checkOneDevice(ours, peers);
const steps = stepsOf(ours, peers);
const lengths = (model: string) =>
  new Set(steps.filter((step) => step.model === model).map(({ T }) => T)).size;
const model = modelsOf(steps).toSorted((a, b) => lengths(b) - lengths(a))[0];
if (!model) throw new Error('Expected a training step in the reports; see docs/bench.md');
const drawn = steps.filter((step) => step.model === model);
const title = `Training tokens/s against sequence length, ${model}`;
writeFileAtomic(`${values.out}.md`, `${origin(ours, peers)}\n\n${throughputTables(steps)}\n`);
writeFileAtomic(`${values.out}.svg`, throughputSvg(drawn, { title }));
if (values.png) writeFileAtomic(`${values.out}.png`, png(throughputSvg(drawn, { title, text: 'strokes' })));
console.log(`${values.out}.md, ${values.out}.svg: ${steps.length} steps`);
