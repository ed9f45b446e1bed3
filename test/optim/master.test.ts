import { createHash } from 'node:crypto';
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { writeSafetensors } from '#src/io/safetensors.js';
import { GsaError } from '#src/native/errors.js';
import { AdamW, type NamedParameter } from '#src/optim/index.js';
import { toBFloat16 } from '#src/tensor/dtype.js';
import { Tensor } from '#src/tensor/tensor.js';
import { testDevices } from '../devices.js';
import { tempFolder } from '../io/temp.js';
import { assertNoLeak } from '../leaks.js';
import { randomFrom } from '../random.js';
import { all, bitsOf, firstDifference, floats, patterns } from './patterns.js';

/** As a trainer does. */
function save(optimizer: AdamW, path: string): void {
  const entries = [...optimizer.state()].map(([name, { shape, read }]) => {
    return { name, dtype: 'float32', shape, data: read } as const;
  });
  writeSafetensors(path, entries, { steps: String(optimizer.stepCount) });
}

for (const device of testDevices()) {
  for (const size of [1, 7, 4096, 16384 + 5, 50001])
    for (const dtype of ['float32', 'bfloat16'] as const)
      test.serial(
        `${device} ${size} bfloat16 weights, ${dtype} gradients: bit for bit float32 masters that are rounded`,
        (t) => {
          assertNoLeak(t, () => {
            const random = randomFrom(size);
            const draw = (scale: number): number[] =>
              Array.from({ length: size }, () => scale * random.normal());
            const weight = Tensor.from(draw(0.02), [size], { dtype: 'bfloat16', device });
            const plain = weight.to({ dtype: 'float32' });
            const settings = { lr: 2e-3, betas: [0.9, 0.95] as const, weightDecay: 0.1 };
            using split = new AdamW([['w', weight]], settings);
            using float32 = new AdamW([['w', plain]], settings);
            let ties = 0;
            for (let step = 0; step < 10; step++) {
              const gradient = Tensor.from(draw(1), [size], { dtype, device });
              for (const parameter of [weight, plain]) {
                parameter.grad?.dispose();
                parameter.grad = gradient.alias();
              }
              gradient.dispose();
              split.step();
              float32.step();
              const masters = plain.toFloat32();
              const state = split.state();
              t.deepEqual(bitsOf(state.get('w.master')!.read()), bitsOf(masters), `step ${step}`);
              for (const kind of ['w.exp_avg', 'w.exp_avg_sq'])
                t.deepEqual(state.get(kind)!.read(), float32.state().get(kind)!.read(), kind);
              t.deepEqual(weight.toHost(), Uint16Array.from(masters, toBFloat16));
              for (const bits of bitsOf(masters)) if ((bits & 0x1ffff) === 0x8000) ties++;
            }
            if (size > 50000) t.true(ties > 0, 'ties above an even weight come up in training');
            weight.dispose();
            plain.dispose();
          });
        },
      );

  const one = (value: number): NamedParameter[] => [
    ['w', Tensor.from([value], [1], { dtype: 'bfloat16', device })],
  ];
  const stepOf = (named: NamedParameter[], optimizer: AdamW, lr: number): void => {
    const weight = named[0]![1];
    weight.grad?.dispose();
    weight.grad = Tensor.from([1], [1], { device });
    optimizer.step({ lr });
  };

  test.serial(`${device} a written weight is what training goes on from, at most half a step apart`, (t) => {
    const named = one(1);
    const weight = named[0]![1];
    using optimizer = new AdamW(named, { weightDecay: 0 });
    stepOf(named, optimizer, 1e-3); // 0.999: three eighths of a step of 2^-8 below 1, which rounding gives
    const master = optimizer.state().get('w.master')!;
    const before = master.read()[0]!;
    t.true(before < 1 && weight.toFloat32()[0] === 1, `${before}`);
    weight.write(Uint16Array.of(toBFloat16(3)));
    const after = master.read()[0]!;
    t.true(after !== 3 && Math.abs(after - 3) <= 2 ** -7, `${after}`);
    stepOf(named, optimizer, 0.5);
    t.true(Math.abs(weight.toFloat32()[0]! - 2.5) < 0.02);
    weight.dispose();
  });

  for (const value of [0, -0, Infinity, -Infinity, NaN])
    for (const start of [1, 1.0078125])
      test.serial(
        `${device} ${Object.is(value, -0) ? '-0' : value} written over a weight of ${start} stays that`,
        (t) => {
          for (const lr of [1e-3, -1e-3]) {
            const named = one(start);
            const weight = named[0]![1];
            using optimizer = new AdamW(named, { weightDecay: 0 });
            const master = optimizer.state().get('w.master')!;
            master.write(Float32Array.of(start + lr));
            t.is(weight.toFloat32()[0], start);
            weight.write(Uint16Array.of(toBFloat16(value)));
            const written = master.read()[0]!;
            const near = Number.isFinite(value) ? Math.abs(written) < 1e-37 : !(Math.abs(written) < 3e38);
            t.true(near && Number.isNaN(written) === Number.isNaN(value), `${written}`);
            stepOf(named, optimizer, 0);
            t.is(weight.toFloat32()[0], value);
            weight.dispose();
          }
        },
      );

  test.serial(`${device} masters that are loaded make the weight: their rounding, whatever it was`, (t) => {
    const masters = floats(patterns()).filter((x) => !Number.isNaN(x));
    const weight = Tensor.zeros([masters.length], { dtype: 'bfloat16', device });
    using optimizer = new AdamW([['w', weight]]);
    const state = optimizer.state();
    state.get('w.master')!.write(masters);
    const moments = masters.map((_, i) => i % 7);
    state.get('w.exp_avg_sq')!.write(moments);
    t.deepEqual(weight.toHost(), Uint16Array.from(masters, toBFloat16));
    t.is(firstDifference(state.get('w.master')!.read(), masters), null);
    t.is(firstDifference(state.get('w.exp_avg_sq')!.read(), moments), null, 'no sign of the ties is told');
    t.throws(() => state.get('w.master')!.write(new Float32Array(1)), { message: /w\.master/ });
    weight.dispose();
  });

  test.serial(
    `${device} bfloat16 weights take 12 bytes a parameter with moments and masters, 2 less than a copy`,
    (t) => {
      const n = 1 << 16;
      const weight = Tensor.zeros([n], { dtype: 'bfloat16', device });
      const before = weight.device.memory().currentBytes;
      using optimizer = new AdamW([['w', weight]]);
      t.is(weight.device.memory().currentBytes - before, 10 * n);
      t.is(optimizer.stepCount, 0);
      weight.dispose();
    },
  );

  test.serial(
    `${device} what a checkpoint holds is bit for bit what earlier versions wrote of the same state`,
    (t) => {
      const path = join(tempFolder(t), 'optimizer.safetensors');
      const weight = Tensor.zeros([2, patterns().length / 2], { dtype: 'bfloat16', device });
      const norm = Tensor.zeros([5], { device });
      using optimizer = new AdamW([
        ['w', weight],
        ['norm', norm],
      ]);
      const state = optimizer.state();
      const write = (name: string, of: (i: number) => number): void =>
        state.get(name)!.write(all(name.startsWith('w') ? weight.size : norm.size, of));
      write('w.exp_avg', (i) => (i % 11) - 5);
      state.get('w.master')!.write(floats(patterns()));
      write('w.exp_avg_sq', (i) => (i % 2 ? -1 : 1) * (i % 13));
      const weights = weight.toHost() as Uint16Array;
      weight.write(weights.map((bits, i) => (i % 3 ? bits : (i * 40503) & 0xffff))); // something else
      write('w.exp_avg_sq', (i) => i % 17);
      write('norm.exp_avg', (i) => i - 2);
      write('norm.exp_avg_sq', (i) => i);
      save(optimizer, path);
      // Of commit e042037, which split and joined masters on the host.
      const earlier = '03e5cb02ac5c3787983a1b2bcf399c647a7dc01fc5652033821ba25ccc0055a1';
      t.is(createHash('sha256').update(readFileSync(path)).digest('hex'), earlier);
      weight.dispose();
      norm.dispose();
    },
  );

  test.serial(
    `${device} saving takes one float32 copy on the device at a time, and without room for it says so`,
    (t) => {
      const n = 1 << 20;
      const weight = Tensor.zeros([n], { dtype: 'bfloat16', device });
      using optimizer = new AdamW([['w', weight]]);
      const state = optimizer.state();
      const master = all(n, (i) => (i % 9) + 2 ** -8);
      const saved = [...state.keys()];
      state.get('w.master')!.write(master);
      const everything = () => saved.map((name) => state.get(name)!.read());

      assertNoLeak(t, () => {
        const used = device.memory({ resetPeak: true }).currentBytes;
        const values = everything();
        saved.forEach((name, i) => state.get(name)!.write(values[i]!));
        t.is(device.memory().peakBytes - used, 4 * n);
      });

      const [weights, before] = [weight.toFloat32(), everything()];
      const limit = device.getOption('memory_limit');
      t.teardown(() => device.setOption('memory_limit', limit));
      device.setOption('memory_limit', device.memory().currentBytes + 3 * n);
      const folder = tempFolder(t);
      assertNoLeak(t, () => {
        const full = { instanceOf: GsaError, code: 'OUT_OF_MEMORY' };
        for (const kind of ['w.exp_avg_sq', 'w.master']) {
          t.throws(() => state.get(kind)!.read(), full);
          t.throws(() => state.get(kind)!.write(new Float32Array(n)), full);
        }
        t.throws(() => save(optimizer, join(folder, 'optimizer.safetensors')), full);
      });
      t.deepEqual(readdirSync(folder), [], 'no part of a file');
      device.setOption('memory_limit', limit);
      t.is(firstDifference(weight.toFloat32(), weights), null, 'nothing was written');
      everything().forEach((values, i) => t.is(firstDifference(values, before[i]!), null, saved[i]));
      weight.dispose();
    },
  );
}
