import { expected } from '../native/errors.js';
import type { Tensor } from '../tensor/tensor.js';

/** What a module is made of, under the names that checkpoints use. */
export type Parts = Readonly<Record<string, Tensor | Module | readonly Module[] | null>>;

/** A function with parameters. A module holds no other state: the same inputs give the same outputs, in training as in
 * use. Parameters are given at construction and belong to the module. */
export abstract class Module {
  /** Parameters and sub-modules in checkpoint order; null for a part that this configuration does not have. */
  protected abstract parts(): Parts;

  /** Every parameter with its dotted name, for example "layers.0.attn.q_proj.weight". A parameter that is used twice
   * (tied embeddings) comes once. */
  namedParameters(prefix = ''): [name: string, parameter: Tensor][] {
    if (typeof prefix !== 'string') throw expected('a string', 'prefix', prefix, 'namedParameters');
    const found: [string, Tensor][] = [];
    for (const [name, part] of Object.entries(this.parts())) {
      const path = prefix + name;
      if (part instanceof Module) found.push(...part.namedParameters(`${path}.`));
      else if (isList(part)) part.forEach((m, i) => found.push(...m.namedParameters(`${path}.${i}.`)));
      else if (part) found.push([path, part]);
    }
    const seen = new Set<Tensor>();
    return found.filter(([, tensor]) => !seen.has(tensor) && seen.add(tensor));
  }

  parameters(): Tensor[] {
    return this.namedParameters().map(([, tensor]) => tensor);
  }

  /** Disposes the gradients of all parameters. */
  zeroGrad(): void {
    for (const parameter of this.parameters()) {
      parameter.grad?.dispose();
      parameter.grad = null;
    }
  }

  /** Disposes all parameters and their gradients. Twice is harmless. */
  dispose(): void {
    for (const part of Object.values(this.parts()))
      if (isList(part)) for (const module of part) module.dispose();
      else part?.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

function isList(part: Parts[string]): part is readonly Module[] {
  return Array.isArray(part);
}
