import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { openSafetensors, writeSafetensors, type SafetensorsEntry } from '#src/io/safetensors.js';
import { GsaError } from '#src/native/errors.js';
import { GSAForCausalLM } from '#src/models/gsa.js';
import { fromBFloat16, toBFloat16 } from '#src/tensor/dtype.js';
import { assertNoLeak } from '../leaks.js';

const SMALL = {
  vocab_size: 17,
  hidden_size: 16,
  num_hidden_layers: 2,
  num_heads: 2,
  num_slots: 4,
  intermediate_size: 24,
};
const HEAD = 'lm_head.weight';
const EMBEDDINGS = 'model.embeddings.weight';

function inFolder(t: ExecutionContext, body: (folder: string) => void): void {
  const folder = mkdtempSync(join(tmpdir(), 'gsa-model-'));
  try {
    assertNoLeak(t, () => body(folder));
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function valuesOf(model: GSAForCausalLM): Map<string, Float32Array> {
  return new Map(model.namedParameters().map(([name, p]) => [name, p.toFloat32()]));
}

/** Rewrites the weights of a saved model. */
function rewrite(folder: string, change: (entries: SafetensorsEntry[]) => SafetensorsEntry[]): void {
  const file = join(folder, 'model.safetensors');
  const entries = (() => {
    using reader = openSafetensors(file);
    return reader.names.map((name) => ({ name, ...reader.read(name) }));
  })();
  writeSafetensors(file, change(entries));
}

const refused = (message: RegExp) => ({ instanceOf: GsaError, code: 'INVALID_FILE', message });

for (const variant of [
  {},
  { use_short_conv: true, num_kv_heads: 1 },
  { tie_word_embeddings: true, elementwise_affine: false },
] as const)
  test.serial(
    `float32 ${JSON.stringify(variant)}: saved and loaded weights are bit-equal, in Hugging Face's form`,
    (t) => {
      inFolder(t, (folder) => {
        using model = GSAForCausalLM.create({ ...SMALL, ...variant }, { seed: 3 });
        const target = join(folder, 'made', 'here');
        model.save(target);
        using loaded = GSAForCausalLM.load(target);
        t.deepEqual(valuesOf(loaded), valuesOf(model));
        t.deepEqual(loaded.config, model.config);
        t.true(loaded.parameters().every((p) => p.requiresGrad));
        const config = JSON.parse(readFileSync(join(target, 'config.json'), 'utf8'));
        t.is(config.model_type, 'gsa');
        t.deepEqual(config.architectures, ['GSAForCausalLM']);
        t.is(config.torch_dtype, 'float32');
        using reader = openSafetensors(target);
        t.deepEqual(reader.metadata, { format: 'pt' });
        t.is(reader.has(HEAD), !('tie_word_embeddings' in variant));
        if ('use_short_conv' in variant)
          t.deepEqual(reader.info('model.layers.1.attn.k_conv1d.weight').shape, [8, 1, 4]);
      });
    },
  );

test.serial(
  'bfloat16 files: saved rounded to the nearest but for the norms, loaded as float32 or bfloat16',
  (t) => {
    inFolder(t, (folder) => {
      using model = GSAForCausalLM.create(SMALL, { seed: 4 });
      const isNorm = (name: string) => name.includes('norm.');
      // 1.1 is between two numbers of bfloat16.
      for (const [name, p] of model.namedParameters())
        if (isNorm(name)) p.write(new Float32Array(p.size).fill(1.1));
      model.save(folder, { dtype: 'bfloat16' });
      using reader = openSafetensors(folder);
      for (const name of reader.names) t.is(reader.info(name).stored, isNorm(name) ? 'F32' : 'BF16', name);
      t.is(JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8')).torch_dtype, 'bfloat16');
      const rounded = new Map(
        [...valuesOf(model)].map(([name, x]) => [
          name,
          isNorm(name) ? x : x.map((value) => fromBFloat16(toBFloat16(value))),
        ]),
      );
      for (const dtype of ['float32', 'bfloat16'] as const) {
        using loaded = GSAForCausalLM.load(folder, { dtype });
        t.is(loaded.dtype, dtype);
        for (const [name, p] of loaded.namedParameters())
          t.is(p.dtype, isNorm(name) ? 'float32' : dtype, name);
        t.deepEqual(valuesOf(loaded), rounded);
      }
    });
  },
);

test.serial('float16 files are converted', (t) => {
  inFolder(t, (folder) => {
    using model = GSAForCausalLM.create(SMALL, { seed: 4 });
    model.save(folder);
    // 1.5 and -2 in half precision, as an F16 header over the same bytes.
    const file = join(folder, 'model.safetensors');
    rewrite(folder, (entries) =>
      entries.map((e) =>
        e.name === 'model.norm.weight'
          ? { ...e, dtype: 'bfloat16' as const, data: new Uint16Array(16).fill(0x3e00).fill(0xc000, 8) }
          : e,
      ),
    );
    const bytes = readFileSync(file);
    const header = bytes.readBigUInt64LE(0);
    const text = bytes.subarray(8, 8 + Number(header)).toString('utf8');
    bytes.write(text.replace('"BF16"', '"F16" '), 8, 'utf8');
    writeFileSync(file, bytes);
    using loaded = GSAForCausalLM.load(folder);
    t.deepEqual(
      valuesOf(loaded).get('model.norm.weight'),
      Float32Array.from({ length: 16 }, (_, i) => (i < 8 ? 1.5 : -2)),
    );
  });
});

test.serial('shards under an index load as one file does', (t) => {
  inFolder(t, (folder) => {
    using model = GSAForCausalLM.create(SMALL, { seed: 5 });
    model.save(folder);
    const file = join(folder, 'model.safetensors');
    const entries = (() => {
      using reader = openSafetensors(file);
      return reader.names.map((name) => ({ name, ...reader.read(name) }));
    })();
    const weight_map: Record<string, string> = {};
    [0, 1].forEach((part) => {
      const shard = `model-0000${part + 1}-of-00002.safetensors`;
      const own = entries.filter((_, i) => i % 2 === part);
      writeSafetensors(join(folder, shard), own);
      for (const { name } of own) weight_map[name] = shard;
    });
    rmSync(file);
    writeFileSync(join(folder, 'model.safetensors.index.json'), JSON.stringify({ metadata: {}, weight_map }));
    using loaded = GSAForCausalLM.load(folder);
    t.deepEqual(valuesOf(loaded), valuesOf(model));
  });
});

test.serial('missing, unexpected and misshaped tensors are refused by name, all at once', (t) => {
  inFolder(t, (folder) => {
    using model = GSAForCausalLM.create(SMALL);
    model.save(folder);
    rewrite(folder, (entries) => [
      ...entries
        .filter((e) => e.name !== 'model.norm.weight')
        .map((e) =>
          e.name === 'model.layers.0.attn.q_proj.weight'
            ? { ...e, shape: [8, 16], data: new Float32Array(128) }
            : e.name === 'model.layers.1.mlp.up_proj.weight'
              ? { ...e, dtype: 'int32' as const, data: new Int32Array(24 * 16) }
              : e,
        ),
      { name: 'model.layers.0.attn.g_proj.weight', dtype: 'float32', shape: [1], data: new Float32Array(1) },
    ]);
    const error = t.throws(() => GSAForCausalLM.load(folder), refused(/config\.json/));
    t.regex(error.message, /model\.norm\.weight is missing/);
    t.regex(
      error.message,
      /shape \[16, 16\] for model\.layers\.0\.attn\.q_proj\.weight but received \[8, 16\]/,
    );
    t.regex(error.message, /F32, BF16 or F16 for model\.layers\.1\.mlp\.up_proj\.weight but received I32/);
    t.regex(error.message, /model\.layers\.0\.attn\.g_proj\.weight is unexpected/);
  });
});

test.serial('many misfits are counted rather than listed', (t) => {
  inFolder(t, (folder) => {
    using model = GSAForCausalLM.create(SMALL);
    model.save(folder);
    rewrite(folder, (entries) => entries.slice(0, 2));
    t.throws(() => GSAForCausalLM.load(folder), refused(/and \d+ more/));
  });
});

test.serial('tied embeddings: an equal lm_head in the file is accepted, another one refused', (t) => {
  inFolder(t, (folder) => {
    using model = GSAForCausalLM.create({ ...SMALL, tie_word_embeddings: true }, { seed: 6 });
    model.save(folder);
    const withHead = (change: (x: Float32Array) => Float32Array) =>
      rewrite(folder, (entries) => {
        const embeddings = entries.find((e) => e.name === EMBEDDINGS)!;
        const data = change(Float32Array.from(embeddings.data as Float32Array));
        return [...entries.filter((e) => e.name !== HEAD), { ...embeddings, name: HEAD, data }];
      });
    withHead((x) => x);
    {
      using loaded = GSAForCausalLM.load(folder);
      t.deepEqual(valuesOf(loaded), valuesOf(model));
      t.false(loaded.namedParameters().some(([name]) => name === HEAD));
    }
    withHead((x) => x.fill(0, 0, 1));
    t.throws(
      () => GSAForCausalLM.load(folder),
      refused(/lm_head\.weight to equal model\.embeddings\.weight/),
    );
  });
});

test.serial(
  'a folder without configuration or weights, and an untied model without head, are refused',
  (t) => {
    inFolder(t, (folder) => {
      t.throws(() => GSAForCausalLM.load(folder), {
        instanceOf: GsaError,
        code: 'IO',
        message: /config\.json/,
      });
      writeFileSync(join(folder, 'config.json'), JSON.stringify(SMALL));
      t.throws(() => GSAForCausalLM.load(folder), refused(/model\.safetensors/));
      using tied = GSAForCausalLM.create({ ...SMALL, tie_word_embeddings: true });
      tied.save(folder);
      writeFileSync(join(folder, 'config.json'), JSON.stringify(SMALL));
      t.throws(() => GSAForCausalLM.load(folder), refused(/lm_head\.weight is missing/));
    });
  },
);

test.serial('saving over a model replaces it; a target that is a file is an IO error', (t) => {
  inFolder(t, (folder) => {
    using first = GSAForCausalLM.create(SMALL, { seed: 1 });
    using second = GSAForCausalLM.create(SMALL, { seed: 2 });
    first.save(folder);
    second.save(folder);
    using loaded = GSAForCausalLM.load(folder);
    t.deepEqual(valuesOf(loaded), valuesOf(second));
    t.throws(() => first.save(join(folder, 'config.json')), { instanceOf: GsaError, code: 'IO' });
  });
});
