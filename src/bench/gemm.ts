import { matmul } from '../ops/matmul.js';
import type { Device } from '../tensor/device.js';
import { scope } from '../tensor/scope.js';
import { Tensor } from '../tensor/tensor.js';
import { relativeError } from '../verify/compare.js';
import { outputCheck, type BenchResult, type OutputCheck } from './report.js';
import { shapeName } from './shape.js';
import { measureTogether, type MeasureOptions, type Timing } from './timing.js';

/** C[M, N] = A[M, K] B[K, N] */
export interface GemmShape {
  readonly M: number;
  readonly N: number;
  readonly K: number;
}

export const GEMM_DIMENSIONS = ['M', 'N', 'K'] as const;

/** Squares, and the products of a small model's step: projections, the vocabulary, and a weight's gradient. */
export const GEMM_SHAPES: readonly GemmShape[] = [
  { M: 256, N: 256, K: 256 },
  { M: 512, N: 512, K: 512 },
  { M: 1024, N: 1024, K: 1024 },
  { M: 1536, N: 1536, K: 1536 },
  { M: 2048, N: 256, K: 256 },
  { M: 2048, N: 4096, K: 256 },
  { M: 256, N: 1024, K: 2048 },
];

const SAMPLED_ROWS = 16;

/** A sample of the rows of C against sums in double precision. */
function checkRows(a: Float32Array, b: Float32Array, c: Float32Array, { M, N, K }: GemmShape): OutputCheck {
  const rows = Math.min(M, SAMPLED_ROWS);
  const actual = new Float64Array(rows * N);
  const exact = new Float64Array(rows * N);
  for (let r = 0; r < rows; r++) {
    const i = Math.floor((r * (M - 1)) / Math.max(rows - 1, 1));
    for (let k = 0; k < K; k++) {
      const factor = a[i * K + k]!;
      for (let j = 0; j < N; j++) exact[r * N + j]! += factor * b[k * N + j]!;
    }
    for (let j = 0; j < N; j++) actual[r * N + j] = c[i * N + j]!;
  }
  return outputCheck(`${rows} rows summed in float64`, relativeError(actual, exact), 1e-5);
}

/** Our own kernel and, where one was found, the BLAS, timed in turns. Devices without the "blas" setting have one way. */
function variants(device: Device): { name: string | undefined; select: () => void }[] {
  if (device.backend !== 'cpu') return [{ name: undefined, select: () => {} }];
  const before = device.getOption('blas');
  device.setOption('blas', 1);
  const found = device.getOption('blas') === 1;
  const name = device.info().detail.replace(/^[^,]*, /, '');
  device.setOption('blas', before);
  const own = { name: 'own', select: () => device.setOption('blas', 0) };
  return found ? [own, { name, select: () => device.setOption('blas', 1) }] : [own];
}

function benchShape(device: Device, shape: GemmShape, options: MeasureOptions): BenchResult[] {
  const { M, N, K } = shape;
  return scope(() => {
    const a = Tensor.randn([M, K], { device, seed: 1 });
    const b = Tensor.randn([K, N], { device, seed: 2 });
    const [hostA, hostB] = [a.toFloat32(), b.toFloat32()];
    const ways = variants(device);
    const bodies = ways.map((way) => () => {
      way.select();
      scope(() => void matmul(a, b));
      device.synchronize();
    });
    const timings = measureTogether(bodies, options);
    return ways.map((way, i) => {
      way.select();
      const check = checkRows(
        hostA,
        hostB,
        scope(() => matmul(a, b).toFloat32()),
        shape,
      );
      return gemmResult(shape, way.name, timings[i]!, timings[1], check);
    });
  });
}

function gemmResult(
  shape: GemmShape,
  variant: string | undefined,
  timing: Timing,
  blas: Timing | undefined,
  check: OutputCheck,
): BenchResult {
  const gflops = (2 * shape.M * shape.N * shape.K) / (timing.medianMs * 1e6);
  const figures: Record<string, number> = { gflops };
  if (blas) figures['ofBlas'] = blas.medianMs / timing.medianMs;
  return {
    name: 'matmul',
    shape: shapeName(shape),
    variant,
    timing,
    figures,
    check,
  };
}

/** Single-precision matrix products. Leaves the device's settings as they were.
 * @param shapes default: GEMM_SHAPES */
export function benchGemm(
  device: Device,
  shapes: readonly GemmShape[] = GEMM_SHAPES,
  options: MeasureOptions = {},
): BenchResult[] {
  const cpu = device.backend === 'cpu';
  const before = cpu ? device.getOption('blas') : 0;
  try {
    return shapes.flatMap((shape) => benchShape(device, shape, options));
  } finally {
    if (cpu) device.setOption('blas', before);
  }
}
