// Values that no argument takes, in every place of a call that is otherwise right. Whatever the caller got wrong comes back
// as a GsaError that says so: never as a TypeError from inside, and never as a result as if nothing had been said.
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import * as api from '#src/index.js';
import { tempFolder } from '../io/temp.js';

const { Tensor } = api;
const f32 = (...shape: number[]) => Tensor.full(shape, 0.5);
const i32 = (...shape: number[]) => Tensor.full(shape, 1, { dtype: 'int32' });
const offsets = (...at: number[]) => Tensor.from(Int32Array.from(at));
const tokens = () => api.tokensInMemory(new Int32Array(40), { eosId: 0, vocabSize: 8 });
const CONFIG = { hidden_size: 16, num_hidden_layers: 1, num_heads: 2, num_slots: 4, vocab_size: 32 };
const LAYER = { HQ: 2, H: 1, K: 3, V: 4, M: 5, normalizer: 8 };

const withGradient = () => {
  const leaf = f32(2);
  leaf.requiresGrad = true;
  leaf.grad = f32(2);
  return leaf;
};
const stepOf = (leaf: api.Tensor) => {
  const optimizer = new api.AdamW([['w', leaf]]);
  return (options: never) => {
    leaf.grad ??= f32(2);
    optimizer.step(options);
  };
};
const loadStateOf = (leaf: api.Tensor) => {
  const optimizer = new api.AdamW([['w', leaf]]);
  return optimizer.loadState.bind(optimizer);
};
const stateFor = (size: number) => {
  const tensor = { shape: [size], read: () => new Float32Array(size) };
  return new Map(['w.exp_avg', 'w.exp_avg_sq'].map((name) => [name, tensor]));
};

type Call = [call: (...args: never[]) => unknown, args: unknown[]];

function calls(): Record<string, Call> {
  const model = api.GSAForCausalLM.create(CONFIG);
  const x = f32(2, 3);
  const leaf = f32(2);
  leaf.requiresGrad = true;
  const host = api.device('cpu');
  return {
    scope: [api.scope, [() => 1]],
    noGrad: [api.noGrad, [() => 1]],
    keep: [api.keep, [x]],
    'Device.setOption': [host.setOption.bind(host), ['threads', host.getOption('threads')]],
    'Device.memory': [host.memory.bind(host), [{ resetPeak: false }]],
    'Tensor.empty': [Tensor.empty, [[2], { dtype: 'float32', device: 'cpu' }]],
    'Tensor.full': [Tensor.full, [[2], 1, { dtype: 'float32' }]],
    'Tensor.full int32': [Tensor.full, [[2], 1, { dtype: 'int32' }]],
    'Tensor.zerosLike': [Tensor.zerosLike, [x, { dtype: 'float32' }]],
    'Tensor.emptyLike': [Tensor.emptyLike, [x, { dtype: 'float32' }]],
    'Tensor.from': [Tensor.from, [[1, 2], [2], { dtype: 'float32' }]],
    'Tensor.from bfloat16': [Tensor.from, [[1, 2], [2], { dtype: 'bfloat16' }]],
    'Tensor.randn': [Tensor.randn, [[2], { seed: 1, stream: 0, mean: 0, std: 1 }]],
    'Tensor.view': [x.view.bind(x), [[3, 2]]],
    'Tensor.narrow': [x.narrow.bind(x), [0, 0, 1]],
    'Tensor.write': [x.write.bind(x), [new Float32Array(6)]],
    'Tensor.to': [x.to.bind(x), [{ dtype: 'bfloat16' }]],
    matmul: [api.matmul, [f32(2, 3), f32(3, 4), { transA: false, transB: false, bias: f32(4) }]],
    linearJoined: [api.linearJoined, [f32(2, 3), [f32(4, 3), f32(2, 3)]]],
    rmsNorm: [api.rmsNorm, [f32(2, 3), f32(3), { eps: 1e-6, silu: false }]],
    rotary: [api.rotary, [f32(1, 2, 2, 4), { theta: 1e4, offset: 0 }]],
    shortConv: [api.shortConv, [f32(1, 2, 3), f32(3, 4), { silu: true, cuSeqlens: offsets(0, 2) }]],
    crossEntropy: [api.crossEntropy, [f32(3, 4), i32(3), { ignoreIndex: -100, reduction: 'mean' }]],
    linearCrossEntropy: [api.linearCrossEntropy, [f32(3, 4), f32(5, 4), i32(3), { chunkRows: 2 }]],
    gsaGate: [api.gsaGate, [f32(1, 2, 1, 5), { normalizer: 8 }]],
    gsaInputs: [api.gsaInputs, [f32(1, 2, 18), LAYER]],
    gsaLayer: [api.gsaLayer, [f32(1, 2, 18), { ...LAYER, scale: 1, cuSeqlens: offsets(0, 2) }]],
    gradcheck: [
      api.gradcheck,
      [([y]: [api.Tensor]) => api.silu(y), [leaf], { step: 0.01, directions: 1, seed: 1, tolerance: 0.1 }],
    ],
    Tape: [(options: object) => new api.Tape(options), [{ recompute: false }]],
    'Tape.run': [new api.Tape().run.bind(new api.Tape()), [() => 1]],
    Linear: [(...a) => new api.Linear(...(a as [never])), [x, 'dtype']],
    JoinedLinear: [
      (...a) => new api.JoinedLinear(...(a as [never])),
      [{ a: f32(2, 3), b: f32(1, 3) }, 'dtype'],
    ],
    Embedding: [(...a) => new api.Embedding(...(a as [never])), [x]],
    RMSNorm: [(...a) => new api.RMSNorm(...(a as [never])), [f32(3), { eps: 1e-6 }]],
    ShortConvolution: [(...a) => new api.ShortConvolution(...(a as [never])), [f32(3, 1, 4)]],
    gsaWidths: [api.gsaWidths, [CONFIG]],
    toHuggingFace: [api.toHuggingFace, [CONFIG, 'float32']],
    parameterCount: [api.parameterCount, [CONFIG]],
    trainingMemory: [api.trainingMemory, [CONFIG, { batch: 1, seqLen: 8, dtype: 'float32', backend: 'cpu' }]],
    'Model.create': [api.GSAForCausalLM.create, [CONFIG, { seed: 1, dtype: 'float32' }]],
    'Model.forward': [model.forward.bind(model), [i32(1, 4), { outputState: false }]],
    'Model.logits': [model.logits.bind(model), [i32(1, 4), { lastOnly: true }]],
    'Model.loss': [model.loss.bind(model), [i32(1, 4), i32(1, 4), { tokens: 4 }]],
    tokensInMemory: [api.tokensInMemory, [new Int32Array(4), { eosId: 0, vocabSize: 8 }]],
    unigramEntropy: [api.unigramEntropy, [tokens(), tokens()]],
    BatchSampler: [
      (...a) => new api.BatchSampler(...(a as unknown as [never, never])),
      [tokens(), { batch: 1, seqLen: 8, seed: 1, rank: 0, world: 1 }],
    ],
    validationBatches: [
      (...a) => api.validationBatches(...(a as unknown as [never, never])).next(),
      [tokens(), { batch: 1, seqLen: 8, limit: 1 }],
    ],
    'Tape.backward': [
      (loss: 'loss', seed: never) => {
        using tape = new api.Tape();
        const y = tape.run(() => api.silu(leaf));
        tape.backward(loss === 'loss' ? y : loss, seed);
      },
      ['loss', f32(2)],
    ],
    'Tape.backward of several': [
      (losses: 'loss'[], seeds: never) => {
        using tape = new api.Tape();
        const y = tape.run(() => api.silu(leaf));
        tape.backward(Array.isArray(losses) ? losses.map((x) => (x === 'loss' ? y : x)) : losses, seeds);
      },
      [['loss'], [f32(2)]],
    ],
    AdamW: [
      (...a) => {
        const optimizer = new api.AdamW(...(a as unknown as [never]));
        optimizer.dispose();
      },
      [
        [{ params: [['w', f32(2)]], weightDecay: 0.1, lrScale: 1 }],
        { lr: 0.1, betas: [0.9, 0.95], eps: 1e-8, weightDecay: 0 },
      ],
    ],
    'AdamW.step': [stepOf(leaf), [{ lr: 0.1, scale: Tensor.scalar(1), finite: true }]],
    'AdamW.loadState': [loadStateOf(leaf), [stateFor(2), 1]],
    clipScale: [api.clipScale, [[withGradient()], { maxNorm: 1, gradScale: 1, losses: [Tensor.scalar(1)] }]],
    globalNorm: [api.globalNorm, [[withGradient()]]],
    decayGroups: [api.decayGroups, [[['w', f32(2, 2)]], 0.1]],
    warmupCosine: [api.warmupCosine, [{ peak: 0.1, min: 0, warmup: 1, total: 2 }]],
    generate: [api.generate, [model, [[1, 2]], { maxTokens: 1, topP: 0.5, seed: 1, stopTokens: [0] }]],
  };
}

const isPlain = (value: unknown): value is Record<string, unknown> =>
  Array.isArray(value) || (typeof value === 'object' && value?.constructor === Object);

/** The places of every value in `args`. */
function places(args: object, at: string[] = []): string[][] {
  return Object.entries(args).flatMap(([key, value]) => [
    [...at, key],
    ...(isPlain(value) ? places(value, [...at, key]) : []),
  ]);
}

function replaced(args: object, [key, ...rest]: string[], value: unknown): unknown {
  const copy = (Array.isArray(args) ? [...args] : { ...args }) as Record<string, unknown>;
  copy[key!] = rest.length === 0 ? value : replaced(copy[key!] as object, rest, value);
  return copy;
}

/** The first is taken nowhere. The others may be in some places (undefined for an option, a number for a number). */
const VALUES: unknown[] = [
  Symbol('bad'),
  undefined,
  null,
  NaN,
  -1,
  2 ** 53,
  '3',
  '',
  { bogus: 1 },
  [],
  [null],
  1n,
  new Map(),
];

test.serial('what no argument takes is refused with a GsaError wherever it stands', async (t) => {
  const wrong: string[] = [];
  for (const [name, [call, args]] of Object.entries(calls())) {
    await t.notThrowsAsync(async () => call(...(args as never[])), name);
    const [again] = [calls()[name]!]; // some calls consume their arguments
    for (const place of places(again[1]))
      for (const value of VALUES) {
        const where = `${name} ${place.join('.')} = ${String(typeof value === 'object' ? JSON.stringify(value) : String(value))}`;
        let error: unknown = null;
        try {
          await call(...(replaced(again[1], place, value) as never[]));
        } catch (caught) {
          error = caught;
        }
        if (error === null && value === VALUES[0]) wrong.push(`${where} was taken`);
        if (error !== null && !(error instanceof api.GsaError && error.code !== 'INTERNAL'))
          wrong.push(`${where}: ${String(error)}`);
      }
  }
  t.deepEqual(wrong, []);
});

test('an empty path never means the current folder', async (t) => {
  const folder = tempFolder(t);
  const text = join(folder, 'a.txt');
  writeFileSync(text, 'the sea was quiet '.repeat(40));
  const trained = await api.trainBpe([text], { vocabSize: 260 });
  const tokenizer = api.parseTokenizer(trained.json);
  mkdirSync(join(folder, 'here'));
  writeFileSync(join(folder, 'here', 'keep.txt'), 'kept');
  const before = process.cwd();
  process.chdir(join(folder, 'here'));
  try {
    const refused = { instanceOf: api.GsaError, code: 'INVALID_ARGUMENT' };
    await t.throwsAsync(api.writeShards('', { paths: [text], tokenizer }), refused);
    t.throws(() => api.GSAForCausalLM.load(''), refused);
    t.throws(() => api.writeSafetensors('', []), refused);
    t.deepEqual(readdirSync('.'), ['keep.txt']);
  } finally {
    process.chdir(before);
  }
});
