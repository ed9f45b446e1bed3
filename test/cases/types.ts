import type { Tensor } from '#src/tensor/tensor.js';
import type { Random } from '../random.js';

/** One tensor that a case needs. Float inputs are rounded to float32 before the reference sees them. */
export interface CaseInput {
  readonly shape: readonly number[];
  readonly draw: (random: Random, index: number) => number;
  readonly dtype?: 'float32' | 'int32';
  /** True for an input that is float32 whatever the others are. */
  readonly wide?: boolean;
  /** False for an input that no gradient is asked for. Default: true for float32. */
  readonly grad?: boolean;
}

export type CaseValues = Readonly<Record<string, Float64Array>>;

/** One set of shapes and options of one op: it drives the comparison with the float64 reference, the check of every
 * gradient, and benches. */
export interface OpCase {
  /** Dimensions and options, for the title. */
  readonly title: string;
  readonly seed: number;
  readonly inputs: Readonly<Record<string, CaseInput>>;
  readonly run: (inputs: Readonly<Record<string, Tensor>>) => readonly Tensor[];
  /** The same outputs from the same inputs, flattened, in float64. */
  readonly reference: (inputs: CaseValues) => readonly Float64Array[];
}

export interface CaseList {
  /** Names of the functions of src/ops that these cases cover. */
  readonly ops: readonly string[];
  readonly cases: readonly OpCase[];
}

export const normal =
  (scale = 1, mean = 0) =>
  (random: Random): number =>
    mean + scale * random.normal();

export const integer =
  (limit: number) =>
  (random: Random): number =>
    random.below(limit);
