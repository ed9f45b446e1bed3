import {
  crossEntropy,
  embedding,
  gsaGate,
  linearCrossEntropy,
  rmsNorm,
  rotary,
  shortConv,
  swiglu,
} from '../ops/index.js';
import type { Tensor } from '../tensor/tensor.js';
import type { MODULE_COUNTS } from './counts.js';
import * as reference from './module_reference.js';

export type ModuleName = keyof typeof MODULE_COUNTS;
export type Extents = Readonly<Record<string, number>>;

/** A random input: normal of this deviation around `mean`, or integers below `below`. */
export interface ModuleInput {
  readonly shape: readonly number[];
  readonly std?: number;
  readonly mean?: number;
  readonly below?: number;
  /** True for an input that is float32 whatever the others are. */
  readonly wide?: boolean;
}

type Tensors = Readonly<Record<string, Tensor>>;
type Values = Readonly<Record<string, Float64Array>>;

/** One module: what it takes, how it is called, and what it must give. */
export interface ModuleCase {
  readonly dimensions: readonly string[];
  /** Largest extents of the shape that is compared with `reference`. */
  readonly small: Extents;
  readonly inputs: (shape: Extents) => Readonly<Record<string, ModuleInput>>;
  readonly run: (inputs: Tensors) => readonly Tensor[];
  /** The same outputs in double precision. */
  readonly reference: (inputs: Values, shape: Extents) => readonly Float64Array[];
}

const EPS = 1e-6;
const NORMALIZER = 8;

function norm(residual: boolean, silu: boolean): ModuleCase {
  return {
    dimensions: ['N', 'D'],
    small: { N: 40, D: 4096 },
    inputs: ({ N, D }) => ({
      x: { shape: [N!, D!] },
      weight: { shape: [D!], std: 0.3, mean: 1, wide: true },
      ...(residual ? { residual: { shape: [N!, D!] } } : {}),
    }),
    run: ({ x, weight, residual }) => {
      if (!residual) return [rmsNorm(x!, weight, { eps: EPS, silu })];
      const { y, h } = rmsNorm(x!, weight, { eps: EPS, silu, residual });
      return [y, h];
    },
    reference: ({ x, weight, residual }) => {
      const h = residual ? x!.map((value, i) => value + residual[i]!) : x!;
      const y = reference.rmsNorm(h, weight!, EPS, silu);
      return residual ? [y, h] : [y];
    },
  };
}

export const MODULES: Readonly<Record<ModuleName, ModuleCase>> = {
  rmsnorm: norm(false, false),
  'rmsnorm+residual': norm(true, false),
  'rmsnorm(silu)': norm(false, true),
  swiglu: {
    dimensions: ['N', 'D'],
    small: { N: 40, D: 4096 },
    inputs: ({ N, D }) => ({ gate: { shape: [N!, D!] }, up: { shape: [N!, D!] } }),
    run: ({ gate, up }) => [swiglu(gate!, up!)],
    reference: ({ gate, up }) => [reference.swiglu(gate!, up!)],
  },
  'cross-entropy': {
    dimensions: ['N', 'C'],
    small: { N: 6, C: 32000 },
    inputs: ({ N, C }) => ({ logits: { shape: [N!, C!], std: 2 }, labels: { shape: [N!], below: C! } }),
    run: ({ logits, labels }) => [crossEntropy(logits!, labels!, { reduction: 'none' })],
    reference: ({ logits, labels }) => [reference.crossEntropy(logits!, labels!)],
  },
  'linear-cross-entropy': {
    dimensions: ['N', 'D', 'C'],
    small: { N: 10, D: 128, C: 1000 },
    inputs: ({ N, D, C }) => ({
      hidden: { shape: [N!, D!] },
      weight: { shape: [C!, D!], std: 1 / Math.sqrt(D!) },
      labels: { shape: [N!], below: C! },
    }),
    run: ({ hidden, weight, labels }) => [linearCrossEntropy(hidden!, weight!, labels!)],
    reference: ({ hidden, weight, labels }) => [reference.linearCrossEntropy(hidden!, weight!, labels!)],
  },
  embedding: {
    dimensions: ['N', 'D', 'C'],
    small: { N: 80, D: 2048, C: 60 },
    inputs: ({ N, D, C }) => ({ weight: { shape: [C!, D!] }, ids: { shape: [N!], below: C! } }),
    run: ({ weight, ids }) => [embedding(weight!, ids!)],
    reference: ({ weight, ids }, { D }) => [reference.embedding(weight!, ids!, D!)],
  },
  'short-conv': {
    dimensions: ['B', 'T', 'D', 'W'],
    small: { B: 2, T: 70, D: 512, W: 4 },
    inputs: ({ B, T, D, W }) => ({ x: { shape: [B!, T!, D!] }, weight: { shape: [D!, W!], std: 0.5 } }),
    run: ({ x, weight }) => [shortConv(x!, weight!, { silu: true }).y],
    reference: ({ x, weight }, { T, D }) => [reference.shortConv(x!, weight!, T!, D!)],
  },
  rotary: {
    dimensions: ['B', 'T', 'H', 'D'],
    small: { B: 2, T: 70, H: 4, D: 128 },
    inputs: ({ B, T, H, D }) => ({ x: { shape: [B!, T!, H!, D!] } }),
    run: ({ x }) => [rotary(x!)],
    reference: ({ x }, { T, H, D }) => [reference.rotary(x!, T!, H!, D!)],
  },
  'gsa-gate': {
    dimensions: ['B', 'T', 'H', 'M'],
    small: { B: 2, T: 70, H: 4, M: 64 },
    inputs: ({ B, T, H, M }) => ({ f: { shape: [B!, T!, H!, M!], std: 2 } }),
    run: ({ f }) => {
      const { g, s } = gsaGate(f!, { normalizer: NORMALIZER });
      return [g, s];
    },
    reference: ({ f }) => reference.gsaGate(f!, NORMALIZER),
  },
};
