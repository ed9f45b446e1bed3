import { Command } from 'commander';
import { withJson } from '../options.js';
import { Output } from '../output.js';

export function command(): Command {
  return withJson(
    new Command('params')
      .description('Print the parameter counts of model configurations; allocates nothing')
      .argument('<config...>', 'config.json files, or folders that hold one'),
  ).action(async (paths: string[], options: { json?: boolean }) => {
    const { describeConfig } = await import('../../train/plan.js');
    const { compact } = await import('../../train/format.js');
    const output = new Output(options);
    for (const path of paths) {
      const record = describeConfig(path);
      const { parameters, config: c } = record;
      output.result(
        record,
        `${path}: ${parameters} parameters (${compact(parameters)}), ${c.num_hidden_layers} layers, width ${c.hidden_size}, ${c.num_heads} heads over ${c.num_kv_heads}, ${c.num_slots} slots, vocabulary ${c.vocab_size}`,
      );
    }
  });
}
