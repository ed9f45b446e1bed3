import { Tape } from '../autograd/tape.js';
import { gsaChunk, gsaInputs, gsaLayer } from '../ops/index.js';
import { scope } from '../tensor/scope.js';
import { Tensor } from '../tensor/tensor.js';
import { bounds, deviceError, outputCheck } from './check.js';
import { gsaLayerBackward, gsaLayerForward, plus, type Count } from './counts.js';
import { makeOffsets, type GsaShape } from './gsa_case.js';
import { rates } from './peaks.js';
import type { BenchContext, BenchResult } from './report.js';
import { shapeName } from './shape.js';
import { measureTogether } from './timing.js';

interface LayerInputs {
  readonly x: Tensor; // [B, T, HQ K + H (K + V + M)], raw projections
  readonly upstream: Tensor; // [B, T, HQ, V]
  readonly cuSeqlens: Tensor | null;
}

type Form = (inputs: LayerInputs, shape: Required<Omit<GsaShape, 'DOC'>>) => Tensor;

const joined: Form = ({ x, cuSeqlens }, { HQ, H, K, V, M }) => gsaLayer(x, { HQ, H, K, V, M, cuSeqlens }).o;
const composed: Form = ({ x, cuSeqlens }, shape) => gsaChunk({ ...gsaInputs(x, shape), cuSeqlens }).o;

/** One forward and backward; `use` sees the output and the gradient before they end. */
function both(
  form: Form,
  inputs: LayerInputs,
  shape: Required<Omit<GsaShape, 'DOC'>>,
  use: (o: Tensor, dx: Tensor) => void = () => {},
): void {
  const { x, upstream } = inputs;
  x.requiresGrad = true;
  using tape = new Tape();
  try {
    scope(() => {
      const o = tape.run(() => form(inputs, shape));
      tape.backward(o, upstream);
      use(o, x.grad!);
    });
  } finally {
    x.grad?.dispose();
    x.grad = null;
    x.requiresGrad = false;
  }
}

/** The operator from raw joined projections to the gradient of these, as a layer runs it; checked against the two ops that it
 * joins, of which the other variant of the bench checks the operator. */
export function benchGsaLayer(context: BenchContext, whole: GsaShape): BenchResult[] {
  const { device, dtype, watch, measure, peaks } = context;
  const { DOC: _, ...given } = whole;
  const shape = { ...given, HQ: given.HQ ?? given.H };
  const { B, T, HQ, H, K, V, M } = shape;
  return scope(() => {
    const inputs: LayerInputs = {
      x: Tensor.randn([B, T, HQ * K + H * (K + V + M)], { device, dtype, seed: 1 }),
      upstream: Tensor.randn([B, T, HQ, V], { device, dtype, seed: 2 }),
      cuSeqlens: makeOffsets(device, whole),
    };
    const limit = bounds(dtype);
    const against = 'the two ops that it joins';
    let [output, gradient] = [NaN, NaN];
    both(joined, inputs, shape, (o, dx) => {
      const [kept, slope] = [o.contiguousCopy(), dx.contiguousCopy()];
      inputs.x.grad!.dispose();
      inputs.x.grad = null;
      both(composed, inputs, shape, (exact, exactSlope) => {
        [output, gradient] = [deviceError(kept, exact), deviceError(slope, exactSlope)];
      });
    });
    const checks = [outputCheck(`${against}, o`, output, limit.output)];
    const all = [...checks, outputCheck(`${against}, gradient`, gradient, limit.gradient)];
    const e = dtype === 'float32' ? 4 : 2;
    const forward = gsaLayerForward(shape, e);
    const passes: [string, () => void, Count, typeof checks][] = [
      ['gsa forward', () => scope(() => void joined(inputs, shape)), forward, checks],
      [
        'gsa forward + backward',
        () => both(joined, inputs, shape),
        plus(forward, gsaLayerBackward(shape, e)),
        all,
      ],
    ];
    return passes.map(([name, body, count, checks]) => {
      const [timing] = measureTogether(watch, [body], measure);
      const { medianMs } = timing!;
      const figures = { tokensPerSecond: (B * T) / (medianMs / 1e3), ...rates(count, medianMs, peaks) };
      return { name, variant: 'layer', shape: shapeName(whole), timing: timing!, figures, checks };
    });
  });
}
