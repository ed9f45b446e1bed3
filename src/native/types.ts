/** The surface of the native addon, exactly as native/addon exports it. Everything above it goes through src/native
 * and src/tensor; nothing else may touch it. All functions throw TypeError (wrong type, what is no handle),
 * RangeError (number out of range) or Error with a `code` of GsaErrorCode. */

declare const handleBrand: unique symbol;
/** What names a native tensor (storage, reference counted and shared by views; dtype, shape, strides) in the thread that
 * made it: a number that is never given out again. Nothing frees the tensor but dispose(). */
export type NativeTensor = number & { readonly [handleBrand]: true };

declare const eventBrand: unique symbol;
/** An opaque, type-tagged point in a device's work; garbage collection frees it. */
export interface NativeEvent {
  readonly [eventBrand]: true;
}

/** One line of native/ops/ops.def. Names keep their marks: `x?` optional, `x*` n tensors, `x*?` n or none. */
export interface NativeOp {
  readonly name: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly attributes: readonly string[];
}

export interface NativeDeviceInfo {
  readonly name: string;
  readonly totalBytes: number;
  readonly freeBytes: number;
  readonly computeMajor: number;
  readonly computeMinor: number;
  readonly units: number;
  readonly detail: string;
}

export interface NativeMemoryStats {
  readonly currentBytes: number;
  readonly peakBytes: number;
  readonly cachedBytes: number;
  readonly allocations: number;
}

export type BackendName = 'cpu' | 'cuda';

export interface NativeAddon {
  readonly abiVersion: number;
  ops(): NativeOp[];
  /** Loads the CUDA backend from this shared library; harmless when it is loaded already. */
  loadBackend(name: BackendName, path: string): void;
  loadedBackends(): BackendName[];
  deviceCount(backend: BackendName): number;
  deviceInfo(backend: BackendName, index: number): NativeDeviceInfo;

  /** A new, uninitialised, contiguous tensor. `dtype`: its number in gsa_abi.h. */
  tensor(backend: BackendName, index: number, dtype: number, shape: readonly number[]): NativeTensor;
  /** A view of the same storage: `offset` in elements from the start of `base`'s first element; must lie inside the
   * storage. The dtype stays. */
  view(
    base: NativeTensor,
    shape: readonly number[],
    strides: readonly number[],
    offset: number,
  ): NativeTensor;
  /** The same view once more, with a handle and a share of the storage of its own. */
  share(tensor: NativeTensor): NativeTensor;
  /** Drops this handle's share of the storage, now. Twice is harmless. */
  dispose(tensor: NativeTensor): void;
  /** dispose() for what the program forgot and garbage collection found: a storage that ends with it is counted. */
  disposeForgotten(tensor: NativeTensor): void;
  /** Host to device, contiguous tensors only; `source.byteLength` must be the tensor's size in bytes. */
  write(tensor: NativeTensor, source: ArrayBufferView): void;
  /** Device to host, contiguous tensors only; blocks until the data is there. */
  read(tensor: NativeTensor, target: ArrayBufferView): void;
  /** Device to host without waiting, contiguous tensors only: what the tensor holds at this point of the device's work,
   * whatever happens to it afterwards. Promises of one device are settled in the order of their calls. */
  readAsync(tensor: NativeTensor): Promise<ArrayBuffer>;

  /** Runs op number `op` (its place in ops()). All tensors must be on one device. Attributes as in ops.def. */
  exec(
    op: number,
    inputs: readonly (NativeTensor | null)[],
    outputs: readonly (NativeTensor | null)[],
    attributes: readonly number[],
  ): void;

  synchronize(backend: BackendName, index: number): void;
  /** A new event at the end of all work submitted before. */
  recordEvent(backend: BackendName, index: number): NativeEvent;
  /** Blocks until the device has reached the event. */
  waitEvent(event: NativeEvent): void;
  /** Milliseconds between two events of one device, by its own clock; blocks until both are reached. */
  elapsed(from: NativeEvent, to: NativeEvent): number;
  memoryStats(backend: BackendName, index: number, resetPeak: boolean): NativeMemoryStats;
  setOption(backend: BackendName, index: number, name: string, value: number): void;
  getOption(backend: BackendName, index: number, name: string): number;
  /** Storages of this Node.js thread that were freed by garbage collection instead of dispose(), and those alive. */
  leaks(): { finalized: number; alive: number };
}
