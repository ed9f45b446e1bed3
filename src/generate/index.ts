export { generate, type GenerateOptions, type Generation } from './generate.js';
export { type SamplingOptions } from './sampler.js';
export { writeLogits, type LogitsResult } from './logits.js';
export { generateText, loadForGeneration, type GenerateTextOptions, type TextGeneration } from './text.js';
