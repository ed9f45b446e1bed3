// Every op case forward and backward, gated slot attention with it, and a small model's step, on a GPU in float32 and
// bfloat16: work for compute-sanitizer (sanitize.sh). Compares nothing itself; that is the test suites' part. What a
// device refuses as UNSUPPORTED is counted.
//
//   node .build/test/gpu/cases.js [--device cuda:0] [--max-tokens 160] [--ops-only] [--gsa-only] [--only rmsNorm]
import { parseArgs } from 'node:util';
import { Tape } from '#src/autograd/tape.js';
import { GSAForCausalLM } from '#src/models/index.js';
import { GsaError } from '#src/native/errors.js';
import { gsaChunk, gsaRecurrent } from '#src/ops/gsa.js';
import { gsaLayer } from '#src/ops/gsa_layer.js';
import { AdamW, clipScale } from '#src/optim/index.js';
import { device, type Device } from '#src/tensor/device.js';
import { scope } from '#src/tensor/scope.js';
import { Tensor } from '#src/tensor/tensor.js';
import { toTensors, drawInputs, type ComputeDType } from '../cases/drive.js';
import { cases, drawGsa, gsaCase, type GsaCase } from '../cases/gsa.js';
import { caseLists } from '../cases/index.js';
import type { OpCase } from '../cases/types.js';
import { gsaShapes } from '../ops/gsa_run.js';

/** Widths of the tensor-core kernels, with what steers them: several chunks, states, grouped heads, packed sequences, few
 * heads over a long text. */
const WIDE: readonly GsaCase[] = [
  gsaCase({ B: 2, T: 130, HQ: 2, H: 2, K: 64, V: 64, M: 64 }),
  gsaCase({ T: 150, HQ: 4, H: 2, K: 128, V: 64, M: 64, states: true }),
  gsaCase({ T: 140, HQ: 2, H: 2, K: 128, V: 128, M: 64, cuSeqlens: [0, 0, 1, 64, 129, 140], states: true }),
  gsaCase({ T: 100, HQ: 1, H: 1, K: 256, V: 256, M: 64, gate: 'mixed' }),
  gsaCase({ T: 129, HQ: 1, H: 1, K: 512, V: 512, M: 64 }),
  gsaCase({ T: 140, HQ: 1, H: 1, K: 256, V: 256, M: 64, cuSeqlens: [0, 0, 1, 64, 129, 140], states: true }),
  gsaCase({ T: 140, HQ: 1, H: 1, K: 512, V: 512, M: 64, cuSeqlens: [0, 0, 1, 64, 129, 140], states: true }),
  gsaCase({ T: 130, HQ: 2, H: 1, K: 64, V: 64, M: 128, states: true }),
  gsaCase({ T: 140, HQ: 2, H: 2, K: 64, V: 64, M: 128, cuSeqlens: [0, 0, 1, 64, 129, 140], states: true }),
  gsaCase({ T: 129, HQ: 1, H: 1, K: 512, V: 512, M: 128 }),
  // More walks than clusters run at once: states are handed over.
  gsaCase({ T: 70, HQ: 140, H: 140, K: 64, V: 64, M: 64, states: true }),
  gsaCase({ T: 70, HQ: 70, H: 70, K: 256, V: 256, M: 64 }),
  gsaCase({ T: 70, HQ: 36, H: 36, K: 512, V: 512, M: 64 }),
  gsaCase({ T: 70, HQ: 20, H: 20, K: 512, V: 512, M: 128 }),
  gsaCase({ T: 140, HQ: 2, H: 2, K: 64, V: 128, M: 16, cuSeqlens: [0, 0, 1, 64, 129, 140], states: true }),
];

/** Backward of the sum of all outputs. */
function backward(tape: Tape, outputs: readonly Tensor[]): void {
  tape.backward(
    outputs,
    outputs.map((y) => Tensor.full(y.shape, 1, { device: y.device, dtype: y.dtype })),
  );
}

function runCase(one: OpCase, on: Device, dtype: ComputeDType): void {
  const inputs = toTensors(one, drawInputs(one, dtype), on, dtype);
  using tape = new Tape();
  const outputs = tape.run(() => one.run(inputs));
  if (Object.values(inputs).some((tensor) => tensor.requiresGrad)) backward(tape, outputs);
}

function runGsa(one: GsaCase, on: Device, dtype: ComputeDType): void {
  const x = drawGsa(one);
  const shapes = gsaShapes(x);
  const leaf = (values: ArrayLike<number>, shape: number[], as: ComputeDType = 'float32'): Tensor => {
    const tensor = Tensor.from(Float32Array.from(values), shape, { device: on, dtype: as });
    tensor.requiresGrad = true;
    return tensor;
  };
  const args = {
    q: leaf(x.q, shapes.q, dtype),
    k: leaf(x.k, shapes.k, dtype),
    v: leaf(x.v, shapes.v, dtype),
    s: leaf(x.s, shapes.s),
    g: leaf(x.g, shapes.s),
    hk0: x.hk0 ? leaf(x.hk0, shapes.hk) : null,
    hv0: x.hv0 ? leaf(x.hv0, shapes.hv) : null,
    cuSeqlens: x.cuSeqlens
      ? Tensor.from(Int32Array.from(x.cuSeqlens), [x.cuSeqlens.length], { device: on })
      : null,
    scale: one.scale,
  };
  using tape = new Tape();
  const { o, hkT, hvT } = tape.run(() => gsaChunk({ ...args, outputFinalState: true }));
  backward(tape, [o, hkT!, hvT!]);
  gsaRecurrent(args);
}

/** The layer form of a case's shape. */
function runLayer(one: GsaCase, on: Device, dtype: ComputeDType): void {
  const { B, T, HQ, H, K, V, M, cuSeqlens } = one;
  const x = Tensor.randn([B, T, HQ * K + H * (K + V + M)], { device: on, dtype, seed: 3 });
  x.requiresGrad = true;
  const offsets = cuSeqlens && Tensor.from(Int32Array.from(cuSeqlens), [cuSeqlens.length], { device: on });
  const N = cuSeqlens ? cuSeqlens.length - 1 : B;
  const state = (shape: number[], seed: number): Tensor | null => {
    if (!one.states) return null;
    const tensor = Tensor.randn(shape, { device: on, seed });
    tensor.requiresGrad = true;
    return tensor;
  };
  const states = { hk0: state([N, H, K, M], 4), hv0: state([N, H, M, V], 5), outputFinalState: !!one.states };
  using tape = new Tape();
  // Mixed: gates that need the exact pairs.
  const normalizer = one.gate === 'mixed' ? 0.02 : 8;
  const shape = { HQ, H, K, V, M, normalizer };
  const outputs = tape.run(() => gsaLayer(x, { ...shape, ...states, cuSeqlens: offsets }));
  backward(tape, Object.values(outputs));
}

/** A training step, the optimizer's state to the host and back, then a prefill and a step with a state. 8-bit products take multiples of 16 tokens. */
function runModel(on: Device, dtype: ComputeDType, matmul: 'dtype' | 'fp8' | 'fp8-hybrid'): void {
  const T = matmul === 'dtype' ? 75 : 72;
  const config = {
    vocab_size: 97,
    hidden_size: 128,
    num_hidden_layers: 2,
    num_heads: 2,
    num_kv_heads: 1,
    num_slots: 64,
    intermediate_size: 96,
    use_short_conv: true,
    tie_word_embeddings: true,
  };
  using model = GSAForCausalLM.create(config, { device: on, dtype, matmul });
  using optimizer = new AdamW(model.namedParameters(), { lr: 1e-3 });
  using tape = new Tape();
  scope(() => {
    const ids = Tensor.from(
      Int32Array.from({ length: 2 * T }, (_, i) => (i * 31) % 97),
      [2, T],
      {
        device: on,
      },
    );
    const { loss } = tape.run(() => model.loss(ids, ids));
    tape.backward(loss);
    optimizer.step({ scale: clipScale(model.parameters(), { maxNorm: 1 }).scale });
    optimizer.zeroGrad();
    optimizer.loadState(optimizer.state(), 1);
    const { state } = model.logits(ids, { outputState: true, lastOnly: true });
    const next = Tensor.from(Int32Array.of(3, 4), [2, 1], { device: on });
    model.logits(next, { state }).state!.dispose();
    state!.dispose();
  });
}

const MATMULS = ['dtype', 'fp8', 'fp8-hybrid'] as const;

function main(): void {
  const { values } = parseArgs({
    options: {
      device: { type: 'string', default: 'cuda:0' },
      'max-tokens': { type: 'string', default: '160' },
      'ops-only': { type: 'boolean', default: false },
      'gsa-only': { type: 'boolean', default: false },
      // The cases of one function of src/ops.
      only: { type: 'string' },
    },
  });
  const on = device(values.device);
  const limit = Number(values['max-tokens']);
  const { only } = values;
  const lists = caseLists.filter((list) => only === undefined || list.ops.includes(only));
  if (lists.length === 0)
    throw new Error(`Expected a function of src/ops with cases for --only but received "${only}"`);
  const gsa = only === undefined ? [...cases.filter((one) => one.T <= limit), ...WIDE] : [];
  const layers = only === 'gsaLayer' ? WIDE : gsa;
  let [ran, refused] = [0, 0];
  for (const dtype of ['float32', 'bfloat16'] as const) {
    const ops = values['gsa-only'] ? [] : lists;
    const models = values['ops-only'] || values['gsa-only'] || only !== undefined ? [] : MATMULS;
    const groups: [what: string, jobs: (() => void)[]][] = [
      ...ops.map((list): [string, (() => void)[]] => [
        list.ops.join(' '),
        list.cases.map((one) => () => runCase(one, on, dtype)),
      ]),
      ['gated slot attention', gsa.map((one) => () => runGsa(one, on, dtype))],
      ['its layer form', layers.filter(({ M }) => M === 64).map((one) => () => runLayer(one, on, dtype))],
      ...models.map((matmul): [string, (() => void)[]] => [
        `a model's step, products ${matmul}`,
        [() => runModel(on, dtype, matmul)],
      ]),
    ];
    for (const [what, jobs] of groups) {
      const began = performance.now();
      for (const job of jobs)
        try {
          scope(job);
          on.synchronize();
          ran++;
        } catch (error) {
          if (!(error instanceof GsaError && error.code === 'UNSUPPORTED')) throw error;
          refused++;
        }
      // A sanitizer is slow, some kernels' ones slower: where it was when it is stopped.
      if (jobs.length > 0)
        console.log(`${dtype} ${what}: ${jobs.length}, ${((performance.now() - began) / 1000).toFixed(1)} s`);
    }
  }
  console.log(`${ran} cases ran on ${values.device}, ${refused} were refused as UNSUPPORTED`);
}

main();
