import { join } from 'node:path';
import { STATE_OF_THE_UNION } from '../data/corpus.js';
import type { TrainConfigInput } from './schema.js';

/** Minutes of training that the standard number of steps takes on two cores; the whole command takes about one more. */
const STANDARD_MINUTES = 3;
const STANDARD_STEPS = 900;

/** What the samples continue. */
export const PROMPTS: readonly string[] = [
  'The people of the United States',
  'We must',
  'Fellow-citizens of the Senate and House of Representatives:',
];

export const SAMPLING = { maxTokens: 60, temperature: 0.7, topP: 0.9, seed: 1 } as const;

export function corpusFolder(folder: string): string {
  return join(folder, 'corpus');
}

/** The training of the quickstart: a GSA model of 4.6 million parameters on the State of the Union addresses. The number
 * of steps follows from `minutes` alone, not from the machine's speed, so that the result is the same everywhere.
 * Chosen by validation loss after equal numbers of tokens: small batches (many steps) and a high learning rate.
 * @param on where and in what it is computed; the CPU in float32 when absent */
export function quickstartConfig(
  folder: string,
  minutes = STANDARD_MINUTES,
  on: Pick<TrainConfigInput, 'device' | 'dtype'> = {},
): TrainConfigInput {
  const steps = Math.max(1, Math.round((STANDARD_STEPS * minutes) / STANDARD_MINUTES));
  return {
    model: {
      hidden_size: 256,
      num_hidden_layers: 4,
      num_heads: 4,
      num_slots: 32,
      intermediate_size: 768,
      use_short_conv: true,
      tie_word_embeddings: true,
      max_position_embeddings: 256,
    },
    data: {
      train: join(corpusFolder(folder), STATE_OF_THE_UNION.name),
      tokenizer: { train: { vocabSize: 4096 } },
      seqLen: 256,
      validationFraction: 0.05,
    },
    output: join(folder, 'run'),
    steps,
    batchSize: 2,
    optimizer: { lr: 1.5e-3 },
    evaluation: { interval: 300, batches: 64 },
    checkpoint: { interval: 150, keep: 2 },
    seed: 1,
    ...on,
  };
}
