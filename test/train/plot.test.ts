import { existsSync, readFileSync } from 'node:fs';
import { inflateSync } from 'node:zlib';
import test from 'ava';
import { MetricsWriter, type Metrics } from '#src/train/metrics.js';
import { plotRun } from '#src/train/plot-run.js';
import { lossCurvePng, lossCurveSvg, smooth } from '#src/train/plot.js';
import { tempFolder } from '../io/temp.js';

const step = (n: number, loss: number | null) => ({
  step: n,
  loss,
  lr: 1e-3,
  gradNorm: 1,
  tokens: 1,
  tokensPerSecond: 1,
  seconds: 1,
});

function run(steps: number, entropy: number | null = 6): Metrics {
  const losses = Array.from({ length: steps }, (_, i) =>
    step(i + 1, 3 + 5 * Math.exp(-i / 30) + 0.1 * Math.sin(7 * i)),
  );
  const evaluations = [10, 20, 30]
    .filter((n) => n <= steps)
    .map((n) => ({ step: n, validationLoss: 4, validationPerplexity: 54.6, validationTokens: 10 }));
  return { steps: losses, evaluations, unigramEntropy: entropy };
}

/** Width, height and the pixels (RGBA rows) of a PNG without interlacing. */
function decode(png: Uint8Array): { width: number; height: number; at: (x: number, y: number) => number[] } {
  const view = Buffer.from(png);
  const [width, height] = [view.readUInt32BE(16), view.readUInt32BE(20)];
  const data: Buffer[] = [];
  for (let at = 8; at < view.length; at += view.readUInt32BE(at) + 12)
    if (view.toString('latin1', at + 4, at + 8) === 'IDAT')
      data.push(view.subarray(at + 8, at + 8 + view.readUInt32BE(at)));
  const raw = inflateSync(Buffer.concat(data));
  const [bpp, stride] = [4, width * 4];
  const out = Buffer.alloc(height * stride);
  for (let y = 0; y < height; y++)
    for (let i = 0; i < stride; i++) {
      const left = i >= bpp ? out[y * stride + i - bpp]! : 0;
      const up = y > 0 ? out[(y - 1) * stride + i]! : 0;
      const corner = i >= bpp && y > 0 ? out[(y - 1) * stride + i - bpp]! : 0;
      const [p, kind] = [left + up - corner, raw[y * (stride + 1)]!];
      const [a, b, c] = [Math.abs(p - left), Math.abs(p - up), Math.abs(p - corner)];
      const paeth = a <= b && a <= c ? left : b <= c ? up : corner;
      const guess = [0, left, up, (left + up) >> 1, paeth][kind]!;
      out[y * stride + i] = raw[y * (stride + 1) + 1 + i]! + guess;
    }
  return { width, height, at: (x, y) => [...out.subarray(y * stride + x * 4, y * stride + x * 4 + 4)] };
}

test('the SVG holds axes, labels, both curves, points and the entropy line', (t) => {
  const svg = lossCurveSvg(run(40), { title: 'a <run> & "more"' });
  for (const text of [
    'step',
    'loss (nats per token)',
    'training',
    'smoothed',
    'unigram entropy 6.00',
    'validation (last 4.000)',
  ])
    t.true(svg.includes(`>${text}</text>`), text);
  t.true(svg.includes('a &#60;run&#62; &#38; &#34;more&#34;'));
  t.is(svg.match(/<circle /g)!.length, 3 + 1, 'three points and the one in the legend');
  t.false(/NaN|Infinity|undefined/.test(svg));
  // Well formed: every element is closed in order.
  const open: string[] = [];
  for (const [, close, name, self] of svg.matchAll(/<(\/?)(\w+)[^>]*?(\/?)>/g))
    if (close) t.is(open.pop(), name);
    else if (!self) open.push(name!);
  t.deepEqual(open, []);
});

test('curves of nothing, one step, only skipped steps, constant losses and 20,000 steps are drawn', async (t) => {
  const cases: Record<string, Metrics> = {
    nothing: { steps: [], evaluations: [], unigramEntropy: null },
    one: { steps: [step(1, 5)], evaluations: [], unigramEntropy: null },
    skipped: { steps: [step(1, null), step(2, null)], evaluations: [], unigramEntropy: 6 },
    constant: { steps: [step(1, 5), step(2, 5)], evaluations: [], unigramEntropy: null },
    long: run(20_000),
  };
  for (const [name, metrics] of Object.entries(cases)) {
    const svg = lossCurveSvg(metrics);
    t.false(/NaN|Infinity|undefined/.test(svg), name);
    t.true(svg.length < 120_000, `${name}: ${svg.length}`);
    t.true((await lossCurvePng(metrics)).length > 1000, name);
  }
});

test('the PNG is 1920x1080 and its labels are drawn without any font of the machine', async (t) => {
  const image = decode(await lossCurvePng(run(40), { title: 'title' }));
  t.deepEqual([image.width, image.height], [1920, 1080]);
  const dark = (x0: number, y0: number, x1: number, y1: number): number => {
    let n = 0;
    for (let y = y0; y < y1; y++) for (let x = x0; x < x1; x++) if (image.at(x, y)[0]! < 110) n++;
    return n;
  };
  t.true(dark(140, 20, 260, 60) > 100, 'title');
  t.true(dark(60, 100, 130, 960) > 200, 'numbers of the loss axis');
  t.true(dark(130, 970, 1880, 1010) > 200, 'numbers of the step axis');
  t.true(dark(20, 400, 60, 700) > 200, 'label of the loss axis');
});

test('smoothing does not lag inside a run, and averages over its end', (t) => {
  const ramp = Array.from({ length: 400 }, (_, i) => [i, 2 * i] as const);
  const smoothed = smooth(ramp);
  for (const [x, y] of smoothed.slice(0, 395)) t.true(Math.abs(y - 2 * x) < 1e-9);
  t.is(smoothed[399]![1], (394 + 395 + 396 + 397 + 398 + 399) / 3);
  t.deepEqual(smooth([]), []);
  t.deepEqual(smooth([[3, 4]]), [[3, 4]]);
});

test('plotRun writes both files from metrics.jsonl', async (t) => {
  const folder = tempFolder(t);
  const writer = new MetricsWriter(folder, () => true);
  for (const record of run(12).steps) writer.append(record);
  writer.close();
  const paths = await plotRun(folder, 'name');
  t.true(readFileSync(paths.svg, 'utf8').includes('>name</text>'));
  t.true(existsSync(paths.png));
});
