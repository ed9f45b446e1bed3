export { silu, swiglu, swigluHalves } from './activation.js';
export {
  countLabels,
  crossEntropy,
  IGNORE_INDEX,
  linearCrossEntropy,
  logSoftmax,
  type CrossEntropyOptions,
  type LinearCrossEntropyOptions,
} from './cross_entropy.js';
export { add, scale } from './elementwise.js';
export { embedding } from './embedding.js';
export { linearFloat8 } from './float8.js';
export { gsaChunk, gsaRecurrent, type GsaInputs } from './gsa.js';
export { gsaGate } from './gsa_gate.js';
export { gsaInputs, type GsaInputShape } from './gsa_inputs.js';
export { gsaLayer, type GsaLayerArgs } from './gsa_layer.js';
export { linear, linearJoined, matmul, type MatmulOptions } from './matmul.js';
export { argmax, sum } from './reduce.js';
export { rmsNorm, type RmsNormOptions, type RmsNormStream } from './rmsnorm.js';
export { rotary, type RotaryOptions } from './rotary.js';
export { shortConv, type ShortConvOptions } from './short_conv.js';
export { narrow, reshape } from './view.js';
