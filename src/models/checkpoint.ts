import { join } from 'node:path';
import { writeFileAtomic } from '../io/atomic.js';
import { makeFolder } from '../io/files.js';
import {
  openSafetensors,
  WEIGHTS_FILE,
  writeSafetensors,
  type SafetensorsReader,
} from '../io/safetensors.js';
import { GsaError } from '../native/errors.js';
import type { Device } from '../tensor/device.js';
import { keep } from '../tensor/scope.js';
import { sameShape, shapeText } from '../tensor/shape.js';
import { Tensor } from '../tensor/tensor.js';
import { toHuggingFace, type GSAConfig } from './config.js';
import { parameterDType, parameterSpecs, type ParameterSpec } from './parameters.js';

/** What weights may be held and computed in. Those of norms are float32 in either. */
export type WeightDType = 'float32' | 'bfloat16';

const HEAD = 'lm_head.weight';
const EMBEDDINGS = 'model.embeddings.weight';

export const CONFIG_FILE = 'config.json';

/** Reads the weights that `config` asks for from a folder with model.safetensors or its shards.
 * @throws GsaError INVALID_FILE that names every tensor missing, unexpected, of another shape or not floating point */
export function loadWeights(
  folder: string,
  config: GSAConfig,
  options: { device: Device; dtype: WeightDType },
): Map<string, Tensor> {
  using reader = openSafetensors(folder);
  const specs = parameterSpecs(config);
  refuseMismatch(folder, config, specs, reader);
  if (config.tie_word_embeddings && reader.has(HEAD)) refuseUntied(folder, reader);
  return materialise(specs, (spec) => {
    const { data, dtype } = reader.read(spec.name);
    const stored = Tensor.from(data, spec.shape, { dtype, device: options.device });
    const wanted = parameterDType(spec, options.dtype);
    if (dtype === wanted) return stored;
    try {
      return stored.to({ dtype: wanted });
    } finally {
      stored.dispose();
    }
  });
}

/** Makes every parameter, outside scopes; when one fails, those already made are disposed. */
export function materialise(
  specs: readonly ParameterSpec[],
  make: (spec: ParameterSpec) => Tensor,
): Map<string, Tensor> {
  const weights = new Map<string, Tensor>();
  try {
    for (const spec of specs) {
      const tensor = keep(make(spec));
      tensor.requiresGrad = true;
      weights.set(spec.name, tensor);
    }
  } catch (error) {
    for (const tensor of weights.values()) tensor.dispose();
    throw error;
  }
  return weights;
}

function refuseMismatch(
  folder: string,
  config: GSAConfig,
  specs: readonly ParameterSpec[],
  reader: SafetensorsReader,
): void {
  const problems: string[] = [];
  for (const { name, shape } of specs) {
    if (!reader.has(name)) {
      problems.push(`${name} is missing`);
      continue;
    }
    const info = reader.info(name);
    if (!sameShape(info.shape, shape))
      problems.push(`Expected shape ${shapeText(shape)} for ${name} but received ${shapeText(info.shape)}`);
    if (info.dtype !== 'float32' && info.dtype !== 'bfloat16')
      problems.push(`Expected F32, BF16 or F16 for ${name} but received ${info.stored}`);
  }
  const wanted = new Set(specs.map((spec) => spec.name));
  if (config.tie_word_embeddings) wanted.add(HEAD);
  for (const name of reader.names) if (!wanted.has(name)) problems.push(`${name} is unexpected`);
  if (problems.length === 0) return;
  const shown = problems.slice(0, 8).join('; ');
  const more = problems.length > 8 ? `; and ${problems.length - 8} more` : '';
  throw new GsaError('INVALID_FILE', `${folder}: the weights do not fit ${CONFIG_FILE}: ${shown}${more}`);
}

/** A file may store the output matrix of a tied model too, but then it must be the embeddings. */
function refuseUntied(folder: string, reader: SafetensorsReader): void {
  const head = reader.read(HEAD);
  const embeddings = reader.read(EMBEDDINGS);
  const bytes = (a: ArrayBufferView) => Buffer.from(a.buffer, a.byteOffset, a.byteLength);
  if (head.dtype === embeddings.dtype && bytes(head.data).equals(bytes(embeddings.data))) return;
  throw new GsaError(
    'INVALID_FILE',
    `${folder}: Expected ${HEAD} to equal ${EMBEDDINGS}, because ${CONFIG_FILE} says tie_word_embeddings, but they differ; set tie_word_embeddings to false or remove ${HEAD}`,
  );
}

/** Writes model.safetensors and config.json, each atomically, in the form that Hugging Face's libraries read. Norm weights
 * are float32 in the file too: a training that goes on from it loses nothing.
 * @throws GsaError IO; the files there are then unchanged */
export function saveWeights(
  folder: string,
  config: GSAConfig,
  parameters: readonly (readonly [name: string, tensor: Tensor])[],
  dtype: WeightDType,
): void {
  makeFolder(folder);
  const specs = new Map(parameterSpecs(config).map((spec) => [spec.name, spec]));
  const entries = parameters.map(([name, tensor]) => {
    const stored = parameterDType(specs.get(name)!, dtype);
    const data = () => {
      if (tensor.dtype === stored) return tensor.toHost();
      using converted = tensor.to({ dtype: stored });
      return converted.toHost();
    };
    return { name, dtype: stored, shape: tensor.shape, data };
  });
  writeSafetensors(join(folder, WEIGHTS_FILE), entries, { format: 'pt' });
  writeFileAtomic(join(folder, CONFIG_FILE), `${JSON.stringify(toHuggingFace(config, dtype), null, 2)}\n`);
}
