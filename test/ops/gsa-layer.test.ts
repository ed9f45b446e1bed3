import test from 'ava';
import { Tape } from '#src/autograd/tape.js';
import { gsaLayer } from '#src/ops/index.js';
import type { Device } from '#src/tensor/device.js';
import { fromBFloat16, toBFloat16 } from '#src/tensor/dtype.js';
import { exec } from '#src/tensor/exec.js';
import { scope } from '#src/tensor/scope.js';
import { Tensor } from '#src/tensor/tensor.js';
import { relativeError, type ComputeDType } from '../cases/drive.js';
import { testDevices } from '../devices.js';
import { randomFrom } from '../random.js';
import { gsaGate, silu } from '../reference/activation.js';
import { gsaBackward, gsaForward } from '../reference/gsa.js';

// Widths of the GPU's fast paths, past several steps of 64 tokens. gsa-sweeps.test.ts runs this file with and without the
// sweeps.
interface Shape {
  B: number;
  T: number;
  HQ: number;
  H: number;
  K: number;
  M: number;
  cuSeqlens?: readonly number[];
  /** Added to the gates' projections: -3000 forgets everything, in a few slots. */
  shift?: number;
}
const NORMALIZER = 4;
const SHAPES: readonly Shape[] = [
  { B: 2, T: 130, HQ: 2, H: 2, K: 64, M: 64 },
  { B: 1, T: 64, HQ: 1, H: 1, K: 128, M: 64 },
  { B: 1, T: 70, HQ: 1, H: 1, K: 256, M: 64 },
  { B: 1, T: 80, HQ: 1, H: 1, K: 512, M: 64 },
  { B: 1, T: 100, HQ: 2, H: 2, K: 64, M: 64, cuSeqlens: [0, 0, 1, 65, 100] },
  { B: 1, T: 90, HQ: 1, H: 1, K: 64, M: 64, shift: -3000 },
  { B: 1, T: 70, HQ: 4, H: 2, K: 64, M: 64 },
  { B: 1, T: 70, HQ: 1, H: 1, K: 64, M: 20 },
];

const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));

/** Raw projections and do, the output and d(sum of o do) / dx in parts, in float64. */
function problem(shape: Shape, dtype: ComputeDType) {
  const { B, T, HQ, H, K, M, cuSeqlens, shift = 0 } = shape;
  const random = randomFrom(7);
  const stored = (x: number) => (dtype === 'bfloat16' ? fromBFloat16(toBFloat16(x)) : Math.fround(x));
  const widths = [HQ * K, H * K, H * K, H * M];
  const parts = widths.map((width, part) =>
    Float64Array.from({ length: B * T * width }, (_, i) =>
      stored(random.normal() + (part === 3 && i % 5 === 0 ? shift : 0)),
    ),
  );
  const upstream = Float64Array.from({ length: B * T * HQ * K }, () => stored(random.normal()));
  const [q, k, v] = parts.slice(0, 3).map(silu) as [Float64Array, Float64Array, Float64Array];
  const gates = gsaGate(parts[3]!, NORMALIZER);
  const arrays = { B, T, HQ, H, K, V: K, M, q, k, v, ...gates, cuSeqlens, scale: 0.3 };
  const d = gsaBackward(arrays, { do: upstream });
  const slope = (x: number) => sigmoid(x) * (1 + x * sigmoid(-x));
  const gradients = [d.dq, d.dk, d.dv].map((dy, i) => dy.map((g, j) => g * slope(parts[i]![j]!)));
  const gate = (f: number, i: number) =>
    ((d.dg[i]! - d.ds[i]! * Math.exp(gates.g[i]!)) * sigmoid(-f)) / NORMALIZER;
  return { widths, parts, upstream, o: gsaForward(arrays).o, gradients: [...gradients, parts[3]!.map(gate)] };
}

/** Parts of rows beside each other, and back. */
function join(parts: readonly Float64Array[], widths: readonly number[]): Float32Array {
  const rows = parts[0]!.length / widths[0]!;
  return Float32Array.from(
    Array.from({ length: rows }, (_, row) =>
      parts.flatMap((part, i) => [...part.subarray(row * widths[i]!, (row + 1) * widths[i]!)]),
    ).flat(),
  );
}
function split(joined: Float32Array, widths: readonly number[]): Float32Array[] {
  const width = widths.reduce((a, b) => a + b);
  let start = 0;
  return widths.map((own) => {
    const part = joined.filter((_, i) => i % width >= start && i % width < start + own);
    start += own;
    return part;
  });
}

function run(shape: Shape, p: ReturnType<typeof problem>, device: Device, dtype: ComputeDType) {
  const { B, T, HQ, H, K, M, cuSeqlens } = shape;
  return scope(() => {
    const x = Tensor.from(join(p.parts, p.widths), [B, T, -1], { device, dtype });
    const offsets = cuSeqlens && Tensor.from(Int32Array.from(cuSeqlens), [cuSeqlens.length], { device });
    x.requiresGrad = true;
    using tape = new Tape();
    const options = { HQ, H, K, V: K, M, normalizer: NORMALIZER, scale: 0.3, cuSeqlens: offsets };
    const o = tape.run(() => gsaLayer(x, options).o);
    tape.backward(o, Tensor.from(Float32Array.from(p.upstream), o.shape, { device, dtype }));
    return { o: o.toFloat32(), dx: x.grad!.toFloat32() };
  });
}

for (const dev of testDevices())
  for (const dtype of dev.backend === 'cuda' ? (['float32', 'bfloat16'] as const) : (['float32'] as const))
    for (const shape of SHAPES) {
      const [first, bound] = dtype === 'float32' ? [1e-5, 1e-4] : [1e-2, 1e-2];
      test(`${dev} ${dtype} gsaLayer ${JSON.stringify(shape)}: output within ${first}, parts of dx within ${bound} of float64`, (t) => {
        const p = problem(shape, dtype);
        const { o, dx } = run(shape, p, dev, dtype);
        t.true(relativeError(o, p.o) <= first, `o: ${relativeError(o, p.o)}`);
        split(dx, p.widths).forEach((part, i) => {
          const error = relativeError(part, p.gradients[i]!);
          t.true(error <= bound, `${'qkvf'[i]}: ${error}`);
        });
        t.deepEqual(run(shape, p, dev, dtype).dx, dx, 'again the same bits');
      });
    }

/** The layer's ops on their own, with q, k and v kept for the backward or not: what they write. */
function call(shape: Shape, device: Device, dtype: ComputeDType, keeps: boolean) {
  const { B, T, HQ, H, K, M } = shape;
  return scope(() => {
    const x = Tensor.randn([B, T, HQ * K + H * (2 * K + M)], { device, dtype, seed: 4 });
    const d_o = Tensor.randn([B, T, HQ, K], { device, dtype, seed: 5 });
    const empty = (heads: number, width: number, type: ComputeDType = 'float32') =>
      Tensor.zeros([B, T, heads, width], { device, dtype: type });
    const rows = keeps ? { q: empty(HQ, K, dtype), k: empty(H, K, dtype), v: empty(H, K, dtype) } : {};
    const gates = { s: empty(H, M), g: empty(H, M) };
    const [o, ok, dx] = [empty(HQ, K, dtype), empty(HQ, M), Tensor.emptyLike(x)];
    const attributes = { scale: 0.5, normalizer: NORMALIZER };
    exec('gsa_layer_fwd', { x }, { o, ...rows, ...gates, ok }, attributes);
    exec('gsa_layer_bwd', { x, ...rows, ...gates, ok, do: d_o }, { dx }, attributes);
    return Object.entries({ o, ok, ...gates, dx }).map(([name, t]) => ({ name, is: t.toFloat32() }));
  });
}

for (const dev of testDevices())
  for (const dtype of dev.backend === 'cuda' ? (['float32', 'bfloat16'] as const) : (['float32'] as const)) {
    // With the rows kept both are two ops each; without, sweeps may do it all, whose dq, dk and dv are not rounded before
    // the slope.
    const bound = dtype === 'bfloat16' ? 1e-2 : 0;
    for (const shape of SHAPES.filter(({ cuSeqlens, shift }) => !cuSeqlens && !shift))
      test(`${dev} ${dtype} gsaLayer ${JSON.stringify(shape)}: without q, k and v kept the same within ${bound}`, (t) => {
        const kept = call(shape, dev, dtype, true);
        call(shape, dev, dtype, false).forEach(({ name, is }, i) => {
          const error = relativeError(is, Float64Array.from(kept[i]!.is));
          t.true(error <= bound, `${name}: ${error}`);
        });
      });

    test(`${dev} ${dtype} gsa_inputs_fwd: rows and gates alone have the bits of both together`, (t) => {
      scope(() => {
        const x = Tensor.randn([2, 9, 3 * 16 + 8], { device: dev, dtype, seed: 6 });
        const rows = () => ({ q: empty(16), k: empty(16), v: empty(16) });
        const gates = () => ({ g: empty(8, 'float32'), s: empty(8, 'float32') });
        const empty = (width: number, type: ComputeDType = dtype) =>
          Tensor.zeros([2, 9, 1, width], { device: dev, dtype: type });
        const make = (made: Record<string, Tensor>) => {
          exec('gsa_inputs_fwd', { x }, made, { normalizer: NORMALIZER });
          return Object.values(made).map((y) => y.toFloat32());
        };
        t.deepEqual([...make(rows()), ...make(gates())], make({ ...rows(), ...gates() }));
        const { q, k, v } = rows();
        t.throws(() => make({ q, k }), { code: 'INVALID_ARGUMENT', message: /q, k and v, all or none/ });
        t.throws(() => make({ q, k, v, ...gates(), g: empty(7, 'float32') }), { code: 'INVALID_ARGUMENT' });
        t.throws(() => make({ g: empty(99, 'float32'), s: empty(99, 'float32') }), {
          code: 'INVALID_ARGUMENT',
        });
      });
    });

    test(`${dev} ${dtype} gsaLayer: recompute gives the same gradient to the last bit`, (t) => {
      // Rows of q, k and v that are kept, and, in bfloat16, some that are not.
      for (const [HQ, H, K, M] of [
        [2, 2, 4, 5],
        [2, 2, 64, 64],
        [4, 2, 64, 64],
      ] as const) {
        const gradient = (recompute: boolean): Float32Array =>
          scope(() => {
            const x = Tensor.randn([2, 9, HQ * K + H * (2 * K + M)], { seed: 1, device: dev, dtype });
            x.requiresGrad = true;
            using tape = new Tape({ recompute });
            const { o } = tape.run(() => gsaLayer(x, { HQ, H, K, V: K, M }));
            tape.backward(o, Tensor.randn(o.shape, { seed: 2, device: dev, dtype }));
            return x.grad!.toFloat32();
          });
        t.deepEqual(gradient(true), gradient(false));
      }
    });
  }

test('gsa_layer_fwd refuses some of q, k and v without the others', (t) => {
  scope(() => {
    const x = Tensor.zeros([1, 2, 3 * 4 + 5]);
    const [o, q, s, g] = [4, 4, 5, 5].map((width) => Tensor.zeros([1, 2, 1, width]));
    t.throws(() => exec('gsa_layer_fwd', { x }, { o, q, s, g }, { scale: 1, normalizer: 8 }), {
      code: 'INVALID_ARGUMENT',
      message: /q, k and v, all or none/,
    });
  });
});
