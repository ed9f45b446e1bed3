import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import test from 'ava';
import { packageRoot } from '#src/native/load.js';
import { fixture } from '../paths.js';

const EVERYTHING =
  'weights matmul add embedding_fwd embedding_bwd rmsnorm_fwd rmsnorm_bwd silu_fwd silu_bwd swiglu_fwd swiglu_bwd ' +
  'gsa_inputs_fwd gsa_inputs_bwd gsa_gate_bwd short_conv_fwd short_conv_bwd cross_entropy_fwd gsa_chunk_fwd ' +
  'gsa_chunk_bwd gsa_layer_fwd gsa_layer_bwd scale_by';

function rounding(...args: string[]): { status: number | null; stderr: string; first: number } {
  const program = join(packageRoot(), '.build', 'bench', 'rounding.js');
  const { status, stdout, stderr } = spawnSync(process.execPath, [program, ...args], { encoding: 'utf8' });
  return { status, stderr, first: Number(/as they are: (\S+)/.exec(stdout)?.[1]) };
}

for (const model of ['gsa_gqa', 'gsa_shortconv'])
  test(`${model}: a training with its tensors rounded to bfloat16 is near the stored one, without rounding it is that one`, (t) => {
    const folder = fixture('models', model);
    const exact = rounding(folder, '--starts', '1', '--exact', EVERYTHING.replaceAll(' ', ','));
    t.true(exact.first <= 1e-4, exact.stderr + exact.first);
    const rounded = rounding(folder, '--starts', '2');
    t.true(rounded.first > 1e-3 && rounded.first < 0.1, rounded.stderr + rounded.first);
  });

test('an unknown name, no folder and no starts are refused', (t) => {
  for (const args of [
    ['x', '--exact', 'rmsnorm_fwd.z'],
    ['x', '--exact', 'rmsnorm'],
    [],
    ['x', '--starts', '0'],
  ]) {
    const { status, stderr } = rounding(...args);
    t.is(status, 1);
    t.regex(stderr, /Error: Expected/);
  }
});
