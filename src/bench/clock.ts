import { elapsedMs, type Device } from '../tensor/device.js';

/** Times work on a device. */
export interface Clock {
  /** Written into the report. */
  readonly name: string;
  /** Runs the bodies one after another and returns what each took, in milliseconds, when all of them are done. */
  laps(bodies: readonly (() => void)[]): number[];
}

/** The device's own clock: events between the bodies, so that on a GPU what the host does beside it is not measured. */
export function clockOf(device: Device): Clock {
  return {
    name: device.backend === 'cpu' ? 'host clock' : 'CUDA events',
    laps: (bodies) => {
      const marks = [device.event()];
      for (const body of bodies) {
        body();
        marks.push(device.event());
      }
      return bodies.map((_, i) => elapsedMs(marks[i]!, marks[i + 1]!));
    },
  };
}
