import test from 'ava';
import { GsaError } from '#src/native/errors.js';
import { AdamW, clipScale, decayGroups, globalNorm, type NamedParameter } from '#src/optim/index.js';
import { Tensor } from '#src/tensor/tensor.js';
import { relativeError } from '../cases/drive.js';
import { testDevices } from '../devices.js';
import { assertNoLeak } from '../leaks.js';
import { randomFrom } from '../random.js';
import { adamwStep, type AdamWSlot } from '../reference/adamw.js';

const invalid = (message: RegExp) => ({ instanceOf: GsaError, code: 'INVALID_ARGUMENT', message });

for (const [device, dtype] of testDevices().flatMap((d) => [
  [d, 'float32'] as const,
  [d, 'bfloat16'] as const,
])) {
  const random = randomFrom(9);
  const draw = (size: number): Float32Array => Float32Array.from({ length: size }, () => random.normal());
  const setGrad = (parameter: Tensor, values: Float32Array): void => {
    parameter.grad?.dispose();
    parameter.grad = Tensor.from(values, parameter.shape, { device });
  };
  const parameters = (): NamedParameter[] =>
    [
      ['a.weight', [7, 5]],
      ['norm.weight', [19]],
      ['b.weight', [3, 1, 4]],
    ].map(([name, shape]) => {
      const size = (shape as number[]).reduce((n, e) => n * e, 1);
      return [name as string, Tensor.from(draw(size), shape as number[], { device, dtype })];
    });
  const dispose = (named: readonly NamedParameter[]): void => {
    for (const [, parameter] of named) parameter.dispose();
  };

  test.serial(`${device} ${dtype} 12 steps agree with float64, with groups, decay and rate scales`, (t) => {
    assertNoLeak(t, () => {
      const named = parameters();
      const settings = { betas: [0.9, 0.95] as const, eps: 1e-8 };
      const groups = [{ params: [named[0]!], weightDecay: 0.1, lrScale: 0.5 }, { params: named.slice(1) }];
      using optimizer = new AdamW(groups, { ...settings, weightDecay: 0.01 });
      const slots: AdamWSlot[] = named.map(([, p]) => ({
        parameter: Float64Array.from(p.toFloat32()),
        m: new Float64Array(p.size),
        v: new Float64Array(p.size),
      }));
      for (let step = 1; step <= 12; step++) {
        const lr = 1e-2 / step;
        named.forEach(([, p], i) => {
          const gradient = draw(p.size);
          setGrad(p, gradient);
          adamwStep(slots[i]!, Float64Array.from(gradient), step, {
            ...settings,
            lr: i === 0 ? lr / 2 : lr,
            weightDecay: i === 0 ? 0.1 : 0.01,
          });
        });
        optimizer.step({ lr });
      }
      t.is(optimizer.stepCount, 12);
      const state = optimizer.state();
      named.forEach(([name, p], i) => {
        const values = state.get(`${name}.master`)?.read() ?? p.toFloat32();
        t.true(relativeError(values, slots[i]!.parameter) <= 1e-6, name);
        t.true(relativeError(state.get(`${name}.exp_avg`)!.read(), slots[i]!.m) <= 1e-6, name);
        t.true(relativeError(state.get(`${name}.exp_avg_sq`)!.read(), slots[i]!.v) <= 1e-6, name);
      });
      dispose(named);
    });
  });

  test.serial(
    `${device} ${dtype} the norm of all gradients, and the factor that clips it, agree with float64`,
    (t) => {
      assertNoLeak(t, () => {
        const named = parameters();
        const params = named.map(([, p]) => p);
        let squares = 0;
        for (const p of params) {
          const gradient = draw(p.size);
          setGrad(p, gradient);
          for (const g of gradient) squares += g * g;
        }
        const expected = Math.sqrt(squares);
        using norm = globalNorm(params);
        t.true(Math.abs(norm.item() - expected) <= 1e-6 * expected);
        for (const [maxNorm, gradScale] of [
          [1, 1],
          [100, 1],
          [0.5, 0.25],
          [1, 1 / 4096],
          [Infinity, 2],
        ] as const) {
          const clip = clipScale(params, { maxNorm, gradScale });
          const scaled = expected * gradScale;
          const factor = gradScale * Math.min(1, maxNorm / (scaled + 1e-6));
          t.true(Math.abs(clip.norm.item() - scaled) <= 2e-6 * scaled, `norm at ${maxNorm}, ${gradScale}`);
          t.true(Math.abs(clip.scale.item() - factor) <= 2e-6 * factor, `scale at ${maxNorm}, ${gradScale}`);
          clip.norm.dispose();
          clip.scale.dispose();
        }
        dispose(named);
      });
    },
  );

  test.serial(`${device} ${dtype} step({ scale }) is a step on gradients times the scale`, (t) => {
    assertNoLeak(t, () => {
      const [a, b] = [parameters(), parameters()];
      b.forEach(([, p], i) => p.write(a[i]![1].toHost()));
      using clipped = new AdamW(a);
      using plain = new AdamW(b);
      a.forEach(([, p], i) => {
        const gradient = draw(p.size);
        setGrad(p, gradient);
        setGrad(
          b[i]![1],
          gradient.map((g) => g * 0.125),
        );
      });
      using scale = Tensor.scalar(0.125, { device });
      clipped.step({ lr: 0.1, scale });
      plain.step({ lr: 0.1 });
      a.forEach(([name, p], i) => t.deepEqual(p.toFloat32(), b[i]![1].toFloat32(), name));
      dispose(a);
      dispose(b);
    });
  });

  for (const bad of [NaN, Infinity])
    test.serial(`${device} ${dtype} a gradient of ${bad} leaves parameters and moments as they are`, (t) => {
      assertNoLeak(t, () => {
        const named = parameters();
        using optimizer = new AdamW(named);
        const params = named.map(([, p]) => p);
        for (const p of params) setGrad(p, draw(p.size));
        optimizer.step({ lr: 0.1 });
        const everything = () => [
          ...params.map((p) => p.toFloat32()),
          ...[...optimizer.state().values()].map((x) => x.read()),
        ];
        const before = everything();
        const poisoned = draw(params[1]!.size);
        poisoned[3] = bad;
        setGrad(params[1]!, poisoned);
        const clip = clipScale(params, { maxNorm: 1 });
        t.false(Number.isFinite(clip.norm.item()));
        optimizer.step({ lr: 0.1, scale: clip.scale });
        optimizer.step({ lr: 0.1, finite: false });
        t.deepEqual(everything(), before);
        t.deepEqual([optimizer.stepCount, optimizer.skipped], [2, 1]);
        optimizer.uncountStep();
        t.deepEqual([optimizer.stepCount, optimizer.skipped], [1, 2]);
        // A loss that is not finite does the same to finite gradients; one that is changes nothing.
        setGrad(params[1]!, draw(params[1]!.size));
        using loss = Tensor.scalar(bad, { device });
        using finite = Tensor.scalar(1e30, { device });
        const without = clipScale(params, { maxNorm: 1 });
        const spoilt = clipScale(params, { maxNorm: 1, losses: [finite, loss] });
        const sound = clipScale(params, { maxNorm: 1, losses: [finite] });
        t.false(Number.isFinite(spoilt.scale.item()));
        t.is(sound.scale.item(), without.scale.item());
        for (const { scale, norm } of [without, spoilt, sound]) {
          scale.dispose();
          norm.dispose();
        }
        clip.scale.dispose();
        clip.norm.dispose();
        dispose(named);
      });
    });

  test.serial(`${device} ${dtype} saved and loaded state continues bit for bit`, (t) => {
    assertNoLeak(t, () => {
      const [a, b] = [parameters(), parameters()];
      b.forEach(([, p], i) => p.write(a[i]![1].toHost()));
      const gradients = Array.from({ length: 6 }, () => a.map(([, p]) => draw(p.size)));
      const steps = (named: readonly NamedParameter[], optimizer: AdamW, from: number, to: number) => {
        for (let i = from; i < to; i++) {
          named.forEach(([, p], j) => setGrad(p, gradients[i]![j]!));
          optimizer.step({ lr: 0.05 });
        }
      };
      using straight = new AdamW(a);
      steps(a, straight, 0, 6);
      const saved = (() => {
        using first = new AdamW(b);
        steps(b, first, 0, 3);
        return {
          stepCount: first.stepCount,
          state: new Map(
            [...first.state()].map(([name, { shape, read }]) => {
              const values = read();
              return [name, { shape, read: () => values }];
            }),
          ),
        };
      })();
      using second = new AdamW(b);
      second.loadState(saved.state, saved.stepCount);
      steps(b, second, 3, 6);
      a.forEach(([name, p], i) => t.deepEqual(p.toFloat32(), b[i]![1].toFloat32(), name));
      dispose(a);
      dispose(b);
    });
  });

  test.serial(`${device} ${dtype} state that does not fit is refused by name, and nothing changes`, (t) => {
    const named = parameters();
    using optimizer = new AdamW(named);
    const own = () => new Map(optimizer.state());
    const missing = own();
    missing.delete('norm.weight.exp_avg');
    const [other] = own().values();
    const extra = own().set('other.exp_avg', other!);
    const shaped = own().set('norm.weight.exp_avg', other!);
    t.throws(() => optimizer.loadState(missing, 1), invalid(/norm\.weight\.exp_avg/));
    t.throws(() => optimizer.loadState(extra, 1), invalid(/other\.exp_avg/));
    t.throws(() => optimizer.loadState(shaped, 1), invalid(/\[19\].*norm\.weight\.exp_avg/));
    t.throws(() => optimizer.loadState(own(), -1), invalid(/stepCount/));
    t.is(optimizer.stepCount, 0);
    dispose(named);
  });

  test.serial(`${device} ${dtype} a parameter without gradient is named, and nothing changes`, (t) => {
    const named = parameters();
    using optimizer = new AdamW(named);
    setGrad(named[0]![1], draw(35));
    const before = named[0]![1].toFloat32();
    t.throws(() => optimizer.step({ lr: 1 }), invalid(/norm\.weight/));
    t.deepEqual(named[0]![1].toFloat32(), before);
    t.is(optimizer.stepCount, 0);
    optimizer.zeroGrad();
    t.is(named[0]![1].grad, null);
    dispose(named);
  });
}

test('decayGroups keeps decay off norms and biases', (t) => {
  const named: NamedParameter[] = [
    ['w', Tensor.zeros([2, 2])],
    ['norm', Tensor.zeros([2])],
    ['conv', Tensor.zeros([2, 1, 4])],
  ];
  const groups = decayGroups(named, 0.1);
  t.deepEqual(
    groups.map((g) => [g.weightDecay, g.params.map(([name]) => name)]),
    [
      [0.1, ['w', 'conv']],
      [0, ['norm']],
    ],
  );
  for (const [, tensor] of named) tensor.dispose();
});

test('settings and parameters without sense are refused, and nothing leaks', (t) => {
  assertNoLeak(t, () => {
    using p = Tensor.zeros([2]);
    const one: NamedParameter[] = [['p', p]];
    for (const options of [
      { lr: -1 },
      { lr: NaN },
      { betas: [1, 0.9] as const },
      { betas: [-0.1, 0.9] as const },
      { eps: 0 },
      { weightDecay: -1 },
    ])
      t.throws(() => new AdamW(one, options), invalid(/AdamW/), JSON.stringify(options));
    t.throws(() => new AdamW([]), invalid(/parameters/));
    t.throws(() => new AdamW([...one, ...one]), invalid(/once/));
    t.throws(() => new AdamW([...one, ['q', p]]), invalid(/once/));
    t.throws(() => new AdamW([p] as never), invalid(/./));
    t.throws(() => new AdamW([{ params: one }, ['p', p]] as never), invalid(/groups/));
    t.throws(() => new AdamW([{ params: one, lrScale: -1 }]), invalid(/lrScale/));
    t.throws(() => globalNorm([p]), invalid(/gradients/));
    t.throws(() => clipScale([p], { maxNorm: 0 }), invalid(/maxNorm/));
    t.throws(() => clipScale([p], { gradScale: NaN }), invalid(/gradScale/));
  });
});
