/** 1234567 as "1.23M": three significant digits and a unit. */
export function compact(n: number): string {
  for (const [size, unit] of [
    [1e12, 'T'],
    [1e9, 'B'],
    [1e6, 'M'],
    [1e3, 'K'],
  ] as const)
    if (Math.abs(n) >= size) return `${Number((n / size).toPrecision(3))}${unit}`;
  return `${Number(n.toPrecision(3))}`;
}

/** Seconds as "42s", "3m05s" or "2h07m". */
export function duration(seconds: number): string {
  const s = Math.max(0, Math.round(seconds));
  const two = (n: number): string => String(n).padStart(2, '0');
  if (s < 60) return `${s}s`;
  if (s < 3600) return `${Math.floor(s / 60)}m${two(s % 60)}s`;
  return `${Math.floor(s / 3600)}h${two(Math.floor((s % 3600) / 60))}m`;
}

/** Bytes as "1.5 GiB". */
export function bytes(n: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  const at = n < 1 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(n) / 10));
  const size = n / 1024 ** at;
  return `${size >= 100 ? Math.round(size) : Number(size.toPrecision(3))} ${units[at]}`;
}

export function lossText(loss: number | null): string {
  return loss === null ? 'not finite' : loss.toFixed(4);
}
