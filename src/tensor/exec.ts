import { GsaError, show } from '../native/errors.js';
import { native } from '../native/load.js';
import type { NativeOp, NativeTensor } from '../native/types.js';
import type { Tensor } from './tensor.js';

/** A tensor, nothing (optional arguments only), or a list for a starred name of ops.def. */
export type Operand = Tensor | null | undefined | readonly Tensor[];

interface Slot {
  readonly name: string;
  readonly optional: boolean;
  readonly list: boolean;
}
interface Signature {
  readonly index: number;
  readonly op: NativeOp;
  readonly inputs: readonly Slot[];
  readonly outputs: readonly Slot[];
}

let table: Map<string, Signature> | null = null;

function parse(names: readonly string[]): Slot[] {
  return names.map((mark) => ({
    name: mark.replace(/[*?]+$/, ''),
    optional: mark.endsWith('?'),
    list: mark.includes('*'),
  }));
}

function signature(name: string): Signature {
  table ??= new Map(
    native()
      .ops()
      .map((op, index) => [op.name, { index, op, inputs: parse(op.inputs), outputs: parse(op.outputs) }]),
  );
  const found = table.get(name);
  if (!found)
    throw new GsaError('INTERNAL', `Expected the name of an op in ops.def but received ${show(name)}`);
  return found;
}

function lay(
  sig: Signature,
  slots: readonly Slot[],
  given: Readonly<Record<string, Operand>>,
): (NativeTensor | null)[] {
  const handles: (NativeTensor | null)[] = [];
  let used = 0;
  for (const slot of slots) {
    const value = given[slot.name];
    if (value !== undefined) used++;
    if (value == null) {
      if (!slot.optional)
        throw new GsaError(
          'INVALID_ARGUMENT',
          `Expected a tensor for ${slot.name} but received ${show(value)}`,
          { op: sig.op.name },
        );
      if (!slot.list) handles.push(null);
    } else if (slot.list) {
      for (const tensor of value as readonly Tensor[]) handles.push(tensor.handle);
    } else {
      handles.push((value as Tensor).handle);
    }
  }
  for (const name in given) if (given[name] !== undefined) used--;
  if (used !== 0) {
    const names = slots.map((s) => s.name);
    const unknown = Object.keys(given).filter((n) => !names.includes(n));
    throw new GsaError(
      'INTERNAL',
      `Expected operands named ${names.join(', ')} but received ${unknown.join(', ')}`,
      { op: sig.op.name },
    );
  }
  return handles;
}

/** What was noted of tensors that are written now. */
function forgetAbsMax(outputs: Readonly<Record<string, Operand>>): void {
  for (const name in outputs) {
    const value = outputs[name];
    if (value == null) continue;
    if ('absMax' in value) value.absMax = null;
    else for (const tensor of value) tensor.absMax = null;
  }
}

/** One call of exec(), as a probe sees it. */
export interface OpCall {
  readonly name: string;
  readonly inputs: Readonly<Record<string, Operand>>;
  readonly outputs: Readonly<Record<string, Operand>>;
  readonly attributes: Readonly<Record<string, number>>;
}

/** Stands around every call of exec() and must call `run` once: for measuring what a computation is made of. */
export type Probe = (call: OpCall, run: () => void) => void;

let probe: Probe | null = null;

/** Makes `next` the probe (null: none) and returns the one before it. */
export function setProbe(next: Probe | null): Probe | null {
  const previous = probe;
  probe = next;
  return previous;
}

/** Runs one op of native/ops/ops.def by name, with operands and attributes by their names there.
 * @throws GsaError with the op's name; see native/ops/<algorithm>/params.h for what each argument must be. */
export function exec(
  name: string,
  inputs: Readonly<Record<string, Operand>>,
  outputs: Readonly<Record<string, Operand>>,
  attributes: Readonly<Record<string, number>>,
): void {
  if (probe === null) call(name, inputs, outputs, attributes);
  else probe({ name, inputs, outputs, attributes }, () => call(name, inputs, outputs, attributes));
}

function call(
  name: string,
  inputs: Readonly<Record<string, Operand>>,
  outputs: Readonly<Record<string, Operand>>,
  attributes: Readonly<Record<string, number>>,
): void {
  const sig = signature(name);
  const ins = lay(sig, sig.inputs, inputs);
  const outs = lay(sig, sig.outputs, outputs);
  const attrs = sig.op.attributes.map((attribute) => {
    const value = attributes[attribute];
    if (typeof value !== 'number')
      throw new GsaError('INTERNAL', `Expected a number for ${attribute} but received ${show(value)}`, {
        op: name,
      });
    return value;
  });
  forgetAbsMax(outputs);
  try {
    native().exec(sig.index, ins, outs, attrs);
  } catch (error) {
    const code = (error as { code?: unknown }).code;
    if (error instanceof GsaError && error.op === undefined)
      throw new GsaError(error.code, error.message, { op: name, cause: error });
    if (error instanceof GsaError || typeof code !== 'string') throw error;
    throw new GsaError(code as GsaError['code'], (error as Error).message, { op: name });
  }
}
