import { matmul } from '../ops/matmul.js';
import type { Device } from '../tensor/device.js';
import type { DType } from '../tensor/dtype.js';
import { exec } from '../tensor/exec.js';
import { scope } from '../tensor/scope.js';
import { Tensor } from '../tensor/tensor.js';
import { gemmCount, type Count } from './counts.js';
import { measureTogether, type Stopwatch } from './timing.js';

/** What the device at hand reaches on the two plainest kinds of work, measured in the run that they are compared with. */
export interface Peaks {
  /** Bytes read and written by a copy of a large float32 tensor, a second. */
  readonly copyBytesPerSecond: number;
  /** Of a square product of random matrices. */
  readonly matmulFlopsPerSecond: number;
  readonly matmul: string;
}

const SIZES = {
  cpu: { copy: 2 ** 25, matmul: 1024 },
  cuda: { copy: 2 ** 28, matmul: 8192 },
} as const;

/** @param small sizes for tests of what is around it
 * @throws GsaError OUT_OF_MEMORY where the device has no room for two copies of the tensor (CUDA: 2 GiB) */
export function measurePeaks(device: Device, dtype: DType, watch: Stopwatch, small = false): Peaks {
  const sizes = small ? { copy: 2 ** 12, matmul: 64 } : SIZES[device.backend];
  // Single precision without tf32 is a fifteenth as fast.
  const N = device.backend === 'cuda' && dtype === 'float32' && !small ? sizes.matmul / 2 : sizes.matmul;
  const budgetMs = small ? 0 : 150;
  return scope(() => {
    const copied = scope(() => {
      const x = Tensor.randn([sizes.copy], { device, seed: 1 });
      const y = Tensor.empty([sizes.copy], { device });
      return measureTogether(watch, [() => exec('cast', { x }, { y }, {})], { budgetMs })[0]!;
    });
    const a = Tensor.randn([N, N], { device, dtype, seed: 2 });
    const b = Tensor.randn([N, N], { device, dtype, seed: 3 });
    const multiplied = measureTogether(watch, [() => scope(() => void matmul(a, b))], { budgetMs })[0]!;
    const { flops } = gemmCount({ M: N, N, K: N }, 4);
    return {
      copyBytesPerSecond: (8 * sizes.copy) / (copied.medianMs / 1e3),
      matmulFlopsPerSecond: flops / (multiplied.medianMs / 1e3),
      matmul: `${N} x ${N} x ${N} ${dtype}`,
    };
  });
}

/** Rates when it takes `ms`. `ofCopy` and `ofMatmul` are shares of the device's measured ones; `ofFloor` is the time that
 * the larger of both would take, over the time taken: 1 is all that the device can do. */
export function rates({ bytes, flops }: Count, ms: number, peaks: Peaks): Record<string, number> {
  const seconds = ms / 1e3;
  const [moved, computed] = [bytes / peaks.copyBytesPerSecond, flops / peaks.matmulFlopsPerSecond];
  const figures: Record<string, number> = {};
  if (bytes > 0) Object.assign(figures, { gbPerSecond: bytes / seconds / 1e9, ofCopy: moved / seconds });
  if (flops > 0) Object.assign(figures, { gflops: flops / seconds / 1e9, ofMatmul: computed / seconds });
  if (bytes > 0 && flops > 0) figures['ofFloor'] = Math.max(moved, computed) / seconds;
  return figures;
}
