// Run by memory.test.ts in a process of its own, with --expose-gc: STEPS training steps of a tiny model, and what memory
// they left behind. Prints one line of JSON. "keep" as the argument leaves everything alive at the exit.
import { Tape } from '#src/autograd/tape.js';
import { GSAForCausalLM } from '#src/models/index.js';
import { native } from '#src/native/load.js';
import { AdamW, clipScale } from '#src/optim/index.js';
import { device } from '#src/tensor/device.js';
import { scope } from '#src/tensor/scope.js';
import { Tensor } from '#src/tensor/tensor.js';

const WARM_UP = 200;
const STEPS = 1000;
const [B, T, V] = [2, 24, 40];

const model = GSAForCausalLM.create(
  {
    model_type: 'gsa',
    hidden_size: 16,
    num_hidden_layers: 2,
    num_heads: 2,
    num_slots: 4,
    vocab_size: V,
    use_short_conv: true,
  },
  { seed: 3 },
);
const optimizer = new AdamW(model.namedParameters(), { lr: 1e-3 });
const tape = new Tape();
const tokens = (shift: number) => Int32Array.from({ length: B * T }, (_, i) => (i * 7 + shift) % V);

function step(): number {
  return scope(() => {
    const ids = Tensor.from(tokens(0), [B, T]);
    const labels = Tensor.from(tokens(7), [B, T]);
    const { loss, tokens: count } = tape.run(() => model.loss(ids, labels));
    const value = loss.item() / count;
    tape.backward(loss);
    const { scale } = clipScale(model.parameters(), { maxNorm: 1, gradScale: 1 / count });
    optimizer.step({ scale });
    optimizer.zeroGrad();
    return value;
  });
}

function measureMemory() {
  for (let i = 0; i < 4; i++) globalThis.gc!();
  const { currentBytes, cachedBytes, peakBytes } = device('cpu').memory({ resetPeak: true });
  return { ...native().leaks(), currentBytes, cachedBytes, peakBytes, rss: process.memoryUsage().rss };
}

const first = step();
for (let i = 1; i < WARM_UP; i++) step();
measureMemory(); // so that the peak of the warm-up is not part of the comparison
step();
const before = measureMemory();
for (let i = WARM_UP + 1; i < STEPS; i++) step();
const after = measureMemory();
const last = step();
console.log(JSON.stringify({ first, last, before, after }));
if (process.argv[2] !== 'keep') {
  optimizer.dispose();
  model.dispose();
}
