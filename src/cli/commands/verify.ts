import { Command, Option } from 'commander';
import type { Check } from '../../verify/compare.js';
import { withJson } from '../options.js';
import { Output } from '../output.js';

interface Flags {
  device: string;
  dtype: 'fp32' | 'bf16';
  json?: boolean;
}

/** One line for one check, the verdict first. */
function checkLine(check: Check): string {
  const verdict = check.pass ? 'ok  ' : 'FAIL';
  const numbers = check.message ?? `error ${number(check.error)}  bound ${number(check.bound)}`;
  return `${verdict}  ${check.file}: ${check.check}  ${numbers}`;
}

function number(value: number): string {
  return Number.isInteger(value) ? String(value) : value.toExponential(1);
}

export function command(): Command {
  return withJson(
    new Command('verify')
      .description('Compare this build and device with stored results of the operator and of small models')
      .argument('<path...>', 'vector files, model folders, or folders to search for both (docs/verify.md)')
      .option('--device <name>', '"cpu", "cuda" or "cuda:N"', 'cpu')
      .addOption(
        new Option('--dtype <dtype>', 'what to compute in').choices(['fp32', 'bf16']).default('fp32'),
      ),
  ).action(async (paths: string[], flags: Flags) => {
    const { verify } = await import('../../verify/verify.js');
    const output = new Output(flags);
    const checks = await verify(paths, {
      device: flags.device,
      dtype: flags.dtype,
      onCheck: (check) => flags.json || output.write(`${checkLine(check)}\n`),
    });
    const failed = checks.filter((check) => !check.pass).length;
    if (flags.json) output.write(`${JSON.stringify(checks, null, 2)}\n`);
    output.message(`${checks.length - failed} of ${checks.length} checks passed`);
    if (failed > 0) process.exitCode = 1;
  });
}
