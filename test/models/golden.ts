import { openSafetensors } from '#src/io/safetensors.js';
import type { Device } from '#src/tensor/device.js';
import { Tensor } from '#src/tensor/tensor.js';
import { fixture } from '../paths.js';

/** Small models with what an independent implementation computed for them. */
export const GOLDEN_MODELS = ['gsa_gqa', 'gsa_shortconv'] as const;

export interface Golden {
  readonly folder: string;
  /** [B, T] */
  readonly ids: Tensor;
  /** ids shifted by one; the last position is ignored. */
  readonly labels: Tensor;
  readonly numbers: (name: string) => Float32Array;
  readonly names: readonly string[];
}

export function loadGolden(name: (typeof GOLDEN_MODELS)[number], device: Device): Golden {
  const folder = fixture('models', name);
  using file = openSafetensors(`${folder}/expected.safetensors`);
  const values = new Map(
    file.names.map((tensor) => [tensor, Float32Array.from(file.read(tensor).data as Float32Array)]),
  );
  const shape = file.info('input_ids').shape;
  const T = shape[1]!;
  const ids = Int32Array.from(values.get('input_ids')!);
  const labels = ids.map((_, i) => (i % T === T - 1 ? -100 : ids[i + 1]!));
  return {
    folder,
    ids: Tensor.from(ids, shape, { device }),
    labels: Tensor.from(labels, shape, { device }),
    numbers: (tensor) => values.get(tensor)!,
    names: file.names,
  };
}
