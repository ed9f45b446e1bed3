/** Four significant digits without an exponent where a person would write none. */
export function significant(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  const text = Number(value.toPrecision(4));
  return Math.abs(text) >= 1e-3 || text === 0 ? String(text) : text.toExponential(1);
}

/** A plain table: one line per row, columns aligned, to the left where `left` says so and else to the right. */
export function formatTable(
  head: readonly string[],
  rows: readonly (readonly string[])[],
  left: (column: number) => boolean,
): string {
  const widths = head.map((_, i) => Math.max(...[head, ...rows].map((row) => row[i]!.length)));
  const line = (row: readonly string[]) =>
    row
      .map((cell, i) => (left(i) ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!)))
      .join('  ')
      .trimEnd();
  return [head, ...rows].map(line).join('\n');
}
