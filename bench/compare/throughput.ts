import type { BenchReport } from '#src/bench/report.js';
import { MODEL_DIMENSIONS } from '#src/bench/model_shape.js';
import { parseShape, shapeName } from '#src/bench/shape.js';
import type { PeerReport } from './rows.js';
import { markdown, times } from './table.js';

/** A training step of one program at one batch and length. */
export interface Step {
  readonly who: string;
  /** "recompute", "fp8", ...; "" for none. */
  readonly setting: string;
  /** In the notation of --shapes, without batch and length. */
  readonly model: string;
  readonly B: number;
  readonly T: number;
  /** Null where it could not be run: `failure` says why. */
  readonly tokensPerSecond: number | null;
  readonly peakGiB: number | null;
  readonly failure: string | null;
}

/** Steps of one program in one setting at one number of tokens, shortest sequences first. */
export interface Curve {
  readonly who: string;
  readonly setting: string;
  readonly tokens: number;
  readonly steps: readonly Step[];
}

export const OURS = 'flash-gsa';

function stepOf(
  who: string,
  shape: string,
  setting: string,
): Pick<Step, 'who' | 'setting' | 'model' | 'B' | 'T'> {
  const { B, T, ...model } = parseShape(shape, [...MODEL_DIMENSIONS, 'B', 'T'] as const);
  return { who, setting, model: shapeName(model), B, T };
}

function measured(
  figures: Readonly<Record<string, number>>,
): Pick<Step, 'tokensPerSecond' | 'peakGiB' | 'failure'> {
  return { tokensPerSecond: figures['tokensPerSecond']!, peakGiB: figures['peakGiB'] ?? null, failure: null };
}

function isStep({ kind, name }: { kind: string; name: string }): boolean {
  return kind === 'train' && name === 'training step';
}

/** Every training step in the reports.
 * @throws Error when one of ours computed something wrong: its time says nothing */
export function stepsOf(ours: readonly BenchReport[], peers: readonly PeerReport[]): Step[] {
  const own = ours.flatMap(({ kind, results }) =>
    results
      .filter(({ name }) => isStep({ kind, name }))
      .map(({ shape, variant = '', figures, checks }) => {
        const wrong = checks.find((check) => !check.pass);
        if (wrong) throw new Error(`${shape}: wrong output (${wrong.against})`);
        return { ...stepOf(OURS, shape, variant), ...measured(figures) };
      }),
  );
  const theirs = peers.flatMap(({ peer, results, failures }) => [
    ...results
      .filter(isStep)
      .map(({ shape, variant = '', figures }) => ({ ...stepOf(peer, shape, variant), ...measured(figures) })),
    ...failures.filter(isStep).map(({ shape, variant = '', reason }) => ({
      ...stepOf(peer, shape, variant),
      tokensPerSecond: null,
      peakGiB: null,
      failure: reason,
    })),
  ]);
  return [...own, ...theirs];
}

export function modelsOf(steps: readonly Step[]): string[] {
  return [...new Set(steps.map(({ model }) => model))];
}

/** In the order in which they were given. */
export function curvesOf(steps: readonly Step[]): Curve[] {
  const curves = new Map<string, { who: string; setting: string; tokens: number; steps: Step[] }>();
  for (const step of steps) {
    const { who, setting, B, T } = step;
    const key = JSON.stringify([who, setting, B * T]);
    const curve = curves.get(key) ?? { who, setting, tokens: B * T, steps: [] };
    curve.steps.push(step);
    curves.set(key, curve);
  }
  return [...curves.values()].map((curve) => ({
    ...curve,
    steps: curve.steps.toSorted((a, b) => a.T - b.T),
  }));
}

const whole = (n: number) => Math.round(n).toLocaleString('en-US');

/** Each step, and how its rate compares with the same program's at the shortest length, all else equal. */
function stepTable(steps: readonly Step[]): string {
  const head = [
    'program',
    'setting',
    'tokens a step',
    'batch',
    'length',
    'tokens/s',
    'of the shortest',
    'peak GiB',
  ];
  const rows = curvesOf(steps).flatMap(({ who, setting, tokens, steps: all }) => {
    const first = all.find((step) => step.tokensPerSecond !== null)?.tokensPerSecond;
    return all.map(({ B, T, tokensPerSecond: rate, peakGiB, failure }) => [
      who,
      setting,
      whole(tokens),
      String(B),
      whole(T),
      rate === null ? failure!.split(':')[0]! : whole(rate),
      rate === null || !first || all.length < 2 ? '' : `${((100 * rate) / first).toFixed(1)}%`,
      peakGiB === null ? '' : peakGiB.toFixed(1),
    ]);
  });
  return markdown(head, rows);
}

/** Each program's highest rate at each length, whatever batch and setting gave it, and ours over it. */
function fastestTable(steps: readonly Step[]): string {
  const programs = [...new Set(steps.map(({ who }) => who))];
  const lengths = [...new Set(steps.map(({ T }) => T))].toSorted((a, b) => a - b);
  const others = programs.filter((who) => who !== OURS);
  const head = ['length', OURS, ...others.flatMap((who) => [who, 'times'])];
  const rows = lengths.map((T) => {
    const best = (who: string) =>
      steps
        .filter((step) => step.who === who && step.T === T && step.tokensPerSecond !== null)
        .toSorted((a, b) => b.tokensPerSecond! - a.tokensPerSecond!)[0];
    const cell = (step?: Step) =>
      step ? `${whole(step.tokensPerSecond!)} (batch ${step.B}${step.setting && `, ${step.setting}`})` : '';
    const own = best(OURS);
    return [
      whole(T),
      cell(own),
      ...others.flatMap((who) => {
        const other = best(who);
        return [cell(other), own && other ? times(own.tokensPerSecond! / other.tokensPerSecond!) : ''];
      }),
    ];
  });
  return markdown(head, rows);
}

/** Tokens per second by length as Markdown, a section for each model. */
export function throughputTables(steps: readonly Step[]): string {
  return modelsOf(steps)
    .flatMap((model) => {
      const its = steps.filter((step) => step.model === model);
      return [
        `### ${model}`,
        stepTable(its),
        "Each program's highest rate (tokens/s), and ours over it:",
        fastestTable(its),
      ];
    })
    .join('\n\n');
}
