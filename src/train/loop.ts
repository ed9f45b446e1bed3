import { readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { writeFileAtomic } from '../io/atomic.js';
import { ioError, makeFolder } from '../io/files.js';
import { GSAForCausalLM } from '../models/index.js';
import { GsaError, checkFunction, checkOptions, expected } from '../native/errors.js';
import { device } from '../tensor/device.js';
import { checkpointFolders, recoverCheckpoint, type Checkpoint } from './checkpoint.js';
import { changedKeys, parseTrainConfig } from './config.js';
import type { TrainEvent, TrainResult } from './events.js';
import { lockFolder } from './lock.js';
import { metricsPath } from './metrics.js';
import { modelConfig, modelSource } from './model-source.js';
import { stepsOf } from './plan.js';
import { plotRun } from './plot-run.js';
import { Run } from './run.js';
import type { TrainConfig, TrainConfigInput } from './schema.js';
import { readSummary, summaryPath } from './summary.js';
import { prepareText, type PreparedText } from './text.js';
import { Trainer } from './trainer.js';

export interface TrainOptions {
  /** Finishes the running step, saves a checkpoint and resolves with status `interrupted`. */
  signal?: AbortSignal;
  onEvent?: (event: TrainEvent) => void;
  /** `auto` goes on from the newest checkpoint, if any; `resume` wants there to be one; `fresh` deletes what an earlier
   * run left in the output folder. Default `auto`. */
  start?: 'auto' | 'resume' | 'fresh';
}

/** Trains a language model as a configuration says; see docs/training-config.md. Resumes from the newest whole checkpoint
 * in the output folder. The event loop gets a turn after every step.
 * @throws GsaError INVALID_CONFIG when the configuration is wrong or would compute something else than the run that it
 * resumes; DIVERGED after too many non-finite gradients in a row; IO when the output folder is in use or not writable;
 * ABORTED when the signal comes while the text is being prepared. Earlier checkpoints are kept in every case. */
export async function train(
  input: TrainConfigInput | TrainConfig,
  options: TrainOptions = {},
): Promise<TrainResult> {
  checkOptions(options, ['signal', 'onEvent', 'start'], 'train');
  if (options.onEvent !== undefined) checkFunction(options.onEvent, 'onEvent', 'train');
  if (options.start !== undefined && !['auto', 'resume', 'fresh'].includes(options.start))
    throw expected('"auto", "resume" or "fresh"', 'start', options.start, 'train');
  const config = await parseTrainConfig(input);
  const emit = options.onEvent ?? (() => {});
  makeFolder(config.output);
  const unlock = lockFolder(config.output);
  try {
    if (config.threads !== undefined) device('cpu').setOption('threads', config.threads);
    if (options.start === 'fresh') clearRun(config.output);
    const from = await recoverCheckpoint(config.output, (message) => emit({ type: 'warning', message }));
    checkStart(config, from, options.start ?? 'auto');
    const text = await prepareText(config, {
      resumed: from && from.path,
      signal: options.signal,
      onStatus: (message) => emit({ type: 'status', message }),
    });
    try {
      return await trainOn(config, text, from, emit, options.signal);
    } finally {
      text.close();
    }
  } finally {
    unlock();
  }
}

/** Deletes what the run before wrote, and nothing else; packed tokens and vocabulary are made again when they no longer
 * fit. */
function clearRun(output: string): void {
  const made = ['metrics.jsonl', 'loss.svg', 'loss.png', 'summary.json'];
  const damaged = readdirSync(output).filter((name) => /^damaged-step-\d+$/.test(name));
  try {
    for (const name of [...made, ...damaged]) rmSync(join(output, name), { recursive: true, force: true });
    for (const { path } of checkpointFolders(output)) rmSync(path, { recursive: true, force: true });
  } catch (error) {
    throw ioError(error, 'clear', output);
  }
}

function checkStart(config: TrainConfig, from: Checkpoint | null, start: 'auto' | 'resume' | 'fresh'): void {
  if (from === null) {
    if (start === 'resume')
      throw new GsaError('IO', `Expected a checkpoint to resume from in ${config.output} but there is none`);
    // Metrics of steps that no checkpoint holds belong to a run that has to start over.
    rmSync(metricsPath(config.output), { force: true });
    return;
  }
  // Runs of earlier versions had no choice of it.
  const changed = changedKeys({ matmul: 'dtype', ...(from.state.config as object) }, config);
  if (changed.length > 0)
    throw new GsaError(
      'INVALID_CONFIG',
      `Expected the configuration of the run in ${config.output} (step ${from.state.step}) but ${changed.join(', ')} differ${changed.length === 1 ? 's' : ''}; set it back, start over with --fresh, or choose another output`,
    );
}

async function trainOn(
  config: TrainConfig,
  text: PreparedText,
  from: Checkpoint | null,
  emit: (event: TrainEvent) => void,
  signal: AbortSignal | undefined,
): Promise<TrainResult> {
  if (from && from.state.text !== text.fingerprint)
    throw new GsaError(
      'INVALID_CONFIG',
      `Expected the text of the run in ${config.output} but it has changed since; put it back, start over with --fresh, or choose another output`,
    );
  const finished = from && readSummary(config.output, from.state.step, stepsOf(config, text.trainTokens));
  if (finished) {
    emit({ type: 'status', message: `the run in ${config.output} is complete; --fresh starts it over` });
    emit({ type: 'end', ...finished });
    return finished;
  }
  const trainer = new Trainer(makeModel(config, text, from), config);
  try {
    if (from) trainer.restoreOptimizer(from.path);
    const run = new Run(config, text, trainer, from, emit);
    try {
      emit({ type: 'start', ...run.describe() });
      const result = await runToEnd(run, config, signal);
      emit({ type: 'end', ...result });
      return result;
    } finally {
      run.close();
    }
  } finally {
    trainer.dispose();
  }
}

function makeModel(config: TrainConfig, text: PreparedText, from: Checkpoint | null): GSAForCausalLM {
  const options = { device: config.device, dtype: config.dtype, matmul: config.matmul } as const;
  if (from) return GSAForCausalLM.load(from.path, options);
  const source = modelSource(config.model);
  const checked = modelConfig(source, text.tokenizer);
  if (source.weights) return GSAForCausalLM.load(source.weights, options);
  return GSAForCausalLM.create(checked, { ...options, seed: config.seed });
}

async function runToEnd(
  run: Run,
  config: TrainConfig,
  signal: AbortSignal | undefined,
): Promise<TrainResult> {
  const aborted = (): boolean => signal?.aborted ?? false;
  while (run.step < run.steps && !aborted()) {
    await run.trainStep();
    await nextTurn();
    // A person who waits for the end of the step waits for nothing more than the save.
    if (!aborted()) await run.betweenSteps(signal);
  }
  await run.settle();
  await run.save();
  if (run.step < run.steps) return run.result('interrupted');
  await run.evaluate(signal);
  if (aborted()) return run.result('interrupted');
  const result = run.result('completed');
  await plotRun(config.output);
  writeFileAtomic(summaryPath(config.output), JSON.stringify(result, null, 2) + '\n');
  return result;
}
