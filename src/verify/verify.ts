import { GsaError, checkFunction, checkOptions, expected } from '../native/errors.js';
import { device as deviceOf, type Device } from '../tensor/device.js';
import type { VerifyDType } from './bounds.js';
import { failure, type Check } from './compare.js';
import { verifyModelFolder } from './model_folder.js';
import { verifyOpFile } from './op_file.js';
import { findTargets, type Target } from './targets.js';

export interface VerifyOptions {
  /** Default "cpu". */
  device?: string | Device;
  /** Default "fp32". */
  dtype?: VerifyDType;
  /** Called for every check as soon as it is made. */
  onCheck?: (check: Check) => void;
  /** Stops between two checks with GsaError ABORTED. */
  signal?: AbortSignal;
}

function* checksOf(target: Target, device: Device, dtype: VerifyDType): Generator<Check> {
  const { path } = target;
  try {
    if (target.kind === 'op') yield* verifyOpFile(path, path, device, dtype);
    else yield* verifyModelFolder(path, path, device, dtype);
  } catch (error) {
    if (!(error instanceof GsaError)) throw error;
    yield failure(path, 'readable', 0, error);
  }
}

/** Compares this package's results with stored ones: of the operator (vector files) and of whole small models (folders).
 * docs/verify.md gives the formats. A file that cannot be used gives a failed check that says why, and the others are
 * still made, so that one run shows the state of a device.
 * @param paths vector files, model folders, or folders to search for both
 * @returns all checks; everything is right when each has `pass`
 * @throws GsaError IO or INVALID_FILE for a path where there is nothing to check, INVALID_ARGUMENT for malformed options,
 * NOT_BUILT or UNSUPPORTED when there is no such device */
export async function verify(paths: readonly string[], options: VerifyOptions = {}): Promise<Check[]> {
  if (!Array.isArray(paths)) throw expected('a list of files and folders', 'paths', paths, 'verify');
  checkOptions(options, ['device', 'dtype', 'onCheck', 'signal'], 'verify');
  if (options.onCheck !== undefined) checkFunction(options.onCheck, 'onCheck', 'verify');
  const dtype = options.dtype ?? 'fp32';
  if (dtype !== 'fp32' && dtype !== 'bf16') throw expected('"fp32" or "bf16"', 'dtype', dtype, 'verify');
  const targets = findTargets(paths);
  const device = deviceOf(options.device ?? 'cpu');
  const checks: Check[] = [];
  for (const target of targets)
    for (const check of checksOf(target, device, dtype)) {
      checks.push(check);
      options.onCheck?.(check);
      await new Promise(setImmediate); // a turn for the event loop: output, signals
      if (options.signal?.aborted)
        throw new GsaError('ABORTED', 'Stopped by the caller', {
          op: 'verify',
          cause: options.signal.reason,
        });
    }
  return checks;
}
