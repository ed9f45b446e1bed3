import { basename, join, resolve } from 'node:path';
import { writeFileAtomic } from '../io/atomic.js';
import { readMetrics } from './metrics.js';
import { lossCurvePng, lossCurveSvg } from './plot.js';

/** Draws a run's loss curve from its metrics.jsonl into `loss.svg` and `loss.png` beside it.
 * @throws GsaError IO when there are no metrics or the folder is not writable, INVALID_FILE */
export async function plotRun(output: string, title?: string): Promise<{ svg: string; png: string }> {
  const metrics = readMetrics(output);
  // A long path would run into the edge.
  const options = { title: title ?? (output.length <= 80 ? output : basename(resolve(output))) };
  const paths = { svg: join(output, 'loss.svg'), png: join(output, 'loss.png') };
  writeFileAtomic(paths.svg, lossCurveSvg(metrics, options));
  writeFileAtomic(paths.png, await lossCurvePng(metrics, options));
  return paths;
}
