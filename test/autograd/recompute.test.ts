import test from 'ava';
import { Tape, type Recompute } from '#src/autograd/tape.js';
import { GSAForCausalLM } from '#src/models/gsa.js';
import { native } from '#src/native/load.js';
import { embedding, rmsNorm, sum, swigluHalves } from '#src/ops/index.js';
import { part, record } from '#src/tensor/recorder.js';
import { scope } from '#src/tensor/scope.js';
import { Tensor } from '#src/tensor/tensor.js';
import { testDevices } from '../devices.js';
import { assertNoLeak } from '../leaks.js';

const SMALL = {
  vocab_size: 61,
  hidden_size: 48,
  num_hidden_layers: 3,
  num_heads: 4,
  num_kv_heads: 2,
  num_slots: 7,
  intermediate_size: 80,
  initializer_range: 0.3,
};
const [B, T] = [2, 70];
/** Extents that 8-bit products take. */
const FROZEN = {
  ...SMALL,
  hidden_size: 64,
  num_kv_heads: 4,
  num_slots: 16,
  intermediate_size: 96,
  vocab_size: 64,
};

for (const dev of testDevices()) {
  const device = dev;

  /** Gradients of all parameters, and the memory that was held between forward and backward. */
  function passes(
    config: object,
    recompute: Recompute,
  ): { grads: Float32Array[]; held: number; loss: number } {
    using model = GSAForCausalLM.create({ ...SMALL, ...config }, { device, seed: 5 });
    using tape = new Tape({ recompute });
    return scope(() => {
      const draw = (shift: number) =>
        Tensor.from(
          Int32Array.from({ length: B * T }, (_, i) => (i * 7 + shift + ((i * i) % 11)) % SMALL.vocab_size),
          [B, T],
          { device },
        );
      const [ids, labels] = [draw(0), draw(3)];
      const before = device.memory().currentBytes;
      const { loss } = tape.run(() => model.loss(ids, labels));
      const held = device.memory().currentBytes - before;
      tape.backward(loss);
      return { grads: model.parameters().map((p) => p.grad!.toFloat32()), held, loss: loss.item() };
    });
  }

  for (const [name, config] of [
    ['as published', {}],
    ['with short convolutions and tied embeddings', { use_short_conv: true, tie_word_embeddings: true }],
  ] as const)
    test.serial(`${dev} made again, the same gradients to the last bit and less held, model ${name}`, (t) => {
      assertNoLeak(t, () => {
        const [kept, again] = [passes(config, false), passes(config, true)];
        t.is(again.loss, kept.loss);
        t.deepEqual(again.grads, kept.grads);
        t.log(`${again.held} bytes instead of ${kept.held}`);
        t.true(again.held < 0.8 * kept.held);
        const blocks = passes(config, 'blocks');
        t.is(blocks.loss, kept.loss);
        t.deepEqual(blocks.grads, kept.grads);
        t.log(`${blocks.held} bytes with blocks made again`);
        t.true(blocks.held < 0.6 * again.held);
      });
    });

  for (const matmul of ['dtype', 'fp8'] as const)
    test.serial(
      `${dev} blocks made again with frozen parameters: the same gradients, products ${matmul}`,
      (t) => {
        assertNoLeak(t, () => {
          const frozen = (recompute: Recompute, trained: RegExp) => {
            using model = GSAForCausalLM.create(FROZEN, {
              device,
              matmul,
              dtype: device.backend === 'cuda' ? 'bfloat16' : 'float32',
              seed: 5,
            });
            for (const [name, parameter] of model.namedParameters())
              parameter.requiresGrad = trained.test(name);
            using tape = new Tape({ recompute });
            return scope(() => {
              const ids = Tensor.from(
                Int32Array.from({ length: 32 }, (_, i) => (i * 7) % 61),
                [2, 16],
                { device },
              );
              const { loss } = tape.run(() => model.loss(ids, ids));
              const value = loss.item();
              tape.backward(loss);
              return { value, grads: model.parameters().map((p) => p.grad?.toFloat32() ?? null) };
            });
          };
          const last = /layers\.2|lm_head/;
          t.deepEqual(frozen('blocks', last), frozen(false, last));
          for (const recompute of [false, 'blocks'] as const)
            t.throws(() => frozen(recompute, /nothing/), {
              code: 'INVALID_ARGUMENT',
              message: /requiresGrad/,
            });
        });
      },
    );

  test.serial(
    `${dev} a part with whole-number and missing inputs, run twice, its leaves' gradients added up`,
    (t) => {
      assertNoLeak(t, () => {
        const run = (recompute: Recompute) =>
          scope(() => {
            using tape = new Tape({ recompute });
            using rows = Tensor.from(Int32Array.of(2, 0, 2), [3], { device });
            const x = Tensor.randn([3, 8], { device, seed: 1 });
            const weight = Tensor.randn([4, 8], { device, seed: 2 });
            const frozen = Tensor.randn([8], { device, seed: 3 });
            for (const leaf of [x, weight]) leaf.requiresGrad = true;
            let runs = 0;
            for (let step = 0; step < 2; step++) {
              const loss = tape.run(() => {
                const [y, unused] = part([x, null, rows, frozen], ([x, none, rows, scale]) => {
                  runs++;
                  t.is(none, null);
                  const { y } = rmsNorm(embedding(weight, rows!), scale!, { residual: x! });
                  return [swigluHalves(y), swigluHalves(x!)];
                });
                t.truthy(unused);
                return sum(y!);
              });
              tape.backward(loss);
            }
            t.is(frozen.grad, null);
            return { runs, grads: [x, weight].map((leaf) => leaf.grad!.toFloat32()) };
          });
        const [kept, again] = [run(false), run('blocks')];
        t.deepEqual([kept.runs, again.runs], [2, 4]);
        t.deepEqual(again.grads, kept.grads);
      });
    },
  );

  test.serial(
    `${dev} a failure in a part, at first or when it is made again, frees all and passes through`,
    (t) => {
      assertNoLeak(t, () => {
        for (const failing of [1, 2]) {
          using x = Tensor.randn([2, 8], { device, seed: 1 });
          x.requiresGrad = true;
          using tape = new Tape({ recompute: 'blocks' });
          let runs = 0;
          const forward = () =>
            tape.run(() => {
              const [y] = part([x], ([x]) => {
                const y = swigluHalves(x!);
                if (++runs === failing) throw new Error('no part');
                return [y];
              });
              return sum(y!);
            });
          if (failing === 1) {
            t.throws(forward, { message: 'no part' });
            continue;
          }
          using loss = forward();
          t.throws(() => tape.backward(loss), { message: 'no part' });
          t.is(tape.length, 0);
        }
      });
    },
  );

  test.serial(
    `${dev} what is made again for several ops is made once, and freed with the last of them`,
    (t) => {
      assertNoLeak(t, () => {
        using x = Tensor.randn([3, 8], { device, seed: 1 });
        x.requiresGrad = true;
        using tape = new Tape({ recompute: true });
        let made = 0;
        const like = (a: Tensor, values: Float32Array): Tensor => Tensor.from(values, a.shape, { device });
        const double = (a: Tensor): Tensor => (
          made++,
          like(
            a,
            a.toFloat32().map((v) => 2 * v),
          )
        );
        const twice = (a: Tensor): Tensor => {
          const y = double(a);
          const again = { of: [0], make: ([from]: readonly Tensor[]) => [double(from!)] };
          record(
            'twice',
            [a],
            [y],
            [a],
            ([dy]) => [
              like(
                dy!,
                dy!.toFloat32().map((v) => 2 * v),
              ),
            ],
            again,
          );
          return y;
        };
        const square = (a: Tensor): Tensor => {
          const y = like(
            a,
            a.toFloat32().map((v) => v * v),
          );
          record('square', [a], [y], [a], ([dy], [a]) => {
            const values = a!.toFloat32();
            return [
              like(
                dy!,
                dy!.toFloat32().map((v, i) => 2 * v * values[i]!),
              ),
            ];
          });
          return y;
        };
        scope(() => {
          const ends = tape.run(() => {
            const middle = twice(x);
            const four = twice(middle); // made from what is made again itself
            return [sum(square(middle)), sum(square(four))];
          });
          const seeds = [1, 1.25].map((v) => Tensor.full([], v, { device }));
          const { alive } = native().leaks();
          tape.backward(ends, seeds);
          t.is(native().leaks().alive, alive + 1, 'nothing of what was made is left, the gradient came');
        });
        // d/dx of 4x² and of 16x² times 1.25.
        const values = x.toFloat32();
        for (const [i, v] of x.grad!.toFloat32().entries())
          t.true(Math.abs(v - 48 * values[i]!) <= 1e-5 * Math.abs(v), `${i}`);
        t.is(made, 4, 'each twice: forward and again');
        t.is(tape.length, 0);
      });
    },
  );

  test.serial(
    `${dev} without a recompute the outputs are kept, and both ways agree op by op: rmsNorm, swiglu`,
    (t) => {
      assertNoLeak(t, () => {
        const run = (recompute: boolean) =>
          scope(() => {
            using tape = new Tape({ recompute });
            const x = Tensor.randn([5, 16], { device, seed: 2 });
            const r = Tensor.randn([5, 16], { device, seed: 3 });
            const w = Tensor.randn([16], { device, seed: 4 });
            for (const leaf of [x, r, w]) leaf.requiresGrad = true;
            const loss = tape.run(() => {
              const { y, h } = rmsNorm(x, w, { residual: r });
              const half = h.narrow(1, 0, 8).contiguousCopy(); // in no tape
              const { y: z } = rmsNorm(swigluHalves(y), null, { residual: half });
              return sum(z);
            });
            tape.backward(loss);
            return [x, r, w].map((leaf) => leaf.grad!.toFloat32());
          });
        t.deepEqual(run(true), run(false));
      });
    },
  );

  test.serial(`${dev} a failure while something is made again frees all and passes through`, (t) => {
    assertNoLeak(t, () => {
      using x = Tensor.randn([4], { device, seed: 1 });
      x.requiresGrad = true;
      using tape = new Tape({ recompute: true });
      const loss = tape.run(() => {
        const y = Tensor.zeros([4], { device });
        record('fails', [x], [y], [x], ([dy]) => [dy!.alias()], {
          of: [0],
          make: () => {
            Tensor.zeros([4], { device });
            throw new Error('made nothing');
          },
        });
        const z = Tensor.zeros([], { device });
        record('after', [y], [z], [y], (_, [y]) => [y!.alias()]);
        return z;
      });
      t.throws(() => tape.backward(loss), { message: 'made nothing' });
      loss.dispose();
      t.is(tape.length, 0);
    });
  });
}
