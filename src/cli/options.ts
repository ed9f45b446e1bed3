import { InvalidArgumentError, Option, type Command } from 'commander';

/** A parser of whole numbers for commander.
 * @throws InvalidArgumentError (exit code 2) for anything else: "1e3x", "", "NaN", numbers out of range. */
export function integer(min: number, max = Number.MAX_SAFE_INTEGER): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!/^[+-]?\d+$/.test(text) || !Number.isSafeInteger(value) || value < min || value > max)
      throw new InvalidArgumentError(
        max === Number.MAX_SAFE_INTEGER
          ? `Expected an integer of at least ${min}.`
          : `Expected an integer from ${min} to ${max}.`,
      );
    return value;
  };
}

/** A parser of finite numbers in [min, max], or (min, max] with `open`. */
export function decimal(min: number, max: number, open = false): (text: string) => number {
  return (text) => {
    const value = text.trim() === '' ? Number.NaN : Number(text);
    if (!Number.isFinite(value) || value > max || (open ? value <= min : value < min))
      throw new InvalidArgumentError(
        `Expected a number ${open ? 'above' : 'of at least'} ${min}${max < Infinity ? ` and at most ${max}` : ''}.`,
      );
    return value;
  };
}

/** For options that may be given several times. */
export function collect(value: string, earlier: string[] | undefined): string[] {
  return [...(earlier ?? []), value];
}

/** For options that take a list, "a,b", and may be given several times.
 * @throws InvalidArgumentError (exit code 2) for an empty item */
export function list(value: string, earlier: string[] | undefined): string[] {
  const items = value.split(',').map((item) => item.trim());
  if (items.includes('')) throw new InvalidArgumentError('Expected items separated by single commas.');
  return [...(earlier ?? []), ...items];
}

/** Adds `--json`, which every command has. */
export function withJson(command: Command): Command {
  return command.addOption(
    new Option('--json', 'results as JSON on stdout, one object a line; messages on stderr'),
  );
}
