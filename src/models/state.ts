import { GsaError, expected } from '../native/errors.js';
import type { GsaLayerState } from '../nn/index.js';
import type { Device } from '../tensor/device.js';
import type { DType } from '../tensor/dtype.js';
import { keep } from '../tensor/scope.js';
import { Tensor } from '../tensor/tensor.js';
import { gsaWidths, type GSAConfig } from './config.js';

/** What a model carries from one piece of its sequences to the next: a few matrices per layer, of one size however long
 * the text. A forward pass reads it and returns a new one; it is never changed. It belongs to whoever received it and
 * stands outside scopes: dispose() it, or use `using`. */
export class ModelState {
  /** @internal Made by GSAForCausalLM. */
  constructor(
    readonly layers: readonly GsaLayerState[],
    /** The number of sequences. */
    readonly batch: number,
    /** Tokens seen so far, per sequence; null after sequences of different lengths (cuSeqlens). */
    readonly tokens: number | null,
  ) {
    for (const tensor of this.tensors()) keep(tensor);
  }

  tensors(): Tensor[] {
    return this.layers.flatMap(({ hk, hv, conv }) => [hk, hv, ...(conv ?? [])]);
  }

  /** Bytes on the device. */
  get byteLength(): number {
    return this.tensors().reduce((n, tensor) => n + tensor.byteLength, 0);
  }

  get disposed(): boolean {
    return this.layers[0]?.hk.disposed ?? false;
  }

  dispose(): void {
    for (const tensor of this.tensors()) tensor.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** The state before the first token: zeros. */
export function zeroState(config: GSAConfig, batch: number, device: Device, dtype: DType): ModelState {
  if (!Number.isSafeInteger(batch) || batch < 1)
    throw expected('an integer above 0', 'batch', batch, 'newState');
  const { K, V, query, key, value } = gsaWidths(config);
  const { num_kv_heads: H, num_slots: M, conv_size: W } = config;
  const conv = (channels: number) => Tensor.zeros([batch, channels, W - 1], { device, dtype });
  const layers = Array.from({ length: config.num_hidden_layers }, () => ({
    hk: Tensor.zeros([batch, H, K, M], { device }),
    hv: Tensor.zeros([batch, H, M, V], { device }),
    conv: config.use_short_conv ? ([conv(query), conv(key), conv(value)] as const) : null,
  }));
  return new ModelState(layers, batch, 0);
}

/** @throws GsaError INVALID_ARGUMENT unless `state` is a live state of this model for `batch` sequences */
export function checkState(state: unknown, config: GSAConfig, batch: number, op: string): ModelState {
  if (!(state instanceof ModelState))
    throw expected('a state from newState() or forward()', 'state', state, op);
  if (state.disposed)
    throw new GsaError('USE_AFTER_DISPOSE', 'Expected a live state but received a disposed one', { op });
  if (state.layers.length !== config.num_hidden_layers)
    throw expected(`${config.num_hidden_layers} layers`, 'state', state.layers.length, op);
  if (state.batch !== batch) throw expected(`${batch} sequences`, 'state', state.batch, op);
  return state;
}
