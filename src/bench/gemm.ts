import { matmul } from '../ops/matmul.js';
import type { Device } from '../tensor/device.js';
import { scope } from '../tensor/scope.js';
import { Tensor } from '../tensor/tensor.js';
import { relativeError } from '../verify/compare.js';
import { bounds, deviceError, outputCheck, type OutputCheck } from './check.js';
import { gemmCount } from './counts.js';
import { benchFloat8 } from './gemm_float8.js';
import { rates } from './peaks.js';
import type { BenchContext, BenchResult } from './report.js';
import { parseShape, shapeName } from './shape.js';
import { measureTogether } from './timing.js';

/** C[M, N] = A[M, K] B[K, N] */
interface GemmShape {
  readonly M: number;
  readonly N: number;
  readonly K: number;
}

/** One way to get the product: operands as stored, and what is set before. */
interface Way {
  readonly variant: string | undefined;
  readonly transA: boolean;
  readonly transB: boolean;
  readonly select: () => void;
}

/** On the CPU our own kernel and, where one was found, the BLAS. On a GPU the layouts of a layer's three products, named
 * like BLAS: NT is y = x Wᵀ, NN is dx = dy W, TN is dW = dyᵀ x. */
function ways(device: Device): Way[] {
  const plain = { transA: false, transB: false };
  if (device.backend !== 'cpu')
    return [
      { variant: 'NT', transA: false, transB: true, select: () => {} },
      { variant: 'NN', ...plain, select: () => {} },
      { variant: 'TN', transA: true, transB: false, select: () => {} },
    ];
  const before = device.getOption('blas');
  device.setOption('blas', 1);
  const found = device.getOption('blas') === 1;
  const variant = device.info().detail.replace(/^[^,]*, /, '');
  device.setOption('blas', before);
  const own = { variant: 'own', ...plain, select: () => device.setOption('blas', 0) };
  return found ? [own, { variant, ...plain, select: () => device.setOption('blas', 1) }] : [own];
}

const SAMPLED_ROWS = 16;
const BAND = 64;

/** Some elements of C, 16 rows by up to 256 columns in four bands, against sums in double precision. */
function checkSample(a: Tensor, b: Tensor, c: Tensor, way: Way, { M, N, K }: GemmShape): OutputCheck {
  const spread = (n: number, of: number, i: number) => Math.floor((i * (of - 1)) / Math.max(n - 1, 1));
  const rows = Array.from({ length: Math.min(M, SAMPLED_ROWS) }, (_, i) =>
    spread(Math.min(M, SAMPLED_ROWS), M, i),
  );
  const width = Math.min(N, BAND);
  const bands = N <= 4 * BAND ? [] : [0, 1, 2, 3].map((i) => spread(4, N - width + 1, i));
  if (bands.length === 0) for (let at = 0; at < N; at += width) bands.push(Math.min(at, N - width));
  const slice = (x: Tensor, dim: number, start: number, length: number) =>
    scope(() => x.narrow(dim, start, length).toFloat32());
  const [actual, exact]: [number[], number[]] = [[], []];
  for (const start of bands) {
    const columns = slice(b, way.transB ? 0 : 1, start, width); // [K, width], transposed [width, K]
    for (const i of rows) {
      const row = slice(a, way.transA ? 1 : 0, i, 1);
      const band = scope(() => c.narrow(0, i, 1).narrow(1, start, width).toFloat32());
      for (let j = 0; j < width; j++) {
        let sum = 0;
        for (let k = 0; k < K; k++) sum += row[k]! * columns[way.transB ? j * K + k : k * width + j]!;
        exact.push(sum);
        actual.push(band[j]!);
      }
    }
  }
  const error = relativeError(actual, exact);
  return outputCheck(`${actual.length} elements summed in float64`, error, bounds(c.dtype).output);
}

/** bfloat16: all of C against the product in float32. */
function checkAll(a: Tensor, b: Tensor, c: Tensor, { transA, transB }: Way): OutputCheck[] {
  if (c.dtype === 'float32') return [];
  const error = scope(() =>
    deviceError(c, matmul(a.to({ dtype: 'float32' }), b.to({ dtype: 'float32' }), { transA, transB })),
  );
  return [outputCheck('everything in float32', error, bounds(c.dtype).output)];
}

function benchShape({ device, dtype, watch, measure, peaks }: BenchContext, shape: GemmShape): BenchResult[] {
  const { M, N, K } = shape;
  return scope(() => {
    const all = ways(device).map((way) => {
      const { transA, transB } = way;
      return {
        way,
        a: Tensor.randn(transA ? [K, M] : [M, K], { device, dtype, seed: 1 }),
        b: Tensor.randn(transB ? [N, K] : [K, N], { device, dtype, seed: 2 }),
      };
    });
    const product = ({ way, a, b }: (typeof all)[number]) => {
      way.select();
      return matmul(a, b, { transA: way.transA, transB: way.transB });
    };
    const bodies = all.map((one) => () => scope(() => void product(one)));
    const timings = measureTogether(watch, bodies, measure);
    return all.map((one, i) => {
      const timing = timings[i]!;
      const figures = rates(gemmCount(shape, dtype === 'float32' ? 4 : 2), timing.medianMs, peaks);
      if (device.backend === 'cpu' && timings[1]) figures['ofBlas'] = timings[1].medianMs / timing.medianMs;
      const checks = scope(() => {
        const c = product(one);
        const { way, a, b } = one;
        return [checkSample(a, b, c, way, shape), ...checkAll(a, b, c, way)];
      });
      return { name: 'matmul', shape: shapeName(shape), variant: one.way.variant, timing, figures, checks };
    });
  });
}

/** Matrix products, on a GPU in bfloat16 those in 8-bit floats too. Leaves the device's settings as they were.
 * @throws GsaError INVALID_ARGUMENT for a malformed shape */
export function benchGemm(context: BenchContext, texts: readonly string[]): BenchResult[] {
  const { device } = context;
  const shapes = texts.map((text) => parseShape(text, ['M', 'N', 'K'] as const));
  const cpu = device.backend === 'cpu';
  const before = cpu ? device.getOption('blas') : 0;
  try {
    return shapes.flatMap((shape) => [
      ...benchShape(context, shape),
      ...(cpu || context.dtype !== 'bfloat16' ? [] : benchFloat8(context, shape)),
    ]);
  } finally {
    if (cpu) device.setOption('blas', before);
  }
}
