import test from 'ava';
import { Tape } from '#src/autograd/tape.js';
import { gsaChunk } from '#src/ops/gsa.js';
import { fromBFloat16, toBFloat16 } from '#src/tensor/dtype.js';
import { scope } from '#src/tensor/scope.js';
import { Tensor } from '#src/tensor/tensor.js';
import { differing, relativeError } from '../cases/drive.js';
import { drawGsa, gsaCase, type GsaInputs } from '../cases/gsa.js';
import { testPlaces, type Place } from '../devices.js';
import { gsaBackward, gsaForward } from '../reference/gsa.js';
import { gsaShapes } from './gsa_run.js';

// Numbers of slots below, at and above the 64 of a tile, in the dtype and at widths for which CUDA has the tensor-core
// path: padded to 64, 64, and two halves that meet in the softmax.
const OUTPUT_BOUND = { float32: 1e-5, bfloat16: 1e-2 };
const GRADIENT_BOUND = { float32: 1e-4, bfloat16: 1e-2 };
const cases = [
  gsaCase({
    T: 150,
    HQ: 4,
    H: 2,
    K: 64,
    V: 64,
    M: 16,
    cuSeqlens: [0, 64, 128, 129, 150],
    states: true,
    scale: 0.125,
  }),
  gsaCase({ B: 2, T: 70, K: 64, V: 128, M: 20, states: true, scale: 0.125 }),
  gsaCase({ T: 130, HQ: 2, H: 2, K: 64, V: 64, M: 32, gate: 'mixed', states: true, scale: 0.125 }),
  gsaCase({ T: 130, HQ: 2, H: 2, K: 64, V: 64, M: 64, gate: 'mixed', states: true, scale: 0.125 }),
  gsaCase({ T: 150, K: 256, V: 256, M: 64, cuSeqlens: [0, 64, 65, 129, 150], states: true, scale: 0.0625 }),
  gsaCase({ T: 150, K: 512, V: 512, M: 64, cuSeqlens: [0, 64, 65, 129, 150], states: true, scale: 0.04 }),
  gsaCase({ T: 130, HQ: 2, H: 1, K: 128, V: 64, M: 128, states: true, scale: 0.125 }),
  gsaCase({
    T: 66,
    HQ: 2,
    H: 2,
    K: 64,
    V: 64,
    M: 128,
    gate: 5,
    cuSeqlens: [0, 1, 1, 66],
    states: true,
    scale: 0.125,
  }),
  gsaCase({ T: 150, K: 64, V: 64, M: 128, gate: 'mixed', states: true, scale: 0.125 }),
  gsaCase({ B: 2, T: 97, HQ: 2, H: 2, K: 128, V: 128, M: 128, states: true, scale: 0.125 }),
  gsaCase({ T: 130, HQ: 2, H: 2, K: 256, V: 256, M: 128, gate: 5, states: true, scale: 0.0625 }),
];

function rounded(x: GsaInputs): GsaInputs {
  const round = (values: ArrayLike<number>) =>
    Float32Array.from(values, (value) => fromBFloat16(toBFloat16(value)));
  return { ...x, q: round(x.q), k: round(x.k), v: round(x.v), do: round(x.do) };
}

/** Everything that gsaChunk gives forward and backward, by the names of the reference. */
function everything(x: GsaInputs, { device: on, dtype: computed }: Place): Record<string, Float32Array> {
  return scope(() => {
    const shapes = gsaShapes(x);
    const put = (values: ArrayLike<number>, shape: number[], dtype: 'float32' | 'bfloat16' = 'float32') =>
      Tensor.from(Float32Array.from(values), shape, { device: on, dtype });
    const inputs = {
      q: put(x.q, shapes.q, computed),
      k: put(x.k, shapes.k, computed),
      v: put(x.v, shapes.v, computed),
      s: put(x.s, shapes.s),
      g: put(x.g, shapes.s),
      hk0: put(x.hk0!, shapes.hk),
      hv0: put(x.hv0!, shapes.hv),
    };
    for (const tensor of Object.values(inputs)) tensor.requiresGrad = true;
    const cuSeqlens = x.cuSeqlens
      ? Tensor.from(Int32Array.from(x.cuSeqlens), [x.cuSeqlens.length], { device: on })
      : null;
    using tape = new Tape();
    const { o, hkT, hvT } = tape.run(() =>
      gsaChunk({ ...inputs, cuSeqlens, scale: x.scale, outputFinalState: true }),
    );
    tape.backward(
      [o, hkT!, hvT!],
      [put(x.do, shapes.o, computed), put(x.dhkT!, shapes.hk), put(x.dhvT!, shapes.hv)],
    );
    const gradients = Object.entries(inputs).map(([name, tensor]) => [`d${name}`, tensor.grad!.toFloat32()]);
    return {
      o: o.toFloat32(),
      hkT: hkT!.toFloat32(),
      hvT: hvT!.toFloat32(),
      ...Object.fromEntries(gradients),
    };
  });
}

for (const one of cases) {
  const x = rounded(drawGsa(one));
  let known: [Record<string, Float64Array>, Record<string, Float64Array>] | undefined; // the same everywhere
  const reference = () => (known ??= [{ ...gsaForward(x) }, { ...gsaBackward(x, x) }]);
  for (const place of testPlaces()) {
    const [outputBound, gradientBound] = [OUTPUT_BOUND[place.dtype], GRADIENT_BOUND[place.dtype]];
    const title = `${place.device} ${place.dtype} gsa ${one.title}`;

    test(`${title}: outputs agree with float64 to ${outputBound}, gradients to ${gradientBound}`, (t) => {
      const [outputs, gradients] = reference();
      const expected = { ...outputs, ...gradients };
      const actual = everything(x, place);
      t.is(Object.keys(actual).length, 10);
      for (const [name, values] of Object.entries(actual)) {
        const error = relativeError(values, expected[name]!);
        t.true(error <= (name in outputs ? outputBound : gradientBound), `${name}: relative error ${error}`);
      }
    });

    if (place.device.backend === 'cuda')
      test(`${title}: 20 runs give the same bits`, (t) => {
        const first = everything(x, place);
        for (let run = 2; run <= 20; run++)
          t.deepEqual(differing(everything(x, place), first), [], `run ${run}`);
      });
  }
}
