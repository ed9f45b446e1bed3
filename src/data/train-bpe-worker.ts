/** The thread behind trainBpe(): counts words, learns merges, answers once. */
import { parentPort, workerData } from 'node:worker_threads';
import { GsaError } from '../native/errors.js';
import { countWords, learnMerges } from './bpe.js';
import { chooseHeldOut } from './held-out.js';
import { readDocuments } from './readers.js';
import type { TrainBpeAnswer, TrainBpeJob } from './train-bpe.js';

async function work({ paths, specials, options }: TrainBpeJob): Promise<TrainBpeAnswer> {
  try {
    const isHeldOut = options.heldOut ? await chooseHeldOut(paths, options.heldOut, options) : () => false;
    const counts = new Map<string, number>();
    let documents = 0;
    for await (const { text } of readDocuments(paths, options)) {
      if (isHeldOut(text)) continue;
      documents++;
      countWords(text, counts);
    }
    return { learned: learnMerges(counts, options.vocabSize, specials, options.minCount), documents };
  } catch (error) {
    if (error instanceof GsaError) return { code: error.code, message: error.message };
    throw error;
  }
}

parentPort?.postMessage(await work(workerData as TrainBpeJob), []);
