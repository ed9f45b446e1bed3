import { join } from 'node:path';
import { Command, Option } from 'commander';
import type { TrainResult } from '../../train/events.js';
import { decimal, withJson } from '../options.js';
import { Output } from '../output.js';
import { withSignals } from '../signals.js';
import { runTraining } from '../train-ui.js';

interface Flags {
  dir: string;
  minutes?: number;
  device: string;
  dtype: 'float32' | 'bfloat16';
  fresh?: boolean;
  resume?: boolean;
  json?: boolean;
}

export function command(): Command {
  return withJson(
    new Command('quickstart')
      .description(
        'Train a small model on public-domain speeches: fetches the text, trains a vocabulary and the model, draws its loss curve and writes samples. Started again it goes on, or shows what it made',
      )
      .option('--dir <dir>', 'folder for the text and the run', 'quickstart')
      .option(
        '--minutes <n>',
        'training time, about, on two cores: sets the number of steps; 3 when absent',
        decimal(0, 1e6, true),
      )
      .option('--device <name>', '"cpu", "cuda" or "cuda:N"', 'cpu')
      .addOption(
        new Option('--dtype <dtype>', 'what to compute in; bfloat16 on CUDA only')
          .choices(['float32', 'bfloat16'])
          .default('float32'),
      )
      .addOption(
        new Option('--fresh', 'start at the beginning; the fetched text is kept').conflicts('resume'),
      )
      .option('--resume', 'go on from a checkpoint; there must be one'),
  ).action(run);
}

async function run(flags: Flags): Promise<void> {
  const output = new Output(flags);
  const [{ fetchCorpus }, quickstart, { parseTrainConfig }] = await Promise.all([
    import('../../data/corpus.js'),
    import('../../train/quickstart.js'),
    import('../../train/config.js'),
  ]);
  const corpus = await withSignals(
    (name) => output.message(`${name}: leaving`),
    (signal) => fetchCorpus(quickstart.corpusFolder(flags.dir), undefined, { signal }),
  );
  output.message(
    `${corpus.fetched ? 'fetched' : 'found'} ${corpus.documents} State of the Union addresses, ${(corpus.bytes / 1e6).toFixed(1)} MB, in ${corpus.folder}`,
  );
  const config = await parseTrainConfig(
    quickstart.quickstartConfig(flags.dir, flags.minutes, { device: flags.device, dtype: flags.dtype }),
  );
  const start = flags.fresh ? 'fresh' : flags.resume ? 'resume' : 'auto';
  const result = await runTraining(config, { start, output });
  if (result.status === 'completed') await samples(result, flags.device, output);
}

/** Three samples, and where everything lies. */
async function samples(result: TrainResult, device: string, output: Output): Promise<void> {
  const [{ generateText, loadForGeneration }, { PROMPTS, SAMPLING }] = await Promise.all([
    import('../../generate/index.js'),
    import('../../train/quickstart.js'),
  ]);
  const { model, tokenizer } = loadForGeneration(result.checkpoint, { device });
  try {
    for (const { prompt, text } of await generateText(model, tokenizer, PROMPTS, SAMPLING))
      output.result({ type: 'sample', step: result.step, prompt, text }, `\n> ${prompt}${text}`);
  } finally {
    model.dispose();
  }
  output.message(
    `\nloss curve: ${join(result.output, 'loss.png')}\nmore text:  npx flash-gsa generate --model ${result.output} --prompt "We"`,
  );
}
