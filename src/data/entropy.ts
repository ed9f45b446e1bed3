import { GsaError, expected } from '../native/errors.js';
import { checkSource, type TokenSource } from './dataset.js';

const PIECE_TOKENS = 1 << 20;

/** How often each token occurs: float64 [vocabSize]. */
export function countTokens(source: TokenSource): Float64Array {
  const counts = new Float64Array(source.vocabSize);
  const piece = new Int32Array(Math.min(PIECE_TOKENS, source.length));
  for (let at = 0; at < source.length; at += piece.length) {
    const part = piece.subarray(0, Math.min(piece.length, source.length - at));
    source.read(at, part);
    for (const id of part) counts[id]!++;
  }
  return counts;
}

export interface UnigramEntropy {
  /** Nats a token of the best guess that knows only how frequent tokens are in the training text, on the validation text:
   * −Σ p_validation log p_train, p_train with one added to every count so that no token is impossible. A validation loss
   * below it shows that context is used. */
  readonly crossEntropy: number;
  /** −Σ p log p of the validation text's own frequencies, which no guess without context can beat. */
  readonly entropy: number;
}

/** What a model without context could reach, for judging a validation loss (Shannon 1951: the first-order entropy F_1).
 * @throws GsaError INVALID_ARGUMENT when the validation text is empty, or of another vocabulary. */
export function unigramEntropy(train: TokenSource, validation: TokenSource): UnigramEntropy {
  checkSource(train, 'train', 'unigramEntropy');
  checkSource(validation, 'validation', 'unigramEntropy');
  if (train.vocabSize !== validation.vocabSize)
    throw expected(`${train.vocabSize} as in train`, 'the vocabSize of validation', validation.vocabSize);
  if (validation.length === 0)
    throw new GsaError('INVALID_ARGUMENT', 'Expected validation text for its entropy but there is none');
  const seen = countTokens(train);
  const counts = countTokens(validation);
  let crossEntropy = 0;
  let entropy = 0;
  counts.forEach((count, id) => {
    if (count === 0) return;
    const p = count / validation.length;
    entropy -= p * Math.log(p);
    crossEntropy -= p * Math.log((seen[id]! + 1) / (train.length + train.vocabSize));
  });
  return { crossEntropy, entropy };
}
