import { Tape } from '../autograd/tape.js';
import { GSAForCausalLM, parameterCount } from '../models/index.js';
import { AdamW, clipScale } from '../optim/index.js';
import type { Device } from '../tensor/device.js';
import { scope } from '../tensor/scope.js';
import { Tensor } from '../tensor/tensor.js';
import { outputCheck, type BenchResult, type OutputCheck } from './report.js';
import { shapeName } from './shape.js';
import { measure, type MeasureOptions } from './timing.js';

/** A model and a batch. */
export interface TrainShape {
  /** Width, layers, heads, slots, vocabulary. */
  readonly D: number;
  readonly L: number;
  readonly H: number;
  readonly M: number;
  readonly V: number;
  /** Batch and tokens of each sequence. */
  readonly B: number;
  readonly T: number;
}

export const TRAIN_DIMENSIONS = ['D', 'L', 'H', 'M', 'V', 'B', 'T'] as const;

/** Models of about 1 and 6 million parameters. */
export const TRAIN_SHAPES: readonly TrainShape[] = [
  { D: 128, L: 2, H: 2, M: 32, V: 2048, B: 8, T: 256 },
  { D: 256, L: 4, H: 4, M: 32, V: 4096, B: 4, T: 512 },
];

interface Batch {
  readonly ids: Tensor; // [B, T]
  readonly labels: Tensor;
}

/** Tokens drawn uniformly: a text makes no difference to the time. */
function makeBatch(device: Device, { V, B, T }: TrainShape): Batch {
  const draw = (seed: number) =>
    scope(() => {
      const normal = Tensor.randn([B, T], { device, seed }).toFloat32();
      const tokens = Int32Array.from(normal, (x) =>
        Math.min(V - 1, Math.floor((V * (Math.atan(x) + Math.PI / 2)) / Math.PI)),
      );
      return Tensor.from(tokens, [B, T], { device });
    });
  return { ids: draw(1), labels: draw(2) };
}

/** What a training does with a batch: forward, backward, clipping, AdamW. */
function trainingStep(model: GSAForCausalLM, optimizer: AdamW, tape: Tape, { ids, labels }: Batch): void {
  scope(() => {
    const tokens = ids.size;
    const loss = tape.run(() => model.loss(ids, labels, { tokens }).loss);
    tape.backward(loss);
    const { scale } = clipScale(model.parameters(), { maxNorm: 1, gradScale: 1 / tokens });
    optimizer.step({ scale });
    optimizer.zeroGrad();
  });
  model.device.synchronize();
}

/** The mean loss of the whole batch, one token after another with a carried state and with softmax on the host: other
 * code than the training's in the operator and in the loss. */
function lossByTokens(model: GSAForCausalLM, { ids, labels }: Batch, { V, B, T }: TrainShape): number {
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

function checkLoss(model: GSAForCausalLM, batch: Batch, shape: TrainShape): OutputCheck {
  const exact = lossByTokens(model, batch, shape);
  const actual = scope(() => model.loss(batch.ids, batch.labels).loss.item()) / batch.ids.size;
  return outputCheck('the loss token by token', Math.abs(actual - exact) / exact, 1e-5);
}

function benchShape(device: Device, shape: TrainShape, options: MeasureOptions): BenchResult {
  const { D, L, H, M, V, B, T } = shape;
  const config = {
    model_type: 'gsa',
    hidden_size: D,
    num_hidden_layers: L,
    num_heads: H,
    num_slots: M,
    vocab_size: V,
  };
  return scope(() => {
    using model = GSAForCausalLM.create(config, { device, seed: 1 });
    using optimizer = new AdamW(model.namedParameters(), { lr: 1e-3 });
    using tape = new Tape();
    const batch = makeBatch(device, shape);
    const timing = measure(() => trainingStep(model, optimizer, tape, batch), options);
    device.memory({ resetPeak: true });
    trainingStep(model, optimizer, tape, batch);
    const figures = {
      tokensPerSecond: (B * T) / (timing.medianMs / 1e3),
      parameters: parameterCount(model.config),
      peakMiB: device.memory().peakBytes / 2 ** 20,
    };
    // After the updates, so that what the timed steps made of the weights is part of the comparison.
    const check = checkLoss(model, batch, shape);
    return { name: 'training step', shape: shapeName(shape), timing, figures, check };
  });
}

/** Steps of a training in fp32: forward, backward, clipping, AdamW.
 * @param shapes default: TRAIN_SHAPES */
export function benchTrain(
  device: Device,
  shapes: readonly TrainShape[] = TRAIN_SHAPES,
  options: MeasureOptions = {},
): BenchResult[] {
  return shapes.map((shape) => benchShape(device, shape, options));
}
