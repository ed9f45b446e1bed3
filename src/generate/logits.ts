import { openSafetensors, writeSafetensors, type SafetensorsEntry } from '../io/safetensors.js';
import { GSAForCausalLM } from '../models/index.js';
import { GsaError, checkPath, expected } from '../native/errors.js';
import { noGrad } from '../tensor/recorder.js';
import { scope } from '../tensor/scope.js';
import { shapeText } from '../tensor/shape.js';
import { Tensor } from '../tensor/tensor.js';

const IDS = 'input_ids';
/** The label of a position that does not count in the loss. */
const IGNORED = -100;

/** For each token of [B, T] the one that follows it; −100 for the last of each sequence. */
export function successorLabels(ids: Int32Array, T: number): Int32Array {
  return ids.map((_, i) => (i % T === T - 1 ? IGNORED : ids[i + 1]!));
}

/** What writeLogits() computed. */
export interface LogitsResult {
  /** [B, T, vocabulary] */
  readonly shape: readonly number[];
  /** Mean cross-entropy of each token's successor, in nats; null when no token has one (T = 1). */
  readonly loss: number | null;
}

function readIds(path: string, vocabulary: number): { ids: Int32Array; shape: readonly number[] } {
  using reader = openSafetensors(path);
  const bad = (message: string) => new GsaError('INVALID_FILE', `${path}: ${message}`, { op: 'logits' });
  if (!reader.has(IDS)) throw bad(`Expected a tensor ${IDS} but the file has ${reader.names.join(', ')}`);
  const { shape, dtype, stored } = reader.info(IDS);
  if (shape.length !== 2 || shape.includes(0))
    throw bad(`Expected shape [B, T] with at least one token for ${IDS} but received ${shapeText(shape)}`);
  if (dtype !== 'int32' && dtype !== 'int64')
    throw bad(`Expected I32 or I64 for ${IDS} but received ${stored}`);
  const ids = Int32Array.from(reader.read(IDS).data as Int32Array | BigInt64Array, Number);
  // Checked here because a device can answer a row outside the table with NaN only.
  const wrong = ids.find((id) => id < 0 || id >= vocabulary);
  if (wrong !== undefined)
    throw bad(`Expected token ids from 0 to ${vocabulary - 1}, the model's vocabulary, but found ${wrong}`);
  return { ids, shape };
}

/** Runs the tokens in a safetensors file through a model and writes what it says about the next ones: `logits`
 * [B, T, vocabulary], float32, and `loss` [1], the mean cross-entropy of each token's successor (absent when T = 1).
 * @param idsPath a file with `input_ids` [B, T], int32 or int64
 * @param outPath is written whole or not at all
 * @throws GsaError INVALID_FILE for a file without such ids, IO, OUT_OF_MEMORY */
export function writeLogits(model: GSAForCausalLM, idsPath: string, outPath: string): LogitsResult {
  if (!(model instanceof GSAForCausalLM)) throw expected('a GSAForCausalLM', 'model', model, 'writeLogits');
  checkPath(outPath, 'outPath', 'writeLogits');
  const { ids, shape } = readIds(checkPath(idsPath, 'idsPath', 'writeLogits'), model.config.vocab_size);
  const T = shape[1]!;
  const { values, loss } = noGrad(() =>
    scope(() => {
      const input = Tensor.from(ids, shape, { device: model.device });
      const values = model.logits(input).logits.toFloat32();
      if (T === 1) return { values, loss: null };
      const labels = Tensor.from(successorLabels(ids, T), shape, { device: model.device });
      const sum = model.loss(input, labels);
      return { values, loss: sum.loss.item() / sum.tokens };
    }),
  );
  const logitsShape = [...shape, model.config.vocab_size];
  const entries: SafetensorsEntry[] = [
    { name: 'logits', dtype: 'float32', shape: logitsShape, data: values },
  ];
  if (loss !== null)
    entries.push({ name: 'loss', dtype: 'float32', shape: [1], data: Float32Array.of(loss) });
  writeSafetensors(outPath, entries);
  return { shape: logitsShape, loss };
}
