import { readFileSync } from 'node:fs';

/** Version of the NVIDIA kernel driver, for example "580.159.04", without touching a GPU: "unknown" where it is loaded but
 * tells none, null where there is none. */
export function nvidiaDriver(): string | null {
  try {
    // "... Open Kernel Module for x86_64  580.159.04  Release Build ..."
    const text = readFileSync('/proc/driver/nvidia/version', 'utf8');
    return /Kernel Module.*?\s(\d+(?:\.\d+)+)\s/.exec(text)?.[1] ?? 'unknown';
  } catch {
    return null;
  }
}
