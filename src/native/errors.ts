/** What went wrong, for programs: `INVALID_ARGUMENT` the caller can mend it; `UNSUPPORTED` right arguments that this
 * backend has no code for; `OUT_OF_MEMORY` nothing was changed and smaller work may succeed; `DEVICE_LOST` the device
 * is unusable until the process restarts; `USE_AFTER_DISPOSE` a tensor or scope was used after its end; `NOT_BUILT` a
 * native part is missing; `INVALID_CONFIG` / `INVALID_FILE` a configuration or file is malformed; `IO` the operating
 * system refused; `ABORTED` the caller's signal or Ctrl-C; `DIVERGED` a model's
 * weights or gradients are no longer finite; `INTERNAL` a bug in this package. */
export type GsaErrorCode =
  | 'INVALID_ARGUMENT'
  | 'UNSUPPORTED'
  | 'OUT_OF_MEMORY'
  | 'DEVICE_LOST'
  | 'USE_AFTER_DISPOSE'
  | 'NOT_BUILT'
  | 'INVALID_CONFIG'
  | 'INVALID_FILE'
  | 'IO'
  | 'ABORTED'
  | 'DIVERGED'
  | 'INTERNAL';

/** The one error type of this package. `code` is for programs, `op` names the operation that refused, and the message
 * is of the form "Expected X for Y but received Z" with what to do about it. */
export class GsaError extends Error {
  override readonly name = 'GsaError';
  readonly code: GsaErrorCode;
  readonly op: string | undefined;

  constructor(code: GsaErrorCode, message: string, options: { op?: string; cause?: unknown } = {}) {
    super(
      options.op ? `${options.op}: ${message}` : message,
      options.cause === undefined ? {} : { cause: options.cause },
    );
    this.code = code;
    this.op = options.op;
  }
}

/** Shorthand for the most frequent refusal. `received` is shown as a short literal. */
export function expected(what: string, name: string, received: unknown, op?: string): GsaError {
  return new GsaError('INVALID_ARGUMENT', `Expected ${what} for ${name} but received ${show(received)}`, {
    op,
  });
}

/** Options are an object, or absent: a device's name in their place, say, would otherwise go unheard.
 * @throws GsaError INVALID_ARGUMENT for anything else, and with `names` for an option that is none of these. */
export function checkOptions(value: unknown, names?: readonly string[], op?: string): void {
  if (value === undefined) return;
  if (value === null || typeof value !== 'object' || Array.isArray(value) || ArrayBuffer.isView(value))
    throw expected('an object of named options', 'the options', value, op);
  if (names)
    for (const name of Object.keys(value))
      if (!names.includes(name))
        throw new GsaError(
          'INVALID_ARGUMENT',
          `Expected options named ${names.join(', ')} but received ${show(name)}`,
          { op },
        );
}

/** A path as the system takes it; an empty one would mean the current folder to some calls and nothing to others.
 * @throws GsaError INVALID_ARGUMENT */
export function checkPath(value: unknown, name: string, op?: string): string {
  if (typeof value !== 'string' || value === '' || value.includes('\0'))
    throw expected('the path of a file or folder', name, value, op);
  return value;
}

/** @throws GsaError INVALID_ARGUMENT for anything but a function. */
export function checkFunction(value: unknown, name: string, op?: string): void {
  if (typeof value !== 'function') throw expected('a function', name, value, op);
}

/** A short, single-line description of any value, for messages. */
export function show(value: unknown): string {
  if (typeof value === 'string')
    return JSON.stringify(value.length > 80 ? `${value.slice(0, 77)}...` : value);
  if (typeof value === 'function') return `a function`;
  if (typeof value === 'bigint') return `${value}n`;
  if (Array.isArray(value))
    return `[${value.slice(0, 8).map(show).join(', ')}${value.length > 8 ? ', ...' : ''}]`;
  if (value !== null && typeof value === 'object') {
    const kind = value.constructor?.name;
    return kind && kind !== 'Object' ? `a ${kind}` : 'an object';
  }
  return String(value);
}
