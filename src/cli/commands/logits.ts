import { Command, Option } from 'commander';
import { modelFolder } from '../model-folder.js';
import { withJson } from '../options.js';
import { Output } from '../output.js';

interface Flags {
  ids: string;
  out: string;
  device: string;
  dtype: 'fp32' | 'bf16';
  json?: boolean;
}

export function command(): Command {
  return withJson(
    new Command('logits')
      .description(
        'Run stored tokens through a model and store its logits, for comparison with other programs',
      )
      .argument('<model>', 'model folder, or the output folder of a training (its newest checkpoint)')
      .requiredOption('--ids <file>', 'safetensors file with input_ids [B, T], int32 or int64')
      .requiredOption(
        '--out <file>',
        'safetensors file to write: logits [B, T, vocabulary] and the mean loss',
      )
      .option('--device <name>', '"cpu", "cuda" or "cuda:N"', 'cpu')
      .addOption(
        new Option('--dtype <dtype>', 'what to compute in').choices(['fp32', 'bf16']).default('fp32'),
      ),
  ).action(run);
}

async function run(path: string, flags: Flags): Promise<void> {
  const { GSAForCausalLM } = await import('../../models/index.js');
  const { writeLogits } = await import('../../generate/index.js');
  const dtype = flags.dtype === 'bf16' ? 'bfloat16' : 'float32';
  const folder = await modelFolder(path, 'the model');
  using model = GSAForCausalLM.load(folder, { device: flags.device, dtype });
  const result = writeLogits(model, flags.ids, flags.out);
  const loss = result.loss === null ? '' : `, loss ${result.loss.toFixed(6)}`;
  new Output(flags).result(
    { model: folder, out: flags.out, ...result },
    `${flags.out}: logits [${result.shape.join(', ')}]${loss}`,
  );
}
