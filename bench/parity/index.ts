// Whether two programs, or two precisions, learn alike: the same initial weights, the same tokens, the same learning rates.
//
//   parity prepare DIR --config FILE       a training configuration: its text, model, optimizer and number of steps
//   parity train DIR --name NAME [--device D] [--dtype T] [--matmul M]
//   parity compare DIR NAME OTHER [--last N] [--bound B]
//
// `prepare` writes DIR/model (weights that bfloat16 holds exactly), DIR/tokens.safetensors (ids [steps, B, T]) and
// DIR/settings.json; whoever trains writes the mean loss of each step to DIR/losses-NAME.json. bench/peers/fla_parity.py
// does it with flash-linear-attention. The last token of a sequence has no label, since peers shift labels themselves.
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { IGNORED, type Batch } from '#src/data/sampler.js';
import { writeFileAtomic } from '#src/io/atomic.js';
import { openSafetensors, writeSafetensors } from '#src/io/safetensors.js';
import { GSAForCausalLM, type ModelOptions } from '#src/models/index.js';
import { warmupCosine } from '#src/optim/index.js';
import { scope } from '#src/tensor/scope.js';
import { parseTrainConfig, type TrainConfig, type TrainConfigInput } from '#src/train/config.js';
import { modelConfig, modelSource } from '#src/train/model-source.js';
import { prepareText } from '#src/train/text.js';
import { Trainer } from '#src/train/trainer.js';

interface Settings {
  readonly config: TrainConfig;
  /** Learning rate of each step. */
  readonly lrs: readonly number[];
}

const readJson = <T>(path: string): T => JSON.parse(readFileSync(path, 'utf8')) as T;
const writeJson = (path: string, value: unknown): void =>
  writeFileAtomic(path, JSON.stringify(value, null, 2) + '\n');
const lossesPath = (folder: string, name: string): string => join(folder, `losses-${name}.json`);

/** Initial weights that both precisions start from. */
function saveModel(folder: string, config: Parameters<typeof GSAForCausalLM.create>[0], seed: number): void {
  using model = GSAForCausalLM.create(config, { seed });
  scope(() => {
    for (const parameter of model.parameters())
      parameter.write(parameter.to({ dtype: 'bfloat16' }).to({ dtype: 'float32' }).toHost());
  });
  model.save(folder);
}

async function prepare(folder: string, file: string): Promise<void> {
  mkdirSync(folder, { recursive: true });
  const config = await parseTrainConfig({ ...readJson<TrainConfigInput>(file), output: folder });
  const { seqLen } = config.data;
  const { lr, minLr, warmupSteps, clip } = config.optimizer;
  const steps = config.steps ?? 200;
  if (clip === null) throw new Error('Expected a number for optimizer.clip, since peers clip');
  const text = await prepareText(config, { resumed: null, onStatus: console.error });
  try {
    const ids = new Int32Array(steps * config.batchSize * seqLen);
    for (let step = 0; step < steps; step++) ids.set(text.nextBatch().ids, step * config.batchSize * seqLen);
    const shape = [steps, config.batchSize, seqLen];
    writeSafetensors(join(folder, 'tokens.safetensors'), [{ name: 'ids', dtype: 'int32', shape, data: ids }]);
    saveModel(join(folder, 'model'), modelConfig(modelSource(config.model), text.tokenizer), config.seed);
  } finally {
    text.close();
  }
  const rate = warmupCosine({ peak: lr, min: minLr ?? lr / 10, warmup: warmupSteps ?? 20, total: steps });
  const lrs = Array.from({ length: steps }, (_, step) => rate(step));
  writeJson(join(folder, 'settings.json'), { config, lrs } satisfies Settings);
}

/** The batch of a step; each token's label is its successor. */
function batchOf(tokens: Int32Array, shape: readonly number[], step: number): Batch {
  const [, B, T] = shape as [number, number, number];
  const ids = tokens.slice(step * B * T, (step + 1) * B * T);
  const labels = Int32Array.from(ids, (_, i) => (i % T === T - 1 ? IGNORED : ids[i + 1]!));
  return { ids, labels, shape: [B, T], tokens: B * (T - 1), cuSeqlens: null };
}

async function train(
  folder: string,
  name: string,
  device: string,
  dtype: string,
  matmul: string,
): Promise<void> {
  if (dtype !== 'float32' && dtype !== 'bfloat16')
    throw new Error(`Expected float32 or bfloat16 for --dtype but received ${dtype}`);
  const { config, lrs } = readJson<Settings>(join(folder, 'settings.json'));
  using file = openSafetensors(join(folder, 'tokens.safetensors'));
  const { data, shape } = file.read('ids');
  const options: ModelOptions = { device, dtype, matmul: matmul as ModelOptions['matmul'] };
  const model = GSAForCausalLM.load(join(folder, 'model'), options);
  const trainer = new Trainer(model, config);
  const losses: number[] = [];
  const note = (outcome: Awaited<ReturnType<Trainer['settle']>>): void => {
    if (outcome) losses.push(outcome.loss);
  };
  try {
    for (const [step, lr] of lrs.entries())
      note(await trainer.step([batchOf(data as Int32Array, shape, step)], lr));
    note(await trainer.settle());
  } finally {
    trainer.dispose();
  }
  writeJson(lossesPath(folder, name), { name, device: String(model.device), dtype, matmul, losses });
  console.log(
    `${name}: ${losses.length} steps, loss ${losses[0]!.toFixed(4)} to ${losses.at(-1)!.toFixed(4)}`,
  );
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** False when the means of the last losses differ by more than `bound` of the second. */
function compare(folder: string, names: readonly [string, string], last: number, bound: number): boolean {
  const [a, b] = names.map((name) => readJson<{ losses: number[] }>(lossesPath(folder, name)).losses) as [
    number[],
    number[],
  ];
  if (a.length !== b.length || a.length < last)
    throw new Error(`Expected ${last} steps of both or more but received ${a.length} and ${b.length}`);
  const [meanA, meanB] = [mean(a.slice(-last)), mean(b.slice(-last))];
  const difference = Math.abs(meanA / meanB - 1);
  const largest = Math.max(...a.map((loss, i) => Math.abs(loss / b[i]! - 1)));
  const pass = difference <= bound;
  console.log(
    `${names[0]} ${meanA.toFixed(4)}, ${names[1]} ${meanB.toFixed(4)} (mean of the last ${last} of ${a.length}): ` +
      `${(difference * 100).toFixed(3)}% apart, bound ${bound * 100}%; largest of one step ${(largest * 100).toFixed(2)}%: ${pass ? 'ok' : 'TOO FAR'}`,
  );
  return pass;
}

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      config: { type: 'string' },
      name: { type: 'string' },
      device: { type: 'string', default: 'cpu' },
      dtype: { type: 'string', default: 'float32' },
      matmul: { type: 'string', default: 'dtype' },
      last: { type: 'string', default: '50' },
      bound: { type: 'string', default: '0.005' },
    },
  });
  const [what, folder, a, b] = positionals;
  if (what === 'prepare' && folder && values.config) return prepare(folder, values.config);
  if (what === 'train' && folder && values.name)
    return train(folder, values.name, values.device, values.dtype, values.matmul);
  if (what === 'compare' && folder && a && b) {
    if (!compare(folder, [a, b], Number(values.last), Number(values.bound))) process.exitCode = 1;
    return;
  }
  throw new Error(
    'Expected prepare DIR --config FILE, train DIR --name NAME, or compare DIR NAME OTHER; see bench/parity/index.ts',
  );
}

await main();
