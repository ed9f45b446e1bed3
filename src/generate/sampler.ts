import { GsaError, checkOptions, expected } from '../native/errors.js';

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
  checkOptions(options, undefined, 'generate');
  const { greedy = false, temperature = 1, topK = Number.MAX_SAFE_INTEGER, topP = 1, seed = 0 } = options;
  if (!Number.isFinite(temperature) || temperature <= 0)
    throw expected('a number above 0 (or greedy: true)', 'temperature', temperature, 'generate');
  if (!Number.isSafeInteger(topK) || topK < 1)
    throw expected('an integer of at least 1', 'topK', topK, 'generate');
  if (typeof topP !== 'number' || !(topP > 0 && topP <= 1))
    throw expected('a number in (0, 1]', 'topP', topP, 'generate');
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

/** @param top the largest of a token's logits, or NaN if one of them is
 * @throws GsaError DIVERGED unless it is finite */
export function expectFinite(top: number): void {
  if (!Number.isFinite(top))
    throw new GsaError('DIVERGED', 'Expected finite logits but received others: the weights have diverged', {
      op: 'generate',
    });
}

function largest(logits: Float32Array): number {
  let top = -Infinity;
  for (let i = 0; i < logits.length; i++) {
    const x = logits[i]!;
    if (!(x <= top)) top = x; // NaN too
    if (top !== top) break;
  }
  return top;
}

// Memory of one draw, kept for the next: a batch draws many times a second, each from a whole vocabulary.
let weightsKept = new Float64Array(0);
let keysKept = new Float64Array(0);
const countsKept = new Uint32Array(2 ** 16);

/** With the 32 bits of a rank, what a double holds exactly. */
const MOST_TOKENS = 2 ** 21;

/** Gives every token an integer of 32 bits by its logit: the larger the logit, the smaller the rank. */
function ranks(logits: Float32Array): (i: number) => number {
  const bits = new Int32Array(logits.buffer, logits.byteOffset, logits.length);
  return (i) => {
    const b = logits[i] === 0 ? 0 : bits[i]!; // -0 ranks as 0
    return (b < 0 ? b : 0x7fffffff - b) >>> 0;
  };
}

/** The tokens for which `wanted` holds, the most probable first, of equals the lower id first. Rank and id are sorted as
 * one number: that is many times faster than a function that compares. */
function sorted(rank: (i: number) => number, V: number, wanted: (i: number) => boolean): Float64Array {
  if (V > MOST_TOKENS)
    throw expected(`a vocabulary of at most ${MOST_TOKENS}`, 'top-k or top-p', V, 'generate');
  if (keysKept.length < V) keysKept = new Float64Array(V);
  let n = 0;
  for (let i = 0; i < V; i++) if (wanted(i)) keysKept[n++] = rank(i) * MOST_TOKENS + i;
  const keys = keysKept.subarray(0, n);
  keys.sort(); // in place
  for (let j = 0; j < n; j++) keys[j]! %= MOST_TOKENS;
  return keys;
}

/** The k most probable tokens in their order. Only those are sorted that the upper half of the rank does not tell from the
 * k-th. */
function mostProbable(logits: Float32Array, k: number): Float64Array {
  const V = logits.length;
  const rank = ranks(logits);
  countsKept.fill(0);
  for (let i = 0; i < V; i++) countsKept[rank(i) >>> 16]!++;
  let last = 0;
  for (let count = countsKept[0]!; count < k;) count += countsKept[++last]!;
  return sorted(rank, V, (i) => rank(i) >>> 16 <= last).subarray(0, k);
}

/** The place in `weights` that u falls on, among the first of them that together reach topP of `total`. */
function drawn(weights: Float64Array, total: number, topP: number, u: number): number {
  let n = weights.length;
  let mass = total;
  if (topP < 1) {
    const goal = topP * total;
    mass = 0;
    n = 0;
    while (n < weights.length && mass < goal) mass += weights[n++]!;
  }
  let left = u * mass;
  let last = 0;
  for (let i = 0; i < n; i++) {
    if (weights[i] === 0) continue;
    last = i;
    left -= weights[i]!;
    if (left < 0) break;
  }
  return last;
}

/** Draws one token, not greedily.
 * @param logits of the whole vocabulary, [V]
 * @param u uniform in [0, 1)
 * @throws GsaError DIVERGED when a logit is NaN or +Infinity: the weights have diverged. */
export function sampleToken(logits: Float32Array, sampling: Sampling, u: number): number {
  const { temperature, topK, topP } = sampling;
  const V = logits.length;
  const top = largest(logits);
  expectFinite(top);
  const weight = (i: number) => Math.exp((logits[i]! - top) / temperature);
  if (topK < V) {
    const ids = mostProbable(logits, topK);
    const weights = Float64Array.from(ids, weight);
    // topP is of what top-k has left: the order that Hugging Face's generation uses.
    const total = weights.reduce((a, b) => a + b, 0);
    return ids[drawn(weights, total, topP, u)]!;
  }
  if (weightsKept.length < V) weightsKept = new Float64Array(V);
  const weights = weightsKept.subarray(0, V);
  let total = 0;
  for (let i = 0; i < V; i++) {
    const w = weight(i);
    weights[i] = w;
    total += w;
  }
  if (topP === 1) return drawn(weights, total, 1, u);
  // Tokens below the floor are out: together they are less than what top-p leaves.
  const floor = ((1 - topP) * total) / V;
  const ids = sorted(ranks(logits), V, (i) => weights[i]! >= floor);
  return ids[
    drawn(
      Float64Array.from(ids, (i) => weights[i]!),
      total,
      topP,
      u,
    )
  ]!;
}
