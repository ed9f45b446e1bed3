// Our measurements beside a peer's, as a Markdown table and a plot: what and how is in docs/bench.md.
//
//   npm run compare -- --ours FILE... [--peer FILE...] --out PREFIX [--title TEXT] [--png]
//
// writes PREFIX.md, PREFIX.svg and with --png PREFIX.png.
import { parseArgs } from 'node:util';
import { writeFileAtomic } from '#src/io/atomic.js';
import { comparisonSvg } from './plot.js';
import { matchRows, readOurs, readPeers } from './rows.js';
import { png } from './svg.js';
import { comparisonTable } from './table.js';

const { values } = parseArgs({
  options: {
    ours: { type: 'string', multiple: true, default: [] },
    peer: { type: 'string', multiple: true, default: [] },
    out: { type: 'string' },
    title: { type: 'string', default: 'Times faster than the peer (ours / peer, milliseconds)' },
    png: { type: 'boolean', default: false },
  },
});
if (values.ours.length === 0 || !values.out)
  throw new Error('Expected --ours FILE and --out PREFIX; see docs/bench.md');

const ours = readOurs(values.ours);
const peers = readPeers(values.peer);
const rows = matchRows(ours, peers);
writeFileAtomic(`${values.out}.md`, comparisonTable(rows, ours, peers));
writeFileAtomic(`${values.out}.svg`, comparisonSvg(rows, { title: values.title }));
if (values.png)
  writeFileAtomic(`${values.out}.png`, png(comparisonSvg(rows, { title: values.title, text: 'strokes' })));
console.log(`${values.out}.md, ${values.out}.svg: ${rows.length} rows`);
