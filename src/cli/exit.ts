import { GsaError } from '../native/errors.js';

/** Exit codes of every command; docs/cli.md prints this table. */
export const EXIT_CODES = {
  0: 'done; for `verify`, every check passed',
  1: 'failed: a file, device or check was not as needed; the message says what to do',
  2: 'wrong usage: an unknown flag, a malformed value, or a configuration that was refused',
  130: 'ended by Ctrl-C (SIGINT), after saving what can be resumed',
  143: 'ended by SIGTERM, after saving what can be resumed',
} as const;

/** Environment variables for everyday use; docs/cli.md prints them, and those for debugging and measuring beside them. */
export const ENVIRONMENT = {
  NO_COLOR: 'any value: no colours, as on a stream that is not a terminal',
  FLASH_GSA_DEBUG: '`1`: errors are printed with their stack and cause',
  FLASH_GSA_THREADS: 'CPU threads, 1 to 1024; every core when absent',
  FLASH_GSA_BLAS: '`none`, or the path of the BLAS library to use for CPU matrix products',
  FLASH_GSA_ISA: '`generic`, `avx2` or `avx512`: the widest CPU instructions to use',
  FLASH_GSA_CUDA:
    'read by `npm install` only: `0` leaves the CUDA backend out, `1` makes its failure an error',
  FLASH_GSA_CUBLASLT: 'path of the cuBLASLt library for GPU matrix products',
} as const;

/** The exit code for an error that ended a command. */
export function exitCodeOf(error: unknown): number {
  if (!(error instanceof GsaError)) return 1;
  return error.code === 'INVALID_CONFIG' || error.code === 'INVALID_ARGUMENT' ? 2 : 1;
}
