import { GsaError, expected } from '../native/errors.js';

/** How the next token is drawn from the logits. */
export interface SamplingOptions {
  /** Always the most probable token (the lowest id of several); the other options are then without effect. */
  greedy?: boolean;
  /** Divides the logits; above 0, default 1. */
  temperature?: number;
  /** Only the k most probable tokens; default all. */
  topK?: number;
  /** Only the most probable tokens that together reach this probability; in (0, 1], default 1. */
  topP?: number;
  /** Default 0. Equal seeds, prompts and weights give equal tokens, whatever else is in the batch. */
  seed?: number;
}

export interface Sampling {
  readonly greedy: boolean;
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly seed: number;
}

/** Fills in defaults. @throws GsaError INVALID_ARGUMENT */
export function checkSampling(options: SamplingOptions): Sampling {
  const { greedy = false, temperature = 1, topK = Number.MAX_SAFE_INTEGER, topP = 1, seed = 0 } = options;
  if (!Number.isFinite(temperature) || temperature <= 0)
    throw expected('a number above 0 (or greedy: true)', 'temperature', temperature, 'generate');
  if (!Number.isSafeInteger(topK) || topK < 1)
    throw expected('an integer of at least 1', 'topK', topK, 'generate');
  if (!(topP > 0 && topP <= 1)) throw expected('a number in (0, 1]', 'topP', topP, 'generate');
  if (!Number.isSafeInteger(seed) || seed < 0)
    throw expected('a non-negative integer', 'seed', seed, 'generate');
  return { greedy, temperature, topK, topP, seed };
}

function mix(h: number): number {
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

/** A uniform number in [0, 1) as a pure function of its arguments, so that a draw needs no state (finalizer of
 * MurmurHash3, one round for every word). */
export function uniform(seed: number, stream: number, index: number): number {
  let h = mix(0x9e3779b9 ^ (seed >>> 0));
  h = mix(h ^ Math.floor(seed / 2 ** 32));
  h = mix((h + 0x7f4a7c15) ^ (stream >>> 0));
  h = mix((h + 0x9e3779b9) ^ (index >>> 0));
  const low = mix(h + 0x6a09e667);
  return (h * 2 ** 21 + (low >>> 11)) / 2 ** 53;
}

function argmax(logits: Float32Array): number {
  let best = 0;
  for (let i = 1; i < logits.length; i++) if (logits[i]! > logits[best]!) best = i;
  return best;
}

/** Draws one token.
 * @param logits of the whole vocabulary, [V]
 * @param u uniform in [0, 1)
 * @throws GsaError DIVERGED when a logit is NaN or +Infinity: the weights have diverged. */
export function sampleToken(logits: Float32Array, sampling: Sampling, u: number): number {
  const top = logits[argmax(logits)]!;
  if (!Number.isFinite(top) || logits.some(Number.isNaN))
    throw new GsaError('DIVERGED', 'Expected finite logits but received others: the weights have diverged', {
      op: 'generate',
    });
  if (sampling.greedy) return argmax(logits);
  const weights = Float64Array.from(logits, (x) => Math.exp((x - top) / sampling.temperature));
  const total = weights.reduce((a, b) => a + b, 0);
  const limited = sampling.topK < weights.length;
  // All tokens below the floor are out: with top-k by rank; with top-p, since together they are less than what it leaves.
  const floor = limited
    ? weights.toSorted()[weights.length - sampling.topK]!
    : ((1 - sampling.topP) * total) / weights.length;
  const candidates: number[] = [];
  for (let i = 0; i < weights.length; i++) if (weights[i]! > 0 && weights[i]! >= floor) candidates.push(i);
  if (limited || sampling.topP < 1) candidates.sort((a, b) => weights[b]! - weights[a]! || a - b);
  if (limited) candidates.splice(sampling.topK);
  let mass = candidates.reduce((sum, i) => sum + weights[i]!, 0);
  if (sampling.topP < 1) {
    // Of what top-k has left: the order that Hugging Face's generation uses.
    const goal = sampling.topP * (limited ? mass : total);
    let kept = 0;
    let n = 0;
    while (n < candidates.length && kept < goal) kept += weights[candidates[n++]!]!;
    candidates.length = n;
    mass = kept;
  }
  let left = u * mass;
  for (const i of candidates) {
    left -= weights[i]!;
    if (left < 0) return i;
  }
  return candidates.at(-1)!;
}
