import test from 'ava';
import { Tape } from '#src/autograd/tape.js';
import { GsaError } from '#src/native/errors.js';
import { parseGsaConfig } from '#src/models/config.js';
import { GSAForCausalLM } from '#src/models/gsa.js';
import { parameterSpecs, trainingMemory } from '#src/models/parameters.js';
import type { ModelState } from '#src/models/state.js';
import type { Device } from '#src/tensor/device.js';
import { scope } from '#src/tensor/scope.js';
import { Tensor } from '#src/tensor/tensor.js';
import { relativeError } from '../cases/drive.js';
import { testDevices } from '../devices.js';
import { assertNoLeak } from '../leaks.js';
import { randomFrom } from '../random.js';

const SMALL = {
  vocab_size: 61,
  hidden_size: 48,
  num_hidden_layers: 3,
  num_heads: 4,
  num_kv_heads: 2,
  num_slots: 7,
  intermediate_size: 80,
  use_short_conv: true,
  // Larger than in training, so that gates and softmax are far from uniform.
  initializer_range: 0.3,
};

function tokens(B: number, T: number, device: Device, seed = 3): Tensor {
  const random = randomFrom(seed);
  return Tensor.from(
    Int32Array.from({ length: B * T }, () => random.below(SMALL.vocab_size)),
    [B, T],
    { device },
  );
}

const invalid = (message: RegExp) => ({ instanceOf: GsaError, code: 'INVALID_ARGUMENT', message });

/** Logits over pieces of at most `length` tokens with carried state, and the final state's tensors. */
function inPieces(
  model: GSAForCausalLM,
  ids: Tensor,
  length: number,
): { logits: Float32Array; state: Float32Array[] } {
  const [B, T] = ids.shape as [number, number];
  const V = model.config.vocab_size;
  const logits = new Float32Array(B * T * V);
  const host = ids.toHost() as Int32Array;
  let state: ModelState = model.newState(B);
  for (let start = 0; start < T; start += length)
    scope(() => {
      const n = Math.min(length, T - start);
      const piece = Int32Array.from(
        { length: B * n },
        (_, i) => host[Math.floor(i / n) * T + start + (i % n)]!,
      );
      const before = state.tensors().map((x) => x.toHost());
      const out = model.logits(Tensor.from(piece, [B, n], { device: ids.device }), { state });
      const after = state.tensors().map((x) => x.toHost());
      if (before.some((x, i) => Buffer.compare(Buffer.from(x.buffer), Buffer.from(after[i]!.buffer)) !== 0))
        throw new Error('the state that was given has changed');
      const values = out.logits.toFloat32();
      for (let b = 0; b < B; b++)
        logits.set(values.subarray(b * n * V, (b + 1) * n * V), (b * T + start) * V);
      state.dispose();
      state = out.state!;
    });
  const tensors = state.tensors().map((x) => x.toFloat32());
  state.dispose();
  return { logits, state: tensors };
}

for (const device of testDevices()) {
  for (const use_short_conv of [false, true])
    test.serial(
      `${device} float32 B=2 T=150 H=4/2 M=7 ${use_short_conv ? 'short conv' : 'no conv'}: pieces of 1, 4, 7, 64 with carried state equal one pass, and no given state changes`,
      (t) => {
        assertNoLeak(t, () => {
          using model = GSAForCausalLM.create({ ...SMALL, use_short_conv }, { device, seed: 5 });
          using ids = tokens(2, 150, device);
          const whole = inPieces(model, ids, 150);
          const plain = scope(() => model.logits(ids).logits.toFloat32());
          t.true(relativeError(whole.logits, plain) <= 1e-5, 'a zero state is no state');
          for (const length of [1, 4, 7, 64]) {
            const pieces = inPieces(model, ids, length);
            const error = relativeError(pieces.logits, whole.logits);
            t.true(error <= 1e-5, `pieces of ${length}: logits ${error}`);
            pieces.state.forEach((x, i) => {
              const stateError = relativeError(x, whole.state[i]!);
              t.true(stateError <= 1e-5, `pieces of ${length}: state ${i} ${stateError}`);
            });
          }
        });
      },
    );

  test.serial(
    `${device} float32 cu_seqlens [0, 5, 6, 40]: joined sequences equal separate ones, also in gradients`,
    (t) => {
      assertNoLeak(t, () => {
        using model = GSAForCausalLM.create(SMALL, { device, seed: 6 });
        using joined = tokens(1, 40, device);
        using labels = tokens(1, 40, device, 4);
        using cuSeqlens = Tensor.from(Int32Array.of(0, 5, 6, 40), [4], { device });
        const gradients = () => {
          const result = model.parameters().map((p) => p.grad!.toFloat32());
          model.zeroGrad();
          return result;
        };
        using tape = new Tape();
        const together = scope(() => {
          const { loss, tokens } = tape.run(() => model.loss(joined, labels, { cuSeqlens }));
          tape.backward(loss);
          return { loss: loss.item(), tokens };
        });
        const togetherGradients = gradients();
        let loss = 0;
        let count = 0;
        for (const [start, end] of [
          [0, 5],
          [5, 6],
          [6, 40],
        ] as const)
          scope(() => {
            const part = (x: Tensor) => x.narrow(1, start, end - start).contiguousCopy();
            const out = tape.run(() => model.loss(part(joined), part(labels)));
            tape.backward(out.loss);
            loss += out.loss.item();
            count += out.tokens;
          });
        t.is(count, together.tokens);
        t.true(Math.abs(loss - together.loss) <= 1e-5 * loss);
        gradients().forEach((g, i) => {
          const error = relativeError(togetherGradients[i]!, g);
          t.true(error <= 1e-4, `${model.namedParameters()[i]![0]}: ${error}`);
        });
      });
    },
  );

  test.serial(`${device} float32 states of sequences joined by cu_seqlens continue each of them`, (t) => {
    assertNoLeak(t, () => {
      using model = GSAForCausalLM.create(SMALL, { device, seed: 6 });
      using joined = tokens(1, 12, device);
      using cuSeqlens = Tensor.from(Int32Array.of(0, 5, 12), [3], { device });
      using next = tokens(2, 1, device, 8);
      const first = scope(() => {
        const { state } = model.forward(joined, { cuSeqlens, outputState: true });
        return state!;
      });
      t.is(first.batch, 2);
      t.is(first.tokens, null);
      const both = scope(() => {
        const out = model.logits(next, { state: first });
        out.state!.dispose();
        return out.logits.toFloat32();
      });
      const V = SMALL.vocab_size;
      for (const [n, start, length] of [
        [0, 0, 5],
        [1, 5, 7],
      ] as const)
        scope(() => {
          const ids = joined.narrow(1, start, length).contiguousCopy();
          const { state } = model.forward(ids, { outputState: true });
          const out = model.logits(next.narrow(0, n, 1), { state });
          const error = relativeError(both.subarray(n * V, (n + 1) * V), out.logits.toFloat32());
          t.true(error <= 1e-5, `sequence ${n}: ${error}`);
          state!.dispose();
          out.state!.dispose();
        });
      first.dispose();
    });
  });

  test.serial(`${device} the loss is a sum: two halves of a batch give the gradient of the whole`, (t) => {
    assertNoLeak(t, () => {
      using model = GSAForCausalLM.create({ ...SMALL, tie_word_embeddings: true }, { device, seed: 7 });
      using ids = tokens(4, 9, device);
      const host = tokens(4, 9, device, 11);
      const values = (host.toHost() as Int32Array).map((x, i) => (i % 5 < 2 || i > 30 ? -100 : x));
      host.dispose();
      using labels = Tensor.from(values, [4, 9], { device });
      using tape = new Tape();
      const run = (rows: [number, number][]) => {
        let total = 0;
        let count = 0;
        for (const [start, length] of rows)
          scope(() => {
            const out = tape.run(() =>
              model.loss(ids.narrow(0, start, length), labels.narrow(0, start, length)),
            );
            tape.backward(out.loss);
            total += out.loss.item();
            count += out.tokens;
          });
        const gradients = model.parameters().map((p) => p.grad!.toFloat32());
        model.zeroGrad();
        return { total, count, gradients };
      };
      const whole = run([[0, 4]]);
      const halves = run([
        [0, 1],
        [1, 3],
      ]);
      t.is(whole.count, values.filter((x) => x !== -100).length);
      t.is(halves.count, whole.count);
      t.true(Math.abs(halves.total - whole.total) <= 1e-5 * whole.total);
      whole.gradients.forEach((g, i) => t.true(relativeError(halves.gradients[i]!, g) <= 1e-5));
    });
  });

  test.serial(
    `${device} a seed gives the same weights again, each parameter its own, normal(0, initializer_range)`,
    (t) => {
      assertNoLeak(t, () => {
        const weights = (seed: number, extra: object = {}) => {
          using model = GSAForCausalLM.create(
            { ...SMALL, initializer_range: 0.02, ...extra },
            { device, seed },
          );
          return new Map(model.namedParameters().map(([name, p]) => [name, p.toFloat32()]));
        };
        const first = weights(1);
        t.deepEqual(weights(1), first);
        t.deepEqual(
          [...first.keys()],
          parameterSpecs(parseGsaConfig(SMALL)).map((s) => s.name),
        );
        const other = weights(2);
        for (const [name, values] of first) {
          if (name.includes('norm'))
            t.true(
              values.every((x) => x === 1),
              name,
            );
          else t.notDeepEqual(other.get(name), values, name);
        }
        t.notDeepEqual(first.get('model.embeddings.weight'), first.get('lm_head.weight'));
        t.notDeepEqual(
          first.get('model.layers.0.mlp.gate_proj.weight'),
          first.get('model.layers.1.mlp.gate_proj.weight'),
        );
        const deeper = weights(1, { num_hidden_layers: 4 });
        for (const [name, values] of first)
          t.deepEqual(deeper.get(name), values, `${name} in a deeper model`);
        const all = [...first]
          .filter(([name]) => !name.includes('norm'))
          .flatMap(([, values]) => [...values]);
        const std = Math.sqrt(all.reduce((sum, x) => sum + x * x, 0) / all.length);
        t.true(Math.abs(std - 0.02) <= (5 * 0.02) / Math.sqrt(2 * all.length), `${std}`);
      });
    },
  );

  test.serial(`${device} lastOnly gives the last row of the logits`, (t) => {
    assertNoLeak(t, () => {
      using model = GSAForCausalLM.create(SMALL, { device });
      using ids = tokens(2, 5, device);
      const V = SMALL.vocab_size;
      const [all, last] = scope(() => [
        model.logits(ids).logits.toFloat32(),
        model.logits(ids, { lastOnly: true }).logits.toFloat32(),
      ]);
      t.is(last!.length, 2 * V);
      for (const b of [0, 1])
        t.true(
          relativeError(
            last!.subarray(b * V, (b + 1) * V),
            all!.subarray((b * 5 + 4) * V, (b + 1) * 5 * V),
          ) <= 1e-6,
        );
    });
  });

  test.serial(
    `${device} memory after a training step is what the parts say, and its peak what trainingMemory estimates`,
    (t) => {
      assertNoLeak(t, () => {
        const config = { ...SMALL, hidden_size: 128, intermediate_size: 256, num_slots: 16, vocab_size: 500 };
        using model = GSAForCausalLM.create(config, { device });
        using ids = tokens(4, 128, device);
        using tape = new Tape();
        const before = device.memory({ resetPeak: true }).currentBytes;
        scope(() => {
          const { loss } = tape.run(() => model.loss(ids, ids));
          tape.backward(loss);
        });
        const measured = device.memory().peakBytes - before;
        const estimate = trainingMemory(model.config, { batch: 4, seqLen: 128 });
        const expected = estimate.activations + estimate.gradients + estimate.workspace;
        // Not all gradients exist while all activations do, so the estimate is from above.
        t.true(measured <= 1.05 * expected, `${measured} bytes measured, ${expected} estimated`);
        t.true(measured >= 0.6 * expected, `${measured} bytes measured, ${expected} estimated`);
        model.zeroGrad();
      });
    },
  );
}

test('bad inputs are refused in words', (t) => {
  assertNoLeak(t, () => {
    using model = GSAForCausalLM.create(SMALL);
    using ids = tokens(2, 3, model.device);
    using flat = Tensor.from(Int32Array.of(1, 2));
    using floats = Tensor.zeros([2, 3]);
    using empty = Tensor.zeros([2, 0], { dtype: 'int32' });
    using outside = Tensor.full([1, 2], SMALL.vocab_size, { dtype: 'int32' });
    using negative = Tensor.full([1, 2], -1, { dtype: 'int32' });
    t.throws(() => model.forward(undefined as never), invalid(/Tensor for ids/));
    t.throws(() => model.forward(flat), invalid(/\[B, T\]/));
    t.throws(() => model.forward(floats), invalid(/int32/));
    t.throws(() => model.forward(empty), invalid(/at least one token/));
    for (const bad of [outside, negative]) t.throws(() => scope(() => model.forward(bad)), invalid(/ids/));
    t.throws(() => model.loss(ids, flat), invalid(/labels/));
    t.throws(() => model.loss(ids, undefined as never), invalid(/labels/));
    t.throws(() => model.newState(0), invalid(/batch/));
    const state = model.newState(1);
    t.throws(() => model.forward(ids, { state }), invalid(/2 sequences/));
    t.throws(() => model.forward(ids, { state: {} as never }), invalid(/state/));
    state.dispose();
    state.dispose();
    using one = ids.narrow(0, 0, 1);
    t.throws(() => model.forward(one, { state }), { instanceOf: GsaError, code: 'USE_AFTER_DISPOSE' });
    using shallow = GSAForCausalLM.create({ ...SMALL, num_hidden_layers: 1 });
    using other = shallow.newState(1);
    t.throws(() => model.forward(one, { state: other }), invalid(/3 layers/));
    for (const seed of [-1, 0.5, NaN])
      t.throws(() => GSAForCausalLM.create(SMALL, { seed }), invalid(/seed/));
    t.throws(() => GSAForCausalLM.create(SMALL, { dtype: 'int32' as never }), invalid(/float32 or bfloat16/));
    t.throws(() => GSAForCausalLM.create({ hiden_size: 4 }), {
      instanceOf: GsaError,
      code: 'INVALID_CONFIG',
    });
  });
});

test('a disposed model says so', (t) => {
  const model = GSAForCausalLM.create(SMALL);
  using ids = tokens(1, 2, model.device);
  model.dispose();
  model.dispose();
  t.throws(() => model.forward(ids), { instanceOf: GsaError, code: 'USE_AFTER_DISPOSE' });
});
