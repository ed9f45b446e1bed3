import type { MatmulMode } from '../tensor/dtype.js';
import type { EvaluationRecord, StepRecord } from './metrics.js';

/** What a run is, known once its text is packed and its model is built. */
export interface TrainStart {
  readonly output: string;
  readonly parameters: number;
  /** Steps of the whole run, those of an earlier part included. */
  readonly steps: number;
  /** The checkpoint's step that this run goes on from, or null when it starts at the beginning. */
  readonly resumedFrom: number | null;
  readonly tokensPerStep: number;
  /** What the products of the blocks are computed in. */
  readonly matmul: MatmulMode;
  readonly trainTokens: number;
  readonly validationTokens: number;
  /** Entropy of the validation text's token frequencies, nats per token; null without such text. */
  readonly unigramEntropy: number | null;
}

export interface TrainResult {
  /** `interrupted`: the signal ended the run early; it can be resumed from `checkpoint`. */
  readonly status: 'completed' | 'interrupted';
  readonly output: string;
  /** The newest checkpoint, a model folder in Hugging Face form. */
  readonly checkpoint: string;
  readonly step: number;
  readonly steps: number;
  readonly parameters: number;
  /** Of the whole run. */
  readonly tokens: number;
  /** Training loss of the last step (null: not finite, or no step was left to run), in nats per token. */
  readonly loss: number | null;
  /** Null without validation text, or when interrupted. */
  readonly validationLoss: number | null;
  readonly validationPerplexity: number | null;
  readonly unigramEntropy: number | null;
  /** Steps whose update was left out because a gradient was not finite. */
  readonly skipped: number;
  /** Training time of the whole run, without preparing the text. */
  readonly seconds: number;
}

export type TrainEvent =
  | { readonly type: 'status'; readonly message: string }
  | { readonly type: 'warning'; readonly message: string }
  | ({ readonly type: 'start' } & TrainStart)
  /** Told when its results have arrived: the step after it is then under way. */
  | ({ readonly type: 'step' } & StepRecord)
  | ({ readonly type: 'evaluation' } & EvaluationRecord)
  | { readonly type: 'sample'; readonly step: number; readonly prompt: string; readonly text: string }
  | { readonly type: 'checkpoint'; readonly step: number; readonly path: string }
  | ({ readonly type: 'end' } & TrainResult);
