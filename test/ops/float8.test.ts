import test from 'ava';
import { Tape } from '#src/autograd/tape.js';
import { linear, linearFloat8, linearJoined, rmsNorm, swigluHalves } from '#src/ops/index.js';
import type { Device } from '#src/tensor/device.js';
import { fromFloat8, toFloat8, type Float8 } from '#src/tensor/dtype.js';
import { exec } from '#src/tensor/exec.js';
import { scope } from '#src/tensor/scope.js';
import { Tensor } from '#src/tensor/tensor.js';
import { relativeError } from '../cases/drive.js';
import { testDevices, testPlaces, type Place } from '../devices.js';
import { randomFrom } from '../random.js';

const FORMATS = ['float8_e4m3', 'float8_e5m2'] as const;

/** Numbers and their codes, written out from the tables of arXiv 2209.05433: bounds, ties to even, saturation. */
const TABLE: Record<Float8, [value: number, code: number][]> = {
  float8_e4m3: [
    [0, 0x00],
    [-0, 0x80],
    [1, 0x38],
    [-1, 0xb8],
    [448, 0x7e],
    [449, 0x7e],
    [480, 0x7e],
    [1e30, 0x7e],
    [-1e30, 0xfe],
    [Infinity, 0x7e],
    [2 ** -6, 0x08], // the smallest normal number
    [2 ** -9, 0x01], // the smallest of all
    [7 * 2 ** -9, 0x07], // the largest below the normal ones
    [7.5 * 2 ** -9, 0x08], // a tie that goes up, into the normal numbers
    [2 ** -10, 0x00], // a tie that goes to 0
    [-(2 ** -10), 0x80],
    [1.01 * 2 ** -10, 0x01],
    [1.5 * 2 ** -9, 0x02], // ties between 1 and 2, 2 and 3 of the smallest
    [2.5 * 2 ** -9, 0x02],
    [1.0625, 0x38], // ties between 1, 1.125 and 1.25
    [1.1875, 0x3a],
    [1.06251, 0x39],
    [1.96875, 0x40], // up to the next power of two
    [432, 0x7e], // a tie between 416 (odd) and 448
    [431.9, 0x7d],
    [0.1, 0x1d],
  ],
  float8_e5m2: [
    [0, 0x00],
    [-0, 0x80],
    [1, 0x3c],
    [-1, 0xbc],
    [57344, 0x7b],
    [61440, 0x7b],
    [65536, 0x7b],
    [-Infinity, 0xfb],
    [2 ** -14, 0x04],
    [2 ** -16, 0x01],
    [3 * 2 ** -16, 0x03],
    [3.5 * 2 ** -16, 0x04],
    [2 ** -17, 0x00],
    [1.01 * 2 ** -17, 0x01],
    [1.5 * 2 ** -16, 0x02],
    [2.5 * 2 ** -16, 0x02],
    [1.125, 0x3c],
    [1.375, 0x3e],
    [1.126, 0x3d],
    [1.9, 0x40],
    [53248, 0x7a], // a tie between 49152 (even) and 57344
    [53249, 0x7b],
    [0.1, 0x2e],
  ],
};

for (const format of FORMATS) {
  test(`${format}: the written-out table, and every code back`, (t) => {
    for (const [value, code] of TABLE[format]) t.is(toFloat8(value, format), code, String(value));
    t.true(Number.isNaN(fromFloat8(toFloat8(NaN, format), format)));
    for (let code = 0; code < 256; code++) {
      const value = fromFloat8(code, format);
      if (Number.isFinite(value)) t.is(toFloat8(value, format), code, String(code));
    }
    t.is(fromFloat8(0x7f, format), NaN);
    t.is(fromFloat8(format === 'float8_e4m3' ? 0x7e : 0x7b, format), format === 'float8_e4m3' ? 448 : 57344);
  });
}

/** Codes of x [R, C] from the op, with the scale for `absmax`. */
function quantized(
  dev: Device,
  x: Float32Array,
  [R, C]: readonly [number, number],
  format: Float8,
  absmax: number,
  dtype: Place['dtype'] = 'float32',
): { q: Uint8Array; qt: Uint8Array; scale: number } {
  return scope(() => {
    const q = Tensor.empty([R, C], { dtype: format, device: dev });
    const qt = Tensor.empty([C, R], { dtype: format, device: dev });
    const scale = Tensor.empty([], { device: dev });
    const input = {
      x: Tensor.from(x, [R, C], { device: dev, dtype }),
      absmax: Tensor.scalar(absmax, { device: dev }),
    };
    exec('float8_quantize', input, { q, qt, scale }, {});
    return { q: q.toHost() as Uint8Array, qt: qt.toHost() as Uint8Array, scale: scale.item() };
  });
}

const largest = { float8_e4m3: 448, float8_e5m2: 57344 } as const;

for (const dev of testDevices())
  for (const format of FORMATS) {
    test(`${dev} ${format}: casts are those of the written-out table, transposed too, R=48 C=272`, (t) => {
      const [R, C] = [48, 272] as const;
      const values = [...TABLE[format].map(([value]) => value), NaN];
      const x = Float32Array.from({ length: R * C }, (_, i) => values[(i * 7 + (i >> 8)) % values.length]!);
      const { q, qt, scale } = quantized(dev, x, [R, C], format, largest[format]);
      t.is(scale, 1);
      x.forEach((value, i) => {
        const code = q[i]!;
        if (Number.isNaN(value)) t.true(Number.isNaN(fromFloat8(code, format)));
        else if (code !== toFloat8(value, format)) t.fail(`${value}: ${code}`);
        if (qt[(i % C) * R + Math.floor(i / C)] !== code) t.fail(`transposed at ${i}`);
      });
    });

    test(`${dev} ${format}: random values round like the reference at any magnitude, R=144 C=16`, (t) => {
      const random = randomFrom(3);
      for (const size of [1e-20, 3e-3, 1, 777, 1e20]) {
        const x = Float32Array.from(
          { length: 144 * 16 },
          () => size * random.normal() * 10 ** -random.below(4),
        );
        const absmax = x.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
        const { q, scale } = quantized(dev, x, [144, 16], format, absmax);
        t.is(scale, 2 ** Math.round(Math.log2(scale)), 'a power of two');
        t.true(
          absmax / scale <= largest[format] && absmax / scale > largest[format] / 2,
          `${absmax} ${scale}`,
        );
        t.deepEqual(
          q,
          Uint8Array.from(x, (value) => toFloat8(value / scale, format)),
        );
      }
    });

    test(`${dev} ${format}: nothing but zeros has scale 1, an infinite magnitude makes all NaN`, (t) => {
      const zeros = quantized(dev, new Float32Array(256), [16, 16], format, 0);
      t.is(zeros.scale, 1);
      t.deepEqual(zeros.q, new Uint8Array(256));
      const { q, scale } = quantized(dev, new Float32Array(256).fill(1), [16, 16], format, Infinity);
      t.is(scale, NaN);
      t.true(q.every((code) => Number.isNaN(fromFloat8(code, format))));
    });
  }

for (const { device: dev, dtype } of testPlaces()) {
  test(`${dev} ${dtype}: absmax of 1, 7 and 100,003 elements, and what norms and SwiGLU note`, (t) => {
    scope(() => {
      for (const n of [1, 7, 100_003]) {
        const x = Tensor.randn([n], { device: dev, dtype, seed: n });
        const y = Tensor.empty([], { device: dev });
        exec('absmax', { x }, { y }, {});
        t.is(
          y.item(),
          x.toFloat32().reduce((most, value) => Math.max(most, Math.abs(value)), 0),
        );
      }
      const most = (x: Tensor) => x.toFloat32().reduce((m, value) => Math.max(m, Math.abs(value)), 0);
      // Widths with and without whole vectors.
      for (const width of [64, 66, 2048]) {
        const x = Tensor.randn([9, width], { device: dev, dtype, seed: 1 });
        const weight = Tensor.randn([width], { device: dev, seed: 2 });
        x.requiresGrad = true;
        using tape = new Tape();
        const y = tape.run(() => rmsNorm(x, weight, { silu: true, noteAbsMax: true }));
        t.is(y.absMax!.item(), most(y));
        tape.backward(y, Tensor.randn([9, width], { device: dev, dtype, seed: 3 }));
        t.is(x.grad!.absMax!.item(), most(x.grad!));
        x.grad!.dispose();
        x.grad = null;
        const z = tape.run(() => swigluHalves(x, { noteAbsMax: true }));
        t.is(z.absMax!.item(), most(z));
        tape.backward(z, Tensor.randn([9, width / 2], { device: dev, dtype, seed: 4 }));
        t.is(x.grad!.absMax!.item(), most(x.grad!));
        x.grad!.write(x.grad!.toHost());
        t.is(x.grad!.absMax, null, 'what was noted ends when something else is written');
      }
    });
  });

  test(`${dev} ${dtype}: a product of codes is exact where its sums are, M=48 N=32 K=144`, (t) => {
    scope(() => {
      const [M, N, K] = [48, 32, 144];
      const random = randomFrom(5);
      const draw = (n: number) => Float32Array.from({ length: n }, () => random.below(7) - 3);
      const [a, b, c] = [draw(M * K), draw(N * K), draw(M * N)];
      const one = (scale: number) => Tensor.scalar(scale, { device: dev });
      const formats = [
        ['float8_e4m3', 'float8_e4m3'],
        ['float8_e5m2', 'float8_e4m3'],
      ] as const;
      for (const [fa, fb] of formats)
        for (const [beta, fast] of [
          [0, 0],
          [1, 0],
          [0, 1],
        ] as const) {
          const out = Tensor.from(c, [M, N], { device: dev, dtype });
          exec(
            'float8_matmul',
            {
              a: Tensor.from(a, [M, K], { device: dev, dtype: fa }),
              b: Tensor.from(b, [N, K], { device: dev, dtype: fb }),
              a_scale: one(0.25),
              b_scale: one(2),
            },
            { c: out },
            { beta, fast },
          );
          const exact = Float32Array.from(c, (old, at) => {
            let sum = 0;
            for (let k = 0; k < K; k++) sum += a[Math.floor(at / N) * K + k]! * b[(at % N) * K + k]!;
            return sum / 2 + beta * old;
          });
          // Halves up to a few hundred: exact in float32, and in bfloat16 but for the last rounding.
          t.true(relativeError(out.toFloat32(), exact) <= (dtype === 'float32' ? 0 : 4e-3));
        }
    });
  });
}

/** Every value rounded to 4 bits: a relative error of 2^-4 at most, 0.026 in the mean square; two factors of a product make
 * 0.037, with room for values below the normal ones. E5M2 has 3 bits. */
const BOUNDS = {
  fp8: { output: 0.042, gradient: 0.042 },
  'fp8-hybrid': { output: 0.042, gradient: 0.066 },
} as const;

for (const { device: dev, dtype } of testPlaces())
  for (const recipe of ['fp8', 'fp8-hybrid'] as const)
    for (const [rows, width, outs] of [
      [[2, 32], 144, [48]],
      [[3, 80], 96, [64, 16, 128]],
    ] as const)
      test(`${dev} ${dtype} ${recipe}: linear x=[${rows}, ${width}] outs=${outs} and its gradients against the plain one`, (t) => {
        scope(() => {
          const options = { device: dev, dtype };
          const total = outs.reduce<number>((sum, out) => sum + out, 0);
          const x = Tensor.randn([...rows, width], { ...options, seed: 1 });
          const whole = Tensor.randn([total, width], { ...options, seed: 2, std: 0.02 });
          const dy = Tensor.randn([...rows, total], { ...options, seed: 3, std: 1e-6 });
          let start = 0;
          const weights = outs.map((out) => {
            const weight = whole.narrow(0, start, out);
            start += out;
            return weight;
          });
          // What is added is added as it is, and so is its gradient.
          const residual =
            outs.length === 1 ? Tensor.randn([...rows, total], { ...options, seed: 4, std: 0.1 }) : null;
          const inputs = [x, ...weights, ...(residual ? [residual] : [])];
          for (const tensor of inputs) tensor.requiresGrad = true;
          const both = [
            () => linearFloat8(x, weights, whole, recipe, residual),
            () => (residual ? linear(x, weights[0]!, null, residual) : linearJoined(x, weights, whole)),
          ].map((body) => {
            using tape = new Tape();
            const y = tape.run(body);
            const out = y.toFloat32();
            // Twice: the second gradient is added to the first.
            tape.backward(y, dy);
            const again = tape.run(body);
            tape.backward(again, dy);
            const grads = [x, ...weights].map((tensor) => tensor.grad!.toFloat32());
            if (residual)
              t.true(
                relativeError(
                  residual.grad!.toFloat32(),
                  dy.toFloat32().map((v) => 2 * v),
                ) < 1e-2,
              );
            for (const tensor of inputs) {
              tensor.grad!.dispose();
              tensor.grad = null;
            }
            return { out, again: again.toFloat32(), grads };
          });
          const [eight, plain] = both as [(typeof both)[0], (typeof both)[0]];
          t.deepEqual(eight.again, eight.out, 'the same bits twice');
          const error = relativeError(eight.out, plain.out);
          t.true(error <= BOUNDS[recipe].output && error > 1e-3, `output ${error}`);
          eight.grads.forEach((grad, i) => {
            const off = relativeError(grad, plain.grads[i]!);
            t.true(off <= BOUNDS[recipe].gradient && off > 1e-3, `gradient ${i}: ${off}`);
          });
        });
      });

test('linearFloat8 and its ops refuse what they cannot take, and say what they can', (t) => {
  scope(() => {
    const call = (x: readonly number[], w: readonly number[], recipe: unknown = 'fp8') => {
      const weight = Tensor.zeros(w);
      return () => linearFloat8(Tensor.zeros(x), [weight], weight, recipe as 'fp8');
    };
    const refused = (body: () => unknown, message: RegExp) =>
      t.throws(body, { name: 'GsaError', code: 'INVALID_ARGUMENT', message });
    refused(call([15, 32], [16, 32]), /multiple of 16 for the rows of x but received 15/);
    refused(call([16, 40], [16, 40]), /multiple of 16 for the in of a weight but received 40/);
    refused(call([16, 32], [24, 32]), /multiple of 16 for the out of a weight but received 24/);
    refused(call([16, 48], [16, 32]), /last dimension of 32/);
    refused(call([16, 32], [16, 32], 'fp4'), /"fp8" or "fp8-hybrid" for recipe/);
    const codes = (shape: readonly number[], dtype: Float8 = 'float8_e4m3') => Tensor.empty(shape, { dtype });
    const one = Tensor.scalar(1);
    const product = (a: Tensor, b: Tensor, c: Tensor) => () =>
      exec('float8_matmul', { a, b, a_scale: one, b_scale: one }, { c }, { beta: 0, fast: 0 });
    refused(product(codes([16, 24]), codes([16, 24]), Tensor.zeros([16, 16])), /multiples of 16 for a/);
    refused(product(codes([16, 32]), codes([16, 48]), Tensor.zeros([16, 16])), /rows of equal length/);
    refused(
      product(codes([16, 32], 'float8_e5m2'), codes([16, 32], 'float8_e5m2'), Tensor.zeros([16, 16])),
      /float8_e4m3 for a or b/,
    );
    refused(
      product(Tensor.zeros([16, 32]), codes([16, 32]), Tensor.zeros([16, 16])),
      /float8_e4m3 or float8_e5m2 for a/,
    );
    refused(
      () => exec('float8_quantize', { x: Tensor.zeros([16, 16]), absmax: one }, { q: null, scale: one }, {}),
      /q, qt or both/,
    );
    // No other op takes them.
    refused(() => linear(codes([16, 16]), codes([16, 16])), /float32 or bfloat16/);
  });
});
