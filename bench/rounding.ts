// What bfloat16 costs a training, without a GPU: the training that `flash-gsa verify` repeats, in float32 on the CPU, with
// every tensor rounded to bfloat16 that a bfloat16 model stores so. The optimizer's copies stay float32, as they do there.
//
//   node .build/bench/rounding.js MODEL_FOLDER [--starts 64] [--exact NAME,...]
//
// prints how far the losses get from the stored ones. How roundings fall is chance, and a training amplifies it: so from
// many starts, whose weights differ by 1e-5 of themselves. `--exact` names what is not rounded: ops (rmsnorm_fwd), single
// outputs (rmsnorm_fwd.h), `weights`.
import { parseArgs } from 'node:util';
import { join } from 'node:path';
import { Tape } from '#src/autograd/tape.js';
import { successorLabels } from '#src/generate/logits.js';
import { openSafetensors } from '#src/io/safetensors.js';
import { GSAForCausalLM } from '#src/models/index.js';
import { AdamW, clipScale } from '#src/optim/index.js';
import { exec, setProbe, type OpCall } from '#src/tensor/exec.js';
import { scope } from '#src/tensor/scope.js';
import { Tensor } from '#src/tensor/tensor.js';

/** Outputs that are of the model's dtype; all others are float32 in a bfloat16 model too. */
const STORED: Readonly<Record<string, readonly string[]>> = {
  matmul: ['c'],
  add: ['y'],
  embedding_fwd: ['y'],
  embedding_bwd: ['dweight'],
  rmsnorm_fwd: ['y', 'h'],
  rmsnorm_bwd: ['dx'],
  silu_fwd: ['y'],
  silu_bwd: ['dx'],
  swiglu_fwd: ['y'],
  swiglu_bwd: ['dgate', 'dup'],
  gsa_inputs_fwd: ['q', 'k', 'v'],
  gsa_inputs_bwd: ['dx'],
  gsa_gate_bwd: ['df'],
  short_conv_fwd: ['y'],
  short_conv_bwd: ['dx', 'dweight'],
  cross_entropy_fwd: ['dlogits'],
  gsa_chunk_fwd: ['o'],
  gsa_chunk_bwd: ['dq', 'dk', 'dv'],
  gsa_layer_fwd: ['q', 'k', 'v', 'o'],
  gsa_layer_bwd: ['dx'],
  scale_by: ['y'],
};
const SPREAD = 1e-5;

function round(x: Tensor): void {
  using rounded = x.to({ dtype: 'bfloat16' });
  exec('cast', { x: rounded }, { y: x }, {});
}

/** A probe that rounds what an op has stored. Columns of a joined tensor wait until a product takes all of it. */
function rounder(exact: ReadonlySet<string>): (call: OpCall, run: () => void) => void {
  let waiting = false;
  const probe = ({ name, inputs, outputs }: OpCall, run: () => void): void => {
    setProbe(null);
    const whole = inputs['a'] as Tensor;
    if (waiting && name === 'matmul' && whole.contiguous) {
      round(whole);
      waiting = false;
    }
    run();
    for (const output of exact.has(name) ? [] : (STORED[name] ?? [])) {
      const y = outputs[output] as Tensor | null | undefined;
      if (!y || exact.has(`${name}.${output}`)) continue;
      if (y.contiguous) round(y);
      else waiting = true;
    }
    setProbe(probe);
  };
  return probe;
}

/** The largest difference of a loss, from start number `start`. */
function train(folder: string, exact: ReadonlySet<string>, start: number): number {
  using expected = openSafetensors(join(folder, 'expected.safetensors'));
  const { data: ids, shape } = { ...expected.read('input_ids'), ...expected.info('input_ids') };
  const stored = expected.read('train_losses').data as Float32Array;
  using model = GSAForCausalLM.load(folder);
  using tokens = Tensor.from(ids, shape);
  using labels = Tensor.from(successorLabels(ids as Int32Array, shape[1]!), shape);
  const parameters = model.namedParameters();
  const masters: Float32Array[] = parameters.map(([, p], stream) => {
    const noise = scope(() => Tensor.randn(p.shape, { seed: start, stream }).toFloat32());
    return p.toFloat32().map((value, i) => value * (1 + (start === 0 ? 0 : SPREAD * noise[i]!)));
  });
  const isRounded = (name: string) => !exact.has('weights') && !name.includes('norm.');
  const write = (whether: (name: string) => boolean) =>
    parameters.forEach(([name, p], i) => {
      p.write(masters[i]!);
      if (whether(name)) round(p);
    });
  using optimizer = new AdamW(parameters, { lr: 3e-3, betas: [0.9, 0.95], eps: 1e-8, weightDecay: 0.01 });
  using tape = new Tape();
  let largest = 0;
  for (const wanted of stored)
    scope(() => {
      write(isRounded);
      setProbe(rounder(exact));
      const result = tape.run(() => model.loss(tokens, labels));
      largest = Math.max(largest, Math.abs(result.loss.item() / result.tokens - wanted));
      tape.backward(result.loss);
      setProbe(null);
      const { scale } = clipScale(model.parameters(), { maxNorm: 1, gradScale: 1 / result.tokens });
      write(() => false);
      optimizer.step({ scale });
      optimizer.zeroGrad();
      parameters.forEach(([, p], i) => (masters[i] = p.toFloat32()));
    });
  return largest;
}

const { values, positionals } = parseArgs({
  options: { starts: { type: 'string', default: '64' }, exact: { type: 'string', default: '' } },
  allowPositionals: true,
});
const starts = Number(values.starts);
const [folder] = positionals;
if (!folder || !Number.isInteger(starts) || starts < 1)
  throw new Error('Expected a model folder with expected.safetensors, and a positive integer for --starts');
const names = values.exact.split(',').filter(Boolean);
for (const name of names) {
  const [op, output] = name.split('.') as [string, string?];
  const known = output ? STORED[op]?.includes(output) : name === 'weights' || op in STORED;
  if (!known) throw new Error(`Expected weights or a rounded output for --exact but received "${name}"`);
}
const all = Array.from({ length: starts }, (_, start) => train(folder, new Set(names), start));
const sorted = all.toSorted((a, b) => a - b);
const text = (x: number) => x.toExponential(2);
console.log(`stored weights as they are: ${text(all[0]!)}`);
console.log(
  `${starts} starts: median ${text(sorted[starts >> 1]!)}, largest ${text(sorted.at(-1)!)}, above 2e-2: ${all.filter((x) => x > 2e-2).length}`,
);
