import { cases as crossEntropy } from './cross_entropy.js';
import { cases as elementwise } from './elementwise.js';
import { cases as embedding } from './embedding.js';
import { cases as gsaLayer } from './gsa_layer.js';
import { cases as matmul } from './matmul.js';
import { cases as rmsnorm } from './rmsnorm.js';
import { cases as rotary } from './rotary.js';
import { cases as shortConv } from './short_conv.js';
import type { CaseList } from './types.js';

/** Every case, by algorithm. Gated slot attention has a list and suites of its own (gsa.ts, gsa-*.test.ts). */
export const caseLists: readonly CaseList[] = [
  crossEntropy,
  elementwise,
  embedding,
  gsaLayer,
  matmul,
  rmsnorm,
  rotary,
  shortConv,
];
