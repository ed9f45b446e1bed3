import { PerformanceObserver } from 'node:perf_hooks';

/** JavaScript's garbage collections while it is open, by when they stopped the program. */
export class GarbageCollections {
  #pauses: { readonly from: number; readonly ms: number }[] = [];
  readonly #observer: PerformanceObserver;

  constructor() {
    this.#observer = new PerformanceObserver((list) => {
      for (const { startTime, duration } of list.getEntries())
        this.#pauses.push({ from: startTime, ms: duration });
    });
    this.#observer.observe({ entryTypes: ['gc'] });
  }

  /** Milliseconds of those that began between two times of performance.now(); they and all before are forgotten. */
  take(from: number, to: number): number {
    // Told of some turns late: the last may be missing where `to` is now.
    for (const { startTime, duration } of this.#observer.takeRecords())
      this.#pauses.push({ from: startTime, ms: duration });
    const past = this.#pauses.filter((pause) => pause.from <= to);
    this.#pauses = this.#pauses.filter((pause) => pause.from > to);
    return past.filter((pause) => pause.from >= from).reduce((sum, { ms }) => sum + ms, 0);
  }

  close(): void {
    this.#observer.disconnect();
  }
}
