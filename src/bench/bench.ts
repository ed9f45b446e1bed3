import { expected } from '../native/errors.js';
import type { Device } from '../tensor/device.js';
import { benchDecode } from './decode.js';
import { benchGemm } from './gemm.js';
import { benchGrowth, benchGsa } from './gsa.js';
import { benchModules } from './modules.js';
import { measurePeaks } from './peaks.js';
import { benchReport, type BenchContext, type BenchReport, type BenchResult } from './report.js';
import { BENCH_KINDS, SHAPES, type BenchKind } from './shapes.js';
import { stopwatch, type MeasureOptions } from './timing.js';
import { benchTrain } from './train.js';

export { BENCH_KINDS, SHAPES, type BenchKind } from './shapes.js';

export interface BenchOptions extends MeasureOptions {
  device: Device;
  /** Default: bfloat16 on a GPU, float32 on the CPU. */
  dtype?: BenchContext['dtype'];
  /** In the notation of --shapes; default: the list of the kind (SHAPES). */
  shapes?: readonly string[];
  /** Written into the stamp. */
  command: string;
  /** train: also where the time of a step goes, op by op. Default false. */
  budget?: boolean;
  /** train: what is made again in the backward. Default false. */
  recompute?: BenchContext['recompute'];
  /** train: what the products of the blocks are computed in. Default "dtype". */
  matmul?: BenchContext['matmul'];
  /** Measure the device's rates on small work: for tests of what is around it. Default false. */
  smallPeaks?: boolean;
}

type Run = (context: BenchContext, shapes: readonly string[]) => BenchResult[] | Promise<BenchResult[]>;

const RUNS: Readonly<Record<BenchKind, Run>> = {
  gemm: benchGemm,
  gsa: benchGsa,
  growth: benchGrowth,
  modules: benchModules,
  train: benchTrain,
  decode: benchDecode,
};

/** Times one kind of work and checks its outputs against a reference in the same run.
 * @throws GsaError INVALID_ARGUMENT for an unknown kind or a malformed shape, and what the ops throw */
export async function runBench(kind: BenchKind, options: BenchOptions): Promise<BenchReport> {
  if (!Object.hasOwn(RUNS, kind)) throw expected(`one of ${BENCH_KINDS.join(', ')}`, 'kind', kind, 'bench');
  const {
    device,
    shapes = SHAPES[kind][device.backend],
    command,
    smallPeaks,
    budget,
    recompute,
    matmul,
    ...rest
  } = options;
  const { dtype = device.backend === 'cuda' ? 'bfloat16' : 'float32', ...measure } = rest;
  const watch = stopwatch(device);
  try {
    const peaks = measurePeaks(device, dtype, watch, smallPeaks);
    const context: BenchContext = { device, dtype, watch, measure, peaks, budget, recompute, matmul };
    return benchReport(kind, context, command, await RUNS[kind](context, shapes));
  } finally {
    watch.dispose();
  }
}
