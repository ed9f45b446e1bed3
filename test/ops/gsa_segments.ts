import type { Device } from '#src/tensor/device.js';
import type { GsaInputs } from '../cases/gsa.js';
import { chunkBackward, chunkForward, recurrent } from './gsa_run.js';

const TOKENS = ['q', 'k', 'v', 's', 'g', 'do'] as const;

type States = Pick<GsaInputs, 'hk0' | 'hv0'>;

/** Tokens [begin, end) of every batch item (no cuSeqlens), from the given states. */
function segment(x: GsaInputs, begin: number, end: number, states: States): GsaInputs {
  const cut = (values: ArrayLike<number>): Float32Array => {
    const width = values.length / (x.B * x.T);
    const size = (end - begin) * width;
    return Float32Array.from({ length: x.B * size }, (_, i) => {
      const b = Math.floor(i / size);
      return values[(b * x.T + begin) * width + (i % size)]!;
    });
  };
  const tokens = Object.fromEntries(TOKENS.map((name) => [name, cut(x[name])]));
  return { ...x, ...tokens, T: end - begin, hk0: states.hk0, hv0: states.hv0 };
}

/** Pieces [B, T_i, width], in order, joined along T. */
function join(pieces: readonly Float32Array[], B: number): Float32Array {
  const out = new Float32Array(pieces.reduce((n, piece) => n + piece.length, 0));
  let at = 0;
  for (let b = 0; b < B; b++)
    for (const piece of pieces) {
      const size = piece.length / B;
      out.set(piece.subarray(b * size, (b + 1) * size), at);
      at += size;
    }
  return out;
}

function cutInto(x: GsaInputs, length: number): [number, number][] {
  return Array.from({ length: Math.ceil(x.T / length) }, (_, i) => [
    i * length,
    Math.min(x.T, (i + 1) * length),
  ]);
}

/** recurrent() on segments of `length` tokens, each from the states that the one before left. */
export function recurrentSegments(
  x: GsaInputs,
  length: number,
  device: Device,
): ReturnType<typeof recurrent> {
  let states: States = x;
  const pieces = cutInto(x, length).map(([begin, end]) => {
    const out = recurrent(segment(x, begin, end, states), device);
    states = { hk0: out.hkT, hv0: out.hvT };
    return out.o;
  });
  return { o: join(pieces, x.B), hkT: states.hk0 as Float32Array, hvT: states.hv0 as Float32Array };
}

/** chunkForward() and chunkBackward() on segments: states are carried forward, their gradients backward. */
export function chunkSegments(x: GsaInputs, length: number, device: Device): Record<string, Float32Array> {
  let states: States = x;
  const parts = cutInto(x, length).map(([begin, end]) => {
    const inputs = segment(x, begin, end, states);
    const out = chunkForward(inputs, device);
    states = { hk0: out.hkT, hv0: out.hvT };
    return { inputs, out };
  });
  let upstream: Pick<GsaInputs, 'dhkT' | 'dhvT'> = x;
  const gradients = parts
    .toReversed()
    .map(({ inputs, out }) => {
      const back = chunkBackward({ ...inputs, dhkT: upstream.dhkT, dhvT: upstream.dhvT }, out.ok, device);
      upstream = { dhkT: back.dhk0, dhvT: back.dhv0 };
      return back;
    })
    .toReversed();
  const last = parts.at(-1)!.out;
  const tokens = (['dq', 'dk', 'dv', 'ds', 'dg'] as const).map((name) => [
    name,
    join(
      gradients.map((part) => part[name]),
      x.B,
    ),
  ]);
  return {
    o: join(
      parts.map(({ out }) => out.o),
      x.B,
    ),
    ok: join(
      parts.map(({ out }) => out.ok),
      x.B,
    ),
    hkT: last.hkT,
    hvT: last.hvT,
    dhk0: gradients[0]!.dhk0,
    dhv0: gradients[0]!.dhv0,
    ...Object.fromEntries(tokens),
  };
}
