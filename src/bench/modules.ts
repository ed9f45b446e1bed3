import { Tape } from '../autograd/tape.js';
import { expected } from '../native/errors.js';
import { scope } from '../tensor/scope.js';
import { Tensor } from '../tensor/tensor.js';
import { norm, relativeError } from '../verify/compare.js';
import { benchAdamW } from './adamw.js';
import { bounds, deviceError, finiteError, outputCheck, worst, type OutputCheck } from './check.js';
import { MODULE_COUNTS, plus, type Count } from './counts.js';
import { MODULES, type Extents, type ModuleCase, type ModuleName } from './module_cases.js';
import { rates } from './peaks.js';
import type { BenchContext, BenchResult } from './report.js';
import { parseShape, shapeName } from './shape.js';
import { measureTogether } from './timing.js';

type Tensors = Record<string, Tensor>;

/** Integers below `below`, all equally likely. */
export function randomIntegers(shape: readonly number[], below: number, seed: number): Int32Array {
  const normal = scope(() => Tensor.randn(shape, { seed }).toFloat32());
  // The logistic curve nearest to the normal distribution's: what it lacks in evenness no time depends on.
  return Int32Array.from(normal, (x) => Math.min(below - 1, Math.floor(below / (1 + Math.exp(-1.702 * x)))));
}

function makeInputs(
  { device, dtype }: Pick<BenchContext, 'device' | 'dtype'>,
  one: ModuleCase,
  shape: Extents,
): Tensors {
  const made: Tensors = {};
  Object.entries(one.inputs(shape)).forEach(([name, { shape, std = 1, mean = 0, below, wide }], i) => {
    made[name] =
      below === undefined
        ? Tensor.randn(shape, { device, dtype: wide ? 'float32' : dtype, seed: i + 1, std, mean })
        : Tensor.from(randomIntegers(shape, below, i + 1), shape, { device });
  });
  return made;
}

const leavesOf = (inputs: Tensors): Tensor[] => Object.values(inputs).filter((t) => t.dtype !== 'int32');

/** The gradients that flow into outputs: normal numbers, for a single number 1. */
function makeUpstream(outputs: readonly Tensor[]): Tensor[] {
  return outputs.map(({ shape, size, dtype, device }, i) =>
    size === 1
      ? Tensor.full(shape, 1, { dtype, device })
      : Tensor.randn(shape, { dtype, device, seed: 100 + i }),
  );
}

/** One forward and backward; `use` sees outputs and gradients, in the order of leavesOf, before they end. */
function forwardBackward(
  one: ModuleCase,
  inputs: Tensors,
  upstream: readonly Tensor[],
  use: (outputs: readonly Tensor[], grads: readonly Tensor[]) => void = () => {},
): void {
  const leaves = leavesOf(inputs);
  for (const leaf of leaves) leaf.requiresGrad = true;
  using tape = new Tape();
  try {
    scope(() => {
      const outputs = tape.run(() => one.run(inputs));
      tape.backward(outputs, upstream);
      use(
        outputs,
        leaves.map((leaf) => leaf.grad!),
      );
    });
  } finally {
    for (const leaf of leaves) {
      leaf.grad?.dispose();
      leaf.grad = null;
      leaf.requiresGrad = false;
    }
  }
}

const DIRECTIONS = 4;
const STEP = 1e-4;

/** How far `grad` is from the gradient of Σ upstream · reference(inputs) at input `name`, relative: both are multiplied
 * with random directions, along which the true one is a difference of two sums in float64. For normal directions the
 * root mean square of the differences over ‖grad‖ is the relative error. */
function directionalError(
  one: ModuleCase,
  shape: Extents,
  inputs: Readonly<Record<string, Float64Array>>,
  upstream: readonly ArrayLike<number>[],
  name: string,
  grad: Float32Array,
): number {
  const along = (direction: Float32Array, h: number): number => {
    const moved = { ...inputs, [name]: inputs[name]!.map((x, i) => x + h * direction[i]!) };
    const outputs = one.reference(moved, shape);
    return outputs.reduce((sum, y, o) => y.reduce((s, value, i) => s + value * upstream[o]![i]!, sum), 0);
  };
  let squares = 0;
  for (let d = 0; d < DIRECTIONS; d++) {
    const direction = scope(() => Tensor.randn([grad.length], { seed: 1000 + d }).toFloat32());
    const exact = (along(direction, STEP) - along(direction, -STEP)) / (2 * STEP);
    squares += (grad.reduce((sum, x, i) => sum + x * direction[i]!, 0) - exact) ** 2;
  }
  return Math.sqrt(squares / DIRECTIONS) / norm(grad);
}

/** Outputs and gradients of a small shape against float64. */
export function checkSmall(
  context: Pick<BenchContext, 'device' | 'dtype'>,
  one: ModuleCase,
  full: Extents,
): { output: OutputCheck; gradient: OutputCheck } {
  const shape = Object.fromEntries(
    Object.entries(full).map(([n, extent]) => [n, Math.min(extent, one.small[n]!)]),
  );
  const limit = bounds(context.dtype);
  return scope(() => {
    const inputs = makeInputs(context, one, shape);
    const host = Object.fromEntries(
      Object.entries(inputs).map(([name, t]) => [name, Float64Array.from(t.toFloat32())]),
    );
    const names = Object.keys(inputs).filter((name) => inputs[name]!.dtype !== 'int32');
    const exact = one.reference(host, shape);
    const upstream = makeUpstream(scope(() => one.run(inputs)));
    let [output, gradient] = [NaN, NaN];
    forwardBackward(one, inputs, upstream, (outputs, grads) => {
      output = worst(outputs.map((y, i) => relativeError(y.toFloat32(), exact[i]!)));
      const dy = upstream.map((t) => t.toFloat32());
      gradient = worst(
        grads.map((grad, i) => directionalError(one, shape, host, dy, names[i]!, grad.toFloat32())),
      );
    });
    const where = `${shapeName(shape)} in float64`;
    return {
      output: outputCheck(where, output, limit.output),
      gradient: outputCheck(`${where}, gradients along ${DIRECTIONS} directions`, gradient, limit.gradient),
    };
  });
}

/** The whole shape: in bfloat16 against the same op in float32 on the same inputs, in float32 for being finite. */
function checkFull(
  one: ModuleCase,
  inputs: Tensors,
  upstream: readonly Tensor[],
): { output: OutputCheck; gradient: OutputCheck } {
  const dtype = leavesOf(inputs)[0]!.dtype;
  const limit = bounds(dtype);
  let [output, gradient] = [NaN, NaN];
  let against = 'everything is finite';
  forwardBackward(one, inputs, upstream, (outputs, grads) => {
    if (dtype === 'float32') {
      [output, gradient] = [finiteError(outputs), finiteError(grads)];
      return;
    }
    against = 'everything in float32';
    // Copies, also of what is float32 already: an alias has no gradient of its own.
    const wide = (t: Tensor) => (t.dtype === 'int32' ? t.alias() : t.to({ dtype: 'float32' }));
    const reference = Object.fromEntries(Object.entries(inputs).map(([name, t]) => [name, wide(t)]));
    forwardBackward(one, reference, upstream.map(wide), (exact, exactGrads) => {
      output = worst(exact.map((y, i) => deviceError(outputs[i]!, y)));
      gradient = worst(exactGrads.map((g, i) => deviceError(grads[i]!, g)));
    });
  });
  return {
    output: outputCheck(against, output, limit.output),
    gradient: outputCheck(`${against}, gradients`, gradient, limit.gradient),
  };
}

function benchModule(context: BenchContext, name: ModuleName, text: string): BenchResult[] {
  const { dtype, watch, measure, peaks } = context;
  const one = MODULES[name];
  const shape: Extents = parseShape(text, one.dimensions);
  const count = MODULE_COUNTS[name] as (shape: Extents, e: number) => { forward: Count; backward: Count };
  const { forward, backward } = count(shape, dtype === 'float32' ? 4 : 2);
  return scope(() => {
    const inputs = makeInputs(context, one, shape);
    const upstream = makeUpstream(scope(() => one.run(inputs)));
    const checks = [checkSmall(context, one, shape), checkFull(one, inputs, upstream)];
    const [alone, both] = measureTogether(
      watch,
      [() => scope(() => void one.run(inputs)), () => forwardBackward(one, inputs, upstream)],
      measure,
    );
    const result = { shape: shapeName(shape) };
    const outputs = checks.map((check) => check.output);
    return [
      {
        ...result,
        name: `${name} forward`,
        timing: alone!,
        figures: rates(forward, alone!.medianMs, peaks),
        checks: outputs,
      },
      {
        ...result,
        name: `${name} forward + backward`,
        timing: both!,
        figures: rates(plus(forward, backward), both!.medianMs, peaks),
        checks: [...outputs, ...checks.map((check) => check.gradient)],
      },
    ];
  });
}

/** The fused modules of a model's step, and AdamW.
 * @param texts NAME:SHAPE
 * @throws GsaError INVALID_ARGUMENT for an unknown name or a malformed shape */
export function benchModules(context: BenchContext, texts: readonly string[]): BenchResult[] {
  const runs = texts.map((text) => {
    const [name = '', shape = '', ...more] = text.split(':');
    const whole = shape !== '' && more.length === 0;
    if (whole && name === 'adamw') return () => benchAdamW(context, shape);
    if (!whole || !Object.hasOwn(MODULES, name))
      throw expected(
        `NAME:SHAPE with one of ${[...Object.keys(MODULES), 'adamw'].join(', ')}`,
        'shape',
        text,
      );
    parseShape(shape, MODULES[name as ModuleName].dimensions);
    return () => benchModule(context, name as ModuleName, shape);
  });
  return runs.flatMap((run) => run());
}
