import { writeSafetensors, type SafetensorsEntry } from '#src/io/safetensors.js';
import { gsaOracle, gsaOracleBackward, type GsaHead } from '#src/verify/oracle.js';

/** A small deterministic generator (mulberry32): uniform in [-1, 1). */
export function uniform(seed: number): () => number {
  let a = seed >>> 0;
  return () => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), a | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 31 - 1;
  };
}

/** One head with normal gates, or with gates that forget nearly everything (`forget`). */
export function makeHead(
  extents: { T: number; R: number; K: number; V: number; M: number },
  options: { seed?: number; forget?: boolean } = {},
): GsaHead {
  const { T, R, K, V, M } = extents;
  const next = uniform(options.seed ?? 1);
  const draw = (n: number, scale: number) => Float32Array.from({ length: n }, () => scale * next());
  const g = draw(T * M, 1).map((x) => (options.forget ? -22 - 2 * x : -0.15 - 0.14 * x));
  return {
    ...extents,
    scale: 1,
    q: draw(T * R * K, 1.5),
    k: draw(T * K, 1.5),
    v: draw(T * V, 1.5),
    s: g.map((x) => -Math.expm1(x)),
    g,
  };
}

export type Entries = Map<string, SafetensorsEntry>;

/** The tensors of an operator vector file for that head, with results of the fp64 oracle. */
export function opEntries(head: GsaHead): Entries {
  const { T, R, K, V, M } = head;
  const next = uniform(99);
  const upstream = Float32Array.from({ length: T * R * V }, next);
  const { o, hkT, hvT } = gsaOracle(head);
  const { dq, dk, dv, ds, dg } = gsaOracleBackward(head, upstream);
  const shapes = {
    q: [1, T, R, K],
    k: [1, T, 1, K],
    v: [1, T, 1, V],
    s: [1, T, 1, M],
    o: [1, T, R, V],
    hkT: [1, 1, K, M],
    hvT: [1, 1, M, V],
  };
  const data: [string, ArrayLike<number>, number[]][] = [
    ['q', head.q, shapes.q],
    ['k', head.k, shapes.k],
    ['v', head.v, shapes.v],
    ['s', head.s, shapes.s],
    ['g', head.g, shapes.s],
    ['o', o, shapes.o],
    ['hkT', hkT, shapes.hkT],
    ['hvT', hvT, shapes.hvT],
    ['do', upstream, shapes.o],
    ['dq', dq, shapes.q],
    ['dk', dk, shapes.k],
    ['dv', dv, shapes.v],
    ['ds', ds, shapes.s],
    ['dg', dg, shapes.s],
  ];
  return new Map(
    data.map(([name, values, shape]) => [
      name,
      { name, dtype: 'float32', shape, data: Float32Array.from(values) },
    ]),
  );
}

export function writeOpFile(
  path: string,
  entries: Entries,
  metadata: Record<string, string> = { scale: '1.0' },
): string {
  writeSafetensors(path, entries.values(), metadata);
  return path;
}

/** The same tensors, with one replaced. */
export function tampered(entries: Entries, name: string, change: (values: Float32Array) => void): Entries {
  const copy = new Map(entries);
  const entry = copy.get(name)!;
  const data = Float32Array.from(entry.data as Float32Array);
  change(data);
  copy.set(name, { ...entry, data });
  return copy;
}
