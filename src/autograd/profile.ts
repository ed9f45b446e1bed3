import { performance } from 'node:perf_hooks';
import type { Device } from '../tensor/device.js';
import { exec, setProbe, type OpCall, type Operand } from '../tensor/exec.js';
import { Tensor } from '../tensor/tensor.js';

/** What the calls of one op on one set of shapes took together. */
export interface OpTime {
  readonly op: string;
  /** Extents of the operands that tell calls of the op apart, for example "16384x2048 · 2048x5632ᵀ". */
  readonly shape: string;
  readonly calls: number;
  readonly ms: number;
  /** Of all calls: bytes that must be moved when every operand is read or written once, and multiply-adds times two. */
  readonly bytes: number;
  readonly flops: number;
}

/** What a device can do at best, to compare with. */
export interface DeviceRates {
  readonly bytesPerSecond: number;
  readonly flopsPerSecond: number;
}

/** The shortest time that the rates allow for these calls, in milliseconds. */
export function floorMs({ bytes, flops }: Pick<OpTime, 'bytes' | 'flops'>, rates: DeviceRates): number {
  return Math.max(bytes / rates.bytesPerSecond, flops / rates.flopsPerSecond) * 1e3;
}

/** Runs `body` once with a wait for the device around every op, and adds up what each op took, longest first. The time of
 * an op that does nothing is measured and taken off, so what is left is the op's own; a body that keeps the device busy
 * without waits takes less than the sum by what overlaps, and more by what the host is late. */
export function profileOps(device: Device, body: () => void): OpTime[] {
  const idle = idleMs(device);
  const found = new Map<string, { -readonly [K in keyof OpTime]: OpTime[K] }>();
  const previous = setProbe((call, run) => {
    device.synchronize();
    const start = performance.now();
    run();
    device.synchronize();
    const ms = Math.max(0, performance.now() - start - idle);
    const shape = shapeOf(call);
    const key = `${call.name} ${shape}`;
    const sum = found.get(key) ?? { op: call.name, shape, calls: 0, ms: 0, bytes: 0, flops: 0 };
    sum.calls++;
    sum.ms += ms;
    sum.bytes += bytesOf(call);
    sum.flops += flopsOf(call);
    found.set(key, sum);
  });
  try {
    body();
  } finally {
    setProbe(previous);
  }
  return [...found.values()].toSorted((a, b) => b.ms - a.ms);
}

/** What a call and the waits around it take when there is one element to write: the median of many. */
function idleMs(device: Device): number {
  using y = Tensor.zeros([1], { device });
  const times = Array.from({ length: 101 }, () => {
    device.synchronize();
    const start = performance.now();
    exec('fill', {}, { y }, { value: 0 });
    device.synchronize();
    return performance.now() - start;
  });
  return times.toSorted((a, b) => a - b)[50]!;
}

function tensorsOf(operands: Readonly<Record<string, Operand>>): Tensor[] {
  return Object.values(operands).flatMap((operand) =>
    operand == null ? [] : operand instanceof Tensor ? [operand] : [...operand],
  );
}

function total(operands: Readonly<Record<string, Operand>>): number {
  return tensorsOf(operands).reduce((sum, tensor) => sum + tensor.byteLength, 0);
}

function isProduct({ name }: OpCall): boolean {
  return name === 'matmul' || name === 'float8_matmul';
}

function product(call: OpCall): { a: Tensor; b: Tensor; c: Tensor } {
  return { a: call.inputs['a'] as Tensor, b: call.inputs['b'] as Tensor, c: call.outputs['c'] as Tensor };
}

function shapeOf(call: OpCall): string {
  if (isProduct(call)) {
    const { a, b, c } = product(call);
    const side = (t: Tensor, transposed?: number) => t.shape.join('x') + (transposed ? 'ᵀ' : '');
    const { trans_a, trans_b, beta } = call.attributes;
    const eight = call.name === 'float8_matmul';
    return `${side(a, trans_a)} · ${side(b, eight ? 1 : trans_b)} -> ${c.dtype}${beta ? ' +' : ''}`;
  }
  const tensors = [...tensorsOf(call.inputs), ...tensorsOf(call.outputs)];
  return tensors.length > 16 ? `${tensors.length} tensors` : (tensors[0]?.shape.join('x') ?? '');
}

/** Operands that an op reads as well as writes, and tables of which it reads only some rows, are not what a plain sum of
 * sizes makes of them. */
function bytesOf(call: OpCall): number {
  const written = total(call.outputs);
  if (call.name === 'embedding_fwd') return 2 * written;
  const inPlace = call.name === 'adamw' ? written : 0;
  const added = isProduct(call) && call.attributes['beta'] ? written : 0;
  return total(call.inputs) + written + inPlace + added;
}

/** Of matrix products: everything else is bound by memory, gated slot attention too. */
function flopsOf(call: OpCall): number {
  if (!isProduct(call)) return 0;
  const { a, c } = product(call);
  const inner = a.shape.at(call.attributes['trans_a'] ? -2 : -1)!;
  return 2 * c.size * inner;
}
