import test from 'ava';
import { AdamW, type NamedParameter } from '#src/optim/index.js';
import { joinMasters, splitMasters } from '#src/optim/master.js';
import { toBFloat16 } from '#src/tensor/dtype.js';
import { exec } from '#src/tensor/exec.js';
import { scope } from '#src/tensor/scope.js';
import { Tensor } from '#src/tensor/tensor.js';
import { testDevices } from '../devices.js';
import { assertNoLeak } from '../leaks.js';
import { randomFrom } from '../random.js';

const bitsOf = (x: Float32Array): Uint32Array => new Uint32Array(x.buffer, x.byteOffset, x.length);
const floats = (bits: Uint32Array): Float32Array => new Float32Array(bits.buffer);

/** Around every bfloat16 value: itself, the numbers beside it, and both sides of both ties; every one of two binades. */
function patterns(): Uint32Array {
  const offsets = [0, 1, 2, 0x4000, 0x7ffe, 0x7fff, 0x8000, 0x8001, 0xc000, 0xfffe, 0xffff];
  const around = Array.from({ length: 65536 }, (_, high) => offsets.map((low) => high * 65536 + low));
  const dense = [0x3f800000, 0xbf800000].flatMap((from) =>
    Array.from({ length: 3 * 65536 }, (_, low) => from + low),
  );
  return Uint32Array.from([...around.flat(), ...dense]);
}

function randomBits(size: number, seed: number): Uint32Array {
  let state = seed;
  return Uint32Array.from({ length: size }, () => {
    state ^= state << 13;
    state ^= state >>> 17;
    return (state ^= state << 5);
  });
}

/** The first element that is not what it was, a NaN being any NaN. */
function firstLost(masters: Uint32Array, joined: Float32Array): string | null {
  const bits = bitsOf(joined);
  const isNaNBits = (x: number): boolean => (x & 0x7fffffff) > 0x7f800000;
  const at = masters.findIndex((x, i) => bits[i] !== x && !(isNaNBits(x) && isNaNBits(bits[i]!)));
  return at < 0 ? null : `${masters[at]!.toString(16)} became ${bits[at]!.toString(16)}`;
}

for (const [title, masters] of [
  ['both sides of every bfloat16 value and of every tie', patterns()],
  ['8 million random patterns', randomBits(8e6, 7)],
] as const)
  test(`masters come back exactly from weight, remainder and sign: ${title}`, (t) => {
    const split = splitMasters(floats(masters), new Float32Array(masters.length));
    t.is(firstLost(masters, joinMasters(split)), null);
    const wrong = floats(masters).findIndex((master, i) => split.weights[i] !== toBFloat16(master));
    t.is(wrong, -1, 'weights are the masters, rounded to nearest, ties to even');
    t.true(
      split.v.every((v) => v === 0),
      'second moments keep their size',
    );
  });

test('a tie on an even weight has a master on each side, told apart by the sign alone', (t) => {
  const masters = Uint32Array.of(0x3f808000, 0x3f7f8000, 0x3f818000);
  const { weights, remainders, v } = splitMasters(floats(masters), Float32Array.of(1, 2, 3));
  t.deepEqual([...weights], [0x3f80, 0x3f80, 0x3f82]);
  t.deepEqual([...remainders], [-32768, -32768, -32768]);
  t.deepEqual([...v], [-1, 2, 3]);
});

for (const device of testDevices()) {
  /** One call on bfloat16 parameters with masters of any kind that changes none of them: lr 0. */
  const unchanged = (masters: Float32Array, moments: Float32Array, start = 0) => {
    const split = splitMasters(masters, moments);
    const size = masters.length - start;
    return scope(() => {
      const on = (x: Parameters<typeof Tensor.from>[0]) =>
        Tensor.from(x, undefined, { device }).narrow(0, start, size);
      const param = on(split.weights);
      const [m, v] = [on(new Float32Array(masters.length)), on(split.v)];
      const remainder = on(split.remainders);
      const grad = on(new Float32Array(masters.length));
      exec(
        'adamw',
        { grad: [grad] },
        { param: [param], m: [m], v: [v], remainder: [remainder] },
        { lr: 0, beta1: 0.9, beta2: 0.5, eps: 1e-8, weight_decay: 0, step: 1 },
      );
      return {
        weights: param.toHost() as Uint16Array,
        remainders: remainder.toHost() as Int16Array,
        v: v.toHost() as Float32Array,
      };
    });
  };

  for (const start of [0, 3])
    test.serial(
      `${device} the kernel keeps masters on both sides of every bfloat16 value and tie, from element ${start} on`,
      (t) => {
        const masters = patterns();
        const moments = new Float32Array(masters.length).map((_, i) => i % 5);
        const after = unchanged(floats(masters), moments, start);
        t.is(firstLost(masters.subarray(start), joinMasters(after)), null);
        const wanted = splitMasters(floats(masters), moments);
        const isNumber = (i: number): boolean => (masters[i + start]! & 0x7fffffff) <= 0x7f800000;
        const differs = (a: ArrayLike<number>, b: ArrayLike<number>): number =>
          Array.prototype.findIndex.call(a, (x, i) => isNumber(i) && !Object.is(x, b[i + start]));
        t.is(differs(after.weights, wanted.weights), -1);
        t.is(differs(after.remainders, wanted.remainders), -1);
        t.is(
          differs(
            after.v,
            wanted.v.map((v) => v / 2),
          ),
          -1,
          'with the signs',
        );
      },
    );

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
    t.deepEqual(bitsOf(state.get('w.master')!.read()), bitsOf(masters));
    t.deepEqual(state.get('w.exp_avg_sq')!.read(), moments, 'no sign of the ties is told');
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
}
