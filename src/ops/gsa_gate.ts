import { exec } from '../tensor/exec.js';
import { record } from '../tensor/recorder.js';
import { Tensor } from '../tensor/tensor.js';
import { checkOptions } from '../native/errors.js';
import { checkNumber, checkTensor, emptyBeside } from './check.js';

/** The forget gate and write strength of gated slot attention (arXiv 2409.07146): g = logsigmoid(f) / normalizer and
 * s = 1 − exp(g), both float32, in the shape of f.
 * @throws GsaError INVALID_ARGUMENT */
export function gsaGate(f: Tensor, options: { normalizer?: number } = {}): { g: Tensor; s: Tensor } {
  checkOptions(options, ['normalizer'], 'gsaGate');
  checkTensor('gsaGate', 'f', f);
  const normalizer = checkNumber(
    'gsaGate',
    'normalizer',
    options.normalizer ?? 8,
    'a number above 0',
    (n) => n > 0,
  );
  const g = emptyBeside(f, f.shape, 'float32');
  const s = emptyBeside(f, f.shape, 'float32');
  exec('gsa_gate_fwd', { f }, { g, s }, { normalizer });
  record('gsaGate', [f], [g, s], [f], ([dg, ds], [f]) => {
    const df = Tensor.emptyLike(f!);
    const zeros = dg && ds ? null : Tensor.zeros(f!.shape, { device: f!.device });
    exec('gsa_gate_bwd', { dg: dg ?? zeros, ds: ds ?? zeros, f }, { df }, { normalizer });
    return [df];
  });
  return { g, s };
}
