import { closeSync, existsSync, openSync, readFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { writeFileAtomic } from '../io/atomic.js';
import { ioError } from '../io/files.js';
import { GsaError } from '../native/errors.js';

/** What memory was in use, noted every hundredth step. */
export interface MemoryRecord {
  /** Of the process, and of JavaScript's heap in it. */
  readonly rssBytes: number;
  readonly heapBytes: number;
  /** Most that tensors held on the device since this was last noted, and what its allocator holds in all. */
  readonly deviceBytes: number;
  readonly deviceReservedBytes: number;
}

/** One optimizer step. Losses are means over the step's tokens, in nats; null where they were not finite. */
export interface StepRecord {
  readonly step: number;
  readonly loss: number | null;
  readonly lr: number;
  /** Global norm of the mean gradient, before clipping. */
  readonly gradNorm: number | null;
  /** Counted tokens (labels that are not ignored) of this step. */
  readonly tokens: number;
  readonly tokensPerSecond: number;
  /** Of this step, by the device's clock. */
  readonly seconds: number;
  /** What the host did for this step, waits for the device left out; meanwhile the device worked on the step before. Absent in
   * records from before it was noted. */
  readonly hostSeconds?: number;
  /** Of these, JavaScript's garbage collections; absent where there was none. */
  readonly collectionSeconds?: number;
  /** The gradient was not finite, so the weights stayed as they were. */
  readonly skipped?: true;
  readonly memory?: MemoryRecord;
}

export interface EvaluationRecord {
  readonly step: number;
  /** Mean over the validation tokens, in nats. */
  readonly validationLoss: number;
  readonly validationPerplexity: number;
  readonly validationTokens: number;
}

/** The first line: what is known about the text before training. */
export interface TextRecord {
  readonly step: 0;
  /** Entropy of the validation text's token frequencies, nats per token. */
  readonly unigramEntropy: number;
}

export type MetricsRecord = StepRecord | EvaluationRecord | TextRecord;

/** All of a metrics.jsonl. */
export interface Metrics {
  readonly steps: StepRecord[];
  readonly evaluations: EvaluationRecord[];
  readonly unigramEntropy: number | null;
}

export function metricsPath(output: string): string {
  return join(output, 'metrics.jsonl');
}

function readRecords(path: string): MetricsRecord[] {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    throw ioError(error, 'read', path);
  }
  const lines = text.split('\n');
  // What follows the last newline was being written when the process died.
  lines.pop();
  return lines.map((line, i) => {
    try {
      const record = JSON.parse(line) as MetricsRecord;
      if (record !== null && Number.isInteger(record.step)) return record;
    } catch {
      // Reported below, as is a line that is JSON but no record.
    }
    throw new GsaError('INVALID_FILE', `Expected a JSON record with a step at ${path}:${i + 1}`);
  });
}

/** Reads a run's metrics.jsonl; a last line without its newline is left out.
 * @throws GsaError IO when there is none, INVALID_FILE naming the line that is no record. */
export function readMetrics(output: string): Metrics {
  const records = readRecords(metricsPath(output));
  const text = records.find((r): r is TextRecord => 'unigramEntropy' in r);
  return {
    steps: records.filter((r): r is StepRecord => 'lr' in r),
    evaluations: records.filter((r): r is EvaluationRecord => 'validationLoss' in r),
    unigramEntropy: text?.unigramEntropy ?? null,
  };
}

/** Appends to a run's metrics.jsonl, one write a record, so that a killed process leaves at most one partial line. */
export class MetricsWriter {
  readonly #path: string;
  #fd: number;

  /** Opens the file and drops every record that `keep` does not want: those of steps that will be run again.
   * @throws GsaError IO */
  constructor(output: string, keep: (record: MetricsRecord) => boolean) {
    this.#path = metricsPath(output);
    const kept = existsSync(this.#path) ? readRecords(this.#path).filter(keep) : [];
    writeFileAtomic(this.#path, kept.map((r) => JSON.stringify(r) + '\n').join(''));
    try {
      this.#fd = openSync(this.#path, 'a');
    } catch (error) {
      throw ioError(error, 'append to', this.#path);
    }
  }

  /** @throws GsaError IO, for example when the disk is full. */
  append(record: MetricsRecord): void {
    try {
      writeSync(this.#fd, JSON.stringify(record) + '\n');
    } catch (error) {
      throw ioError(error, 'append to', this.#path);
    }
  }

  close(): void {
    if (this.#fd >= 0) closeSync(this.#fd);
    this.#fd = -1;
  }
}
