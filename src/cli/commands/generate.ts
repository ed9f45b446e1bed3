import { Command } from 'commander';
import { modelFolder } from '../model-folder.js';
import { collect, decimal, integer, withJson } from '../options.js';
import { Output } from '../output.js';
import { withSignals } from '../signals.js';

interface Flags {
  model: string;
  prompt: string[];
  maxTokens: number;
  temperature: number;
  topK?: number;
  topP: number;
  seed: number;
  greedy?: boolean;
  device: string;
  threads?: number;
  json?: boolean;
}

export function command(): Command {
  return withJson(
    new Command('generate')
      .description('Continue text with a trained model')
      .requiredOption(
        '--model <dir>',
        'model folder, or the output folder of a training (its newest checkpoint)',
      )
      .requiredOption('--prompt <text>', 'text to continue; "" starts a new document (repeatable)', collect)
      .option('--max-tokens <n>', 'tokens to generate at most', integer(1), 128)
      .option(
        '--temperature <t>',
        'flattens (above 1) or sharpens (below 1) the distribution',
        decimal(0, Infinity, true),
        0.8,
      )
      .option('--top-k <k>', 'draw from the k most probable tokens only', integer(1))
      .option(
        '--top-p <p>',
        'draw from the most probable tokens that together reach this probability',
        decimal(0, 1, true),
        0.95,
      )
      .option('--seed <n>', 'equal seeds give equal texts', integer(0), 0)
      .option('--greedy', 'always the most probable token')
      .option('--device <device>', 'cpu, cuda or cuda:N', 'cpu')
      .option('--threads <n>', 'CPU threads; every core when absent', integer(1, 1024)),
  ).action(run);
}

async function run(flags: Flags): Promise<void> {
  const output = new Output(flags);
  const { loadForGeneration, generateText } = await import('../../generate/index.js');
  const { device } = await import('../../tensor/device.js');
  const folder = await modelFolder(flags.model, '--model');
  if (flags.threads) device('cpu').setOption('threads', flags.threads);
  const { model, tokenizer } = loadForGeneration(folder, { device: flags.device });
  const stream = !output.json && flags.prompt.length === 1;
  try {
    if (stream) output.write(flags.prompt[0]!);
    const results = await withSignals(
      () => {},
      (signal) =>
        generateText(model, tokenizer, flags.prompt, {
          ...flags,
          signal,
          onText: stream ? (_, text) => output.write(text) : undefined,
        }),
    );
    if (stream) output.write('\n');
    else for (const result of results) output.result(result, result.prompt + result.text);
  } finally {
    model.dispose();
  }
}
