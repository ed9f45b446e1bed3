import { device, type Device } from '#src/tensor/device.js';

/** The devices that suites run on: the CPU, and the first GPU where there is one. Without one the reason is said once, on
 * stderr, since a silent skip would look like a pass. */
export function testDevices(): readonly Device[] {
  found ??= probe();
  return found;
}

let found: readonly Device[] | null = null;

function probe(): readonly Device[] {
  const cpu = device('cpu');
  try {
    return [cpu, device('cuda:0')];
  } catch (error) {
    process.stderr.write(`SKIPPED: all tests on cuda:0 (${(error as Error).message})\n`);
    return [cpu];
  }
}

/** A device and a dtype that models can have there. */
export interface Place {
  readonly device: Device;
  readonly dtype: 'float32' | 'bfloat16';
}

/** Float32 on every device, and bfloat16 on GPUs. */
export function testPlaces(): readonly Place[] {
  return testDevices().flatMap((device): Place[] => {
    const dtypes = device.backend === 'cuda' ? (['float32', 'bfloat16'] as const) : (['float32'] as const);
    return dtypes.map((dtype) => ({ device, dtype }));
  });
}
