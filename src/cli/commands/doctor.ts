import { Command } from 'commander';
import { withJson } from '../options.js';
import { Output } from '../output.js';

export function command(): Command {
  return withJson(
    new Command('doctor').description(
      'Show what was built and found and what is missing, and try every backend; exits with 0 when the CPU backend works',
    ),
  ).action(async (flags: { json?: boolean }) => {
    const { doctor } = await import('../../doctor/doctor.js');
    const { formatDoctor } = await import('../../doctor/format.js');
    const report = await doctor();
    const output = new Output(flags);
    output.result(report, formatDoctor(report));
    if (!report.ok) process.exitCode = 1;
  });
}
