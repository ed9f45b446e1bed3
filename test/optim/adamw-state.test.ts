import test from 'ava';
import { GsaError } from '#src/native/errors.js';
import { toBFloat16, type DType, type HostArray } from '#src/tensor/dtype.js';
import { exec } from '#src/tensor/exec.js';
import { scope } from '#src/tensor/scope.js';
import { Tensor } from '#src/tensor/tensor.js';
import { testDevices } from '../devices.js';
import { all, bitsOf, firstDifference, firstLost, floats, patterns, randomBits } from './patterns.js';

/** What the optimizer keeps of a bfloat16 parameter besides the first moment; see native/ops/optimizer/master.h. */
interface Held {
  readonly weights: Uint16Array;
  readonly remainders: Int16Array;
  readonly v: Float32Array;
}
/** What a checkpoint has of that. */
interface Saved {
  readonly master?: Float32Array;
  readonly exp_avg_sq?: Float32Array;
}

const zeros = (n: number): Held => ({
  weights: new Uint16Array(n),
  remainders: new Int16Array(n),
  v: new Float32Array(n),
});

for (const device of testDevices()) {
  const on = (values: HostArray, start: number): Tensor =>
    Tensor.from(values, undefined, { device }).narrow(0, start, values.length - start);

  /** What these hold, from element `start` on, after `body`. */
  const after = (held: Held, start: number, body: (on: Record<string, Tensor>) => void): Held =>
    scope(() => {
      const [param, remainder, v] = [on(held.weights, start), on(held.remainders, start), on(held.v, start)];
      body({ param, remainder, v });
      return {
        weights: param.toHost() as Uint16Array,
        remainders: remainder.toHost() as Int16Array,
        v: v.toHost() as Float32Array,
      };
    });
  const written = (held: Held, saved: Saved, start = 0): Held =>
    after(held, start, (to) => {
      const from = Object.entries(saved).map(([name, values]) => [name, on(values, start)]);
      exec('adamw_state_write', Object.fromEntries(from), to, {});
    });
  const read = (held: Held, start = 0): Required<Saved> => {
    let saved: Required<Saved> | null = null;
    const unchanged = after(held, start, (from) => {
      const [master, exp_avg_sq] = [Tensor.emptyLike(from['v']!), Tensor.emptyLike(from['v']!)];
      exec('adamw_state_read', from, { master, exp_avg_sq }, {});
      const [alone, other] = [Tensor.emptyLike(master), Tensor.emptyLike(master)];
      exec('adamw_state_read', from, { master: alone }, {});
      exec('adamw_state_read', from, { exp_avg_sq: other }, {});
      const host = (tensor: Tensor) => tensor.toHost() as Float32Array;
      saved = { master: host(master), exp_avg_sq: host(exp_avg_sq) };
      if (firstDifference(saved.master, host(alone)) || firstDifference(saved.exp_avg_sq, host(other)))
        throw new Error('one at a time gives something else');
    });
    if (firstDifference(unchanged.v, held.v.subarray(start))) throw new Error('reading changed v');
    return saved!;
  };

  for (const [title, masters, start] of [
    ['both sides of every bfloat16 value and of every tie', patterns(), 0],
    ['the same from element 3 on', patterns(), 3],
    ['8 million random patterns', randomBits(8e6, 7), 0],
  ] as const)
    test.serial(`${device} masters come back exactly from weight, remainder and sign: ${title}`, (t) => {
      const [master, n] = [floats(masters), masters.length];
      const exp_avg_sq = all(n, (i) => i % 5);
      const held = written(zeros(n), { master, exp_avg_sq }, start);
      const back = read(held);
      t.is(firstLost(masters.subarray(start), back.master), null);
      t.is(firstDifference(back.exp_avg_sq, exp_avg_sq.subarray(start)), null);
      const wrong = held.weights.findIndex((weight, i) => weight !== toBFloat16(master[i + start]!));
      t.is(wrong, -1, 'weights are the masters, rounded to nearest, ties to even');
    });

  test.serial(
    `${device} a tie on an even weight has a master on each side, told apart by the sign alone`,
    (t) => {
      const masters = [0x3f808000, 0x3f7f8000, 0x3f818000, 0xbf808000, 0xbf7f8000, 0x00008000, 0x80008000];
      const n = masters.length;
      const held = written(
        { ...zeros(n), v: all(n, (i) => (i % 2 ? -1 : 1) * (i + 1)) },
        { master: floats(Uint32Array.from(masters)) },
      );
      t.deepEqual([...held.weights], [0x3f80, 0x3f80, 0x3f82, 0xbf80, 0xbf80, 0x0000, 0x8000]);
      t.deepEqual([...held.remainders], Array<number>(n).fill(-32768));
      t.deepEqual([...held.v], [-1, 2, 3, -4, 5, -6, -7], 'the signs that were there are gone');
      t.deepEqual([...bitsOf(read(held).master)], masters);
    },
  );

  test.serial(
    `${device} infinities, NaN, zeros of both signs and the largest numbers are kept as they are`,
    (t) => {
      const cases: [master: number, weight: number, remainder: number, v: number][] = [
        [0x00000000, 0x0000, 0, 1],
        [0x80000000, 0x8000, 0, 1],
        [0x7f800000, 0x7f80, 0, 1],
        [0xff800000, 0xff80, 0, 1],
        [0x7f7fffff, 0x7f80, -1, 1], // the largest float32 rounds to infinity
        [0x7f7f8000, 0x7f80, -32768, 1], // and so does the tie below it
        [0x7f7f7fff, 0x7f7f, 0x7fff, 1],
        [0x7fc00000, 0x7fc0, 0, 1],
        [0x00000001, 0x0000, 1, 1],
        [0x80000001, 0x8000, 1, 1],
        [0x8000ffff, 0x8001, -1, 1],
      ];
      const master = floats(Uint32Array.from(cases, ([bits]) => bits));
      const held = written(zeros(cases.length), { master, exp_avg_sq: master.map(() => -1) });
      t.deepEqual(
        [...held.weights],
        cases.map((x) => x[1]),
      );
      t.deepEqual(
        [...held.remainders],
        cases.map((x) => x[2]),
      );
      t.deepEqual(
        [...held.v],
        cases.map((x) => x[3]),
      );
      t.deepEqual(
        [...bitsOf(read(held).master)],
        cases.map((x) => x[0]),
      );
      // A NaN whose upper 16 bits alone would be an infinity: still a NaN.
      const nan = written(zeros(2), { master: floats(Uint32Array.of(0x7f800001, 0xffffffff)) });
      t.deepEqual([...nan.weights], [0x7fc0, 0xffff]);
      t.true(read(nan).master.every(Number.isNaN));
    },
  );

  test.serial(
    `${device} any weight with any remainder and sign: the two together, or the weight where they do not fit`,
    (t) => {
      const low = [0, 1, -1, 255, -255, 0x4000, -0x4000, 0x7ffe, 0x7fff, -0x7ffe, -0x7fff, -0x8000];
      const n = 65536 * low.length * 2;
      const held: Held = {
        weights: Uint16Array.from({ length: n }, (_, i) => i),
        remainders: Int16Array.from({ length: n }, (_, i) => low[(i >>> 16) % low.length]!),
        v: all(n, (i) => (i < n / 2 ? i % 3 : -(i % 3))),
      };
      const wanted = new Uint32Array(n);
      const [wantedFloats, signs] = [floats(wanted), bitsOf(held.v)];
      let misfits = 0;
      held.weights.forEach((weight, i) => {
        wanted[i] = weight * 65536 + held.remainders[i]! + (signs[i]! >>> 31) * 65536;
        if (toBFloat16(wantedFloats[i]!) === weight) return;
        wanted[i] = weight * 65536;
        misfits++;
      });
      t.true(misfits > 1000);
      const saved = read(held);
      t.is(firstDifference(saved.master, wantedFloats), null);
      t.is(firstDifference(saved.exp_avg_sq, held.v.map(Math.abs)), null);
    },
  );

  test.serial(
    `${device} written second moments leave weight, remainder and sign; their own sign is nothing`,
    (t) => {
      const bits = Uint32Array.of(0, 0x80000000, 0x3f800000, 0xbf800000, 0x7f800000, 0xff800001, 0x00000001);
      const n = 2 * bits.length;
      const held: Held = {
        weights: Uint16Array.from({ length: n }, (_, i) => 0x7f80 + i), // signalling NaNs among them: not as rounding gives
        remainders: Int16Array.from({ length: n }, (_, i) => -i),
        v: all(n, (i) => (i < bits.length ? 2 : -2)),
      };
      const twice = Uint32Array.of(...bits, ...bits);
      const now = written(held, { exp_avg_sq: floats(twice) });
      t.deepEqual(now.weights, held.weights);
      t.deepEqual(now.remainders, held.remainders);
      const wanted = twice.map((x, i) => (x & 0x7fffffff) | (i < bits.length ? 0 : 0x80000000));
      t.deepEqual(bitsOf(now.v), wanted);
      t.deepEqual(
        bitsOf(read(now).exp_avg_sq),
        twice.map((x) => x & 0x7fffffff),
      );
    },
  );

  test.serial(
    `${device} the state ops refuse what does not belong together, and take no elements at all`,
    (t) => {
      const none = written(zeros(0), { master: new Float32Array(0) });
      t.is(none.weights.length, 0);
      scope(() => {
        const make = (dtype: DType, shape = [2, 3]) => Tensor.zeros(shape, { dtype, device });
        const held = { param: make('bfloat16'), remainder: make('int16'), v: make('float32') };
        const master = make('float32');
        const refused = (
          from: Record<string, Tensor>,
          saved: Record<string, Tensor>,
          message: RegExp,
        ): void => {
          const expectation = { instanceOf: GsaError, code: 'INVALID_ARGUMENT', message };
          t.throws(() => exec('adamw_state_read', from, saved, {}), expectation);
          t.throws(() => exec('adamw_state_write', saved, from, {}), expectation);
        };
        refused(held, {}, /neither/);
        refused({ ...held, param: master }, { master }, /bfloat16 for param/);
        refused({ ...held, remainder: master }, { master }, /int16 for remainder/);
        refused({ ...held, v: held.param }, { master }, /float32 for v/);
        refused({ ...held, v: make('float32', [3, 2]) }, { master }, /\[2, 3\] for v/);
        refused(held, { master: held.param }, /float32 for master/);
        refused(held, { master: make('float32', [6]) }, /\[2, 3\] for master/);
        refused(held, { exp_avg_sq: make('float32', [2, 4]).narrow(1, 0, 3) }, /contiguous.*exp_avg_sq/);
      });
    },
  );

  /** One call on bfloat16 parameters with masters of any kind that changes none of them: lr 0. */
  const unchanged = (held: Held, start: number): Held =>
    after(held, start, (param) => {
      const [m, grad] = [Tensor.zerosLike(param['v']!), Tensor.zerosLike(param['v']!)];
      const lists = Object.fromEntries(Object.entries({ ...param, m }).map(([name, x]) => [name, [x]]));
      const rates = { lr: 0, beta1: 0.9, beta2: 0.5, eps: 1e-8, weight_decay: 0, step: 1 };
      exec('adamw', { grad: [grad] }, lists, rates);
    });

  for (const start of [0, 3])
    test.serial(
      `${device} adamw keeps masters on both sides of every bfloat16 value and tie, from element ${start} on`,
      (t) => {
        const masters = patterns();
        const exp_avg_sq = all(masters.length, (i) => i % 5);
        const before = written(zeros(masters.length), { master: floats(masters), exp_avg_sq });
        const now = unchanged(before, start);
        t.is(firstLost(masters.subarray(start), read(now).master), null);
        const isNumber = (i: number): boolean => (masters[i + start]! & 0x7fffffff) <= 0x7f800000;
        const differs = (a: ArrayLike<number>, b: ArrayLike<number>): number =>
          Array.prototype.findIndex.call(a, (x, i) => isNumber(i) && !Object.is(x, b[i + start]));
        t.is(differs(now.weights, before.weights), -1);
        t.is(differs(now.remainders, before.remainders), -1);
        const halved = before.v.map((v) => v / 2);
        t.is(differs(now.v, halved), -1, 'with the signs');
      },
    );
}
