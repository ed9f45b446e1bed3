import type { Device } from '../tensor/device.js';
import { scope } from '../tensor/scope.js';
import type { OutputCheck } from './check.js';
import { gsaBackward, gsaForward, plus, type Count } from './counts.js';
import { benchGsaLayer } from './gsa_layer.js';
import {
  GSA_DIMENSIONS,
  GSA_OPTIONAL,
  checkGsa,
  forward,
  forwardBackward,
  makeInputs,
  type GsaInputs,
  type GsaShape,
} from './gsa_case.js';
import { rates } from './peaks.js';
import type { BenchContext, BenchResult } from './report.js';
import { parseShape, shapeName } from './shape.js';
import { measureTogether, type Timing } from './timing.js';

interface Pass {
  readonly name: string;
  readonly run: (inputs: GsaInputs) => void;
  readonly count: (shape: GsaShape & { HQ: number }, e: number) => Count;
  readonly checks: (found: ReturnType<typeof checkGsa>) => OutputCheck[];
}

const PASSES: readonly Pass[] = [
  {
    name: 'gsa forward',
    run: (inputs) => scope(() => void forward(inputs)),
    count: gsaForward,
    checks: (found) => found.output,
  },
  {
    name: 'gsa forward + backward',
    run: (inputs) => forwardBackward(inputs),
    count: (shape, e) => plus(gsaForward(shape, e), gsaBackward(shape, e)),
    checks: (found) => found.all,
  },
];

/** Bytes in use at the worst moment of `body`, beyond those before it. */
function peakOf(device: Device, body: () => void): number {
  const before = device.memory({ resetPeak: true }).currentBytes;
  body();
  device.synchronize();
  return device.memory().peakBytes - before;
}

function benchShapes(context: BenchContext, shapes: readonly GsaShape[]): BenchResult[] {
  const { device, dtype, watch, measure, peaks } = context;
  const e = dtype === 'float32' ? 4 : 2;
  return scope(() => {
    const inputs = shapes.map((shape) => makeInputs(device, dtype, shape));
    const checked = shapes.map((shape, i) => checkGsa(inputs[i]!, shape));
    return PASSES.flatMap(({ name, run, count, checks }) => {
      const bodies = inputs.map((input) => () => run(input));
      const timings: readonly Timing[] = measureTogether(watch, bodies, measure);
      return shapes.map((shape, i) => ({
        name,
        shape: shapeName(shape),
        timing: timings[i]!,
        figures: {
          tokensPerSecond: (shape.B * shape.T) / (timings[i]!.medianMs / 1e3),
          peakMiB: peakOf(device, bodies[i]!) / 2 ** 20,
          ...rates(count({ ...shape, HQ: shape.HQ ?? shape.H }, e), timings[i]!.medianMs, peaks),
        },
        checks: checks(checked[i]!),
      }));
    });
  });
}

function parse(texts: readonly string[]): GsaShape[] {
  return texts.map((text) => parseShape(text, GSA_DIMENSIONS, GSA_OPTIONAL));
}

/** The operator, forward alone and forward + backward through the tape, then from and to raw joined projections (variant
 * "layer"): one shape after another, so that one shape's memory is all that is needed.
 * @throws GsaError INVALID_ARGUMENT for a malformed shape, and what the op throws */
export function benchGsa(context: BenchContext, texts: readonly string[]): BenchResult[] {
  return parse(texts).flatMap((shape) => [
    ...benchShapes(context, [shape]),
    ...benchGsaLayer(context, shape),
  ]);
}

/** The same with the shapes timed in turns, so that their ratios hold on a machine whose speed changes. Adds to each result
 * its cost over that of the first with the same name, divided by the same ratio of tokens: 1 is linear growth. */
export function benchGrowth(context: BenchContext, texts: readonly string[]): BenchResult[] {
  return withGrowth(benchShapes(context, parse(texts)), (shape) => {
    const { B, T } = parseShape(shape, GSA_DIMENSIONS, GSA_OPTIONAL);
    return B * T;
  });
}

export function withGrowth(
  results: readonly BenchResult[],
  tokens: (shape: string) => number,
): BenchResult[] {
  return results.map((r) => {
    const first = results.find((other) => other.name === r.name)!;
    const cost = r.timing.medianMs / first.timing.medianMs;
    return { ...r, figures: { ...r.figures, growth: cost / (tokens(r.shape) / tokens(first.shape)) } };
  });
}
