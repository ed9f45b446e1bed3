import { setImmediate as nextTurn } from 'node:timers/promises';
import { GSAForCausalLM, type ModelState } from '../models/index.js';
import { checkFunction, checkOptions, expected } from '../native/errors.js';
import { argmax, reshape } from '../ops/index.js';
import { noGrad } from '../tensor/recorder.js';
import { scope } from '../tensor/scope.js';
import { Tensor } from '../tensor/tensor.js';
import {
  checkSampling,
  expectFinite,
  sampleToken,
  uniform,
  type Sampling,
  type SamplingOptions,
} from './sampler.js';

export interface GenerateOptions extends SamplingOptions {
  /** Tokens per prompt at most; default 128. */
  maxTokens?: number;
  /** A sequence ends with one of these; default the model's eos_token_id. The ending token is not part of the result. */
  stopTokens?: readonly number[];
  /** Ends all sequences after the running token; what was generated is returned. */
  signal?: AbortSignal;
  /** Called for every token as it is drawn, and awaited. */
  onToken?: (sequence: number, token: number) => void | Promise<void>;
}

export interface Generation {
  /** Without the prompt. */
  tokens: number[];
  /** `stop`: a stop token was drawn; `length`: maxTokens were; `aborted`: the signal came first. */
  finishReason: 'stop' | 'length' | 'aborted';
}

function checkPrompts(model: GSAForCausalLM, prompts: readonly (readonly number[])[]): void {
  if (!(model instanceof GSAForCausalLM)) throw expected('a GSAForCausalLM', 'model', model, 'generate');
  if (!Array.isArray(prompts) || prompts.length === 0)
    throw expected('at least one prompt', 'prompts', prompts, 'generate');
  const { vocab_size: V } = model.config;
  for (const prompt of prompts) {
    if (!Array.isArray(prompt) || prompt.length === 0)
      throw expected('at least one token', 'a prompt', prompt, 'generate');
    const wrong = prompt.findIndex((id) => !Number.isInteger(id) || id < 0 || id >= V);
    if (wrong >= 0) throw expected(`token ids below ${V}`, 'a prompt', prompt[wrong], 'generate');
  }
}

function eosOf(model: GSAForCausalLM): readonly number[] {
  const { eos_token_id: eos } = model.config;
  return eos === null ? [] : typeof eos === 'number' ? [eos] : eos;
}

/** The state after all tokens but the last of every prompt; the prompts may differ in length. */
function prefill(model: GSAForCausalLM, prompts: readonly (readonly number[])[]): ModelState {
  const heads = prompts.map((prompt) => prompt.slice(0, -1));
  const joined = heads.flat();
  if (joined.length === 0) return model.newState(prompts.length);
  const offsets = [0];
  for (const head of heads) offsets.push(offsets.at(-1)! + head.length);
  const { device } = model;
  let state: ModelState | undefined;
  scope(() => {
    const ids = Tensor.from(Int32Array.from(joined), [1, joined.length], { dtype: 'int32', device });
    const cuSeqlens = Tensor.from(Int32Array.from(offsets), [offsets.length], { dtype: 'int32', device });
    state = model.forward(ids, { cuSeqlens, outputState: true }).state;
  });
  return state!;
}

/** How the next token of a sequence is drawn, the n-th of its continuation. */
type Draw = (sequence: number, n: number) => number;

/** From logits [N, 1, V]. Greedily the device chooses, and only the choice comes to the host. */
function drawFrom(logits: Tensor, sampling: Sampling): Draw {
  const [N, , V] = logits.shape as [number, number, number];
  if (sampling.greedy) {
    const { index, value } = argmax(reshape(logits, [N, V]));
    const tokens = index.toHost() as Int32Array;
    const tops = value.toFloat32();
    return (i) => {
      expectFinite(tops[i]!);
      return tokens[i]!;
    };
  }
  const values = logits.toFloat32();
  return (i, n) => sampleToken(values.subarray(i * V, (i + 1) * V), sampling, uniform(sampling.seed, i, n));
}

/** One token for every sequence: the new state, and how the next ones are drawn. */
function step(
  model: GSAForCausalLM,
  last: readonly number[],
  before: ModelState,
  sampling: Sampling,
): { state: ModelState; draw: Draw } {
  let state: ModelState | undefined;
  const draw = scope(() => {
    const ids = Tensor.from(Int32Array.from(last), [last.length, 1], {
      dtype: 'int32',
      device: model.device,
    });
    const out = model.logits(ids, { state: before });
    state = out.state;
    return drawFrom(out.logits, sampling);
  });
  return { state: state!, draw };
}

/** Continues prompts of token ids, all in one batch: the prompts are read in one pass, then every token costs one step
 * over a state of constant size. A sequence's result depends only on its prompt, the options and its place in the
 * list. The event loop gets a turn after every token.
 * @throws GsaError INVALID_ARGUMENT */
export async function generate(
  model: GSAForCausalLM,
  prompts: readonly (readonly number[])[],
  options: GenerateOptions = {},
): Promise<Generation[]> {
  checkPrompts(model, prompts);
  checkOptions(options, undefined, 'generate');
  const sampling = checkSampling(options);
  const { maxTokens = 128, stopTokens = eosOf(model), signal, onToken } = options;
  if (!Number.isSafeInteger(maxTokens) || maxTokens < 1)
    throw expected('an integer of at least 1', 'maxTokens', maxTokens, 'generate');
  if (!Array.isArray(stopTokens) || !stopTokens.every((id) => Number.isInteger(id)))
    throw expected('a list of token ids', 'stopTokens', stopTokens, 'generate');
  if (onToken !== undefined) checkFunction(onToken, 'onToken', 'generate');
  const results: Generation[] = prompts.map(() => ({ tokens: [], finishReason: 'length' }));
  const last = prompts.map((prompt) => prompt.at(-1)!);
  const open = new Set(prompts.keys());
  let state = noGrad(() => prefill(model, prompts));
  try {
    for (let n = 0; n < maxTokens && open.size > 0; n++) {
      await nextTurn();
      if (signal?.aborted) {
        for (const i of open) results[i]!.finishReason = 'aborted';
        break;
      }
      const next = noGrad(() => step(model, last, state, sampling));
      state.dispose();
      state = next.state;
      for (const i of open) {
        const token = next.draw(i, n);
        last[i] = token;
        if (stopTokens.includes(token)) {
          results[i]!.finishReason = 'stop';
          open.delete(i);
        } else {
          results[i]!.tokens.push(token);
          await onToken?.(i, token);
        }
      }
    }
  } finally {
    state.dispose();
  }
  return results;
}
