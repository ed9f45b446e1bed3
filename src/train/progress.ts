import type { MultiBar, SingleBar } from 'cli-progress';
import type { TrainEvent } from './events.js';
import { compact, duration, lossText } from './format.js';
import type { StepRecord } from './metrics.js';

type Stream = NodeJS.WriteStream;

/** Seconds between two lines of progress where there is no terminal. */
const LINE_SECONDS = 5;

/** Shows a training to a person: a bar on a terminal, plain lines elsewhere (and with `color: false` no escape codes
 * but the bar's own). Feed it every event; call stop() at the end, also after an error. */
export class Progress {
  readonly #stream: Stream;
  readonly #color: boolean;
  #bars: MultiBar | null = null;
  #bar: SingleBar | null = null;
  #steps = 0;
  #secondsPerStep = 0;
  #lastLine = -Infinity;

  private constructor(stream: Stream, color: boolean) {
    this.#stream = stream;
    this.#color = color;
  }

  static async create(stream: Stream, options: { color: boolean }): Promise<Progress> {
    const progress = new Progress(stream, options.color);
    if (!stream.isTTY) return progress;
    const { default: cli } = await import('cli-progress');
    progress.#bars = new cli.MultiBar({
      stream,
      format: `${progress.#paint('{bar}')} {value}/{total} | loss {loss} | lr {lr} | norm {norm} | {rate} tok/s | ETA {left}`,
      barCompleteChar: '█',
      barIncompleteChar: '░',
      barsize: 24,
      fps: 8,
      hideCursor: false,
      emptyOnZero: true,
      // Its own handlers of SIGINT would outlive the first Ctrl-C and keep the second one from ending the process.
      gracefulExit: false,
    });
    return progress;
  }

  handle(event: TrainEvent): void {
    switch (event.type) {
      case 'status':
        return this.#note(event.message);
      case 'warning':
        return this.#note(`warning: ${event.message}`);
      case 'start':
        return this.#start(event);
      case 'step':
        return this.#step(event);
      case 'evaluation':
        return this.#note(
          `step ${event.step}: validation loss ${lossText(event.validationLoss)}, perplexity ${event.validationPerplexity.toFixed(2)}`,
        );
      case 'sample':
        return this.#note(`step ${event.step}: ${JSON.stringify(event.prompt + event.text)}`);
      case 'checkpoint':
        return this.#note(`step ${event.step}: saved ${event.path}`);
      case 'end':
        return this.stop();
    }
  }

  /** Takes the bar off the terminal's input line; harmless twice. */
  stop(): void {
    this.#bars?.update();
    this.#bars?.stop();
    this.#bars = this.#bar = null;
  }

  #paint(text: string): string {
    return this.#color ? `\x1b[36m${text}\x1b[39m` : text;
  }

  #note(text: string): void {
    if (this.#bar) this.#bars!.log(text + '\n');
    else this.#stream.write(text + '\n');
  }

  #start(event: TrainEvent & { type: 'start' }): void {
    this.#steps = event.steps;
    const from = event.resumedFrom === null ? '' : `, resumed from step ${event.resumedFrom}`;
    const products = event.matmul === 'dtype' ? '' : `, products of the blocks in ${event.matmul}`;
    this.#note(
      `${compact(event.parameters)} parameters, ${compact(event.trainTokens)} training and ${compact(event.validationTokens)} validation tokens, ` +
        `${event.steps} steps of ${compact(event.tokensPerStep)} tokens${products}${from}`,
    );
    if (event.unigramEntropy !== null)
      this.#note(`unigram entropy of the validation text: ${event.unigramEntropy.toFixed(4)} nats per token`);
    const blank = { loss: '-', lr: '-', norm: '-', rate: '-', left: '-' };
    if (this.#bars) this.#bar = this.#bars.create(event.steps, event.resumedFrom ?? 0, blank);
  }

  #step(record: StepRecord): void {
    this.#secondsPerStep = this.#secondsPerStep
      ? 0.95 * this.#secondsPerStep + 0.05 * record.seconds
      : record.seconds;
    const shown = {
      loss: lossText(record.loss) + (record.skipped ? ' (skipped)' : ''),
      lr: record.lr.toExponential(2),
      norm: record.gradNorm === null ? 'not finite' : record.gradNorm.toFixed(3),
      rate: compact(record.tokensPerSecond),
      left: duration((this.#steps - record.step) * this.#secondsPerStep),
    };
    if (this.#bar) return this.#bar.update(record.step, shown);
    const now = performance.now() / 1000;
    if (record.step < this.#steps && now - this.#lastLine < LINE_SECONDS && !record.skipped) return;
    this.#lastLine = now;
    this.#note(
      `step ${record.step}/${this.#steps} | loss ${shown.loss} | lr ${shown.lr} | norm ${shown.norm} | ${shown.rate} tok/s | ETA ${shown.left}`,
    );
  }
}
