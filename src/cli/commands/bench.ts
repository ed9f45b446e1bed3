import { Argument, Command } from 'commander';
import type { BenchKind } from '../../bench/bench.js';
import { collect, decimal, withJson } from '../options.js';
import { Output } from '../output.js';

interface Flags {
  device: string;
  shape?: string[];
  seconds: number;
  json?: boolean;
}

export function command(): Command {
  return withJson(
    new Command('bench')
      .description('Time one kind of work, and check what was computed against a reference in the same run')
      .addArgument(
        new Argument(
          '<kind>',
          'gemm: matrix products, against the BLAS; gsa: the operator; growth: its cost over the length; train: a training step',
        ).choices(['gemm', 'gsa', 'growth', 'train']),
      )
      .option('--device <name>', '"cpu", "cuda" or "cuda:N"', 'cpu')
      .option(
        '--shape <shape>',
        'gemm M512N512K512, gsa B1T2048H4K128V128M64, train D256L4H4M32V4096B4T512 (repeatable)',
        collect,
      )
      .option('--seconds <n>', 'time for each case', decimal(0, 3600), 1),
  ).action(async (kind: BenchKind, flags: Flags) => {
    const { runBench } = await import('../../bench/bench.js');
    const { formatReport } = await import('../../bench/report.js');
    const { device } = await import('../../tensor/device.js');
    const report = runBench(kind, {
      device: device(flags.device),
      shapes: flags.shape,
      budgetMs: flags.seconds * 1e3,
      command: ['flash-gsa', ...process.argv.slice(2)].join(' '),
    });
    new Output(flags).result(report, formatReport(report));
    if (!report.pass) process.exitCode = 1;
  });
}
