import { join } from 'node:path';
import { Tape } from '../autograd/tape.js';
import type { Batch } from '../data/sampler.js';
import { openSafetensors, writeSafetensors } from '../io/safetensors.js';
import type { GSAForCausalLM } from '../models/index.js';
import { GsaError } from '../native/errors.js';
import { AdamW, clipScale, decayGroups } from '../optim/index.js';
import { elapsedMs, type DeviceEvent } from '../tensor/device.js';
import { noGrad } from '../tensor/recorder.js';
import { keep, scope } from '../tensor/scope.js';
import { sameShape, shapeText } from '../tensor/shape.js';
import { Tensor } from '../tensor/tensor.js';
import type { TrainConfig } from './schema.js';

export interface StepOutcome {
  /** Mean over the step's tokens, nats; not finite when the step was skipped. */
  readonly loss: number;
  readonly gradNorm: number;
  readonly tokens: number;
  readonly skipped: boolean;
  /** By the device's clock, from the end of the step before, or from its own start when the device had nothing to do. */
  readonly seconds: number;
  /** What the host did for it. */
  readonly host: HostWork;
}

/** From the end of the step before (where that was still under way) until a step was under way, by performance.now(), and the
 * milliseconds of it in which the host did not wait for the device. */
export interface HostWork {
  readonly from: number;
  readonly to: number;
  readonly ms: number;
}

/** A step that the device may still be working on. */
interface StepUnderWay {
  /** Losses of its micro-batches and the gradient's norm, on their way to the host. */
  readonly values: Promise<number[]>;
  readonly tokens: number;
  readonly start: DeviceEvent;
  readonly end: DeviceEvent;
  readonly host: HostWork;
}

const OPTIMIZER_FILE = 'optimizer.safetensors';

/** A model with its optimizer: one step, one validation, and both halves of a checkpoint. Knows nothing of files' places,
 * schedules or loops. What a step came to is told a step later, so that the device always has work while the host looks
 * at results. */
export class Trainer {
  readonly model: GSAForCausalLM;
  readonly optimizer: AdamW;
  readonly #tape: Tape;
  readonly #clip: number;
  readonly #parameters: readonly Tensor[];
  #underWay: StepUnderWay | null = null;

  constructor(model: GSAForCausalLM, config: TrainConfig) {
    this.model = model;
    this.#tape = new Tape({ recompute: config.recompute });
    this.#parameters = model.parameters();
    const { lr, betas, eps, weightDecay, clip } = config.optimizer;
    this.optimizer = new AdamW(decayGroups(model.namedParameters(), weightDecay), {
      lr,
      betas: betas as [number, number],
      eps,
    });
    this.#clip = clip ?? Infinity;
  }

  /** Summed loss of one micro-batch; run inside the tape for gradients. */
  #loss(batch: Batch): Tensor {
    const options = { dtype: 'int32', device: this.model.device } as const;
    return scope(() => {
      const ids = Tensor.from(batch.ids, batch.shape, options);
      const labels = Tensor.from(batch.labels, batch.shape, options);
      return this.model.loss(ids, labels, { tokens: batch.tokens }).loss;
    });
  }

  /** Puts one update under way: from the mean gradient over all tokens of the micro-batches, clipped. When the loss or a
   * gradient is not finite, weights and moments stay as they are: the device sees to that itself.
   * @returns what the step before came to, if that was not settled yet. It is waited for between this step's backward and
   * its update (whose bias correction depends on it), when the device has this step's work before it. */
  async step(batches: readonly Batch[], lr: number): Promise<StepOutcome | null> {
    const start = this.#underWay?.end ?? this.model.device.event();
    const from = this.#underWay?.host.to ?? performance.now();
    this.optimizer.zeroGrad();
    const losses: Tensor[] = [];
    try {
      for (const batch of batches) {
        losses.push(keep(this.#tape.run(() => this.#loss(batch))));
        this.#tape.backward(losses.at(-1)!);
      }
      const waits = performance.now();
      const before = await this.settle();
      const waited = performance.now() - waits;
      const tokens = batches.reduce((sum, batch) => sum + batch.tokens, 0);
      const { values, end } = this.#update(losses, tokens, lr);
      const to = performance.now();
      this.#underWay = { values, tokens, start, end, host: { from, to, ms: to - from - waited } };
      return before;
    } finally {
      for (const loss of losses) loss.dispose();
    }
  }

  #update(losses: readonly Tensor[], tokens: number, lr: number): Pick<StepUnderWay, 'values' | 'end'> {
    return scope(() => {
      const { scale, norm } = clipScale(this.#parameters, {
        maxNorm: this.#clip,
        gradScale: 1 / tokens,
        losses,
      });
      this.optimizer.step({ lr, scale });
      this.optimizer.zeroGrad();
      const end = this.model.device.event();
      const values = Promise.all([...losses, norm].map((x) => x.itemAsync()));
      values.catch(() => {}); // told by settle(), which may come after the rejection
      return { values, end };
    });
  }

  /** Waits for the step under way.
   * @returns what it came to, or null when there is none
   * @throws GsaError DEVICE_LOST */
  async settle(): Promise<StepOutcome | null> {
    if (!this.#underWay) return null;
    const { values, tokens, start, end, host } = this.#underWay;
    this.#underWay = null;
    const losses = await values;
    const gradNorm = losses.pop()!;
    const skipped = !Number.isFinite(gradNorm);
    if (skipped) this.optimizer.uncountStep();
    const loss = losses.reduce((sum, one) => sum + one, 0) / tokens;
    return { loss, gradNorm, tokens, skipped, seconds: elapsedMs(start, end) / 1000, host };
  }

  /** Summed loss of a batch, without gradients. */
  evaluate(batch: Batch): number {
    return noGrad(() => {
      const loss = this.#loss(batch);
      try {
        return loss.item();
      } finally {
        loss.dispose();
      }
    });
  }

  /** Writes model.safetensors, config.json and optimizer.safetensors, of a settled step. @throws GsaError IO */
  save(folder: string): void {
    this.model.save(folder);
    const entries = [...this.optimizer.state()].map(([name, tensor]) => ({
      name,
      dtype: 'float32' as const,
      shape: tensor.shape,
      data: () => tensor.read(),
    }));
    writeSafetensors(join(folder, OPTIMIZER_FILE), entries, { steps: String(this.optimizer.stepCount) });
  }

  /** Reads the moments and masters that save() wrote, one at a time; the weights come with the model.
   * @throws GsaError INVALID_FILE when they are not of this model's parameters, IO */
  restoreOptimizer(folder: string): void {
    const path = join(folder, OPTIMIZER_FILE);
    using file = openSafetensors(path);
    const state = this.optimizer.state();
    for (const [name, tensor] of state)
      if (!file.has(name) || !sameShape(file.info(name).shape, tensor.shape))
        throw new GsaError('INVALID_FILE', `${path}: Expected ${name} of shape ${shapeText(tensor.shape)}`);
    for (const [name, tensor] of state) tensor.write(file.read(name).data as Float32Array);
    this.optimizer.stepCount = Number(file.metadata['steps']);
  }

  dispose(): void {
    this.#tape.dispose();
    this.optimizer.dispose();
    this.model.dispose();
  }
}
