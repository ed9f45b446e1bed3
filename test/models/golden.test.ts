import test from 'ava';
import { Tape } from '#src/autograd/tape.js';
import { GSAForCausalLM } from '#src/models/gsa.js';
import type { ModelState } from '#src/models/state.js';
import { logSoftmax } from '#src/ops/index.js';
import { AdamW, clipScale } from '#src/optim/index.js';
import { scope } from '#src/tensor/scope.js';
import { Tensor } from '#src/tensor/tensor.js';
import { relativeError } from '../cases/drive.js';
import { testDevices } from '../devices.js';
import { assertNoLeak } from '../leaks.js';
import { fixture } from '../paths.js';
import { GOLDEN_MODELS, loadGolden } from './golden.js';

const largest = (a: ArrayLike<number>, b: ArrayLike<number>): number =>
  Array.from(a, (x, i) => Math.abs(x - b[i]!)).reduce(
    (most, d) => (d > most || Number.isNaN(d) ? d : most),
    0,
  );

function argmax(x: Float32Array): number {
  return x.reduce((best, value, i) => (value > x[best]! ? i : best), 0);
}

for (const device of testDevices())
  for (const name of GOLDEN_MODELS) {
    test.serial(`${device} float32 ${name} B=2 T=96: log-probabilities agree to 1e-4`, (t) => {
      assertNoLeak(t, () => {
        using model = GSAForCausalLM.load(fixture('models', name), { device });
        const golden = loadGolden(name, device);
        const expected = golden.numbers('log_probs');
        const [B, T] = golden.ids.shape as [number, number];
        const actual = scope(() => logSoftmax(model.logits(golden.ids).logits).toFloat32());
        const V = model.config.vocab_size;
        for (let b = 0; b < B; b++) {
          const rows = actual.subarray(b * T * V, (b * T + T - 1) * V);
          const wanted = expected.subarray(b * (T - 1) * V, (b + 1) * (T - 1) * V);
          const error = largest(rows, wanted);
          t.true(error <= 1e-4, `sequence ${b}: ${error}`);
        }
        golden.ids.dispose();
        golden.labels.dispose();
      });
    });

    test.serial(`${device} float32 ${name} B=2 T=96: loss and every gradient agree`, (t) => {
      assertNoLeak(t, () => {
        using model = GSAForCausalLM.load(fixture('models', name), { device });
        const golden = loadGolden(name, device);
        using tape = new Tape();
        let tokens = 0;
        using loss = tape.run(() => {
          const out = model.loss(golden.ids, golden.labels);
          tokens = out.tokens;
          return out.loss;
        });
        t.is(tokens, 2 * 95);
        t.true(Math.abs(loss.item() / tokens - golden.numbers('loss')[0]!) <= 1e-5);
        using seed = Tensor.scalar(1 / tokens, { device });
        tape.backward(loss, seed);
        const named = model.namedParameters();
        t.deepEqual(
          named.map(([parameter]) => `grad.${parameter}`).toSorted(),
          golden.names.filter((tensor) => tensor.startsWith('grad.')).toSorted(),
        );
        for (const [parameter, tensor] of named) {
          const error = relativeError(tensor.grad!.toFloat32(), golden.numbers(`grad.${parameter}`));
          t.true(error <= 1e-3, `${parameter}: ${error}`);
        }
        golden.ids.dispose();
        golden.labels.dispose();
      });
    });

    test.serial(
      `${device} float32 ${name}: 20 AdamW steps give the losses and gradient norms to 1e-4`,
      (t) => {
        assertNoLeak(t, () => {
          using model = GSAForCausalLM.load(fixture('models', name), { device });
          const golden = loadGolden(name, device);
          using optimizer = new AdamW(model.namedParameters(), {
            lr: 3e-3,
            betas: [0.9, 0.95],
            eps: 1e-8,
            weightDecay: 0.01,
          });
          using tape = new Tape();
          const losses: number[] = [];
          const norms: number[] = [];
          for (let step = 0; step < 20; step++)
            scope(() => {
              const { loss, tokens } = tape.run(() => model.loss(golden.ids, golden.labels));
              tape.backward(loss);
              const clip = clipScale(model.parameters(), { maxNorm: 1, gradScale: 1 / tokens });
              optimizer.step({ scale: clip.scale });
              optimizer.zeroGrad();
              losses.push(loss.item() / tokens);
              norms.push(clip.norm.item());
            });
          const lossError = largest(losses, golden.numbers('train_losses'));
          t.true(lossError <= 1e-4, `losses: ${lossError}`);
          const wanted = golden.numbers('train_grad_norms');
          norms.forEach((norm, i) => {
            const error = Math.abs(norm - wanted[i]!) / wanted[i]!;
            t.true(error <= 1e-3, `norm of step ${i}: ${error}`);
          });
          golden.ids.dispose();
          golden.labels.dispose();
        });
      },
    );

    test.serial(`${device} float32 ${name}: greedy continuation by steps with carried state`, (t) => {
      assertNoLeak(t, () => {
        using model = GSAForCausalLM.load(fixture('models', name), { device });
        const golden = loadGolden(name, device);
        const expected = [...golden.numbers('greedy')];
        const tokens = expected.slice(0, 80);
        let state: ModelState | undefined;
        let next = tokens;
        while (tokens.length < expected.length) {
          const logits = scope(() => {
            const ids = Tensor.from(Int32Array.from(next), [1, next.length], { device });
            const out = model.logits(ids, { state, outputState: true, lastOnly: true });
            state?.dispose();
            state = out.state;
            return out.logits.toFloat32();
          });
          t.is(logits.length, model.config.vocab_size);
          tokens.push(argmax(logits));
          next = tokens.slice(-1);
        }
        t.is(state!.tokens, 80 + 23);
        state!.dispose();
        t.deepEqual(tokens, expected);
        golden.ids.dispose();
        golden.labels.dispose();
      });
    });
  }
