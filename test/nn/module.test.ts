import test from 'ava';
import { Tape } from '#src/autograd/tape.js';
import {
  Embedding,
  GatedMlp,
  GatedSlotAttention,
  JoinedLinear,
  Linear,
  Module,
  RMSNorm,
  ShortConvolution,
  type Parts,
} from '#src/nn/index.js';
import { sum } from '#src/ops/index.js';
import { scope } from '#src/tensor/scope.js';
import { Tensor } from '#src/tensor/tensor.js';
import { relativeError } from '../cases/drive.js';
import { testDevices } from '../devices.js';
import { assertNoLeak } from '../leaks.js';
import { silu as siluReference } from '../reference/activation.js';
import { matmul } from '../reference/dense.js';
import { shortConv } from '../reference/short_conv.js';

class Pair extends Module {
  constructor(
    readonly left: Module,
    readonly list: readonly Module[],
    readonly shared: Tensor,
  ) {
    super();
  }
  protected parts(): Parts {
    return { left: this.left, list: this.list, none: null, shared: this.shared, again: this.shared };
  }
}

const f64 = (x: Tensor): Float64Array => Float64Array.from(x.toFloat32());

for (const device of testDevices()) {
  let stream = 0;
  const random = (shape: number[], std = 0.5): Tensor => {
    const x = Tensor.randn(shape, { seed: 8, stream: stream++, std, device });
    x.requiresGrad = true;
    return x;
  };

  test.serial(`${device} parameters have dotted names, lists count, shared ones come once`, (t) => {
    assertNoLeak(t, () => {
      const shared = random([2, 2]);
      const pair = new Pair(
        new GatedMlp(
          new JoinedLinear({ gate_proj: random([3, 2]), up_proj: random([3, 2]) }),
          new Linear(random([2, 3])),
        ),
        [new RMSNorm(random([2])), new RMSNorm(null), new Embedding(shared)],
        shared,
      );
      t.deepEqual(
        pair.namedParameters().map(([name]) => name),
        [
          'left.gate_proj.weight',
          'left.up_proj.weight',
          'left.down_proj.weight',
          'list.0.weight',
          'list.2.weight',
        ],
      );
      t.is(pair.namedParameters('model.')[0]![0], 'model.left.gate_proj.weight');
      for (const p of pair.parameters()) p.grad = Tensor.zerosLike(p);
      pair.zeroGrad();
      t.true(pair.parameters().every((p) => p.grad === null));
      pair.dispose();
      pair.dispose();
    });
  });

  test.serial(`${device} float32 GatedMlp [2, 3, 8] -> 16 -> 8 is down(silu(gate) · up)`, (t) => {
    assertNoLeak(t, () => {
      using mlp = new GatedMlp(
        new JoinedLinear({ gate_proj: random([16, 8]), up_proj: random([16, 8]) }),
        new Linear(random([8, 16])),
      );
      scope(() => {
        const x = random([2, 3, 8]);
        const project = (w: Tensor) => matmul(f64(x), f64(w), { M: 6, K: 8, N: 16, transB: true });
        const up = project(mlp.gateAndUp.maps.up_proj.weight);
        const inner = siluReference(project(mlp.gateAndUp.maps.gate_proj.weight)).map((g, i) => g * up[i]!);
        const expected = matmul(inner, f64(mlp.downProj.weight), { M: 6, K: 16, N: 8, transB: true });
        const y = mlp.forward(x);
        t.deepEqual(y.shape, [2, 3, 8]);
        t.true(relativeError(y.toFloat32(), expected) <= 1e-5);
      });
    });
  });

  test.serial(`${device} float32 JoinedLinear: one product, parameters of their own in one storage`, (t) => {
    assertNoLeak(t, () => {
      const [a, b] = [random([3, 4]), random([2, 4])];
      const separate = { a: a.toFloat32(), b: b.toFloat32() };
      using joined = new JoinedLinear({ a, b });
      t.true(a.disposed && b.disposed, 'moved');
      t.deepEqual(joined.maps.a.weight.toFloat32(), separate.a);
      t.deepEqual(joined.maps.b.weight.toFloat32(), separate.b);
      t.deepEqual(
        joined.namedParameters().map(([name]) => name),
        ['a.weight', 'b.weight'],
      );
      // A change of one parameter shows in the product.
      joined.maps.b.weight.write(new Float32Array(8).fill(1));
      using x = random([2, 4]);
      using tape = new Tape();
      using y = tape.run(() => joined.forward(x));
      const expected = [...separate.a, ...new Float32Array(8).fill(1)];
      const product = matmul(f64(x), Float64Array.from(expected), { M: 2, K: 4, N: 5, transB: true });
      t.true(relativeError(y.toFloat32(), product) <= 1e-5);
      using seed = Tensor.full([2, 5], 1, { device });
      tape.backward(y, seed);
      const columns = matmul(new Float64Array(6).fill(1), f64(x), { M: 3, K: 2, N: 4 });
      t.deepEqual(joined.maps.a.weight.grad!.shape, [3, 4]);
      t.true(relativeError(joined.maps.a.weight.grad!.toFloat32(), columns) <= 1e-5);
      t.deepEqual(joined.maps.b.weight.grad!.shape, [2, 4]);
    });
  });

  test.serial(
    `${device} float32 RMSNorm: the stream is the input, and its gradient meets that of the norm`,
    (t) => {
      assertNoLeak(t, () => {
        using norm = new RMSNorm(random([8]), { eps: 1e-3 });
        scope(() => {
          const x = random([3, 8]);
          const [dy, dh] = [random([3, 8]), random([3, 8])];
          x.requiresGrad = true;
          const gradient = (seeds: { y?: Tensor; h?: Tensor }) => {
            const tape = new Tape();
            const stream = tape.run(() => norm.forwardStream(x));
            t.deepEqual(stream.h.toFloat32(), x.toFloat32());
            t.deepEqual(stream.y.toFloat32(), norm.forward(x).toFloat32());
            const names = Object.keys(seeds) as ('y' | 'h')[];
            tape.backward(
              names.map((name) => stream[name]),
              names.map((name) => seeds[name]!),
            );
            const grad = f64(x.grad!);
            x.grad!.dispose();
            x.grad = null;
            return grad;
          };
          const [through, beside] = [gradient({ y: dy }), gradient({ h: dh })];
          t.deepEqual(beside, f64(dh));
          const sum = through.map((value, i) => value + beside[i]!);
          t.true(relativeError(gradient({ y: dy, h: dh }), sum) <= 1e-6);
        });
      });
    },
  );

  test.serial(
    `${device} float32 ShortConvolution [6, 1, 4] keeps the given state and returns the next`,
    (t) => {
      assertNoLeak(t, () => {
        using conv = new ShortConvolution(random([6, 1, 4]));
        scope(() => {
          const x = random([2, 5, 6]);
          const state = random([2, 6, 3]);
          const before = state.toFloat32();
          const out = conv.forward(x, { state, outputState: true });
          const expected = shortConv(
            f64(x),
            f64(conv.weight),
            { rows: 10, D: 6, W: 4, starts: [0, 5], silu: true },
            f64(state),
          );
          t.true(relativeError(out.y.toFloat32(), expected.y) <= 1e-5);
          t.deepEqual(out.state!.toFloat32(), Float32Array.from(expected.state));
          t.deepEqual(state.toFloat32(), before);
          t.is(conv.forward(x).state, undefined);
        });
      });
    },
  );

  test.serial(`${device} float32 a weight of shape [D, 1, W] receives its gradient in that shape`, (t) => {
    assertNoLeak(t, () => {
      using conv = new ShortConvolution(random([6, 1, 4]));
      using x = random([1, 5, 6]);
      using tape = new Tape();
      using loss = tape.run(() => sum(conv.forward(x).y));
      tape.backward(loss);
      t.deepEqual(conv.weight.grad!.shape, [6, 1, 4]);
    });
  });

  test.serial(
    `${device} float32 one token by recurrence equals one token by chunks, and both continue a state`,
    (t) => {
      assertNoLeak(t, () => {
        const [D, HQ, H, K, V, M] = [12, 4, 2, 3, 5, 6];
        using layer = new GatedSlotAttention(
          { HQ, H, K, V, M, normalizer: 8 },
          {
            inputs: new JoinedLinear({
              q_proj: random([HQ * K, D]),
              k_proj: random([H * K, D]),
              v_proj: random([H * V, D]),
              f_proj: random([H * M, D]),
            }),
            convs: null,
            gNorm: new RMSNorm(random([HQ * V]), { eps: 1e-5, silu: true }),
            oProj: new Linear(random([D, HQ * V])),
          },
        );
        scope(() => {
          const state = layer.forward(random([2, 9, D]), { outputState: true }).state!;
          const x = random([2, 1, D]);
          const step = layer.forward(x, { state, outputState: true });
          using tape = new Tape();
          const chunk = tape.run(() => layer.forward(x, { state, outputState: true }));
          t.true(tape.length > 0, 'recorded, so by chunks');
          t.true(relativeError(step.y.toFloat32(), chunk.y.toFloat32()) <= 1e-5);
          t.true(relativeError(step.state!.hk.toFloat32(), chunk.state!.hk.toFloat32()) <= 1e-5);
          t.true(relativeError(step.state!.hv.toFloat32(), chunk.state!.hv.toFloat32()) <= 1e-5);
          t.is(step.state!.conv, null);
        });
      });
    },
  );
}
