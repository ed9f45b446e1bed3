export {
  GatedSlotAttention,
  type GsaHeads,
  type GsaLayerOptions,
  type GsaLayerParts,
  type GsaLayerState,
} from './gated_slot_attention.js';
export { Embedding, GatedMlp, JoinedLinear, Linear, RMSNorm, ShortConvolution } from './layers.js';
export { Module, type Parts } from './module.js';
