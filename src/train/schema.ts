import { z } from 'zod';
import { MATMUL_MODES } from '../tensor/dtype.js';

// Every description below is a line of docs/training-config.md: test/train/config-docs.test.ts writes that table.

/** Tokens of a vocabulary that is trained because none was named. */
export const DEFAULT_VOCABULARY = 4096;

const positive = z.int().min(1);
const count = z.int().min(0);

const tokenizer = z.union([
  z.string().min(1),
  z.strictObject({
    train: z
      .strictObject({
        vocabSize: z.int().min(260).max(1_000_000).default(4096).describe('Tokens of the new vocabulary.'),
      })
      .describe('Train a byte-level BPE vocabulary on the training text.'),
  }),
]);

const data = z.strictObject({
  train: z
    .union([z.string().min(1), z.array(z.string().min(1)).min(1)])
    .transform((paths) => (typeof paths === 'string' ? [paths] : paths))
    .describe('Text to train on: .txt and .jsonl files, or folders searched for them.'),
  tokenizer: tokenizer
    .optional()
    .describe(
      'Path of a `tokenizer.json`, or `{ "train": { "vocabSize": N } }` to train one on this text. When absent: the one in the model folder, else a new one of 4096 tokens.',
    ),
  separator: z
    .string()
    .min(1)
    .optional()
    .describe('Cuts a .txt file into documents wherever this string stands; a file is one when absent.'),
  textField: z.string().min(1).default('text').describe('The field of a .jsonl line that holds its text.'),
  seqLen: z.int().min(2).default(512).describe('Tokens a sequence.'),
  validationFraction: z
    .number()
    .min(0)
    .max(0.5)
    .default(0.01)
    .describe('Share of the documents held out for validation, chosen by `seed`; 0 for none.'),
  cache: z
    .string()
    .min(1)
    .optional()
    .describe('Folder for the packed tokens, reusable by other runs; `<output>/data` when absent.'),
});

const optimizer = z.strictObject({
  lr: z.number().positive().default(1e-3).describe('Peak learning rate, reached at the end of the warm-up.'),
  minLr: z
    .number()
    .min(0)
    .optional()
    .describe('Learning rate of the last step (cosine decay); a tenth of `lr` when absent.'),
  warmupSteps: count
    .optional()
    .describe('Steps of linear warm-up; the smaller of 1000 and a tenth of all steps when absent.'),
  betas: z
    .tuple([z.number().min(0).lt(1), z.number().min(0).lt(1)])
    .default([0.9, 0.95])
    .describe('AdamW decay rates of the first and second moment.'),
  eps: z.number().positive().default(1e-8).describe('AdamW term added to the root of the second moment.'),
  weightDecay: z
    .number()
    .min(0)
    .default(0.1)
    .describe('Decoupled weight decay of matrices; norm weights never decay.'),
  clip: z
    .number()
    .positive()
    .nullable()
    .default(1)
    .describe('Largest global gradient norm; null for no clipping.'),
});

const evaluation = z.strictObject({
  interval: count.default(200).describe('Steps between validations; 0 for one at the end only.'),
  batches: positive.default(16).describe('Batches a validation; fewer when the held-out text is shorter.'),
});

const checkpoint = z.strictObject({
  interval: count.default(500).describe('Steps between checkpoints; 0 for one at the end only.'),
  keep: positive.default(2).describe('Checkpoints kept; older ones are deleted.'),
});

const sample = z.strictObject({
  interval: count.default(0).describe('Steps between text samples; 0 for none.'),
  prompts: z.array(z.string()).min(1).default(['The ']).describe('A sample is generated for each of these.'),
  maxTokens: positive.default(48).describe('Tokens a sample.'),
  temperature: z.number().positive().default(0.8).describe('Sampling temperature.'),
  topP: z.number().positive().max(1).default(0.95).describe('Nucleus: least probable tokens left out.'),
});

/** The training configuration; unknown keys are refused at every level. */
export const trainSchema = z.strictObject({
  model: z
    .union([z.string().min(1), z.record(z.string(), z.unknown())])
    .describe(
      'The model: a Hugging Face `gsa` config object (`vocab_size` may be left out), the path of such a `config.json`, ' +
        'or a model folder whose weights are trained further.',
    ),
  data: data.describe('Text, tokenizer and packing.'),
  output: z
    .string()
    .min(1)
    .default('runs/default')
    .describe('Folder of the run: checkpoints, metrics.jsonl, curves.'),
  steps: positive.optional().describe('Optimizer steps. At most one of `steps`, `tokens` and `epochs`.'),
  tokens: positive.optional().describe('Training tokens; rounded up to whole steps.'),
  epochs: z
    .number()
    .positive()
    .optional()
    .describe('Passes over the training tokens; 1 when none of the three is given.'),
  batchSize: positive.default(8).describe('Sequences a micro-batch.'),
  gradientAccumulation: positive
    .default(1)
    .describe('Micro-batches a step; gradients are weighted by token count.'),
  optimizer: optimizer.prefault({}).describe('AdamW, schedule and clipping.'),
  evaluation: evaluation.prefault({}).describe('Validation on the held-out text.'),
  checkpoint: checkpoint.prefault({}).describe('Checkpoints in the output folder.'),
  sample: sample.prefault({}).describe('Text generated while training.'),
  seed: z.int().min(0).default(0).describe('Seed of weights, split, shuffling and samples.'),
  device: z
    .string()
    .regex(/^(cpu|cuda(:\d+)?)$/)
    .default('cpu')
    .describe('`cpu`, `cuda` or `cuda:N`.'),
  dtype: z
    .enum(['float32', 'bfloat16'])
    .default('float32')
    .describe(
      'What weights and activations are held and computed in; bfloat16 (CUDA only) keeps float32 masters, in 16 bits more.',
    ),
  matmul: z
    .enum(MATMUL_MODES)
    .default('dtype')
    .describe(
      'What the products of the blocks are computed in while training: `dtype`, or 8-bit floats with float32 sums, faster ' +
        'on H100; fp8 is E4M3 throughout, fp8-hybrid has gradients in E5M2. Extents of the matrices and tokens of a ' +
        'micro-batch have to be multiples of 16. Weights, checkpoints, validation and samples stay in `dtype`.',
    ),
  recompute: z
    .union([z.boolean(), z.literal('blocks')])
    .default(false)
    .describe(
      'What is made again in the backward pass instead of kept: `true`: outputs of norms, SwiGLU and the activations of ' +
        'attention, for a few percent more time; `"blocks"`: all that is inside a block, for about a third more. The ' +
        'results are the same.',
    ),
  threads: z.int().min(1).max(1024).optional().describe('CPU threads; every core when absent.'),
  maxNonFinite: positive
    .default(5)
    .describe(
      'Steps in a row with a non-finite gradient (each is skipped and counted) after which training stops.',
    ),
});

/** What a user may write. */
export type TrainConfigInput = z.input<typeof trainSchema>;
/** What the loop reads: every default filled in. */
export type TrainConfig = z.output<typeof trainSchema>;
