export type SignalName = 'SIGINT' | 'SIGTERM';

const NUMBERS: Record<SignalName, number> = { SIGINT: 2, SIGTERM: 15 };

/** Runs `body` with an AbortSignal that the first SIGINT or SIGTERM aborts, so that it can finish and save; the second
 * one ends the process at once. Afterwards `process.exitCode` is 130 or 143 when a signal came. */
export async function withSignals<R>(
  onFirst: (name: SignalName) => void,
  body: (signal: AbortSignal) => Promise<R>,
): Promise<R> {
  const controller = new AbortController();
  let first: SignalName | null = null;
  const handle = (name: SignalName): void => {
    if (first !== null) process.exit(128 + NUMBERS[name]);
    first = name;
    process.exitCode = 128 + NUMBERS[name];
    controller.abort(name);
    onFirst(name);
    // A handler runs between steps only; without one the kernel ends the process in the middle of a long save, too. Not
    // before this turn is over: a second signal that is waiting already would be lost with the handler. (One that comes
    // in the instant of the removal still is; then the process ends as after the first.)
    setImmediate(remove);
  };
  const remove = (): void => {
    process.removeListener('SIGINT', handle);
    process.removeListener('SIGTERM', handle);
  };
  process.on('SIGINT', handle);
  process.on('SIGTERM', handle);
  try {
    return await body(controller.signal);
  } finally {
    if (first === null) remove();
  }
}
