import { join } from 'node:path';
import { Tape } from '../autograd/tape.js';
import type { Batch } from '../data/sampler.js';
import { openSafetensors, writeSafetensors } from '../io/safetensors.js';
import type { GSAForCausalLM } from '../models/index.js';
import { GsaError } from '../native/errors.js';
import { AdamW, clipScale, decayGroups } from '../optim/index.js';
import { noGrad } from '../tensor/recorder.js';
import { scope } from '../tensor/scope.js';
import { sameShape, shapeText } from '../tensor/shape.js';
import { Tensor } from '../tensor/tensor.js';
import type { TrainConfig } from './schema.js';

export interface StepOutcome {
  /** Mean over the step's tokens, nats; not finite when the step was skipped. */
  readonly loss: number;
  readonly gradNorm: number;
  readonly tokens: number;
  readonly skipped: boolean;
}

const OPTIMIZER_FILE = 'optimizer.safetensors';
/** A model with its optimizer: one step, one validation, and both halves of a checkpoint. Knows nothing of files' places,
 * schedules or loops. */
export class Trainer {
  readonly model: GSAForCausalLM;
  readonly optimizer: AdamW;
  readonly #tape = new Tape();
  readonly #clip: number;

  constructor(model: GSAForCausalLM, config: TrainConfig) {
    this.model = model;
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

  /** One update from the mean gradient over all tokens of the micro-batches, clipped. When the loss or a gradient is not
   * finite, weights and moments stay as they are: the device sees to that itself, so that the host waits only once, when
   * the whole step is under way. */
  step(batches: readonly Batch[], lr: number): StepOutcome {
    this.optimizer.zeroGrad();
    return scope(() => {
      const losses: Tensor[] = [];
      for (const batch of batches) {
        const loss = this.#tape.run(() => this.#loss(batch));
        losses.push(loss);
        this.#tape.backward(loss);
      }
      const tokens = batches.reduce((sum, batch) => sum + batch.tokens, 0);
      const { scale, norm } = clipScale(this.model.parameters(), {
        maxNorm: this.#clip,
        gradScale: 1 / tokens,
        losses,
      });
      this.optimizer.step({ lr, scale });
      this.optimizer.zeroGrad();
      const gradNorm = norm.item();
      const loss = losses.reduce((sum, one) => sum + one.item(), 0) / tokens;
      const skipped = !Number.isFinite(gradNorm);
      if (skipped) this.optimizer.uncountStep();
      return { loss, gradNorm, tokens, skipped };
    });
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

  /** Writes model.safetensors, config.json and optimizer.safetensors. @throws GsaError IO */
  save(folder: string): void {
    this.model.save(folder);
    const entries = [...this.optimizer.state()].map(([name, tensor]) => ({
      name,
      dtype: tensor.dtype,
      shape: tensor.shape,
      data: () => tensor.toHost(),
    }));
    writeSafetensors(join(folder, OPTIMIZER_FILE), entries, { steps: String(this.optimizer.stepCount) });
  }

  /** Reads the moments and master copies that save() wrote, one at a time; the weights come with the model.
   * @throws GsaError INVALID_FILE when they are not of this model's parameters, IO */
  restoreOptimizer(folder: string): void {
    const path = join(folder, OPTIMIZER_FILE);
    using file = openSafetensors(path);
    const state = this.optimizer.state();
    for (const [name, tensor] of state)
      if (!file.has(name) || !sameShape(file.info(name).shape, tensor.shape))
        throw new GsaError('INVALID_FILE', `${path}: Expected ${name} of shape ${shapeText(tensor.shape)}`);
    for (const [name, tensor] of state) tensor.write(file.read(name).data);
    this.optimizer.stepCount = Number(file.metadata['steps']);
  }

  dispose(): void {
    this.#tape.dispose();
    this.optimizer.dispose();
    this.model.dispose();
  }
}
