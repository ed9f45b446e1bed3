import { GsaError } from '../native/errors.js';

/** Where a command writes. Results go to stdout, as text or (--json) as one JSON object a line; messages for people go
 * to stderr. */
export class Output {
  readonly json: boolean;

  constructor(options: { json?: boolean } = {}) {
    this.json = options.json ?? false;
  }

  /** A result: the record in JSON, else the text (nothing when it is null). */
  result(record: object, text: string | null): void {
    if (this.json) this.write(JSON.stringify(record) + '\n');
    else if (text !== null) this.write(text + '\n');
  }

  /** Raw text on stdout. */
  write(text: string): void {
    process.stdout.write(text);
  }

  message(text: string): void {
    process.stderr.write(text + '\n');
  }
}

/** Whether to use colours on a stream: a terminal, and NO_COLOR (https://no-color.org) unset or empty. */
export function useColor(stream: NodeJS.WriteStream): boolean {
  return Boolean(stream.isTTY) && !process.env['NO_COLOR'];
}

/** One line for a person, or with FLASH_GSA_DEBUG=1 (and for errors that are not ours) all there is to know. */
export function errorText(error: unknown): string {
  const label = useColor(process.stderr) ? '\x1b[31merror:\x1b[39m' : 'error:';
  if (!(error instanceof Error)) return `${label} ${String(error)}`;
  if (process.env['FLASH_GSA_DEBUG'] !== '1') return `${label} ${error.message.replace(/\s*\n\s*/g, ' ')}`;
  const cause = error.cause instanceof Error ? `\ncaused by ${error.cause.stack ?? error.cause.message}` : '';
  const code = error instanceof GsaError ? ` [${error.code}]` : '';
  return `${label}${code} ${error.stack ?? error.message}${cause}`;
}

/** A reader that closes its end early (`| head`) is no error: what is written after that goes nowhere, and a training
 * goes on. Any other failure of stdout ends the process. */
export function ignoreClosedPipes(): void {
  for (const stream of [process.stdout, process.stderr])
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code !== 'EPIPE' && error.code !== 'ERR_STREAM_DESTROYED') process.exit(1);
    });
}
