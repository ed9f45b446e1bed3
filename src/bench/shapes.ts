import type { BackendName } from '../native/types.js';

/** What is timed when --shapes names nothing: the one list, in the notation of --shapes, by kind of work and backend.
 * Programs that measure something else on the same shapes get it from `flash-gsa bench KIND --list`. */
export const SHAPES = {
  /** C[M, N] = A[M, K] B[K, N]. CPU: squares, and the products of a small model's step. CUDA: a square, and the products
   * of the 1.3B model's step at 16,384 tokens (each forward, and for both gradients): q, k, v, o; f; gate, up; down; and
   * one chunk of rows of the vocabulary. */
  gemm: {
    cpu: [
      'M256N256K256',
      'M512N512K512',
      'M1024N1024K1024',
      'M1536N1536K1536',
      'M2048N256K256',
      'M2048N4096K256',
      'M256N1024K2048',
    ],
    cuda: [
      'M8192N8192K8192',
      'M16384N2048K2048',
      'M16384N256K2048',
      'M16384N5632K2048',
      'M16384N2048K5632',
      'M4096N32000K2048',
    ],
  },
  /** CPU: a small model's heads, and the heads of the published 1.3B model. CUDA: the 1.3B model's heads at 32,768 tokens
   * in 8, 16 and 1 sequences; those of the 2.7B model; half the width; the 7B model's, 32 query heads over 8; twice the
   * slots; and documents of 16 to 8192 tokens in one row. */
  gsa: {
    cpu: ['B4T512H4K64V64M32', 'B1T2048H4K128V128M64', 'B1T1024H4K512V512M64'],
    cuda: [
      'B8T4096H4K512V512M64',
      'B16T2048H4K512V512M64',
      'B1T32768H4K512V512M64',
      'B16T2048H5K512V512M64',
      'B16T2048H4K256V256M64',
      'B8T2048H8K128V128M64HQ32',
      'B8T4096H4K512V512M128',
      'B1T32768H4K512V512M64DOC8192',
    ],
  },
  /** How the cost of the operator grows with the length: one sequence, all else equal. */
  growth: {
    cpu: [512, 1024, 2048, 4096, 8192].map((T) => `B1T${T}H4K64V64M32`),
    cuda: [4096, 8192, 16384, 32768, 65536].map((T) => `B1T${T}H4K512V512M64`),
  },
  /** NAME:SHAPE. CUDA: as in the 1.3B model at 16,384 tokens; AdamW on 268 million parameters in tensors of 2048 x 2048. */
  modules: {
    cpu: [
      'rmsnorm:N2048D512',
      'rmsnorm+residual:N2048D512',
      'rmsnorm(silu):N2048D512',
      'swiglu:N2048D1536',
      'cross-entropy:N1024C4096',
      'linear-cross-entropy:N1024D256C4096',
      'embedding:N4096D256C4096',
      'short-conv:B4T512D512W4',
      'rotary:B4T512H8D64',
      'gsa-gate:B4T512H4M64',
      'adamw:P4194304',
    ],
    cuda: [
      'rmsnorm:N16384D2048',
      'rmsnorm+residual:N16384D2048',
      'rmsnorm(silu):N16384D2048',
      'swiglu:N16384D5632',
      'cross-entropy:N8192C32000',
      'linear-cross-entropy:N16384D2048C32000',
      'embedding:N16384D2048C32000',
      'short-conv:B8T2048D2048W4',
      'rotary:B8T2048H32D64',
      'gsa-gate:B8T2048H4M64',
      'adamw:P268435456',
    ],
  },
  /** CPU: models of about 1 and 6 million parameters. CUDA: the 1.3B model. */
  train: {
    cpu: ['D128L2H2M32V2048B8T256', 'D256L4H4M32V4096B4T512'],
    cuda: ['D2048L24H4M64V32000B8T2048'],
  },
  /** P tokens of prompt, then N new ones. */
  decode: {
    cpu: ['D256L4H4M32V4096B1P64N32', 'D256L4H4M32V4096B8P64N32'],
    cuda: ['D2048L24H4M64V32000B1P512N64', 'D2048L24H4M64V32000B16P512N64'],
  },
} satisfies Record<string, Record<BackendName, readonly string[]>>;

export type BenchKind = keyof typeof SHAPES;
export const BENCH_KINDS = Object.keys(SHAPES) as readonly BenchKind[];

/** Lengths of documents that fill a row of T tokens: 16 to `most`, short and long ones in turn, few of them multiples of
 * a tile. Document i has 16 · 2^(7i mod 10) + (5i mod 16) tokens, cut to `most` and to what is left of the row. */
export function documentLengths(T: number, most: number): number[] {
  const lengths: number[] = [];
  for (let i = 0, left = T; left > 0; i++) {
    const length = Math.min(16 * 2 ** ((7 * i) % 10) + ((5 * i) % 16), most, left);
    lengths.push(length);
    left -= length;
  }
  return lengths;
}
