import { spawn } from 'node:child_process';

/** How a child process ended, and what it reported before. */
export interface ChildOutcome {
  /** "reported": it ended by itself with a report; "crashed": by a signal or without one; "hung": it was stopped. */
  readonly end: 'reported' | 'crashed' | 'hung';
  /** What the last line of its standard output holds as JSON; null unless it reported. */
  readonly report: unknown;
  /** What happened, in words; empty when it reported. */
  readonly message: string;
  readonly milliseconds: number;
}

/** How many characters of the child's complaints are worth repeating. */
const MESSAGE_LIMIT = 500;

function lastLine(text: string): string {
  return text.trimEnd().split('\n').at(-1) ?? '';
}

function parse(text: string): { report: unknown } | null {
  try {
    return { report: JSON.parse(lastLine(text)) };
  } catch {
    return null;
  }
}

/** Runs a script of this package in another Node.js process, so that whatever native code does in it (a crash, an abort,
 * an endless loop) is seen from outside. Never rejects.
 * @param timeoutMs the child is killed after so long */
export function runChild(
  script: string,
  args: readonly string[],
  options: { timeoutMs?: number; env?: NodeJS.ProcessEnv } = {},
): Promise<ChildOutcome> {
  const { timeoutMs = 60_000, env = process.env } = options;
  const started = performance.now();
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [script, ...args], { env, stdio: ['ignore', 'pipe', 'pipe'] });
    let [out, err] = ['', ''];
    let hung = false;
    const timer = setTimeout(() => {
      hung = true;
      child.kill('SIGKILL');
    }, timeoutMs);
    const finish = (end: ChildOutcome['end'], report: unknown, message: string) => {
      clearTimeout(timer);
      resolve({ end, report, message, milliseconds: Math.round(performance.now() - started) });
    };
    child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text));
    child.stderr.setEncoding('utf8').on('data', (text: string) => (err = (err + text).slice(-4096)));
    child.on('error', (error) =>
      finish('crashed', null, `the process could not be started: ${error.message}`),
    );
    child.on('close', (code, signal) => {
      const parsed = parse(out);
      if (hung) return finish('hung', null, `no answer after ${timeoutMs / 1000} s: the process was killed`);
      if (code === 0 && parsed) return finish('reported', parsed.report, '');
      const how = signal ? `was ended by ${signal}` : `exited with ${code} and no report`;
      const said = err.trim() ? `: ${lastLine(err).slice(-MESSAGE_LIMIT)}` : '';
      finish('crashed', null, `the process ${how}${said}`);
    });
  });
}
