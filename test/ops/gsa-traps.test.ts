import test from 'ava';
import { scope } from '#src/tensor/scope.js';
import { differing, relativeError } from '../cases/drive.js';
import { drawGsa, grouped, gsaCase, ragged, type GsaInputs } from '../cases/gsa.js';
import { testDevices } from '../devices.js';
import { chunkBackward, chunkForward, recurrent } from './gsa_run.js';
import { chunkSegments, recurrentSegments } from './gsa_segments.js';

// Ways in which chunked linear attention has been wrong before, each on every device.

function everything(x: GsaInputs, dev: Parameters<typeof chunkForward>[1]): Record<string, Float32Array> {
  const forward = chunkForward(x, dev);
  const steps = recurrent(x, dev);
  const backward = chunkBackward(x, forward.ok, dev);
  return { ...forward, ...backward, stepO: steps.o, stepHk: steps.hkT, stepHv: steps.hvT };
}

for (const dev of testDevices()) {
  for (const length of [1, 4, 7, 64])
    test(`${dev} float32 gsa ${grouped.title}: segments of ${length} with carried states are the whole pass, forward and backward`, (t) => {
      const x = drawGsa(grouped);
      const forward = chunkForward(x, dev);
      const whole: Record<string, Float32Array> = { ...forward, ...chunkBackward(x, forward.ok, dev) };
      for (const [name, joined] of Object.entries(chunkSegments(x, length, dev))) {
        const error = relativeError(joined, whole[name]!);
        t.true(error <= 1e-5, `chunk ${name}: relative error ${error}`);
      }
      for (const [name, joined] of Object.entries(recurrentSegments(x, length, dev))) {
        const error = relativeError(joined, whole[name]!);
        t.true(error <= 1e-5, `steps ${name}: relative error ${error}`);
      }
    });

  for (const at of [1, 15, 16, 17, 63, 64, 65, 149])
    test(`${dev} float32 gsa ${grouped.title}: the gates of token ${at} leave every output before it as it was, bit by bit`, (t) => {
      const x = drawGsa(grouped);
      const before = chunkForward(x, dev);
      for (const gate of [0, -0.5, -1e4]) {
        const g = Float32Array.from(x.g);
        for (let b = 0; b < x.B; b++) {
          const first = (b * x.T + at) * x.H * x.M;
          g.fill(gate, first, first + x.H * x.M);
        }
        const after = chunkForward({ ...x, g }, dev);
        for (const [name, width] of [
          ['o', x.HQ * x.V],
          ['ok', x.HQ * x.M],
        ] as const)
          for (let b = 0; b < x.B; b++) {
            const start = b * x.T * width;
            const earlier = (y: Float32Array) => y.slice(start, start + at * width);
            const token = (y: Float32Array) => y.slice(start + at * width, start + (at + 1) * width);
            t.deepEqual(differing({ y: earlier(after[name]) }, { y: earlier(before[name]) }), [], name);
            t.deepEqual(differing({ y: token(after[name]) }, { y: token(before[name]) }), ['y'], name);
          }
      }
    });

  for (const one of [grouped, ragged])
    test(`${dev} float32 gsa ${one.title}: 100 runs give the same bits`, (t) => {
      const x = drawGsa(one);
      const first = everything(x, dev);
      for (let run = 2; run <= 100; run++)
        t.deepEqual(differing(everything(x, dev), first), [], `run ${run}`);
    });

  test(`${dev} float32 gsa: a sequence does not depend on its neighbours, bit by bit`, (t) => {
    const x = drawGsa(gsaCase({ T: 150, HQ: 4, H: 2, cuSeqlens: [0, 64, 128, 129, 150] }));
    const [begin, end] = [64, 128];
    const q = Float32Array.from(x.q);
    q.fill(NaN, 0, begin * x.HQ * x.K);
    const v = Float32Array.from(x.v);
    v.fill(NaN, end * x.H * x.V);
    const clean = chunkForward(x, dev);
    const spoilt = chunkForward({ ...x, q, v }, dev);
    const own = (y: Float32Array) => y.slice(begin * x.HQ * x.V, end * x.HQ * x.V);
    t.deepEqual(differing({ o: own(spoilt.o) }, { o: own(clean.o) }), []);
    t.false(own(clean.o).some(Number.isNaN));
    t.true(spoilt.o.some(Number.isNaN));
  });
}

const [cpu] = testDevices();

/** Runs `body` with so many threads of the CPU. */
function withThreads<T>(threads: number, body: () => T): T {
  const usual = cpu!.getOption('threads');
  cpu!.setOption('threads', threads);
  try {
    return scope(body);
  } finally {
    cpu!.setOption('threads', usual);
  }
}

// One (sequence, head) pair is split by chunks over the threads, several are dealt out whole.
for (const one of [grouped, ragged, gsaCase({ T: 200, gate: 'mixed' }), gsaCase({ T: 66, HQ: 3, H: 3 })])
  test(`cpu float32 gsa ${one.title}: 1, 2 and 3 threads give the same bits`, (t) => {
    const x = drawGsa(one);
    const single = withThreads(1, () => everything(x, cpu!));
    for (const threads of [2, 3])
      t.deepEqual(
        differing(
          withThreads(threads, () => everything(x, cpu!)),
          single,
        ),
        [],
        `${threads} threads`,
      );
  });

// With one thread the states of this shape need many windows forward and two backward; with two threads, where the head
// is split by chunks, other ones: wherever a window ends, nothing may show it.
const long = gsaCase({ T: 4170, K: 256, V: 256, M: 256, gate: 0.02, states: true, scale: 0.05 });
test(`cpu float32 gsa ${long.title}: windows of chunks do not change a bit`, (t) => {
  const x = drawGsa(long);
  const run = (threads: number) =>
    withThreads(threads, () => {
      const forward = chunkForward(x, cpu!);
      return { ...forward, ...chunkBackward(x, forward.ok, cpu!) };
    });
  t.deepEqual(differing(run(2), run(1)), []);
});
