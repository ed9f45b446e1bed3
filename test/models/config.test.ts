import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { gsaWidths, parseGsaConfig, readGsaConfig, toHuggingFace } from '#src/models/config.js';
import {
  parameterBreakdown,
  parameterCount,
  parameterSpecs,
  trainingMemory,
} from '#src/models/parameters.js';
import { GsaError } from '#src/native/errors.js';
import { native } from '#src/native/load.js';
import { fixture } from '../paths.js';

const refused = (message: RegExp) => ({ instanceOf: GsaError, code: 'INVALID_CONFIG', message });

/** Counted by an independent program. */
const COUNTS = {
  'gsa-16M-test': 16_883_456,
  'gsa-1.3B-100B': 1_376_880_640,
  'gsa-2.7B-100B': 2_727_774_720,
  'gsa-7B-mistral-100B': 7_308_972_032,
};

for (const [name, count] of Object.entries(COUNTS))
  test(`${name}: the published configuration loads, ${count} parameters, nothing allocated`, (t) => {
    const before = native().leaks().alive;
    const config = readGsaConfig(fixture('configs', `${name}.json`));
    t.is(parameterCount(config), count);
    t.is(
      Object.values(parameterBreakdown(config)).reduce((a, b) => a + b, 0),
      count,
    );
    t.is(new Set(parameterSpecs(config).map((spec) => spec.name)).size, parameterSpecs(config).length);
    t.is(native().leaks().alive, before);
  });

for (const name of ['gsa_gqa', 'gsa_shortconv'])
  test(`${name}: a configuration of today's library loads`, (t) => {
    const config = readGsaConfig(fixture('models', name, 'config.json'));
    t.is(config.hidden_size, 64);
    t.is(config.intermediate_size, 256);
  });

test('the 7B configuration: widths of grouped heads', (t) => {
  const config = readGsaConfig(fixture('configs', 'gsa-7B-mistral-100B.json'));
  t.deepEqual(gsaWidths(config), {
    K: 128,
    V: 128,
    query: 4096,
    output: 4096,
    key: 1024,
    value: 1024,
    gate: 512,
  });
  t.is(config.intermediate_size, 14336);
});

test('an empty object is the configuration class with its defaults', (t) => {
  const config = parseGsaConfig({});
  t.is(config.hidden_size, 2048);
  t.is(config.num_kv_heads, 4);
  t.is(config.intermediate_size, 5632);
  t.is(config.num_slots, 64);
  t.is(config.norm_eps, 1e-6);
  t.true(Object.isFrozen(config));
});

test('null means the derived value', (t) => {
  const config = parseGsaConfig({
    hidden_size: 96,
    num_heads: 3,
    num_kv_heads: null,
    num_slots: null,
    hidden_ratio: null,
    intermediate_size: null,
    expand_k: 0.5,
  });
  t.is(config.num_kv_heads, 3);
  t.is(config.num_slots, 16, 'the key width of a head');
  t.is(config.intermediate_size, 256);
  t.is(config.hidden_ratio, 4);
});

test('intermediate_size is rounded up to a multiple of 256', (t) => {
  const size = (hidden_size: number, hidden_ratio: number) =>
    parseGsaConfig({ hidden_size, hidden_ratio }).intermediate_size;
  t.is(size(384, 1), 256);
  t.is(size(388, 1), 512);
  t.is(size(2560, 4), 6912);
  t.is(size(256, 3.5), 768);
});

test('a misspelt key is refused with the key that was meant', (t) => {
  for (const [wrong, right] of [
    ['hiden_size', 'hidden_size'],
    ['num_head', 'num_heads'],
    ['exapnd_k', 'expand_k'],
    ['numSlots', 'num_slots'],
    ['use_shortconv', 'use_short_conv'],
    ['tie_embeddings', 'tie_word_embeddings'],
    ['torch_dtyp', 'torch_dtype'],
  ] as const)
    t.throws(
      () => parseGsaConfig({ [wrong]: 1 }),
      refused(new RegExp(`"${wrong}".*did you mean "${right}"`)),
      wrong,
    );
  t.throws(() => parseGsaConfig({ completely_different: 1 }), refused(/"completely_different".*remove it/));
  t.throws(() => parseGsaConfig(JSON.parse('{"__proto__": 1}')), refused(/"__proto__"/));
});

test('keys that the model does not implement are refused by name unless they have their plain value', (t) => {
  const plain = {
    attn: null,
    attn_mode: 'chunk',
    attnres_block_size: null,
    clamp_max: null,
    clamp_min: null,
    fuse_cross_entropy: false,
    fuse_linear_cross_entropy: true,
    fuse_norm: false,
    fuse_swiglu: false,
    gate_low_rank_dim: null,
    norm_first: true,
    share_conv_kernel: true,
    use_gk: true,
    use_gv: false,
    use_l2warp: false,
    use_norm: true,
    use_output_gate: false,
    use_rope: false,
  };
  t.notThrows(() => parseGsaConfig(plain));
  for (const [key, value] of [
    ['attn', { layers: [1], num_heads: 2 }],
    ['attn_mode', 'parallel'],
    ['attnres_block_size', 2],
    ['clamp_min', -1],
    ['gate_low_rank_dim', 16],
    ['norm_first', false],
    ['use_gk', false],
    ['use_gv', true],
    ['use_l2warp', true],
    ['use_norm', false],
    ['use_output_gate', true],
    ['use_rope', true],
    ['conv_bias', true],
    ['fuse_norm', 1],
    ['feature_map', 'relu'],
    ['hidden_act', 'gelu'],
    ['model_type', 'gla'],
    ['quantization_config', {}],
    ['pruned_heads', { 0: [1] }],
  ] as const)
    t.throws(() => parseGsaConfig({ ...plain, [key]: value }), refused(new RegExp(`for ${key} `)), key);
  t.throws(
    () => parseGsaConfig({ share_conv_kernel: true, use_short_conv: true }),
    refused(/share_conv_kernel.*convolutions of their own/),
  );
});

test('what transformers writes into every file is accepted', (t) => {
  const config = parseGsaConfig({
    _name_or_path: 'x',
    architectures: ['GSAForCausalLM'],
    auto_map: {},
    dtype: 'bfloat16',
    torch_dtype: 'float16',
    transformers_version: '5.17.0',
    use_cache: true,
    return_dict: true,
    id2label: { 0: 'LABEL_0' },
    temperature: 1,
    is_decoder: false,
    pruned_heads: {},
    bos_token_id: null,
    eos_token_id: [1, 2],
    pad_token_id: 0,
  });
  t.deepEqual(config.eos_token_id, [1, 2]);
});

test('values of the wrong kind or size are refused, all at once', (t) => {
  const error = t.throws(
    () =>
      parseGsaConfig({
        hidden_size: '64',
        num_heads: 0,
        norm_eps: 0,
        use_short_conv: 'yes',
        initializer_range: -1,
      }),
    refused(/./),
  );
  for (const key of ['hidden_size', 'num_heads', 'norm_eps', 'use_short_conv', 'initializer_range'])
    t.regex(error.message, new RegExp(`for ${key} `));
  for (const value of [null, [], 'x', 3, undefined]) t.throws(() => parseGsaConfig(value), refused(/object/));
  for (const [key, value] of [
    ['vocab_size', 1.5],
    ['hidden_size', 2 ** 60],
    ['expand_k', Infinity],
    ['gate_logit_normalizer', null],
    ['elementwise_affine', null],
    ['eos_token_id', ['a']],
    ['bos_token_id', -1],
  ] as const)
    t.throws(() => parseGsaConfig({ [key]: value }), refused(new RegExp(`for ${key} `)), key);
});

test('widths that do not divide are refused with what to change', (t) => {
  t.throws(() => parseGsaConfig({ hidden_size: 64, num_heads: 3 }), refused(/multiple of num_heads \(3\)/));
  t.throws(() => parseGsaConfig({ num_heads: 4, num_kv_heads: 3 }), refused(/divisor of num_heads/));
  t.throws(() => parseGsaConfig({ expand_v: 2 }), refused(/g_norm/));
  t.notThrows(() => parseGsaConfig({ expand_v: 2, elementwise_affine: false }));
  t.throws(() => parseGsaConfig({ expand_k: 1e-9 }), refused(/expand_k/));
});

test('readGsaConfig names the file, for malformed JSON, a refused key and a missing file', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'gsa-config-'));
  try {
    const file = join(folder, 'config.json');
    writeFileSync(file, '{"hidden_size": 64,}');
    t.throws(() => readGsaConfig(file), refused(/config\.json: Expected JSON/));
    writeFileSync(file, '{"hiden_size": 64}');
    t.throws(() => readGsaConfig(file), refused(/config\.json: .*did you mean/));
    t.throws(() => readGsaConfig(join(folder, 'none.json')), { instanceOf: GsaError, code: 'IO' });
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('what is written is read back as the same configuration', (t) => {
  for (const name of Object.keys(COUNTS)) {
    const config = readGsaConfig(fixture('configs', `${name}.json`));
    const written = JSON.parse(JSON.stringify(toHuggingFace(config, 'bfloat16')));
    t.deepEqual(parseGsaConfig(written), config);
    t.deepEqual(written.architectures, ['GSAForCausalLM']);
    t.is(written.torch_dtype, 'bfloat16');
    // Keys of the published files keep their values, where null does not stand for a derived one.
    const published = JSON.parse(readFileSync(fixture('configs', `${name}.json`), 'utf8'));
    for (const key of Object.keys(published))
      if (key in written && published[key] !== null && key !== '_name_or_path')
        t.deepEqual(written[key], published[key], key);
  }
});

test('training memory of the 1.3B model in bfloat16: parts add up, activations grow with tokens', (t) => {
  const config = readGsaConfig(fixture('configs', 'gsa-1.3B-100B.json'));
  const memory = trainingMemory(config, { batch: 8, seqLen: 2048, dtype: 'bfloat16' });
  const n = parameterCount(config);
  t.is(memory.weights, 2 * n);
  t.is(memory.moments, 8 * n);
  t.is(memory.masters, 2 * n);
  const { total, ...parts } = memory;
  t.is(
    Object.values(parts).reduce((a, b) => a + b, 0),
    total,
  );
  const twice = trainingMemory(config, { batch: 8, seqLen: 4096, dtype: 'bfloat16' });
  t.is(twice.activations, 2 * memory.activations);
  t.is(trainingMemory(config, { batch: 1, seqLen: 1 }).masters, 0);
});
