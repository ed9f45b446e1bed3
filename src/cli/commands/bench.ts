import { Argument, Command, Option } from 'commander';
import type { BenchKind } from '../../bench/bench.js';
import { MATMUL_MODES, type MatmulMode } from '../../tensor/dtype.js';
import { decimal, list } from '../options.js';
import { Output } from '../output.js';

interface Flags {
  device: string;
  dtype?: 'float32' | 'bfloat16';
  shapes?: string[];
  seconds?: number;
  list?: boolean;
  budget?: boolean;
  recompute?: true | 'blocks';
  matmul?: MatmulMode;
  /** True: on stdout; a string: into that file. */
  json?: boolean | string;
}

/** Seconds for each case: a CPU shared with others needs longer to show its median than a GPU of one's own. */
const SECONDS = { cpu: 1, cuda: 0.2 };

export function command(): Command {
  return new Command('bench')
    .description('Time one kind of work, and check what was computed against a reference in the same run')
    .addArgument(
      new Argument(
        '<kind>',
        'gemm: matrix products; gsa: the operator; growth: its cost over the length; modules: norms, losses, embedding, AdamW and the like; train: a training step; decode: generation',
      ).choices(['gemm', 'gsa', 'growth', 'modules', 'train', 'decode']),
    )
    .option('--device <name>', '"cpu", "cuda" or "cuda:N"', 'cpu')
    .addOption(
      new Option(
        '--dtype <dtype>',
        'what to compute in (default: bfloat16 on CUDA, float32 on the CPU)',
      ).choices(['float32', 'bfloat16']),
    )
    .option(
      '--shapes <list>',
      'such as M512N512K512,M8N8K8 (gemm), B1T2048H4K128V128M64 (gsa), swiglu:N64D256 (modules), D256L4H4M32V4096B4T512 (train); repeatable',
      list,
    )
    .option('--seconds <n>', 'time for each case (default: 1, on CUDA 0.2)', decimal(0, 3600))
    .addOption(
      new Option(
        '--recompute [blocks]',
        'train: activations, or with "blocks" all that is in a block, are made again in the backward instead of kept',
      ).choices(['blocks']),
    )
    .addOption(
      new Option(
        '--matmul <mode>',
        'train: what the products of the blocks are computed in (default: dtype)',
      ).choices(MATMUL_MODES),
    )
    .option('--budget', 'train: also where the time of one step goes, op by op, beside the least it could be')
    .option('--list', 'print the shapes that this kind has without --shapes, and end')
    .option('--json [file]', 'results as JSON: on stdout, or into a file beside the table on stdout')
    .action(run);
}

async function run(kind: BenchKind, flags: Flags): Promise<void> {
  const { SHAPES, runBench } = await import('../../bench/bench.js');
  const { formatReport } = await import('../../bench/report.js');
  const { writeFileAtomic } = await import('../../io/atomic.js');
  const { expected } = await import('../../native/errors.js');
  const { device } = await import('../../tensor/device.js');
  const output = new Output({ json: flags.json === true });
  if (flags.list) {
    const shapes: readonly string[] = SHAPES[kind][flags.device.startsWith('cuda') ? 'cuda' : 'cpu'];
    output.result({ kind, shapes }, shapes.join('\n'));
    return;
  }
  for (const flag of ['budget', 'recompute', 'matmul'] as const)
    if (flags[flag] && kind !== 'train') throw expected('the kind "train"', `--${flag}`, kind, 'bench');
  const on = device(flags.device);
  const report = await runBench(kind, {
    device: on,
    dtype: flags.dtype,
    shapes: flags.shapes,
    budget: flags.budget,
    recompute: flags.recompute,
    matmul: flags.matmul,
    budgetMs: (flags.seconds ?? SECONDS[on.backend]) * 1e3,
    command: ['flash-gsa', ...process.argv.slice(2)].join(' '),
  });
  if (typeof flags.json === 'string') writeFileAtomic(flags.json, `${JSON.stringify(report, null, 2)}\n`);
  output.result(report, formatReport(report));
  if (!report.pass) process.exitCode = 1;
}
