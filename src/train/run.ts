import { join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { TOKENIZER_FILE, type Tokenizer } from '../data/tokenizer.js';
import { writeFileAtomic } from '../io/atomic.js';
import { GsaError } from '../native/errors.js';
import { generateText } from '../generate/index.js';
import { parameterCount } from '../models/index.js';
import { warmupCosine } from '../optim/index.js';
import type { Device } from '../tensor/device.js';
import { saveCheckpoint, type Checkpoint } from './checkpoint.js';
import type { TrainEvent, TrainResult, TrainStart } from './events.js';
import { MetricsWriter, type EvaluationRecord, type MemoryRecord, type MetricsRecord } from './metrics.js';
import { GarbageCollections } from './pauses.js';
import { stepsOf, tokensPerStep } from './plan.js';
import type { TrainConfig } from './schema.js';
import type { PreparedText } from './text.js';
import type { StepOutcome, Trainer } from './trainer.js';

/** Steps between two looks at the memory in use. */
const MEMORY_INTERVAL = 100;

/** One run: the counters that a checkpoint carries, and what happens at a step, between steps and at the end. */
export class Run {
  readonly steps: number;
  readonly #config: TrainConfig;
  readonly #text: PreparedText;
  readonly #trainer: Trainer;
  readonly #emit: (event: TrainEvent) => void;
  readonly #metrics: MetricsWriter;
  readonly #collections: GarbageCollections;
  readonly #rate: (step: number) => number;
  readonly #entropy: number | null;
  readonly #resumedFrom: number | null;
  /** Steps put under way, and those of them that are recorded: all, or all but the last. */
  #step = 0;
  #recorded = 0;
  #tokens = 0;
  #seconds = 0;
  #skipped = 0;
  #nonFiniteInARow = 0;
  #loss: number | null = null;
  #savedAt: { step: number; path: string } | null = null;
  #evaluation: EvaluationRecord | null = null;

  constructor(
    config: TrainConfig,
    text: PreparedText,
    trainer: Trainer,
    from: Checkpoint | null,
    emit: (event: TrainEvent) => void,
  ) {
    this.#config = config;
    this.#text = text;
    this.#trainer = trainer;
    this.#emit = emit;
    this.steps = stepsOf(config, text.trainTokens);
    this.#rate = schedule(config, this.steps);
    this.#resumedFrom = from ? from.state.step : null;
    if (from) {
      const { step, tokens, seconds, skipped, nonFiniteInARow, sampler } = from.state;
      this.#step = this.#recorded = step;
      this.#tokens = tokens;
      this.#seconds = seconds;
      this.#skipped = skipped;
      this.#nonFiniteInARow = nonFiniteInARow;
      this.#savedAt = { step, path: from.path };
      text.restoreSampler(sampler);
    }
    if (this.#step > this.steps)
      throw new GsaError(
        'INVALID_CONFIG',
        `Expected at least ${this.#step} steps, which the run in ${config.output} has made, but received ${this.steps}`,
      );
    // The last validation is made again with the end of the run.
    const again = this.#step === this.steps ? this.#step : Infinity;
    const keep = (r: MetricsRecord): boolean =>
      r.step <= this.#step && !(r.step === again && 'validationLoss' in r);
    this.#metrics = new MetricsWriter(config.output, keep);
    this.#entropy = from ? from.state.unigramEntropy : text.unigramEntropy();
    if (!from && this.#entropy !== null) this.#metrics.append({ step: 0, unigramEntropy: this.#entropy });
    this.#collections = new GarbageCollections();
  }

  /** Steps made or under way. */
  get step(): number {
    return this.#step;
  }

  describe(): TrainStart {
    return {
      output: this.#config.output,
      parameters: parameterCount(this.#trainer.model.config),
      steps: this.steps,
      resumedFrom: this.#resumedFrom,
      tokensPerStep: tokensPerStep(this.#config),
      matmul: this.#trainer.model.matmul,
      trainTokens: this.#text.trainTokens,
      validationTokens: this.#text.validationTokens,
      unigramEntropy: this.#entropy,
    };
  }

  /** Puts one optimizer step over the next micro-batches under way, and records the one before.
   * @throws GsaError DIVERGED after `maxNonFinite` skipped steps in a row; IO */
  async trainStep(): Promise<void> {
    const { gradientAccumulation } = this.#config;
    const batches = Array.from({ length: gradientAccumulation }, () => this.#text.nextBatch());
    const before = await this.#trainer.step(batches, this.#rate(this.#step++));
    if (before) this.#record(before);
  }

  /** Waits for the step under way, if any, and records it: everything up to `step` is then known.
   * @throws GsaError as trainStep() */
  async settle(): Promise<void> {
    const last = await this.#trainer.settle();
    if (last) this.#record(last);
  }

  #record(outcome: StepOutcome): void {
    const lr = this.#rate(this.#recorded++);
    const { tokens, seconds, host } = outcome;
    const collectionMs = this.#collections.take(host.from, host.to);
    this.#tokens += tokens;
    this.#seconds += seconds;
    this.#loss = Number.isFinite(outcome.loss) ? outcome.loss : null;
    const record = {
      step: this.#recorded,
      loss: this.#loss,
      lr,
      gradNorm: Number.isFinite(outcome.gradNorm) ? outcome.gradNorm : null,
      tokens,
      tokensPerSecond: tokens / seconds,
      seconds,
      hostSeconds: host.ms / 1e3,
      ...(collectionMs > 0 ? { collectionSeconds: collectionMs / 1e3 } : {}),
      ...(outcome.skipped ? { skipped: true as const } : {}),
      ...(this.#recorded % MEMORY_INTERVAL === 0 ? { memory: memoryInUse(this.#trainer.model.device) } : {}),
    };
    this.#metrics.append(record);
    this.#emit({ type: 'step', ...record });
    this.#countSkip(outcome.skipped);
  }

  #countSkip(skipped: boolean): void {
    this.#nonFiniteInARow = skipped ? this.#nonFiniteInARow + 1 : 0;
    if (!skipped) return;
    this.#skipped++;
    if (this.#nonFiniteInARow < this.#config.maxNonFinite) return;
    const kept = this.#savedAt ? `; the checkpoint of step ${this.#savedAt.step} is kept` : '';
    throw new GsaError(
      'DIVERGED',
      `Expected finite gradients but ${this.#nonFiniteInARow} steps in a row had others, up to step ${this.#recorded}${kept}; lower optimizer.lr or lengthen optimizer.warmupSteps`,
    );
  }

  /** Validation, samples and a checkpoint, each when its interval has passed; none of them at the last step, whose
   * checkpoint and validation belong to the end. */
  async betweenSteps(signal: AbortSignal | undefined): Promise<void> {
    if (this.#step >= this.steps) return;
    const { evaluation, sample, checkpoint } = this.#config;
    const due = (interval: number): boolean => interval > 0 && this.#step % interval === 0;
    if (![evaluation, sample, checkpoint].some(({ interval }) => due(interval))) return;
    await this.settle();
    if (due(evaluation.interval)) await this.evaluate(signal);
    if (due(sample.interval)) await this.#sample(signal);
    if (due(checkpoint.interval)) await this.save();
  }

  /** Mean loss over the first validation batches, the same ones every time. Nothing without validation text, or when the
   * signal comes meanwhile. */
  async evaluate(signal?: AbortSignal): Promise<void> {
    let sum = 0;
    let tokens = 0;
    for (const batch of this.#text.validationBatches(
      this.#config.batchSize,
      this.#config.evaluation.batches,
    )) {
      sum += this.#trainer.evaluate(batch);
      tokens += batch.tokens;
      await nextTurn();
      if (signal?.aborted) return;
    }
    if (tokens === 0) return;
    const validationLoss = sum / tokens;
    this.#evaluation = {
      step: this.#step,
      validationLoss,
      validationPerplexity: Math.exp(validationLoss),
      validationTokens: tokens,
    };
    this.#metrics.append(this.#evaluation);
    this.#emit({ type: 'evaluation', ...this.#evaluation });
  }

  async #sample(signal: AbortSignal | undefined): Promise<void> {
    const { prompts, maxTokens, temperature, topP } = this.#config.sample;
    const seed = this.#config.seed;
    const options = { maxTokens, temperature, topP, seed, signal };
    for (const { prompt, text } of await generateText(
      this.#trainer.model,
      this.#text.tokenizer,
      prompts,
      options,
    ))
      this.#emit({ type: 'sample', step: this.#step, prompt, text });
  }

  /** Saves a checkpoint of this step, which is settled, unless there is one. @throws GsaError IO */
  async save(): Promise<void> {
    if (this.#savedAt?.step === this.#step) return;
    const state = {
      step: this.#step,
      tokens: this.#tokens,
      seconds: this.#seconds,
      skipped: this.#skipped,
      nonFiniteInARow: this.#nonFiniteInARow,
      sampler: this.#text.samplerState(),
      text: this.#text.fingerprint,
      unigramEntropy: this.#entropy,
      config: this.#config,
    };
    const fill = (folder: string): void => {
      this.#trainer.save(folder);
      saveTokenizer(folder, this.#text.tokenizer);
    };
    const path = await saveCheckpoint(this.#config.output, state, fill, this.#config.checkpoint.keep);
    this.#savedAt = { step: this.#step, path };
    this.#emit({ type: 'checkpoint', step: this.#step, path });
  }

  result(status: TrainResult['status']): TrainResult {
    return {
      status,
      output: this.#config.output,
      checkpoint: this.#savedAt!.path,
      step: this.#step,
      steps: this.steps,
      parameters: parameterCount(this.#trainer.model.config),
      tokens: this.#tokens,
      loss: this.#loss,
      validationLoss: this.#evaluation?.validationLoss ?? null,
      validationPerplexity: this.#evaluation?.validationPerplexity ?? null,
      unigramEntropy: this.#entropy,
      skipped: this.#skipped,
      seconds: this.#seconds,
    };
  }

  close(): void {
    this.#collections.close();
    this.#metrics.close();
  }
}

function memoryInUse(device: Device): MemoryRecord {
  const { rss, heapUsed } = process.memoryUsage();
  const { currentBytes, peakBytes, cachedBytes } = device.memory({ resetPeak: true });
  return {
    rssBytes: rss,
    heapBytes: heapUsed,
    deviceBytes: peakBytes,
    deviceReservedBytes: currentBytes + cachedBytes,
  };
}

/** tokenizer.json, and tokenizer_config.json with the names of its control tokens, which the first does not tell: without
 * them another token might be taken for the one that ends documents. */
function saveTokenizer(folder: string, tokenizer: Tokenizer): void {
  writeFileAtomic(join(folder, TOKENIZER_FILE), tokenizer.json);
  const named = (id: number | null): string | null => (id === null ? null : tokenizer.idToToken(id));
  const config = {
    tokenizer_class: 'PreTrainedTokenizerFast',
    bos_token: named(tokenizer.bosId),
    eos_token: named(tokenizer.eosId),
  };
  writeFileAtomic(join(folder, 'tokenizer_config.json'), JSON.stringify(config, null, 2) + '\n');
}

/** Learning rate of a step, 0 being the first. */
function schedule(config: TrainConfig, steps: number): (step: number) => number {
  const { lr, minLr, warmupSteps } = config.optimizer;
  return warmupCosine({
    peak: lr,
    min: minLr ?? lr / 10,
    warmup: Math.min(warmupSteps ?? Math.min(1000, Math.ceil(steps / 10)), steps),
    total: steps,
  });
}
