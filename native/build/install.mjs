// What `npm install` runs: builds the addon with the CPU backend, and the CUDA backend where nvcc is found. Prints one
// line for each; what was built and why not is in build/flash-gsa-build.json, which `flash-gsa doctor` shows.
import { readFileSync, realpathSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildAddon } from './addon.mjs';
import { buildCuda } from './cuda.mjs';
import { withLock } from './lock.mjs';
import { readJson, writeJson } from './stamp.mjs';

const MIN_NODE = 20;

export const REPORT = 'build/flash-gsa-build.json';

/** "was left out", "is up to date" or "built in 7 s", for one part. */
export function describePart(what, part) {
  if (!part.built) return `left out ${what}: ${part.reason}${part.remedy ? `; ${part.remedy}` : ''}`;
  return part.reused ? `${what} is up to date` : `built ${what} in ${part.seconds} s`;
}

async function buildAll({ root, env, execPath, nodeVersion, say, complain }) {
  const reportPath = join(root, REPORT);
  const previous = readJson(reportPath);
  // Gone until the build is through: after a failure or an interruption everything is built afresh.
  rmSync(reportPath, { force: true });
  const report = {
    version: JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')).version,
    node: nodeVersion,
    target: `${process.platform}-${process.arch}`,
    time: new Date().toISOString(),
  };

  report.addon = await buildAddon({ root, env, execPath, nodeVersion, previous: previous?.addon });
  if (!report.addon.built) {
    if (report.addon.log) complain(report.addon.log);
    complain(
      `could not build the native addon: ${report.addon.reason}${report.addon.remedy ? `; ${report.addon.remedy}` : ''}`,
    );
    return 1;
  }
  say(describePart('the CPU backend', report.addon));

  report.cuda = await buildCuda({ root, env, execPath, previous: previous?.cuda });
  const demanded = env.FLASH_GSA_CUDA === '1';
  if (report.cuda.log && demanded) complain(report.cuda.log);
  writeJson(reportPath, report);
  if (!report.cuda.built && demanded) {
    complain(`FLASH_GSA_CUDA=1 demands the CUDA backend, but ${describePart('it', report.cuda)}`);
    return 1;
  }
  say(describePart('the CUDA backend', report.cuda));
  if (report.cuda.registers && !report.cuda.reused) say(report.cuda.registers);
  return 0;
}

/** Builds both parts and writes the report. Resolves to the exit status. */
export async function install(context) {
  const { root, env, nodeVersion, say, complain } = context;
  if (!['0', '1', undefined, ''].includes(env.FLASH_GSA_CUDA)) {
    complain(`Expected 0, 1 or nothing for FLASH_GSA_CUDA but received "${env.FLASH_GSA_CUDA}"`);
    return 1;
  }
  if (Number(nodeVersion.split('.')[0]) < MIN_NODE) {
    complain(`Expected Node.js ${MIN_NODE} or newer but this is ${nodeVersion}`);
    return 1;
  }
  return withLock(root, say, () => buildAll(context));
}

// The real path: an installer may come in through a symbolic link.
if (process.argv[1] && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  process.exitCode = await install({
    root: dirname(dirname(dirname(fileURLToPath(import.meta.url)))),
    env: process.env,
    execPath: process.execPath,
    nodeVersion: process.versions.node,
    say: (line) => console.log(`flash-gsa: ${line}`),
    complain: (line) => console.error(`flash-gsa: ${line}`),
  });
}
