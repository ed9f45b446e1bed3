import { matmul } from '../ops/matmul.js';
import { FLOAT8_MULTIPLE } from '../tensor/dtype.js';
import { exec } from '../tensor/exec.js';
import { scope } from '../tensor/scope.js';
import { Tensor } from '../tensor/tensor.js';
import { relativeError } from '../verify/compare.js';
import { bounds, deviceError, outputCheck, type OutputCheck } from './check.js';
import { gemmCount } from './counts.js';
import { rates } from './peaks.js';
import type { BenchContext, BenchResult } from './report.js';
import { shapeName } from './shape.js';
import { measureTogether } from './timing.js';

/** C[M, N] = A[M, K] B[N, K]ᵀ */
interface Shape {
  readonly M: number;
  readonly N: number;
  readonly K: number;
}

/** An 8-bit copy, as it is and transposed. */
interface Copies {
  readonly q: Tensor;
  readonly qt: Tensor;
  readonly scale: Tensor;
  readonly absmax: Tensor;
}

function roomFor(x: Tensor): Copies {
  const [rows, columns] = x.shape as [number, number];
  const { device } = x;
  return {
    q: Tensor.empty([rows, columns], { device, dtype: 'float8_e4m3' }),
    qt: Tensor.empty([columns, rows], { device, dtype: 'float8_e4m3' }),
    scale: Tensor.empty([], { device }),
    absmax: Tensor.empty([], { device }),
  };
}

function fill(x: Tensor, { q, qt, scale, absmax }: Copies): void {
  exec('float8_quantize', { x, absmax }, { q, qt, scale }, {});
}

const SAMPLED = 16;

/** Rows of a matrix that a few elements of the product need, as numbers. */
function sampledRows(x: Tensor): { at: number[]; rows: Float32Array[] } {
  const extent = x.shape[0]!;
  const count = Math.min(SAMPLED, extent);
  const at = Array.from({ length: count }, (_, i) => Math.floor((i * (extent - 1)) / Math.max(count - 1, 1)));
  return { at, rows: at.map((row) => scope(() => x.narrow(0, row, 1).toFloat32())) };
}

/** Some elements against sums in double precision of the 8-bit numbers themselves, and all of them against the product of
 * what they are copies of in float32. */
function checks(a: Tensor, b: Tensor, copies: readonly [Copies, Copies], c: Tensor): OutputCheck[] {
  const [x, y] = [sampledRows(copies[0].q), sampledRows(copies[1].q)];
  const scale = copies[0].scale.item() * copies[1].scale.item();
  const [actual, exact]: [number[], number[]] = [[], []];
  x.at.forEach((i, row) => {
    const computed = scope(() => c.narrow(0, i, 1).toFloat32());
    y.at.forEach((j, column) => {
      exact.push(x.rows[row]!.reduce((sum, value, k) => sum + value * y.rows[column]![k]!, 0) * scale);
      actual.push(computed[j]!);
    });
  });
  const whole = scope(() =>
    deviceError(c, matmul(a.to({ dtype: 'float32' }), b.to({ dtype: 'float32' }), { transB: true })),
  );
  return [
    outputCheck(
      `${actual.length} elements, the same 8-bit numbers in float64`,
      relativeError(actual, exact),
      bounds('bfloat16').output,
    ),
    // Two factors of 4 bits: 0.037.
    outputCheck('everything, not rounded to 8 bits, in float32', whole, 0.042),
  ];
}

/** The product in E4M3 with the tensor cores' own sums and with float32 sums, and what it costs to make the copies of A, with
 * its largest magnitude noted elsewhere or found here. Nothing for extents that 8-bit products do not take. */
export function benchFloat8(context: BenchContext, shape: Shape): BenchResult[] {
  const { device, dtype, watch, measure, peaks } = context;
  const { M, N, K } = shape;
  if ([M, N, K].some((extent) => extent % FLOAT8_MULTIPLE !== 0)) return [];
  return scope(() => {
    const a = Tensor.randn([M, K], { device, dtype, seed: 1 });
    const b = Tensor.randn([N, K], { device, dtype, seed: 2 });
    const copies = [a, b].map((x) => {
      const room = roomFor(x);
      exec('absmax', { x }, { y: room.absmax }, {});
      fill(x, room);
      return room;
    }) as [Copies, Copies];
    const c = Tensor.empty([M, N], { device, dtype });
    const product = (fast: number) => () =>
      exec(
        'float8_matmul',
        { a: copies[0].q, b: copies[1].q, a_scale: copies[0].scale, b_scale: copies[1].scale },
        { c },
        { beta: 0, fast },
      );
    const ways = [
      { name: 'matmul', variant: 'fp8, fast sums', body: product(1) },
      { name: 'matmul', variant: 'fp8', body: product(0) },
      { name: 'copies of A', variant: 'fp8', body: () => fill(a, copies[0]) },
      {
        name: 'copies of A',
        variant: 'fp8, absmax',
        body: () => {
          exec('absmax', { x: a }, { y: copies[0].absmax }, {});
          fill(a, copies[0]);
        },
      },
    ];
    const timings = measureTogether(
      watch,
      ways.map(({ body }) => body),
      measure,
    );
    const bytes = dtype === 'float32' ? 4 : 2;
    return ways.map(({ name, variant, body }, i) => {
      const timing = timings[i]!;
      body();
      if (name !== 'matmul') product(0)();
      const count =
        name === 'matmul'
          ? { flops: gemmCount(shape, 1).flops, bytes: M * K + N * K + bytes * M * N }
          : { flops: 0, bytes: (bytes + 2) * M * K };
      const figures = rates(count, timing.medianMs, peaks);
      return { name, shape: shapeName(shape), variant, timing, figures, checks: checks(a, b, copies, c) };
    });
  });
}
