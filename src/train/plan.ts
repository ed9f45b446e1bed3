import { statSync } from 'node:fs';
import { join } from 'node:path';
import { listTextFiles } from '../data/files.js';
import { loadTokenizer } from '../data/tokenizer.js';
import {
  parameterBreakdown,
  parameterCount,
  readGsaConfig,
  trainingMemory,
  type GSAConfig,
  type ModelPart,
  type TrainingMemory,
} from '../models/index.js';
import { bytes, compact } from './format.js';
import { modelConfig, modelSource, type VocabularyInfo } from './model-source.js';
import type { TrainConfig } from './schema.js';
import { tokenizerSource } from './text.js';

export interface ConfigSummary {
  readonly path: string;
  readonly parameters: number;
  readonly parts: Readonly<Record<ModelPart, number>>;
  readonly config: GSAConfig;
}

/** Parameter counts of a config.json, or of a folder that holds one; allocates nothing.
 * @throws GsaError INVALID_CONFIG, IO */
export function describeConfig(path: string): ConfigSummary {
  const isFolder = statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
  const config = readGsaConfig(isFolder ? join(path, 'config.json') : path);
  return { path, parameters: parameterCount(config), parts: parameterBreakdown(config), config };
}

/** What a training will take, told before anything is allocated. */
export interface TrainPlan {
  readonly output: string;
  readonly device: string;
  readonly parameters: number;
  readonly parts: Readonly<Record<ModelPart, number>>;
  readonly config: GSAConfig;
  /** Bytes of the training on its device, by use. */
  readonly memory: TrainingMemory;
  readonly tokensPerStep: number;
  readonly steps: number;
  /** True when the steps depend on how many tokens the text has: until it is packed, a token is taken for four bytes. */
  readonly stepsEstimated: boolean;
  readonly textFiles: number;
  readonly textBytes: number;
}

/** Bytes of English text for one token of a small vocabulary; only for estimates. */
const BYTES_PER_TOKEN = 4;

/** Optimizer steps of a run over `trainTokens` tokens of text. */
export function stepsOf(config: TrainConfig, trainTokens: number): number {
  if (config.steps !== undefined) return config.steps;
  const tokens = config.tokens ?? (config.epochs ?? 1) * trainTokens;
  return Math.max(1, Math.ceil(tokens / tokensPerStep(config)));
}

export function tokensPerStep(config: TrainConfig): number {
  return config.batchSize * config.gradientAccumulation * config.data.seqLen;
}

/** Checks that the text, the tokenizer and the model of a configuration are there and fit together, and counts. Reads no
 * text and no weights, allocates no tensor.
 * @throws GsaError INVALID_CONFIG, INVALID_ARGUMENT, INVALID_FILE, IO */
export function planTraining(config: TrainConfig): TrainPlan {
  const files = listTextFiles(config.data.train);
  const textBytes = files.reduce((sum, file) => sum + statSync(file).size, 0);
  const source = modelSource(config.model);
  const model = modelConfig(source, expectedVocabulary(config));
  const estimated = config.steps === undefined && config.tokens === undefined;
  return {
    output: config.output,
    device: config.device,
    parameters: parameterCount(model),
    parts: parameterBreakdown(model),
    config: model,
    memory: trainingMemory(model, {
      batch: config.batchSize,
      seqLen: config.data.seqLen,
      dtype: config.dtype,
      backend: config.device.startsWith('cuda') ? 'cuda' : 'cpu',
    }),
    tokensPerStep: tokensPerStep(config),
    steps: stepsOf(config, (textBytes / BYTES_PER_TOKEN) * (1 - config.data.validationFraction)),
    stepsEstimated: estimated,
    textFiles: files.length,
    textBytes,
  };
}

function expectedVocabulary(config: TrainConfig): VocabularyInfo {
  const source = tokenizerSource(config);
  if (typeof source === 'string') return loadTokenizer(source);
  return { vocabSize: source.train.vocabSize, bosId: null, eosId: null };
}

export function planText(plan: TrainPlan): string {
  const { memory: m } = plan;
  const about = plan.stepsEstimated ? ' (estimated: the text is not packed yet)' : '';
  return [
    `parameters   ${plan.parameters} (${compact(plan.parameters)})`,
    `text         ${plan.textFiles} file${plan.textFiles === 1 ? '' : 's'}, ${bytes(plan.textBytes)}`,
    `steps        ${plan.steps}${about} of ${compact(plan.tokensPerStep)} tokens`,
    `memory       ${bytes(m.total)} on ${plan.device}: weights ${bytes(m.weights)}, gradients ${bytes(m.gradients)}, moments ${bytes(m.moments)}, activations ${bytes(m.activations)}, workspace ${bytes(m.workspace)}`,
    `output       ${plan.output}`,
  ].join('\n');
}
