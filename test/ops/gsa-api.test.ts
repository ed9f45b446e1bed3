import test from 'ava';
import { gradcheck } from '#src/autograd/gradcheck.js';
import { Tape } from '#src/autograd/tape.js';
import { GsaError } from '#src/native/errors.js';
import { gsaChunk, gsaRecurrent, type GsaInputs } from '#src/ops/gsa.js';
import { gsaGate, gsaLayer } from '#src/ops/index.js';
import { exec } from '#src/tensor/exec.js';
import { scope } from '#src/tensor/scope.js';
import { Tensor } from '#src/tensor/tensor.js';
import { drawGsa, gsaCase, ragged, type GsaInputs as Drawn } from '../cases/gsa.js';
import { testDevices } from '../devices.js';
import { assertNoLeak } from '../leaks.js';
import { chunkBackward, chunkForward, gsaShapes, recurrent } from './gsa_run.js';

const DIFFERENTIABLE = ['q', 'k', 'v', 's', 'g', 'hk0', 'hv0'] as const;

function tensors(
  x: Drawn,
  device: Tensor['device'],
): GsaInputs & Record<(typeof DIFFERENTIABLE)[number], Tensor> {
  const shapes = gsaShapes(x);
  const put = (shape: number[], values: ArrayLike<number>): Tensor =>
    Tensor.from(Float32Array.from(values), shape, { device });
  return {
    q: put(shapes.q, x.q),
    k: put(shapes.k, x.k),
    v: put(shapes.v, x.v),
    s: put(shapes.s, x.s),
    g: put(shapes.s, x.g),
    hk0: put(shapes.hk, x.hk0!),
    hv0: put(shapes.hv, x.hv0!),
    cuSeqlens: Tensor.from(Int32Array.from(x.cuSeqlens!), [x.cuSeqlens!.length], { device }),
    scale: x.scale,
  };
}

for (const dev of testDevices()) {
  test(`${dev} views that begin in the middle of 16 bytes give what tensors of their own give, K=V=64 M=64`, (t) => {
    const dtype = dev.backend === 'cuda' ? 'bfloat16' : 'float32';
    const [B, T, H, K, M] = [1, 70, 2, 64, 64];
    scope(() => {
      const draw = (shape: number[], seed: number, type: 'bfloat16' | 'float32', shift: number): Tensor => {
        const count = shape.reduce((a, b) => a * b);
        const whole = Tensor.randn([count + 1], { device: dev, dtype: type, seed });
        const view = whole.narrow(0, 1, count).view(shape);
        return shift ? view : view.contiguousCopy();
      };
      const run = (shift: number): Float32Array[] => {
        const gates = draw([B, T, H, M], 4, 'float32', 0);
        const { g, s } = gsaGate(gates, {});
        const moved = (x: Tensor): Tensor => {
          if (!shift) return x;
          const room = Tensor.zeros([x.size + 1], { device: dev });
          const view = room.narrow(0, 1, x.size).view(x.shape);
          exec('cast', { x }, { y: view }, {});
          return view;
        };
        const leaves = [1, 2, 3].map((seed) => draw([B, T, H, K], seed, dtype, shift));
        leaves.push(moved(s), moved(g));
        for (const leaf of leaves) leaf.requiresGrad = true;
        const [q, k, v, strength, gate] = leaves as [Tensor, Tensor, Tensor, Tensor, Tensor];
        const tape = new Tape();
        const { o } = tape.run(() => gsaChunk({ q, k, v, s: strength, g: gate, scale: 0.3 }));
        tape.backward(o, draw([B, T, H, K], 5, dtype, shift));
        return [o, ...leaves.map((leaf) => leaf.grad!)].map((x) => x.toFloat32());
      };
      const [expected, got] = [run(0), run(1)];
      got.forEach((values, i) => {
        const norm = Math.hypot(...expected[i]!);
        const error = Math.hypot(...values.map((x, j) => x - expected[i]![j]!)) / norm;
        t.true(error <= (dtype === 'bfloat16' ? 1e-2 : 1e-6), `${i}: ${error}`);
      });
    });
  });

  test(`${dev} gsaLayer refuses an option that it does not know, by name`, (t) => {
    scope(() => {
      const x = Tensor.zeros([1, 2, 16], { device: dev });
      const args = { HQ: 1, H: 1, K: 4, V: 4, M: 4, cu_seqlens: null };
      t.throws(() => gsaLayer(x, args), {
        instanceOf: GsaError,
        code: 'INVALID_ARGUMENT',
        message: /cu_seqlens/,
      });
    });
  });

  test(`${dev} float32 gsaChunk ${ragged.title}: the tape's gradients are the op's`, (t) => {
    const x = drawGsa(ragged);
    const expected = chunkBackward(x, chunkForward(x, dev).ok, dev);
    scope(() => {
      const inputs = tensors(x, dev);
      for (const name of DIFFERENTIABLE) inputs[name].requiresGrad = true;
      using tape = new Tape();
      const outputs = tape.run(() => {
        const { o, hkT, hvT } = gsaChunk({ ...inputs, outputFinalState: true });
        return [o, hkT!, hvT!];
      });
      const upstream = [x.do, x.dhkT!, x.dhvT!];
      const seeds = outputs.map((y, i) =>
        Tensor.from(Float32Array.from(upstream[i]!), y.shape, { device: dev }),
      );
      tape.backward(outputs, seeds);
      for (const name of DIFFERENTIABLE)
        t.deepEqual(inputs[name].grad!.toFloat32(), expected[`d${name}`], `d${name}`);
    });
  });

  test(`${dev} float32 gsaChunk B=1 T=5 HQ=2 H=1 K=3 V=4 M=2 states: the gradient checker agrees`, (t) => {
    const small = {
      T: 5,
      HQ: 2,
      K: 3,
      V: 4,
      M: 2,
      gate: 0.5,
      states: true,
      cuSeqlens: [0, 2, 2, 5],
      scale: 0.7,
    };
    scope(() => {
      const inputs = tensors(drawGsa(gsaCase(small)), dev);
      const leaves = DIFFERENTIABLE.map((name) => inputs[name]);
      for (const leaf of leaves) leaf.requiresGrad = true;
      const result = gradcheck((at) => {
        const moved = Object.fromEntries(DIFFERENTIABLE.map((name, i) => [name, at[i]!]));
        const { o, hkT, hvT } = gsaChunk({ ...inputs, ...moved, outputFinalState: true });
        return [o, hkT!, hvT!];
      }, leaves);
      t.true(result.ok, JSON.stringify(result));
    });
  });

  test.serial(`${dev} float32 gsaChunk: forward and backward leave no storage behind`, (t) => {
    assertNoLeak(t, () =>
      scope(() => {
        const inputs = tensors(drawGsa(ragged), dev);
        inputs.v.requiresGrad = true;
        const tape = new Tape();
        const o = tape.run(() => gsaChunk(inputs).o);
        tape.backward(o, Tensor.zerosLike(o));
      }),
    );
  });

  test(`${dev} float32 gsaRecurrent ${ragged.title}: a step does not write into the caller's state`, (t) => {
    const x = drawGsa(ragged);
    scope(() => {
      const inputs = tensors(x, dev);
      const { hk, hv } = gsaRecurrent(inputs);
      t.deepEqual(inputs.hk0.toFloat32(), x.hk0);
      t.deepEqual(inputs.hv0.toFloat32(), x.hv0);
      t.notDeepEqual(hk.toFloat32(), x.hk0);
      t.notDeepEqual(hv.toFloat32(), x.hv0);
    });
  });

  test(`${dev} float32 gsa_recurrent ${ragged.title}: in place it gives the same bits`, (t) => {
    const x = drawGsa(ragged);
    const expected = recurrent(x, dev);
    scope(() => {
      const { q, k, v, s, g, hk0: hk, hv0: hv, cuSeqlens: cu_seqlens } = tensors(x, dev);
      const o = Tensor.empty(gsaShapes(x).o, { device: dev });
      exec(
        'gsa_recurrent',
        { q, k, v, s, g, hk, hv, cu_seqlens },
        { o, hk_out: hk, hv_out: hv },
        { scale: x.scale },
      );
      t.deepEqual({ o: o.toFloat32(), hkT: hk.toFloat32(), hvT: hv.toFloat32() }, expected);
    });
  });

  for (const [what, offsets, message] of [
    ['that does not start with 0', [1, 5, 70], /cu_seqlens to start with 0 but received 1/],
    ['that decreases', [0, 30, 20, 70], /not to decrease but received 20 after 30 at index 2/],
    ['that ends before T', [0, 30, 69], /to end with T = 70 but received 69/],
    ['that ends after T', [0, 30, 71], /to end with T = 70 but received 71/],
    ['that is negative', [0, -1, 70], /not to decrease but received -1 after 0 at index 1/],
  ] as const)
    test(`${dev} gsa refuses a cuSeqlens ${what}`, (t) => {
      const x = drawGsa({ ...ragged, cuSeqlens: offsets });
      scope(() => {
        const inputs = tensors(x, dev);
        for (const op of [gsaChunk, gsaRecurrent]) {
          const error = t.throws(() => op(inputs), { instanceOf: GsaError, message });
          t.is(error?.code, 'INVALID_ARGUMENT');
        }
      });
    });
}

const wrong: readonly [string, (x: GsaInputs) => Partial<GsaInputs>, RegExp][] = [
  ['heads that do not divide', ({ q }) => ({ q: q.narrow(2, 0, 3).contiguousCopy() }), /multiple of the 2/],
  ['k of another width', ({ k }) => ({ k: k.narrow(3, 0, 15).contiguousCopy() }), /for k/],
  ['v of another length', ({ v }) => ({ v: v.narrow(1, 0, 69).contiguousCopy() }), /for v/],
  ['gates of other slots', ({ g }) => ({ g: g.narrow(3, 0, 7).contiguousCopy() }), /for g/],
  ['a state of too few sequences', ({ hk0 }) => ({ hk0: hk0!.narrow(0, 0, 4).contiguousCopy() }), /for hk0/],
  ['cuSeqlens of float32', ({ cuSeqlens }) => ({ cuSeqlens: cuSeqlens!.to({ dtype: 'float32' }) }), /int32/],
  ['a single offset', ({ cuSeqlens }) => ({ cuSeqlens: cuSeqlens!.narrow(0, 0, 1) }), /at least 2 offsets/],
  ['a scale of NaN', () => ({ scale: NaN }), /for scale/],
];

for (const [what, change, message] of wrong)
  test(`gsa refuses ${what} with INVALID_ARGUMENT`, (t) => {
    scope(() => {
      const inputs = tensors(drawGsa(ragged), testDevices()[0]!);
      for (const op of [gsaChunk, gsaRecurrent]) {
        const error = t.throws(() => op({ ...inputs, ...change(inputs) }), { instanceOf: GsaError, message });
        t.is(error?.code, 'INVALID_ARGUMENT');
      }
    });
  });

test('the native op checks shapes for itself: gsa_chunk_fwd refuses a strided q and an o of the wrong width', (t) => {
  scope(() => {
    const { q, k, v, s, g } = tensors(drawGsa(ragged), testDevices()[0]!);
    const o = Tensor.empty([1, 70, 4, 16]);
    const run = (operands: { q?: Tensor; o?: Tensor }) => () =>
      exec('gsa_chunk_fwd', { q: operands.q ?? q, k, v, s, g }, { o: operands.o ?? o }, { scale: 1 });
    const wide = Tensor.zeros([1, 70, 4, 32]);
    t.throws(run({ q: wide.narrow(3, 0, 16) }), { message: /contiguous tensor for q/ });
    t.throws(run({ o: wide }), { message: /Expected shape \[1, 70, 4, 16\] for o/ });
    t.notThrows(run({}));
  });
});
