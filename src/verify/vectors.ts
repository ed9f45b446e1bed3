import { GsaError, show } from '../native/errors.js';
import { openSafetensors, type SafetensorsReader } from '../io/safetensors.js';
import type { DType } from '../tensor/dtype.js';
import { shapeText } from '../tensor/shape.js';
import { Tensor } from '../tensor/tensor.js';
import type { Device } from '../tensor/device.js';

/** A file of stored results, read whole: these files are small. */
export class Vectors {
  readonly path: string;
  readonly #reader: SafetensorsReader;

  /** @throws GsaError INVALID_FILE, IO */
  constructor(path: string) {
    this.path = path;
    this.#reader = openSafetensors(path);
  }

  get names(): readonly string[] {
    return this.#reader.names;
  }

  has(name: string): boolean {
    return this.#reader.has(name);
  }

  /** @throws GsaError INVALID_FILE unless all of them are there. */
  require(names: readonly string[]): void {
    const missing = names.filter((name) => !this.has(name));
    if (missing.length > 0) throw this.bad(`Expected the tensors ${missing.join(', ')} but they are missing`);
  }

  shape(name: string): readonly number[] {
    this.require([name]);
    return this.#reader.info(name).shape;
  }

  /** @throws GsaError INVALID_FILE when it is missing or of another dtype. */
  floats(name: string): Float32Array {
    const data = this.#read(name, 'float32');
    return data as Float32Array;
  }

  ints(name: string): Int32Array {
    return this.#read(name, 'int32') as Int32Array;
  }

  /** The tensor on a device. */
  tensor(name: string, dtype: DType, device: Device): Tensor {
    const stored = this.shape(name);
    const data = dtype === 'int32' ? this.ints(name) : this.floats(name);
    return Tensor.from(data, stored, { dtype, device });
  }

  /** A finite number from the metadata. */
  number(key: string): number {
    const text = this.#reader.metadata[key];
    const value = text === undefined || text.trim() === '' ? NaN : Number(text);
    if (!Number.isFinite(value))
      throw this.bad(`Expected a number for the metadata "${key}" but received ${show(text)}`);
    return value;
  }

  /** @throws GsaError INVALID_FILE unless the tensor has this shape; null stands for any extent. */
  expectShape(name: string, shape: readonly (number | null)[]): readonly number[] {
    const stored = this.shape(name);
    const fits = stored.length === shape.length && shape.every((n, i) => n === null || n === stored[i]);
    if (!fits)
      throw this.bad(
        `Expected shape [${shape.map((n) => n ?? '*').join(', ')}] for ${name} but received ${shapeText(stored)}`,
      );
    return stored;
  }

  /** @throws GsaError INVALID_FILE unless the tensor is stored in this dtype. */
  expectDType(name: string, dtype: DType): void {
    const info = this.#reader.info(name);
    if (info.dtype !== dtype)
      throw this.bad(`Expected ${dtype} for ${name} but the file stores ${info.stored}`);
  }

  bad(message: string): GsaError {
    return new GsaError('INVALID_FILE', `${this.path}: ${message}`);
  }

  [Symbol.dispose](): void {
    this.#reader.close();
  }

  #read(name: string, dtype: DType): unknown {
    this.require([name]);
    this.expectDType(name, dtype);
    return this.#reader.read(name).data;
  }
}
