import { performance } from 'node:perf_hooks';
import { generate } from '../generate/index.js';
import { GSAForCausalLM, parameterCount } from '../models/index.js';
import { DTYPES } from '../tensor/dtype.js';
import { scope } from '../tensor/scope.js';
import { Tensor } from '../tensor/tensor.js';
import { relativeError } from '../verify/compare.js';
import { outputCheck, type OutputCheck } from './check.js';
import { decodeCount } from './counts.js';
import { MODEL_DIMENSIONS, modelConfig, type ModelShape } from './model_shape.js';
import { randomIntegers } from './modules.js';
import { rates } from './peaks.js';
import type { BenchContext, BenchResult } from './report.js';
import { parseShape, shapeName } from './shape.js';
import { summarize, type Timing } from './timing.js';

interface DecodeShape extends ModelShape {
  /** Sequences, tokens of each prompt, and tokens to generate after it. */
  readonly B: number;
  readonly P: number;
  readonly N: number;
}

interface Timed {
  /** From the call to the first new token of all sequences. */
  readonly first: number;
  /** From one new token of all sequences to the next. */
  readonly steps: number[];
  readonly tokens: number[][];
}

/** As a program generates: greedily through generate(), each token back on the host before the next. */
async function timed(model: GSAForCausalLM, prompts: number[][], maxTokens: number): Promise<Timed> {
  const marks: number[] = [];
  const started = performance.now();
  const last = prompts.length - 1;
  const results = await generate(model, prompts, {
    greedy: true,
    maxTokens,
    stopTokens: [],
    onToken: (sequence) => {
      if (sequence === last) marks.push(performance.now());
    },
  });
  const steps = marks.slice(1).map((mark, i) => mark - marks[i]!);
  return { first: marks[0]! - started, steps, tokens: results.map((result) => result.tokens) };
}

/** Whether the logits of the last token are the same step by step from the state after the prompt as in one pass over
 * prompt and continuation: the recurrent kernel against the chunked one. */
function checkLogits(model: GSAForCausalLM, prompts: number[][], tokens: number[][]): OutputCheck {
  const { device, dtype } = model;
  const B = prompts.length;
  const put = (rows: readonly (readonly number[])[]) =>
    Tensor.from(Int32Array.from(rows.flat()), [B, rows[0]!.length], { device });
  const steps = tokens[0]!.length;
  let state = scope(() => model.forward(put(prompts), { outputState: true }).state!);
  try {
    let stepwise: Float32Array = new Float32Array();
    for (let n = 0; n < steps; n++) {
      using before = state;
      stepwise = scope(() => {
        const out = model.logits(put(tokens.map((row) => [row[n]!])), { state: before });
        state = out.state!;
        return out.logits.toFloat32();
      });
    }
    const whole = scope(() =>
      model
        .logits(put(prompts.map((prompt, i) => [...prompt, ...tokens[i]!])), { lastOnly: true })
        .logits.toFloat32(),
    );
    const bound = dtype === 'float32' ? 1e-4 : 3e-2;
    return outputCheck(`logits after ${steps} steps, in one pass`, relativeError(stepwise, whole), bound);
  } finally {
    state.dispose();
  }
}

function result(
  { device, dtype, peaks }: BenchContext,
  model: GSAForCausalLM,
  shape: DecodeShape,
  firstMs: number,
  timing: Timing,
  check: OutputCheck,
): BenchResult {
  const { B, P, D, V } = shape;
  const parameters = parameterCount(model.config);
  const size = DTYPES[dtype].bytes;
  using state = model.newState(B);
  const count = decodeCount(size * parameters, size * (V - B) * D, state.byteLength, parameters, B);
  const figures = {
    tokensPerSecond: B / (timing.medianMs / 1e3),
    firstTokenMs: firstMs,
    promptTokensPerSecond: (B * P) / (firstMs / 1e3),
    peakGiB: device.memory().peakBytes / 2 ** 30,
    ...rates(count, timing.medianMs, peaks),
  };
  return { name: 'decoding step', shape: shapeName(shape), timing, figures, checks: [check] };
}

async function benchShape(context: BenchContext, shape: DecodeShape): Promise<BenchResult> {
  const { device, dtype, measure } = context;
  const { B, P, N, V } = shape;
  using model = GSAForCausalLM.create(modelConfig(shape), { device, dtype, seed: 1 });
  device.memory({ resetPeak: true });
  const drawn = randomIntegers([B, P], V, 1);
  const prompts = Array.from({ length: B }, (_, b) => [...drawn.subarray(b * P, (b + 1) * P)]);
  const { warmup = 1, budgetMs = 1000 } = measure;
  for (let i = 0; i < warmup; i++) await timed(model, prompts, Math.min(N, 8));
  const firsts: number[] = [];
  const steps: number[] = [];
  let tokens: number[][];
  const started = performance.now();
  do {
    const run = await timed(model, prompts, N);
    firsts.push(run.first);
    steps.push(...run.steps);
    tokens = run.tokens;
  } while (performance.now() - started < budgetMs);
  const check = checkLogits(model, prompts, tokens);
  return result(context, model, shape, summarize(firsts, warmup).medianMs, summarize(steps, warmup), check);
}

/** Generation of text: the time from one token to the next, each read on the host, and that to the first. At least two
 * tokens.
 * @throws GsaError INVALID_ARGUMENT for a malformed shape */
export async function benchDecode(context: BenchContext, texts: readonly string[]): Promise<BenchResult[]> {
  const shapes = texts.map((text) => parseShape(text, [...MODEL_DIMENSIONS, 'B', 'P', 'N'] as const));
  const results: BenchResult[] = [];
  for (const shape of shapes) results.push(await benchShape(context, shape));
  return results;
}
