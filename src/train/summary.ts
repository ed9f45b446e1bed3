import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TrainResult } from './events.js';

export function summaryPath(output: string): string {
  return join(output, 'summary.json');
}

/** The result that a complete run left, if it is the one of this step; null otherwise. It is written last, so that a run
 * without one is not complete. */
export function readSummary(output: string, step: number, steps: number): TrainResult | null {
  const path = summaryPath(output);
  if (step !== steps || !existsSync(path)) return null;
  try {
    const result = JSON.parse(readFileSync(path, 'utf8')) as TrainResult;
    return result.status === 'completed' && result.step === step ? result : null;
  } catch {
    // Unreadable: the end of the run is made again, which writes it anew.
    return null;
  }
}
