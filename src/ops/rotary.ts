import { exec } from '../tensor/exec.js';
import { record } from '../tensor/recorder.js';
import { Tensor } from '../tensor/tensor.js';
import { checkOptions } from '../native/errors.js';
import { checkNumber, checkTensor, refuse } from './check.js';

export interface RotaryOptions {
  /** Base of the wavelengths; default 10000. */
  theta?: number;
  /** Position of the first token; default 0. */
  offset?: number;
}

/** Rotary position embedding (Su et al. 2021, "RoFormer", equation 34, in the layout of Llama checkpoints): channels i and
 * i + D/2 of every head turn by (offset + t) · theta^(−2i/D). x [B, T, H, D], D even, float32 or (CUDA) bfloat16.
 * @throws GsaError INVALID_ARGUMENT */
export function rotary(x: Tensor, options: RotaryOptions = {}): Tensor {
  checkOptions(options, ['theta', 'offset'], 'rotary');
  const { theta = 10000, offset = 0 } = options;
  checkTensor('rotary', 'x', x, { ndim: 4 });
  if (x.shape[3]! % 2 !== 0)
    throw refuse('rotary', 'an even last dimension', 'x', `shape [${x.shape.join(', ')}]`);
  checkNumber('rotary', 'theta', theta, 'a number above 0', (n) => n > 0);
  checkNumber(
    'rotary',
    'offset',
    offset,
    'an integer of at least 0',
    (n) => Number.isSafeInteger(n) && n >= 0,
  );
  const turned = (x: Tensor, inverse: boolean): Tensor => {
    const y = Tensor.emptyLike(x);
    exec('rotary', { x }, { y }, { theta, offset, inverse: +inverse });
    return y;
  };
  const y = turned(x, false);
  record('rotary', [x], [y], [], ([dy]) => [turned(dy!, true)]);
  return y;
}
