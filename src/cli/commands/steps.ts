import { Command } from 'commander';
import { integer, withJson } from '../options.js';
import { Output } from '../output.js';

export function command(): Command {
  return withJson(
    new Command('steps')
      .description('Show how even the steps of a run were, and whether its memory grew')
      .argument('<run>', 'output folder of a training')
      .option('--warmup <n>', 'first steps to leave out', integer(0), 50),
  ).action(async (run: string, options: { warmup: number; json?: boolean }) => {
    const [{ readMetrics }, { formatSteadiness, steadiness }] = await Promise.all([
      import('../../train/metrics.js'),
      import('../../train/steadiness.js'),
    ]);
    const found = steadiness(readMetrics(run), options.warmup);
    new Output(options).result(
      found ?? { steps: 0, warmup: options.warmup },
      found ? formatSteadiness(found) : `no more than ${options.warmup} steps in ${run}`,
    );
  });
}
