import { expected } from '../native/errors.js';
import type { Device } from '../tensor/device.js';
import { GEMM_DIMENSIONS, GEMM_SHAPES, benchGemm } from './gemm.js';
import { GSA_DIMENSIONS, GSA_GROWTH_SHAPES, GSA_SHAPES, benchGsa, withGrowth } from './gsa.js';
import { benchReport, type BenchReport, type BenchResult } from './report.js';
import { parseShape } from './shape.js';
import type { MeasureOptions } from './timing.js';
import { TRAIN_DIMENSIONS, TRAIN_SHAPES, benchTrain } from './train.js';

export const BENCH_KINDS = ['gemm', 'gsa', 'growth', 'train'] as const;
export type BenchKind = (typeof BENCH_KINDS)[number];

export interface BenchOptions extends MeasureOptions {
  device: Device;
  /** In the notation of --shape; default: the list of the kind. */
  shapes?: readonly string[];
  /** Written into the stamp. */
  command: string;
}

type Run = (device: Device, shapes: readonly string[] | undefined, options: MeasureOptions) => BenchResult[];

function given<S>(
  texts: readonly string[] | undefined,
  names: readonly string[],
  standard: readonly S[],
): S[] {
  return texts ? texts.map((text) => parseShape(text, names) as S) : [...standard];
}

const RUNS: Readonly<Record<BenchKind, Run>> = {
  gemm: (device, shapes, options) => benchGemm(device, given(shapes, GEMM_DIMENSIONS, GEMM_SHAPES), options),
  gsa: (device, shapes, options) => benchGsa(device, given(shapes, GSA_DIMENSIONS, GSA_SHAPES), options),
  growth: (device, shapes, options) => {
    const results = benchGsa(device, given(shapes, GSA_DIMENSIONS, GSA_GROWTH_SHAPES), options);
    return withGrowth(results, (shape) => {
      const { B, T } = parseShape(shape, GSA_DIMENSIONS);
      return B * T;
    });
  },
  train: (device, shapes, options) =>
    benchTrain(device, given(shapes, TRAIN_DIMENSIONS, TRAIN_SHAPES), options),
};

/** Times one kind of work and checks its outputs against a reference in the same run.
 * @throws GsaError INVALID_ARGUMENT for an unknown kind or a malformed shape, and what the ops throw */
export function runBench(kind: BenchKind, options: BenchOptions): BenchReport {
  if (!Object.hasOwn(RUNS, kind)) throw expected(`one of ${BENCH_KINDS.join(', ')}`, 'kind', kind, 'bench');
  const { device, shapes, command, ...measure } = options;
  return benchReport(kind, device, command, RUNS[kind](device, shapes, measure));
}
