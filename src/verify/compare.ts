import { GsaError } from '../native/errors.js';

/** One comparison with a stored result. */
export interface Check {
  /** The vector file or model folder, as the caller named it. */
  readonly file: string;
  /** What was compared, for example "chunk backward dq". */
  readonly check: string;
  /** The measured error; NaN when it could not be measured or a value was not finite. */
  readonly error: number;
  /** The largest error that passes. */
  readonly bound: number;
  readonly pass: boolean;
  /** Why a check could not be made: the code and message of what was thrown. */
  readonly message?: string;
}

/** The Euclidean norm, summed in double precision. */
export function norm(values: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i]! * values[i]!;
  return Math.sqrt(sum);
}

function checkLengths(actual: ArrayLike<number>, expected: ArrayLike<number>): void {
  if (actual.length !== expected.length)
    throw new GsaError(
      'INVALID_FILE',
      `Expected ${actual.length} stored values but the file holds ${expected.length}`,
    );
}

/** ‖actual − expected‖ / ‖expected‖, the measure of every bound here. `reference` replaces the norm in the
 * denominator. Equal values give 0 whatever the norm; a value that is not finite gives NaN. */
export function relativeError(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  reference = norm(expected),
): number {
  checkLengths(actual, expected);
  let sum = 0;
  for (let i = 0; i < actual.length; i++) {
    const difference = actual[i]! - expected[i]!;
    sum += difference * difference;
  }
  if (!Number.isFinite(sum) || !Number.isFinite(reference)) return NaN;
  return sum === 0 ? 0 : Math.sqrt(sum) / reference;
}

/** max |actual − expected|; NaN when a value is not finite. */
export function largestDifference(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  checkLengths(actual, expected);
  let largest = 0;
  for (let i = 0; i < actual.length; i++) {
    const difference = Math.abs(actual[i]! - expected[i]!);
    if (!Number.isFinite(difference)) return NaN;
    if (difference > largest) largest = difference;
  }
  return largest;
}

/** max |actual − expected| / |expected|, for lists of independent positive numbers; NaN when a value is not finite. */
export function largestRelativeDifference(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  checkLengths(actual, expected);
  let largest = 0;
  for (let i = 0; i < actual.length; i++) {
    const difference = Math.abs(actual[i]! - expected[i]!);
    if (!Number.isFinite(difference)) return NaN;
    if (difference > 0) largest = Math.max(largest, difference / Math.abs(expected[i]!));
  }
  return largest;
}

/** The number of positions where two lists of integers differ. */
export function mismatches(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  checkLengths(actual, expected);
  let count = 0;
  for (let i = 0; i < actual.length; i++) if (actual[i] !== expected[i]) count++;
  return count;
}

/** The only judge of a check: an error that is NaN never passes. */
export function judge(file: string, check: string, error: number, bound: number): Check {
  return { file, check, error, bound, pass: error <= bound };
}

/** A check that could not be made. */
export function failure(file: string, check: string, bound: number, thrown: unknown): Check {
  const code = thrown instanceof GsaError ? `${thrown.code}: ` : '';
  const message = `${code}${thrown instanceof Error ? thrown.message : String(thrown)}`;
  return { file, check, error: NaN, bound, pass: false, message };
}
