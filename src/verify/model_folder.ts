import { join } from 'node:path';
import { Tape } from '../autograd/tape.js';
import { openSafetensors } from '../io/safetensors.js';
import { successorLabels } from '../generate/logits.js';
import { GSAForCausalLM } from '../models/index.js';
import { GsaError } from '../native/errors.js';
import { logSoftmax } from '../ops/index.js';
import { AdamW, clipScale } from '../optim/index.js';
import type { Device } from '../tensor/device.js';
import { scope } from '../tensor/scope.js';
import { Tensor } from '../tensor/tensor.js';
import { MODEL_BOUNDS, type VerifyDType } from './bounds.js';
import {
  failure,
  judge,
  largestDifference,
  largestRelativeDifference,
  mismatches,
  relativeError,
  type Check,
} from './compare.js';
import { Vectors } from './vectors.js';

export const EXPECTED_FILE = 'expected.safetensors';

/** How many of the last tokens of `greedy` are the model's own; those before are the prompt. */
const CONTINUATION = 24;
/** The stored training: so many steps on one batch. */
const TRAINING = { lr: 3e-3, betas: [0.9, 0.95], eps: 1e-8, weightDecay: 0.01, maxNorm: 1 } as const;

/** A model beside its stored results. */
interface Subject {
  readonly label: string;
  readonly folder: string;
  readonly model: GSAForCausalLM;
  readonly expected: Vectors;
  readonly dtype: VerifyDType;
  /** [B, T], and the labels: each token's successor, none for the last. */
  readonly ids: Tensor;
  readonly labels: Tensor;
}

/** Largest difference in fp32, relative in bf16. */
function outputError(dtype: VerifyDType): typeof largestDifference {
  return dtype === 'fp32' ? largestDifference : relativeError;
}

function checkShapes(expected: Vectors, vocabulary: number): void {
  const [B, T] = expected.expectShape('input_ids', [null, null]) as [number, number];
  expected.expectShape('log_probs', [B, T - 1, vocabulary]);
  expected.expectShape('loss', [1]);
  const steps = expected.expectShape('train_losses', [null])[0]!;
  expected.expectShape('train_grad_norms', [steps]);
  const length = expected.expectShape('greedy', [1, null])[1]!;
  const prompt = expected.ints('greedy').subarray(0, length - CONTINUATION);
  const start = expected.ints('input_ids').subarray(0, prompt.length);
  if (length <= CONTINUATION || prompt.length > T || mismatches(prompt, start) > 0)
    throw expected.bad(
      `Expected greedy to be the start of input_ids and ${CONTINUATION} more tokens, but it is not`,
    );
}

function* logProbabilities({ label, model, expected, dtype, ids }: Subject): Generator<Check> {
  const all = scope(() => logSoftmax(model.logits(ids).logits).toFloat32());
  const stored = expected.floats('log_probs');
  const [B, T] = ids.shape as [number, number];
  const width = all.length / (B * T);
  const actual = new Float32Array(stored.length);
  const row = (T - 1) * width;
  for (let b = 0; b < B; b++) actual.set(all.subarray(b * T * width, b * T * width + row), b * row);
  const error = outputError(dtype)(actual, stored);
  yield judge(label, 'log-probabilities', error, MODEL_BOUNDS[dtype].logProbs);
}

/** The mean loss; fills the gradients of its sum. */
function backward({ model, ids, labels }: Subject, tape: Tape): { mean: number; tokens: number } {
  let tokens = 0;
  const loss = tape.run(() => {
    const result = model.loss(ids, labels);
    tokens = result.tokens;
    return result.loss;
  });
  const mean = loss.item() / tokens;
  tape.backward(loss);
  return { mean, tokens };
}

function* lossAndGradients(subject: Subject): Generator<Check> {
  const { label, model, expected, dtype } = subject;
  const bounds = MODEL_BOUNDS[dtype];
  using tape = new Tape();
  const { mean, tokens } = scope(() => backward(subject, tape));
  try {
    yield judge(label, 'loss', outputError(dtype)([mean], expected.floats('loss')), bounds.loss);
    for (const [name, parameter] of model.namedParameters()) {
      const grad = parameter.grad!.toFloat32().map((value) => value / tokens);
      const error = relativeError(grad, expected.floats(`grad.${name}`));
      yield judge(label, `gradient ${name}`, error, bounds.gradient);
    }
  } finally {
    model.zeroGrad();
  }
}

function argmax(values: Float32Array): number {
  let best = -1;
  // Written so that NaN is never the best: -1 is no token, and the check fails.
  for (let i = 0; i < values.length; i++)
    if (best < 0 ? values[i]! > -Infinity : values[i]! > values[best]!) best = i;
  return best;
}

/** The next token after every piece of the text, with the state carried along. */
function greedySteps(model: GSAForCausalLM, prompt: Int32Array): number[] {
  const found: number[] = [];
  let state = model.newState(1);
  let next = prompt;
  try {
    while (found.length < CONTINUATION && found.at(-1) !== -1) {
      using before = state;
      scope(() => {
        const ids = Tensor.from(next, [1, next.length], { device: model.device });
        const result = model.logits(ids, { state: before, lastOnly: true });
        state = result.state!;
        found.push(argmax(result.logits.toFloat32()));
      });
      next = Int32Array.of(found.at(-1)!);
    }
    return found;
  } finally {
    state.dispose();
  }
}

/** The next token after all tokens so far, each time from the first one on. */
function greedyPasses(model: GSAForCausalLM, prompt: Int32Array): number[] {
  const found: number[] = [];
  while (found.length < CONTINUATION && found.at(-1) !== -1)
    scope(() => {
      const all = Int32Array.of(...prompt, ...found);
      const ids = Tensor.from(all, [1, all.length], { device: model.device });
      found.push(argmax(model.logits(ids, { lastOnly: true }).logits.toFloat32()));
    });
  return found;
}

function* greedy({ label, model, expected, dtype }: Subject): Generator<Check> {
  if (dtype !== 'fp32') return; // Rounding may choose between two nearly equal tokens: equality says nothing.
  const stored = expected.ints('greedy');
  const prompt = stored.slice(0, stored.length - CONTINUATION);
  const wanted = stored.subarray(prompt.length);
  for (const [way, tokens] of [
    ['by steps with a state', greedySteps(model, prompt)],
    ['by full passes', greedyPasses(model, prompt)],
  ] as const) {
    const wrong = tokens.includes(-1) ? NaN : mismatches(tokens, wanted);
    yield judge(label, `greedy continuation ${way}, tokens that differ`, wrong, 0);
  }
}

function* training(subject: Subject): Generator<Check> {
  const { label, model, expected, dtype } = subject;
  const { lr, betas, eps, weightDecay, maxNorm } = TRAINING;
  const bounds = MODEL_BOUNDS[dtype];
  const [losses, norms]: [number[], number[]] = [[], []];
  const steps = expected.shape('train_losses')[0]!;
  using tape = new Tape();
  using optimizer = new AdamW(model.namedParameters(), { lr, betas, eps, weightDecay });
  fillMasters(optimizer, subject);
  for (let step = 0; step < steps; step++)
    scope(() => {
      const { mean, tokens } = backward(subject, tape);
      const clipped = clipScale(model.parameters(), { maxNorm, gradScale: 1 / tokens });
      optimizer.step({ scale: clipped.scale });
      optimizer.zeroGrad();
      losses.push(mean);
      norms.push(clipped.norm.item());
    });
  const lossError = largestDifference(losses, expected.floats('train_losses'));
  yield judge(label, `losses of ${steps} training steps`, lossError, bounds.training);
  // Rounding the weights alone, in fp32, moves the norms of later steps by up to 36%: they say nothing in bf16.
  const compared = dtype === 'fp32' ? steps : 1;
  const storedNorms = expected.floats('train_grad_norms').subarray(0, compared);
  const normError = largestRelativeDifference(norms.slice(0, compared), storedNorms);
  const title =
    compared > 1 ? `gradient norms of ${steps} training steps` : 'gradient norm of the first step';
  yield judge(label, title, normError, bounds.gradient);
}

/** The stored training started from weights that were not rounded: so do the optimizer's masters. */
function fillMasters(optimizer: AdamW, { model, folder }: Subject): void {
  const state = optimizer.state();
  using reader = openSafetensors(folder);
  for (const [name] of model.namedParameters()) {
    const { data } = reader.read(name);
    if (data instanceof Float32Array) state.get(`${name}.master`)?.write(data);
  }
}

/** Checks one model folder; see docs/verify.md for the format. A part that throws gives a failed check. Leaves nothing on
 * the device.
 * @param label the name of the folder in the checks
 * @throws GsaError INVALID_FILE or INVALID_CONFIG for malformed files, IO when the system refuses */
export function* verifyModelFolder(
  folder: string,
  label: string,
  device: Device,
  dtype: VerifyDType,
): Generator<Check> {
  using expected = new Vectors(join(folder, EXPECTED_FILE));
  using model = GSAForCausalLM.load(folder, { device, dtype: dtype === 'fp32' ? 'float32' : 'bfloat16' });
  expected.require(model.namedParameters().map(([name]) => `grad.${name}`));
  checkShapes(expected, model.config.vocab_size);
  const shape = expected.shape('input_ids');
  const host = expected.ints('input_ids');
  using ids = Tensor.from(host, shape, { device });
  using labels = Tensor.from(successorLabels(host, shape[1]!), shape, { device });
  const subject: Subject = { label, folder, model, expected, dtype, ids, labels };
  // The training changes the weights and comes last.
  for (const [title, part] of Object.entries({
    'log-probabilities': logProbabilities,
    'loss and gradients': lossAndGradients,
    'greedy continuation': greedy,
    training,
  }))
    try {
      yield* part(subject);
    } catch (error) {
      if (!(error instanceof GsaError)) throw error;
      yield failure(label, title, 0, error);
    }
}
