import { exec } from '#src/tensor/exec.js';
import type { Device } from '#src/tensor/device.js';
import { scope } from '#src/tensor/scope.js';
import { Tensor } from '#src/tensor/tensor.js';
import type { GsaInputs } from '../cases/gsa.js';
import { gsaSequences } from '../reference/gsa.js';

export type Arrays<Name extends string> = Record<Name, Float32Array>;

export interface GsaShapes {
  readonly q: number[];
  readonly k: number[];
  readonly v: number[];
  readonly s: number[];
  readonly o: number[];
  readonly ok: number[];
  readonly hk: number[];
  readonly hv: number[];
}

export function gsaShapes(x: GsaInputs): GsaShapes {
  const { B, T, HQ, H, K, V, M } = x;
  const N = gsaSequences(x).length;
  return {
    q: [B, T, HQ, K],
    k: [B, T, H, K],
    v: [B, T, H, V],
    s: [B, T, H, M],
    o: [B, T, HQ, V],
    ok: [B, T, HQ, M],
    hk: [N, H, K, M],
    hv: [N, H, M, V],
  };
}

const GUARD = 251; // odd, so that nothing is aligned to more than a float

/** A tensor that lies between GUARD floats of NaN on either side, and the check that they are still there: reads past an
 * edge spoil the results, writes past it throw. */
export function guarded(
  shape: readonly number[],
  device: Device,
  values?: ArrayLike<number>,
): { tensor: Tensor; checkEdges: () => void } {
  const size = shape.reduce((n, extent) => n * extent, 1);
  const host = new Float32Array(size + 2 * GUARD).fill(NaN);
  if (values) host.set(values, GUARD);
  const whole = Tensor.from(host, [host.length], { device });
  const checkEdges = () => {
    const now = whole.toFloat32();
    const touched = [...now.subarray(0, GUARD), ...now.subarray(GUARD + size)].some(
      (edge) => !Number.isNaN(edge),
    );
    if (touched) throw new Error(`an op wrote outside a tensor of shape [${shape}]`);
  };
  return { tensor: whole.narrow(0, GUARD, size).view(shape), checkEdges };
}

/** The first eight inputs of the gsa ops by name, guarded. */
function inputTensors(x: GsaInputs, device: Device, keyState: string, valueState: string) {
  const shapes = gsaShapes(x);
  const put = (shape: number[], values: ArrayLike<number>): Tensor => guarded(shape, device, values).tensor;
  return {
    q: put(shapes.q, x.q),
    k: put(shapes.k, x.k),
    v: put(shapes.v, x.v),
    s: put(shapes.s, x.s),
    g: put(shapes.s, x.g),
    [keyState]: x.hk0 && put(shapes.hk, x.hk0),
    [valueState]: x.hv0 && put(shapes.hv, x.hv0),
    cu_seqlens: x.cuSeqlens && Tensor.from(Int32Array.from(x.cuSeqlens), [x.cuSeqlens.length], { device }),
  };
}

/** Runs an op of ops.def into guarded outputs of these shapes and returns their contents. */
function run<Name extends string>(
  op: string,
  inputs: Readonly<Record<string, Tensor | undefined>>,
  shapes: Readonly<Record<Name, readonly number[]>>,
  scale: number,
  device: Device,
): Arrays<Name> {
  const entries = Object.entries(shapes) as [Name, readonly number[]][];
  const outputs = entries.map(([name, shape]) => ({ name, ...guarded(shape, device) }));
  exec(op, inputs, Object.fromEntries(outputs.map(({ name, tensor }) => [name, tensor])), { scale });
  for (const { checkEdges } of outputs) checkEdges();
  return Object.fromEntries(outputs.map(({ name, tensor }) => [name, tensor.toFloat32()])) as Arrays<Name>;
}

export function chunkForward(x: GsaInputs, device: Device): Arrays<'o' | 'ok' | 'hkT' | 'hvT'> {
  return scope(() => {
    const { o, ok, hk, hv } = gsaShapes(x);
    const inputs = inputTensors(x, device, 'hk0', 'hv0');
    return run('gsa_chunk_fwd', inputs, { o, ok, hkT: hk, hvT: hv }, x.scale, device);
  });
}

export type GradientName = 'dq' | 'dk' | 'dv' | 'ds' | 'dg' | 'dhk0' | 'dhv0';

/** @param ok what chunkForward returned */
export function chunkBackward(x: GsaInputs, ok: Float32Array, device: Device): Arrays<GradientName> {
  return scope(() => {
    const shapes = gsaShapes(x);
    const { q: dq, k: dk, v: dv, s: ds, hk: dhk0, hv: dhv0 } = shapes;
    const put = (shape: number[], values?: ArrayLike<number>) =>
      values && guarded(shape, device, values).tensor;
    const inputs = {
      ...inputTensors(x, device, 'hk0', 'hv0'),
      ok: put(shapes.ok, ok),
      do: put(shapes.o, x.do),
      dhkT: put(shapes.hk, x.dhkT),
      dhvT: put(shapes.hv, x.dhvT),
    };
    return run('gsa_chunk_bwd', inputs, { dq, dk, dv, ds, dg: ds, dhk0, dhv0 }, x.scale, device);
  });
}

export function recurrent(x: GsaInputs, device: Device): Arrays<'o' | 'hkT' | 'hvT'> {
  return scope(() => {
    const { o, hk, hv } = gsaShapes(x);
    const inputs = inputTensors(x, device, 'hk', 'hv');
    const out = run('gsa_recurrent', inputs, { o, hk_out: hk, hv_out: hv }, x.scale, device);
    return { o: out.o, hkT: out.hk_out, hvT: out.hv_out };
  });
}
