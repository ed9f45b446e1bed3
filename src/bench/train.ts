import { performance } from 'node:perf_hooks';
import { Tape, type Recompute } from '../autograd/tape.js';
import { GSAForCausalLM, parameterCount } from '../models/index.js';
import { AdamW, clipScale, decayGroups } from '../optim/index.js';
import type { Device } from '../tensor/device.js';
import { keep, scope } from '../tensor/scope.js';
import { Tensor } from '../tensor/tensor.js';
import { measureBudget } from './budget.js';
import { outputCheck, type OutputCheck } from './check.js';
import type { Clock } from './clock.js';
import { H100_BF16_FLOPS, trainCount } from './counts.js';
import { MODEL_DIMENSIONS, modelConfig, type ModelShape } from './model_shape.js';
import { randomIntegers } from './modules.js';
import { rates } from './peaks.js';
import type { BenchContext, BenchResult } from './report.js';
import { parseShape, shapeName } from './shape.js';
import { measurePhases, summarize } from './timing.js';

interface TrainShape extends ModelShape {
  /** Batch, and tokens of each sequence. */
  readonly B: number;
  readonly T: number;
}

interface Batch {
  readonly ids: Tensor; // [B, T]
  readonly labels: Tensor;
}

/** Random tokens: a text makes no difference to the time. */
function makeBatch(device: Device, { V, B, T }: TrainShape): Batch {
  const draw = (seed: number) => Tensor.from(randomIntegers([B, T], V, seed), [B, T], { device });
  return { ids: draw(1), labels: draw(2) };
}

/** A tenth of the rate that the 1.3B model is trained at, which is for after a warm-up: without one, 24 layers on long sequences may
 * climb before they fall, and the check that they fall would say nothing. */
const LEARNING_RATE = 3e-5;

/** What a training does with a batch, in three phases. Each starts where the one before ended. */
class Step {
  readonly optimizer: AdamW;
  readonly #parameters: readonly Tensor[];
  readonly #tape: Tape;
  #loss: Tensor | null = null;
  /** Mean loss of each step, to be read when the clock has stopped. */
  readonly losses: Tensor[] = [];

  constructor(
    readonly model: GSAForCausalLM,
    readonly batch: Batch,
    recompute: Recompute,
  ) {
    this.#tape = new Tape({ recompute });
    this.#parameters = model.parameters();
    this.optimizer = new AdamW(decayGroups(model.namedParameters(), 0.01), {
      lr: LEARNING_RATE,
      betas: [0.9, 0.95],
    });
  }

  readonly phases = [() => this.#forward(), () => this.#backward(), () => this.#update()];

  #forward(): void {
    const { ids, labels } = this.batch;
    this.#loss = keep(this.#tape.run(() => this.model.loss(ids, labels, { tokens: ids.size }).loss));
  }

  #backward(): void {
    this.#tape.backward(this.#loss!);
    this.losses.push(this.#loss!);
    this.#loss = null;
  }

  #update(): void {
    scope(() => {
      const { scale } = clipScale(this.#parameters, {
        maxNorm: 1,
        gradScale: 1 / this.batch.ids.size,
      });
      this.optimizer.step({ scale });
      this.optimizer.zeroGrad();
    });
  }

  dispose(): void {
    this.#tape.dispose();
    this.optimizer.dispose();
    for (const loss of this.losses) loss.dispose();
  }
}

/** The mean loss one token after another with a carried state and with softmax on the host: other code than the training's
 * in the operator and in the loss. */
function lossByTokens(model: GSAForCausalLM, { ids, labels }: Batch): number {
  const [B, T] = ids.shape as [number, number];
  const V = model.config.vocab_size;
  const [hostIds, hostLabels] = [ids.toHost() as Int32Array, labels.toHost() as Int32Array];
  let state = model.newState(B);
  let sum = 0;
  try {
    for (let t = 0; t < T; t++) {
      using before = state;
      const column = Int32Array.from({ length: B }, (_, b) => hostIds[b * T + t]!);
      const logits = scope(() => {
        const result = model.logits(Tensor.from(column, [B, 1], { device: model.device }), { state: before });
        state = result.state!;
        return result.logits.toFloat32();
      });
      for (let b = 0; b < B; b++)
        sum += crossEntropyOf(logits.subarray(b * V, (b + 1) * V), hostLabels[b * T + t]!);
    }
    return sum / (B * T);
  } finally {
    state.dispose();
  }
}

function crossEntropyOf(logits: Float32Array, label: number): number {
  let [top, sum] = [-Infinity, 0];
  for (const value of logits) top = Math.max(top, value);
  for (const value of logits) sum += Math.exp(value - top);
  return top + Math.log(sum) - logits[label]!;
}

const CHECKED = { B: 2, T: 70 };

/** Made after the updates, so that what the timed steps made of the weights is part of the comparison. */
function checkModel({ model, batch, losses }: Step): OutputCheck[] {
  return scope(() => {
    const [B, T] = batch.ids.shape as [number, number];
    const [b, t] = [Math.min(B, CHECKED.B), Math.min(T, CHECKED.T)];
    const cut = (x: Tensor) => scope(() => x.narrow(0, 0, b).narrow(1, 0, t).contiguousCopy());
    const small = { ids: cut(batch.ids), labels: cut(batch.labels) };
    const exact = lossByTokens(model, small);
    const actual = model.loss(small.ids, small.labels, { tokens: b * t }).loss.item() / (b * t);
    const error = Math.abs(actual - exact) / exact;
    const means = losses.map((loss) => loss.item() / batch.ids.size);
    // Every step sees the same tokens: it learns them.
    const rise = means.every(Number.isFinite) ? Math.max(0, means.at(-1)! / means[0]! - 1) : NaN;
    return [
      outputCheck(
        `the loss of ${b * t} tokens, one after another`,
        error,
        model.dtype === 'float32' ? 1e-5 : 1e-2,
      ),
      outputCheck('the rise from the first loss to the last', rise, 0),
    ];
  });
}

const PHASES = ['forward', 'backward', 'optimizer'] as const;

/** The same clock, which also notes the host's time from an idle device to an idle device. */
function withWall(clock: Clock, device: Device, wall: number[]): Clock {
  const laps = (bodies: readonly (() => void)[]): number[] => {
    device.synchronize();
    const started = performance.now();
    const times = clock.laps(bodies);
    wall.push(performance.now() - started);
    return times;
  };
  return { name: clock.name, laps };
}

/** Of a process: so many that the JavaScript engine has compiled what a step runs. */
const COMPILED = 24;
const QUEUED = 4;
const WAITED = 5;
let stepsRun = 0;

/** How a training goes: steps one after another without a wait (`queuedMs` each), and how long the host is then busy with a
 * step until all of it is under way (`hostMs`, the median; each phase from an idle device, whose queue is not full). */
function queuedSteps(device: Device, phases: readonly (() => void)[]): { queuedMs: number; hostMs: number } {
  const steps = Math.max(QUEUED, COMPILED - stepsRun);
  stepsRun += steps;
  device.synchronize();
  const first = performance.now();
  for (let i = 0; i < steps; i++) for (const phase of phases) phase();
  device.synchronize();
  const queuedMs = (performance.now() - first) / steps;
  const host = Array.from({ length: WAITED }, () => {
    let sum = 0;
    for (const phase of phases) {
      const started = performance.now();
      phase();
      sum += performance.now() - started;
      device.synchronize();
    }
    return sum;
  });
  return { queuedMs, hostMs: summarize(host, 0).medianMs };
}

function recomputeName(recompute: Recompute = false): string {
  return recompute === 'blocks' ? 'recompute blocks' : recompute ? 'recompute' : '';
}

/** Rates at the host's time, which is what a training takes. */
function stepFigures(
  { device, dtype, peaks }: BenchContext,
  parameters: number,
  tokens: number,
  wallMs: number,
): Record<string, number> {
  const count = trainCount(parameters, tokens);
  const figures: Record<string, number> = { tokensPerSecond: tokens / (wallMs / 1e3), parameters };
  Object.assign(figures, rates(count, wallMs, peaks));
  if (device.backend === 'cuda' && dtype === 'bfloat16')
    figures['mfu'] = count.flops / (wallMs / 1e3) / H100_BF16_FLOPS;
  return figures;
}

function benchShape(context: BenchContext, shape: TrainShape): BenchResult[] {
  const { device, dtype, watch, measure } = context;
  const { B, T } = shape;
  return scope(() => {
    using model = GSAForCausalLM.create(modelConfig(shape), {
      device,
      dtype,
      matmul: context.matmul,
      seed: 1,
    });
    const step = new Step(model, makeBatch(device, shape), context.recompute ?? false);
    try {
      device.memory({ resetPeak: true });
      const wall: number[] = [];
      // Layers that ran before have filled the caches: nothing is to be cleared here.
      const { phases, total } = measurePhases(
        { clock: withWall(watch.clock, device, wall), prepare: () => {} },
        step.phases,
        measure,
      );
      const wallMs = summarize(wall.slice(total.warmup), total.warmup).medianMs;
      const { peakBytes, currentBytes, cachedBytes } = device.memory();
      // Before the steps that follow have learned the batch by heart: of a loss near 0 any difference is a large part.
      const checks = checkModel(step);
      const parameters = parameterCount(model.config);
      const figures = {
        ...stepFigures(context, parameters, B * T, wallMs),
        peakGiB: peakBytes / 2 ** 30,
        reservedGiB: (currentBytes + cachedBytes) / 2 ** 30,
        wallMs,
        // On the CPU the host's time is the step.
        ...(device.backend === 'cuda' ? queuedSteps(device, step.phases) : {}),
      };
      const budget = context.budget
        ? measureBudget(context, () => step.phases.forEach((phase) => phase()))
        : undefined;
      const name = shapeName(shape);
      const settings = [context.matmul ?? 'dtype', recomputeName(context.recompute)];
      const named = settings.filter((setting) => setting && setting !== 'dtype').join(' ');
      const variant = named ? { variant: named } : {};
      const whole = {
        name: 'training step',
        shape: name,
        ...variant,
        timing: total,
        figures,
        checks,
        ...(budget && { budget }),
      };
      return [
        whole,
        ...phases.map((timing, i) => ({
          name: `training step: ${PHASES[i]}`,
          shape: name,
          ...variant,
          timing,
          figures: { ofStep: timing.medianMs / total.medianMs },
          checks,
        })),
      ];
    } finally {
      step.dispose();
    }
  });
}

/** Steps of a training: forward, backward, and clipping with AdamW; in bfloat16 with float32 masters.
 * @throws GsaError INVALID_ARGUMENT for a malformed shape */
export function benchTrain(context: BenchContext, texts: readonly string[]): BenchResult[] {
  const shapes = texts.map((text) => parseShape(text, [...MODEL_DIMENSIONS, 'B', 'T'] as const));
  return shapes.flatMap((shape) => benchShape(context, shape));
}
