import { Command, Option } from 'commander';
import type { TrainConfig } from '../../train/schema.js';
import { collect, withJson } from '../options.js';
import { Output } from '../output.js';
import { runTraining } from '../train-ui.js';

interface Flags {
  config: string;
  set?: string[];
  resume?: boolean;
  fresh?: boolean;
  dryRun?: boolean;
  json?: boolean;
}

export function command(): Command {
  return withJson(
    new Command('train')
      .description(
        'Train a model as a JSON configuration says; goes on from the newest checkpoint in its output folder',
      )
      .requiredOption('--config <file>', 'JSON configuration (docs/training-config.md)')
      .option(
        '--set <key=value>',
        'override a key, for example --set optimizer.lr=3e-4 (repeatable)',
        collect,
      )
      .addOption(
        new Option('--resume', 'refuse to start at the beginning: there must be a checkpoint').conflicts(
          'fresh',
        ),
      )
      .option('--fresh', 'delete what an earlier run left in the output folder and start at the beginning')
      .option('--dry-run', 'print parameters, memory and steps; allocates and writes nothing'),
  ).action(async (flags: Flags) => {
    const output = new Output(flags);
    const { loadTrainConfig } = await import('../../train/config.js');
    const config = await loadTrainConfig(flags.config, flags.set);
    if (flags.dryRun) return dryRun(config, output);
    const start = flags.fresh ? 'fresh' : flags.resume ? 'resume' : 'auto';
    await runTraining(config, { start, output });
  });
}

async function dryRun(config: TrainConfig, output: Output): Promise<void> {
  const { planTraining, planText } = await import('../../train/plan.js');
  const plan = planTraining(config);
  output.result(plan, planText(plan));
}
