import { readFileSync } from 'node:fs';
import { z } from 'zod';
import type { BenchReport } from '#src/bench/report.js';

/** What a peer's measurement looks like, whatever program made it: docs/bench.md describes it for people. */
const PEER = z.object({
  peer: z.string().min(1),
  version: z.string(),
  stamp: z.object({ deviceName: z.string(), date: z.string(), command: z.string() }).catchall(z.unknown()),
  results: z.array(
    z.object({
      kind: z.string(),
      name: z.string(),
      shape: z.string(),
      variant: z.string().optional(),
      /** Which function was timed. */
      by: z.string(),
      timing: z.object({ medianMs: z.number().positive() }).catchall(z.number()),
      figures: z.record(z.string(), z.number()),
    }),
  ),
  /** What could not be measured, and why. */
  failures: z
    .array(
      z.object({
        kind: z.string(),
        name: z.string(),
        shape: z.string(),
        variant: z.string().optional(),
        reason: z.string(),
      }),
    )
    .default([]),
});
export type PeerReport = z.infer<typeof PEER>;

export interface Measured {
  readonly ms: number;
  readonly figures: Readonly<Record<string, number>>;
}

/** One timed thing, and who else does it. */
export interface Row {
  readonly kind: string;
  readonly name: string;
  readonly shape: string;
  readonly variant: string;
  readonly ours: Measured & { readonly p10Ms: number; readonly p90Ms: number; readonly checked: boolean };
  /** Null where no peer was measured. */
  readonly peer: (Measured & { readonly peer: string; readonly by: string }) | null;
  /** Why no peer could do it; null where one did, or none was asked. */
  readonly failure: string | null;
  /** The peer's time over ours. */
  readonly factor: number | null;
}

function parseFile(path: string): unknown {
  return JSON.parse(readFileSync(path, 'utf8'));
}

/** Reports of `flash-gsa bench --json FILE`, one or a list of them in each file. */
export function readOurs(paths: readonly string[]): BenchReport[] {
  return paths.flatMap((path) => {
    const content = parseFile(path);
    const reports = (Array.isArray(content) ? content : [content]) as BenchReport[];
    for (const { kind, results } of reports)
      if (typeof kind !== 'string' || !Array.isArray(results))
        throw new Error(`Expected a report of "flash-gsa bench --json" in ${path}`);
    return reports;
  });
}

/** @throws Error that names the file and the first thing in it that is not as described */
export function readPeers(paths: readonly string[]): PeerReport[] {
  return paths.map((path) => {
    const parsed = PEER.safeParse(parseFile(path));
    if (parsed.success) return parsed.data;
    const { path: at, message } = parsed.error.issues[0]!;
    throw new Error(`${path}: ${at.join('.') || 'the document'}: ${message}`);
  });
}

/** A training step is what the host waits for, all else what the device is busy for. */
function timeOf(timing: { medianMs: number }, figures: Readonly<Record<string, number>>): number {
  return figures['wallMs'] ?? timing.medianMs;
}

/** @throws Error when measurements come from different GPUs: their ratio would say nothing */
export function checkOneDevice(ours: readonly BenchReport[], peers: readonly PeerReport[]): void {
  const devices = new Set([...ours.map((r) => r.stamp.deviceName), ...peers.map((r) => r.stamp.deviceName)]);
  if (devices.size > 1)
    throw new Error(`Expected measurements on one kind of device but received ${[...devices].join(', ')}`);
}

/** Our results in their order, each with the fastest of the peers' results of the same kind, name, shape and variant.
 * @throws Error when they come from different GPUs */
export function matchRows(ours: readonly BenchReport[], peers: readonly PeerReport[]): Row[] {
  checkOneDevice(ours, peers);
  const theirs = peers.flatMap(({ peer, results }) => results.map((result) => ({ peer, ...result })));
  const failures = peers.flatMap((report) => report.failures);
  return ours.flatMap(({ kind, results }) =>
    results.map(({ name, shape, variant = '', timing, figures, checks }) => {
      const ms = timeOf(timing, figures);
      const isSame = (r: { kind: string; name: string; shape: string; variant?: string }) =>
        r.kind === kind && r.name === name && r.shape === shape && (r.variant ?? '') === variant;
      const same = theirs
        .filter(isSame)
        .map((r) => ({ ms: timeOf(r.timing, r.figures), figures: r.figures, peer: r.peer, by: r.by }))
        .toSorted((a, b) => a.ms - b.ms);
      const peer = same[0] ?? null;
      return {
        kind,
        name,
        shape,
        variant,
        ours: {
          ms,
          figures,
          p10Ms: timing.p10Ms,
          p90Ms: timing.p90Ms,
          checked: checks.length > 0 && checks.every((check) => check.pass),
        },
        peer,
        failure: peer ? null : (failures.find(isSame)?.reason ?? null),
        factor: peer && peer.ms / ms,
      };
    }),
  );
}
