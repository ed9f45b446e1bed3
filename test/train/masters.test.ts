import { join } from 'node:path';
import test from 'ava';
import { openSafetensors, writeSafetensors } from '#src/io/safetensors.js';
import { GSAForCausalLM } from '#src/models/index.js';
import { parseTrainConfig } from '#src/train/config.js';
import { Trainer } from '#src/train/trainer.js';
import { toBFloat16 } from '#src/tensor/dtype.js';
import { testDevices } from '../devices.js';
import { tempFolder } from '../io/temp.js';
import { tinyConfig } from './tiny.js';

for (const device of testDevices())
  test(`${device} bfloat16: a checkpoint holds float32 masters, ties too, and gives back what it holds`, async (t) => {
    const config = await parseTrainConfig(tinyConfig('unused'));
    const model = { ...(config.model as object), vocab_size: 50 };
    const place = { device, dtype: 'bfloat16' } as const;
    const make = () => new Trainer(GSAForCausalLM.create(model, place), config);
    const [first, second] = [make(), make()];
    t.teardown(() => first.dispose());
    t.teardown(() => second.dispose());
    const folder = tempFolder(t);
    first.save(folder);

    // What a version that kept float32 masters in memory wrote.
    const path = join(folder, 'optimizer.safetensors');
    const written = new Map<string, Float32Array>();
    using before = openSafetensors(path);
    for (const name of before.names) {
      const values = before.read(name).data as Float32Array;
      const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
      const low = [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff];
      if (name.endsWith('.master')) bits.forEach((x, i) => (bits[i] = (x & 0xffff0000) | low[i % 6]!));
      else if (name.endsWith('.exp_avg_sq')) values.forEach((_, i) => (values[i] = (i % 10) * 1e-3));
      else values.forEach((_, i) => (values[i] = (i % 7) - 3));
      written.set(name, values);
    }
    const entries = [...written].map(([name, data]) => {
      return { name, dtype: 'float32', shape: before.info(name).shape, data } as const;
    });
    t.true(entries.filter(({ name }) => name.endsWith('.master')).length > 10);
    writeSafetensors(path, entries, { steps: '7' });

    second.restoreOptimizer(folder);
    t.is(second.optimizer.stepCount, 7);
    for (const [name, parameter] of second.model.namedParameters()) {
      const masters = written.get(`${name}.master`);
      if (masters) t.deepEqual(parameter.toHost(), Uint16Array.from(masters, toBFloat16), name);
    }
    const again = tempFolder(t);
    second.save(again);
    using after = openSafetensors(join(again, 'optimizer.safetensors'));
    t.deepEqual(after.names.toSorted(), before.names.toSorted());
    for (const [name, values] of written) {
      t.is(after.info(name).stored, 'F32', name);
      t.deepEqual(after.read(name).data, values, name);
    }
  });
