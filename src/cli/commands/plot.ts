import { Command } from 'commander';
import { withJson } from '../options.js';
import { Output } from '../output.js';

export function command(): Command {
  return withJson(
    new Command('plot')
      .description('Draw the loss curve of a run, finished or not, as loss.svg and loss.png in its folder')
      .argument('<run>', 'output folder of a training')
      .option('--title <text>', 'title of the curve; the folder when absent'),
  ).action(async (run: string, options: { title?: string; json?: boolean }) => {
    const { plotRun } = await import('../../train/plot-run.js');
    const paths = await plotRun(run, options.title);
    new Output(options).result(paths, `${paths.svg}\n${paths.png}`);
  });
}
