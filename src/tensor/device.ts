import { GsaError, checkOptions, expected, show } from '../native/errors.js';
import { ensureBackend, native } from '../native/load.js';
import type { BackendName, NativeDeviceInfo, NativeEvent, NativeMemoryStats } from '../native/types.js';

/** Where tensors live and ops run. Devices are values: `device('cpu') === device('cpu')`. */
export class Device {
  /** @internal Use device(). */
  constructor(
    readonly backend: BackendName,
    readonly index: number,
  ) {}

  /** "cpu" or "cuda:0" */
  toString(): string {
    return this.backend === 'cpu' ? 'cpu' : `${this.backend}:${this.index}`;
  }

  info(): NativeDeviceInfo {
    return native().deviceInfo(this.backend, this.index);
  }

  /** Bytes handed out now, their peak, and what the allocator holds beside them.
   * @throws GsaError INVALID_ARGUMENT */
  memory(options: { resetPeak?: boolean } = {}): NativeMemoryStats {
    checkOptions(options, ['resetPeak'], 'memory');
    return native().memoryStats(this.backend, this.index, options.resetPeak ?? false);
  }

  /** Blocks until everything submitted to this device is done. */
  synchronize(): void {
    native().synchronize(this.backend, this.index);
  }

  /** Marks this point in the device's work, after everything submitted so far; returns at once.
   * @throws GsaError DEVICE_LOST */
  event(): DeviceEvent {
    return new DeviceEvent(this, native().recordEvent(this.backend, this.index));
  }

  /** Backend settings, for example `device('cpu').setOption('threads', 4)`.
   * @throws GsaError INVALID_ARGUMENT for an unknown name or a value out of range */
  setOption(name: string, value: number): void {
    native().setOption(this.backend, this.index, name, value);
  }

  getOption(name: string): number {
    return native().getOption(this.backend, this.index, name);
  }
}

/** A point in the work of a device: between what was submitted before it and what comes after. On the CPU, whose work is
 * done when a call returns, it is a reading of the host's clock. */
export class DeviceEvent {
  readonly device: Device;
  readonly #handle: NativeEvent;

  /** @internal Use Device.event(). */
  constructor(on: Device, handle: NativeEvent) {
    this.device = on;
    this.#handle = handle;
  }

  /** Blocks until everything before this point is done. */
  synchronize(): void {
    native().waitEvent(this.#handle);
  }

  /** @internal */
  static between(from: DeviceEvent, to: DeviceEvent): number {
    return native().elapsed(from.#handle, to.#handle);
  }
}

/** Milliseconds from one event to another of the same device (negative when `to` came first), by the device's clock, to
 * about half a microsecond on a GPU. Blocks until both are reached.
 * @throws GsaError INVALID_ARGUMENT for events of two devices, DEVICE_LOST */
export function elapsedMs(from: DeviceEvent, to: DeviceEvent): number {
  for (const [name, event] of Object.entries({ from, to }))
    if (!(event instanceof DeviceEvent))
      throw expected('an event of Device.event()', name, event, 'elapsedMs');
  return DeviceEvent.between(from, to);
}

const known = new Map<string, Device>();

/** The device of that name: "cpu", "cuda" (the first GPU) or "cuda:N". Does not allocate on it.
 * @throws GsaError INVALID_ARGUMENT for a malformed name, NOT_BUILT when the backend was not built, UNSUPPORTED when
 * the machine has no such device. */
export function device(name: string | Device = 'cpu'): Device {
  if (name instanceof Device) return name;
  const match = typeof name === 'string' ? /^(cpu|cuda)(?::(\d{1,3}))?$/.exec(name) : null;
  if (!match) throw expected('"cpu", "cuda" or "cuda:N"', 'device', name);
  const backend = match[1] as BackendName;
  const index = Number(match[2] ?? 0);
  const key = `${backend}:${index}`;
  const cached = known.get(key);
  if (cached) return cached;
  ensureBackend(backend);
  const count = native().deviceCount(backend);
  if (index >= count)
    throw new GsaError(
      'UNSUPPORTED',
      `Expected a device index below ${count} but received ${show(name)}; run "npx flash-gsa doctor" to list devices`,
    );
  const created = new Device(backend, index);
  known.set(key, created);
  return created;
}
