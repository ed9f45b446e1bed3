import type { GSAConfig } from '../models/index.js';

/** A model: width, layers, heads, slots, vocabulary. */
export interface ModelShape {
  readonly D: number;
  readonly L: number;
  readonly H: number;
  readonly M: number;
  readonly V: number;
}

export const MODEL_DIMENSIONS = ['D', 'L', 'H', 'M', 'V'] as const;

/** The configuration that a shape stands for; all else is the default of the published models. */
export function modelConfig({ D, L, H, M, V }: ModelShape): Partial<GSAConfig> {
  return {
    model_type: 'gsa',
    hidden_size: D,
    num_hidden_layers: L,
    num_heads: H,
    num_slots: M,
    vocab_size: V,
  };
}
