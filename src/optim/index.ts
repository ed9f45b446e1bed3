export {
  AdamW,
  decayGroups,
  type AdamWOptions,
  type NamedParameter,
  type ParameterGroup,
  type StepOptions,
} from './adamw.js';
export type { StateTensor } from './state.js';
export { clipScale, globalNorm } from './clip.js';
export { warmupCosine, type WarmupCosineOptions } from './schedule.js';
