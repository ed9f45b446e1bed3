import { join } from 'node:path';
import { packageRoot } from '#src/native/load.js';
import type { TrainConfigInput } from '#src/train/schema.js';

export const TEXT = join(packageRoot(), 'test', 'fixtures', 'text');

/** A training of well under a second: 16 steps of 256 tokens on a few KB of text, constant learning rate, so that what a
 * step does depends on nothing but the steps before it. */
export function tinyConfig(output: string, changes: Partial<TrainConfigInput> = {}): TrainConfigInput {
  return {
    model: {
      hidden_size: 32,
      num_hidden_layers: 2,
      num_heads: 2,
      num_slots: 8,
      intermediate_size: 64,
      use_short_conv: true,
    },
    data: {
      train: [TEXT],
      tokenizer: { train: { vocabSize: 384 } },
      seqLen: 32,
      validationFraction: 0.2,
    },
    output,
    steps: 16,
    batchSize: 4,
    gradientAccumulation: 2,
    optimizer: { lr: 0.003, minLr: 0.003, warmupSteps: 0 },
    evaluation: { interval: 0, batches: 4 },
    checkpoint: { interval: 8, keep: 3 },
    threads: 1,
    ...changes,
  };
}
