export { type WeightDType } from './checkpoint.js';
export {
  GSA_CONFIG_KEYS,
  gsaWidths,
  parseGsaConfig,
  readGsaConfig,
  toHuggingFace,
  type GSAConfig,
} from './config.js';
export { GSAForCausalLM, type ForwardOptions, type ModelOptions } from './gsa.js';
export {
  parameterBreakdown,
  parameterCount,
  parameterSpecs,
  trainingMemory,
  type ModelPart,
  type ParameterSpec,
  type TrainingMemory,
} from './parameters.js';
export { ModelState } from './state.js';
