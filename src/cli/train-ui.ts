import type { TrainResult } from '../train/events.js';
import type { TrainConfig } from '../train/schema.js';
import { useColor, type Output } from './output.js';
import { withSignals } from './signals.js';

/** What `train` and `quickstart` share: runs a training with progress on stderr, events as NDJSON on stdout when asked,
 * and Ctrl-C / SIGTERM that save first. */
export async function runTraining(
  config: TrainConfig,
  options: { start: 'auto' | 'resume' | 'fresh'; output: Output },
): Promise<TrainResult> {
  const { output, start } = options;
  const [{ train }, { Progress }, { lossText, duration }] = await Promise.all([
    import('../train/loop.js'),
    import('../train/progress.js'),
    import('../train/format.js'),
  ]);
  const progress = await Progress.create(process.stderr, { color: useColor(process.stderr) });
  const announce = (name: string): void =>
    progress.handle({
      type: 'status',
      message: `${name}: finishing this step and saving; once more to leave at once`,
    });
  try {
    const result = await withSignals(announce, (signal) =>
      train(config, {
        signal,
        start,
        onEvent: (event) => {
          progress.handle(event);
          if (output.json) output.result(event, null);
        },
      }),
    );
    if (!output.json) output.write(summary(result, lossText, duration));
    return result;
  } finally {
    progress.stop();
  }
}

function summary(
  result: TrainResult,
  lossText: (loss: number | null) => string,
  duration: (seconds: number) => string,
): string {
  const lines = [
    `${result.status} at step ${result.step} of ${result.steps}, ${result.tokens} tokens, ${duration(result.seconds)}`,
  ];
  if (result.validationLoss !== null)
    lines.push(
      `validation loss    ${lossText(result.validationLoss)} nats per token (perplexity ${result.validationPerplexity!.toFixed(2)})`,
    );
  if (result.unigramEntropy !== null)
    lines.push(`unigram entropy    ${lossText(result.unigramEntropy)} nats per token`);
  if (result.skipped > 0) lines.push(`skipped updates    ${result.skipped} (gradients that were not finite)`);
  lines.push(`checkpoint         ${result.checkpoint}`);
  return lines.join('\n') + '\n';
}
