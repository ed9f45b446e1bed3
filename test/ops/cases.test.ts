import test from 'ava';
import { gradcheck } from '#src/autograd/gradcheck.js';
import { Tape } from '#src/autograd/tape.js';
import * as ops from '#src/ops/index.js';
import { scope } from '#src/tensor/scope.js';
import { Tensor } from '#src/tensor/tensor.js';
import {
  drawInputs,
  outputWeights,
  referenceGradients,
  relativeError,
  runOnHost,
  toTensors,
} from '../cases/drive.js';
import { caseLists } from '../cases/index.js';
import { testDevices } from '../devices.js';

const FORWARD_BOUND = 1e-5;
const GRADIENT_BOUND = 1e-4;

for (const dev of testDevices())
  for (const one of caseLists.flatMap((list) => list.cases)) {
    const values = drawInputs(one);
    const differentiable = Object.values(one.inputs).some(
      ({ dtype, grad }) => grad ?? (dtype ?? 'float32') === 'float32',
    );

    test(`${dev} float32 ${one.title}: outputs agree with float64 to ${FORWARD_BOUND}`, (t) => {
      const expected = one.reference(values);
      const outputs = runOnHost(one, values, dev);
      t.is(outputs.length, expected.length);
      outputs.forEach((y, i) => {
        const error = relativeError(y, expected[i]!);
        t.true(error <= FORWARD_BOUND, `output ${i}: relative error ${error}`);
      });
    });

    if (!differentiable) continue;

    test(`${dev} float32 ${one.title}: gradients agree with float64 to ${GRADIENT_BOUND}`, (t) => {
      const weights = outputWeights(one, one.reference(values));
      const expected = referenceGradients(one, values, weights);
      scope(() => {
        const inputs = toTensors(one, values, dev);
        using tape = new Tape();
        const outputs = tape.run(() => one.run(inputs));
        const seeds = outputs.map((y, i) =>
          Tensor.from(Float32Array.from(weights[i]!), y.shape, { device: dev }),
        );
        tape.backward(outputs, seeds);
        for (const [name, gradient] of Object.entries(expected)) {
          const error = relativeError(inputs[name]!.grad?.toFloat32() ?? [], gradient);
          t.true(error <= GRADIENT_BOUND, `d${name}: relative error ${error}`);
        }
      });
    });

    test(`${dev} float32 ${one.title}: the gradient checker agrees`, (t) => {
      scope(() => {
        const inputs = toTensors(one, values, dev);
        const names = Object.keys(inputs);
        const result = gradcheck(
          (at) => one.run(Object.fromEntries(names.map((name, i) => [name, at[i]!]))),
          Object.values(inputs),
        );
        t.true(result.ok, JSON.stringify(result));
      });
    });
  }

test('every op has cases', (t) => {
  // Gated slot attention and 8-bit products have their own suites, and the others are not ops on tensors.
  const elsewhere = ['linearFloat8', 'gsaChunk', 'gsaRecurrent', 'countLabels', 'IGNORE_INDEX'];
  const covered = new Set([...caseLists.flatMap((list) => list.ops), ...elsewhere]);
  t.deepEqual(
    Object.keys(ops).filter((name) => !covered.has(name)),
    [],
  );
});
