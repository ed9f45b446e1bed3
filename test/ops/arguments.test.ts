import test from 'ava';
import { Tape } from '#src/autograd/tape.js';
import { GsaError } from '#src/native/errors.js';
import * as ops from '#src/ops/index.js';
import { scope } from '#src/tensor/scope.js';
import { Tensor } from '#src/tensor/tensor.js';
import { testDevices } from '../devices.js';
import { assertNoLeak } from '../leaks.js';

const invalid = (message: RegExp) => ({ instanceOf: GsaError, code: 'INVALID_ARGUMENT', message });

/** What is not a tensor, in every place where one is asked for. */
const NOT_TENSORS: unknown[] = [undefined, null, {}, [], 1, 'x', new Float32Array(2), () => 0];

for (const device of testDevices()) {
  const f32 = (...shape: number[]): Tensor => Tensor.full(shape, 0.5, { device });
  const i32 = (...shape: number[]): Tensor => Tensor.full(shape, 1, { device, dtype: 'int32' });
  const half = (...shape: number[]): Tensor => Tensor.full(shape, 0.5, { device, dtype: 'bfloat16' });
  const gsa = () => ({
    q: f32(1, 2, 2, 3),
    k: f32(1, 2, 1, 3),
    v: f32(1, 2, 1, 4),
    s: f32(1, 2, 1, 5),
    g: f32(1, 2, 1, 5),
  });

  test(`${device} every op refuses what is not a tensor, by the argument's name`, (t) => {
    scope(() => {
      const x = f32(2, 3);
      const any = (value: unknown) => value as Tensor;
      const calls: [string, (bad: Tensor) => unknown][] = [
        ['a', (b) => ops.matmul(b, x)],
        ['b', (b) => ops.matmul(x, b)],
        ['x', (b) => ops.linear(b, x)],
        ['weight', (b) => ops.linear(x, b)],
        ['weight', (b) => ops.embedding(b, i32(2))],
        ['ids', (b) => ops.embedding(x, b)],
        ['x', (b) => ops.rmsNorm(b, null)],
        ['x', (b) => ops.silu(b)],
        ['gate', (b) => ops.swiglu(b, x)],
        ['up', (b) => ops.swiglu(x, b)],
        ['a', (b) => ops.add(b, x)],
        ['b', (b) => ops.add(x, b)],
        ['x', (b) => ops.scale(b, 2)],
        ['x', (b) => ops.reshape(b, [2])],
        ['x', (b) => ops.narrow(b, 0, 0, 1)],
        ['x', (b) => ops.sum(b)],
        ['f', (b) => ops.gsaGate(b)],
        ['x', (b) => ops.shortConv(b, x)],
        ['weight', (b) => ops.shortConv(f32(1, 2, 2), b)],
        ['logits', (b) => ops.crossEntropy(b, i32(2))],
        ['labels', (b) => ops.crossEntropy(x, b)],
        ['hidden', (b) => ops.linearCrossEntropy(b, x, i32(2))],
        ['weight', (b) => ops.linearCrossEntropy(x, b, i32(2))],
        ['labels', (b) => ops.linearCrossEntropy(x, x, b)],
        ['x', (b) => ops.logSoftmax(b)],
        ['labels', (b) => ops.countLabels(b)],
        ...(['q', 'k', 'v', 's', 'g'] as const).flatMap((name): [string, (bad: Tensor) => unknown][] => [
          [name, (b) => ops.gsaChunk({ ...gsa(), [name]: b })],
          [name, (b) => ops.gsaRecurrent({ ...gsa(), [name]: b })],
        ]),
      ];
      for (const [name, call] of calls)
        for (const bad of NOT_TENSORS)
          t.throws(
            () => call(any(bad)),
            invalid(new RegExp(`Tensor for ${name} `)),
            `${call} with ${String(bad)}`,
          );
    });
  });

  test(`${device} optional tensors may be undefined or null, but nothing else`, (t) => {
    scope(() => {
      const x = f32(2, 3);
      const calls: [string, (value: Tensor | null | undefined) => unknown][] = [
        ['bias', (b) => ops.matmul(x, x, { transB: true, bias: b })],
        ['bias', (b) => ops.linear(x, x, b)],
        ['residual', (b) => ops.linear(x, x, null, b)],
        ['weight', (b) => ops.rmsNorm(x, b)],
        ['residual', (b) => ops.rmsNorm(x, null, { residual: b as Tensor })],
        ['state', (b) => ops.shortConv(f32(1, 2, 2), f32(2, 4), { state: b })],
        ['cuSeqlens', (b) => ops.shortConv(f32(1, 2, 2), f32(2, 4), { cuSeqlens: b })],
        ['hk0', (b) => ops.gsaChunk({ ...gsa(), hk0: b })],
        ['hv0', (b) => ops.gsaRecurrent({ ...gsa(), hv0: b })],
        ['cuSeqlens', (b) => ops.gsaChunk({ ...gsa(), cuSeqlens: b })],
      ];
      for (const [name, call] of calls) {
        t.notThrows(() => call(undefined), name);
        t.notThrows(() => call(null), name);
        for (const bad of NOT_TENSORS.slice(2))
          t.throws(() => call(bad as Tensor), invalid(new RegExp(`for ${name} `)), `${name} ${String(bad)}`);
      }
    });
  });

  test(`${device} shapes that do not fit are refused with both of them`, (t) => {
    scope(() => {
      const x = f32(2, 3);
      const bad: [() => unknown, RegExp][] = [
        [() => ops.matmul(x, x), /inner extent 3.*\[2, 3\]/],
        [() => ops.matmul(f32(3), f32(3)), /2 or 3 dimensions for a .*\[3\]/],
        [() => ops.matmul(f32(2, 2, 3), f32(3, 3, 2)), /batch 2/],
        [() => ops.matmul(x, f32(2, 3, 4)), /2 dimensions for b/],
        [() => ops.matmul(x, x, { transB: true, bias: f32(3) }), /shape \[2\] for bias.*\[3\]/],
        [() => ops.linear(x, f32(4, 2)), /last dimension of 2.*\[2, 3\]/],
        [() => ops.linear(f32(), f32(4, 2)), /last dimension/],
        [() => ops.rmsNorm(x, f32(2)), /shape \[3\] for weight.*\[2\]/],
        [() => ops.rmsNorm(x, null, { residual: f32(3, 2) }), /shape \[2, 3\] for residual.*\[3, 2\]/],
        [
          () => ops.rmsNorm(x, null, { residual: x, stream: true } as never),
          /residual or stream for options but received both/,
        ],
        [() => ops.linear(x, f32(4, 3), null, x), /shape \[2, 4\] for residual.*\[2, 3\]/],
        [() => ops.rmsNorm(f32(), null), /last dimension/],
        [() => ops.add(x, f32(3, 2)), /shape \[2, 3\] for b.*\[3, 2\]/],
        [() => ops.swiglu(x, f32(2, 4)), /\[2, 3\] for up/],
        [() => ops.scale(x, f32(2)), /one element for factor.*\[2\]/],
        [() => ops.reshape(x, [4]), /6 elements/],
        [() => ops.reshape(x, 'x' as never), /array of extents/],
        [() => ops.narrow(x, 1, 2, 2), /range inside 0..3/],
        [() => ops.narrow(x, 2, 0, 1), /dimension/],
        [() => ops.shortConv(x, f32(3, 4)), /3 dimensions for x/],
        [() => ops.shortConv(f32(1, 2, 3), f32(2, 4)), /shape \[3, \*\] for weight/],
        [() => ops.shortConv(f32(1, 2, 3), f32(3, 0)), /one tap/],
        [
          () => ops.shortConv(f32(2, 2, 3), f32(3, 4), { state: f32(1, 3, 3) }),
          /shape \[2, 3, 3\] for state/,
        ],
        [() => ops.shortConv(f32(2, 2, 3), f32(3, 4), { cuSeqlens: i32(3) }), /batch size 1/],
        [() => ops.crossEntropy(x, i32(3)), /2 labels.*\[3\]/],
        [() => ops.crossEntropy(f32(), i32()), /1 dimension/],
        [() => ops.linearCrossEntropy(x, f32(4, 2), i32(2)), /last dimension of 2/],
        [() => ops.linearCrossEntropy(x, f32(4, 3), i32(3)), /2 labels/],
        [() => ops.gsaChunk({ ...gsa(), k: f32(1, 2, 1, 4) }), /shape \[1, 2, \*, 3\] for k/],
        [() => ops.gsaChunk({ ...gsa(), q: f32(1, 2, 3) }), /4 dimensions for q/],
        [() => ops.gsaChunk({ ...gsa(), k: f32(1, 2, 3, 3) }), /multiple of the 3|for v/],
        [() => ops.gsaChunk({ ...gsa(), g: f32(1, 2, 1, 4) }), /\[1, 2, 1, 5\] for g/],
        [() => ops.gsaChunk({ ...gsa(), hk0: f32(1, 1, 5, 3) }), /\[1, 1, 3, 5\] for hk0/],
        [() => ops.gsaRecurrent({ ...gsa(), hv0: f32(2, 1, 5, 4) }), /\[1, 1, 5, 4\] for hv0/],
        [() => ops.gsaChunk({ ...gsa(), cuSeqlens: i32(1) }), /2 offsets/],
      ];
      for (const [call, message] of bad) t.throws(call, invalid(message), String(call));
    });
  });

  test(`${device} dtypes that do not fit are refused`, (t) => {
    scope(() => {
      const x = f32(2, 3);
      const bad: [() => unknown, RegExp][] = [
        [() => ops.silu(i32(2)), /float32 or bfloat16 for x but received int32/],
        [() => ops.add(x, half(2, 3)), /float32 for b but received bfloat16/],
        [() => ops.matmul(x, half(3, 2)), /float32 for b/],
        [() => ops.linear(half(2, 3), x), /float32 for x/],
        [() => ops.embedding(x, f32(2)), /int32 or int64 for ids/],
        [() => ops.embedding(i32(2, 3), i32(2)), /float32 or bfloat16 for weight/],
        [() => ops.crossEntropy(x, f32(2)), /int32 or int64 for labels/],
        [() => ops.countLabels(x), /int32 or int64/],
        [() => ops.gsaChunk({ ...gsa(), g: half(1, 2, 1, 5) }), /float32 for g/],
        [() => ops.gsaChunk({ ...gsa(), v: half(1, 2, 1, 4) }), /float32 for v/],
        [() => ops.gsaChunk({ ...gsa(), cuSeqlens: f32(2) }), /int32 for cuSeqlens/],
        [() => ops.scale(x, half(1)), /float32 for factor/],
      ];
      for (const [call, message] of bad) t.throws(call, invalid(message), String(call));
    });
  });

  test(`${device} numbers and names that make no sense are refused`, (t) => {
    scope(() => {
      const x = f32(2, 3);
      const labels = i32(2);
      const bad: [() => unknown, RegExp][] = [
        ...[NaN, Infinity, '2', null, {}].map((c): [() => unknown, RegExp] => [
          () => ops.scale(x, c as never),
          /factor/,
        ]),
        ...[0, -1, NaN, '1'].map((eps): [() => unknown, RegExp] => [
          () => ops.rmsNorm(x, null, { eps: eps as never }),
          /eps/,
        ]),
        ...[0, -1, NaN].map((n): [() => unknown, RegExp] => [
          () => ops.gsaGate(x, { normalizer: n }),
          /normalizer/,
        ]),
        ...[0, 1.5, -2, NaN].map((n): [() => unknown, RegExp] => [
          () => ops.linearCrossEntropy(x, x, labels, { chunkRows: n }),
          /chunkRows/,
        ]),
        [() => ops.crossEntropy(x, labels, { ignoreIndex: 0.5 }), /ignoreIndex/],
        [() => ops.crossEntropy(x, labels, { reduction: 'max' as never }), /'none', 'sum' or 'mean'/],
        [() => ops.crossEntropy(x, labels, { ignoreIndex: 1 }), /not ignored/],
        [() => ops.gsaChunk({ ...gsa(), scale: NaN }), /scale/],
        [() => ops.gsaChunk({ ...gsa(), initialState: 1 } as never), /"initialState"/],
        [() => ops.gsaChunk(undefined as never), /named options/],
        [() => ops.gsaRecurrent([] as never), /named options/],
      ];
      for (const [call, message] of bad) t.throws(call, invalid(message), String(call));
    });
  });

  // A GPU cannot refuse what only it can read, but nothing that looks like a result may come of it.
  const refused = device.backend === 'cpu' ? 'are refused' : 'give NaN';
  test(`${device} labels and ids outside the classes ${refused}`, (t) => {
    scope(() => {
      if (device.backend !== 'cpu') {
        const wrong = Tensor.from([3, 1], [2], { device, dtype: 'int32' });
        const y = ops.embedding(f32(3, 4), wrong).toFloat32();
        t.true(y.subarray(0, 4).every(Number.isNaN) && y.subarray(4).every((value) => value === 0.5));
        const losses = ops.crossEntropy(f32(2, 3), wrong, { reduction: 'none' }).toFloat32();
        t.true(Number.isNaN(losses[0]) && Number.isFinite(losses[1]));
        t.true(Number.isNaN(ops.linearCrossEntropy(f32(2, 3), f32(3, 3), wrong).item()));
        return;
      }
      const x = f32(2, 3);
      for (const wrong of [3, -1]) {
        const labels = Tensor.full([2], wrong, { device, dtype: 'int32' });
        t.throws(() => ops.crossEntropy(x, labels), invalid(/labels/));
        t.throws(
          () => ops.linearCrossEntropy(x, x, Tensor.full([2], 2, { device, dtype: 'int32' })),
          invalid(/labels/),
        );
        t.throws(() => ops.embedding(x, labels), invalid(/ids/));
      }
    });
  });

  test(`${device} strided views are refused with what to do`, (t) => {
    scope(() => {
      const x = f32(4, 4).narrow(1, 0, 2);
      t.throws(() => ops.silu(x), invalid(/contiguousCopy/));
      t.throws(() => ops.linear(x, f32(3, 2)), invalid(/contiguousCopy/));
      t.notThrows(() => ops.silu(x.contiguousCopy()));
      t.notThrows(() => ops.silu(ops.narrow(f32(4, 4), 1, 0, 2)));
    });
  });

  test(`${device} int64 ids and labels are taken as int32 ones`, (t) => {
    assertNoLeak(t, () =>
      scope(() => {
        const weight = Tensor.randn([5, 3], { seed: 1, device });
        weight.requiresGrad = true;
        const ids = Tensor.from([4, 0, 4], [3], { device, dtype: 'int32' });
        const wide = ids.to({ dtype: 'int64' });
        t.deepEqual(ops.embedding(weight, wide).toFloat32(), ops.embedding(weight, ids).toFloat32());
        const logits = Tensor.randn([3, 5], { seed: 2, device });
        t.is(ops.crossEntropy(logits, wide).item(), ops.crossEntropy(logits, ids).item());
        using tape = new Tape();
        tape.backward(tape.run(() => ops.sum(ops.embedding(weight, wide))));
        t.deepEqual(
          weight.grad!.toFloat32(),
          Float32Array.from({ length: 15 }, (_, i) => [1, 0, 0, 0, 2][Math.floor(i / 3)]!),
        );
      }),
    );
  });

  test(`${device} ops without a gradient rule refuse to be recorded rather than cut the gradient`, (t) => {
    scope(() => {
      const x = f32(2, 3);
      x.requiresGrad = true;
      const q = f32(1, 2, 2, 3);
      q.requiresGrad = true;
      using tape = new Tape();
      for (const call of [() => ops.logSoftmax(x), () => ops.gsaRecurrent({ ...gsa(), q })])
        t.throws(() => tape.run<unknown>(call), { instanceOf: GsaError, code: 'UNSUPPORTED' });
      t.throws(() => tape.run(() => ops.scale(f32(2), ops.sum(x))), invalid(/needs no gradient/));
      t.notThrows(() => ops.logSoftmax(x));
    });
  });

  test(`${device} empty tensors go through every op that has rows`, (t) => {
    scope(() => {
      const weight = f32(4, 3);
      weight.requiresGrad = true;
      using tape = new Tape();
      const loss = tape.run(() => {
        const x = ops.embedding(weight, i32(0));
        const y = ops.linear(ops.silu(ops.rmsNorm(x, null)), weight);
        return ops.add(ops.sum(y), ops.linearCrossEntropy(x, weight, i32(0)));
      });
      t.is(loss.item(), 0);
      tape.backward(loss);
      t.deepEqual(weight.grad!.toFloat32(), new Float32Array(12));
    });
  });
}
