// The public API. What is not exported here may change without notice.
export { GsaError, type GsaErrorCode } from './native/errors.js';
export { device, elapsedMs, type Device, type DeviceEvent } from './tensor/device.js';
export { type DType, type HostArray } from './tensor/dtype.js';
export { noGrad } from './tensor/recorder.js';
export { keep, scope } from './tensor/scope.js';
export { type Shape } from './tensor/shape.js';
export { Tensor, type TensorOptions } from './tensor/tensor.js';
export {
  openSafetensors,
  writeSafetensors,
  type SafetensorsEntry,
  type SafetensorsReader,
} from './io/safetensors.js';
export * from './ops/index.js';
export { gradcheck, type GradcheckOptions, type GradcheckResult } from './autograd/gradcheck.js';
export { Tape } from './autograd/tape.js';
export * from './nn/index.js';
export * from './models/index.js';
export * from './optim/index.js';
export { TokenDataset, tokensInMemory, type TokenSource } from './data/dataset.js';
export { unigramEntropy, type UnigramEntropy } from './data/entropy.js';
export { readDocuments, type Document, type ReadOptions } from './data/readers.js';
export { BatchSampler, validationBatches, type Batch, type SamplerState } from './data/sampler.js';
export { openOrWriteShards, writeShards, type PackOptions } from './data/shards.js';
export { loadTokenizer, parseTokenizer, type Tokenizer } from './data/tokenizer.js';
export { END_OF_TEXT, trainBpe, type TrainBpeOptions, type TrainedBpe } from './data/train-bpe.js';
export * from './generate/index.js';
export { parseTrainConfig, type TrainConfig, type TrainConfigInput } from './train/config.js';
export { type TrainEvent, type TrainResult } from './train/events.js';
export { train, type TrainOptions } from './train/loop.js';
export { type Check } from './verify/compare.js';
export { verify, type VerifyOptions } from './verify/verify.js';
