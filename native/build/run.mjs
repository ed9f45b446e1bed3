// Runs a build tool without a shell (paths may hold spaces) and keeps quiet unless it fails.
import { spawn } from 'node:child_process';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';

const SHOWN_LINES = 60;

/** The JavaScript entry of an installed package's program. */
export function toolEntry(name, program) {
  const manifest = createRequire(import.meta.url).resolve(`${name}/package.json`);
  return join(dirname(manifest), program);
}

/** Resolves to { ok, seconds, log }; `log` is everything the tool printed. */
export function run(program, args, { cwd, env, timeoutSeconds = 0 }) {
  const started = performance.now();
  return new Promise((resolve) => {
    let log = '';
    const child = spawn(program, args, {
      cwd,
      env,
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: timeoutSeconds * 1000,
    });
    const finish = (ok) => resolve({ ok, seconds: (performance.now() - started) / 1000, log });
    for (const stream of [child.stdout, child.stderr])
      stream.setEncoding('utf8').on('data', (text) => (log += text));
    child.on('error', (error) => {
      log += `${program}: ${error.message}\n`;
      finish(false);
    });
    child.on('close', (status) => finish(status === 0));
  });
}

/** The part of a build log that says what went wrong: its end. */
export function tail(log) {
  return log.trimEnd().split('\n').slice(-SHOWN_LINES).join('\n');
}
