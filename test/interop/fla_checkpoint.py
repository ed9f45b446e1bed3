#!/usr/bin/env python3
"""Checkpoints in both directions between flash-gsa and flash-linear-attention (FLA), judged by their logits.

    PYTHONPATH=<flash-linear-attention> python3 test/interop/fla_checkpoint.py [--device cuda:0]

For every kind of model in KINDS and for fp32 and bf16:
  ours -> FLA   `flash-gsa train` takes a few steps; FLA loads the checkpoint folder with from_pretrained()
  FLA -> ours   FLA makes a model with random weights and writes it with save_pretrained(); flash-gsa loads the folder
and both run the same tokens through it, long enough for the chunkwise kernels and short enough for the recurrent ones. The
logits must agree: fp32 to 1e-3 (the largest difference, and relative), bf16 to 2e-2 relative. One JSON object is printed
for each comparison; exit code 0 when all pass. Needs a GPU, torch, triton, transformers, einops and safetensors.

In bf16 both programs round at every layer. What each is away from FLA in fp32 on the same rounded weights is printed
beside their distance: `ours_to_fp32` and `fla_to_fp32`.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BASE = {'hidden_size': 128, 'num_hidden_layers': 2, 'num_heads': 2, 'num_slots': 64, 'intermediate_size': 256}
KINDS = {
    'base': {},
    'grouped': {'hidden_size': 256, 'num_heads': 4, 'num_kv_heads': 2},
    'short-conv': {'use_short_conv': True, 'num_slots': 32},
    'tied': {'tie_word_embeddings': True},
    'narrow-keys': {'hidden_size': 256, 'expand_k': 0.5},
    'wide-head': {'hidden_size': 512, 'num_heads': 1, 'num_slots': 128, 'norm_eps': 1e-5},
    'everything': {'num_kv_heads': 1, 'use_short_conv': True, 'tie_word_embeddings': True, 'num_slots': 16},
}
TOKENS = {'chunks': (2, 200), 'recurrent': (3, 40)}  # FLA takes its recurrent kernel up to 64 tokens.
BOUNDS = {'fp32': 1e-3, 'bf16': 2e-2}
VOCABULARY = 384


def flash_gsa(*arguments):
    """Runs the command line: the bundle's launcher, or the checkout's compiled one."""
    launcher = ROOT / 'flash-gsa'
    command = [str(launcher)] if launcher.exists() else ['node', str(ROOT / 'dist' / 'cli' / 'main.js')]
    done = subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, cwd=ROOT)
    if done.returncode != 0:
        raise RuntimeError(f'flash-gsa {arguments[0]} exited with {done.returncode}: {done.stderr.strip()}')
    return done.stdout


def import_fla():
    """FLA with float32 products in float32, and one variant of each kernel: this is about values, tuning takes minutes."""
    os.environ['TRITON_F32_DEFAULT'] = 'ieee'
    from triton.runtime.autotuner import Autotuner

    init = Autotuner.__init__

    def one_variant(self, fn, names, configs, *rest, **options):
        init(self, fn, names, configs[:1], *rest, **options)

    Autotuner.__init__ = one_variant
    import transformers
    from fla.models import GSAConfig, GSAForCausalLM

    if int(transformers.__version__.split('.')[0]) >= 5 and isinstance(GSAForCausalLM._tied_weights_keys, list):
        # FLA declares tied weights as transformers 4 wants them; 5 wants to know what they are tied to.
        GSAForCausalLM._tied_weights_keys = {'lm_head.weight': 'model.embeddings.weight'}
    return GSAConfig, GSAForCausalLM


def save_ids(folder):
    """The token files, by name."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(1)
    files = {}
    for name, shape in TOKENS.items():
        files[name] = folder / f'ids-{name}.safetensors'
        ids = torch.randint(0, VOCABULARY, shape, generator=generator)
        save_file({'input_ids': ids}, files[name])
    return files


def train_ours(folder, kind, dtype, device):
    """A folder that `flash-gsa train` left: the checkpoint of its last step."""
    config = {
        'model': {**BASE, **KINDS[kind], 'vocab_size': VOCABULARY},
        'data': {
            'train': [str(ROOT / 'test' / 'fixtures' / 'text')],
            'tokenizer': {'train': {'vocabSize': VOCABULARY}},
            'seqLen': 64,
        },
        'output': str(folder),
        'steps': 12,
        'batchSize': 4,
        'optimizer': {'lr': 0.01},
        'checkpoint': {'interval': 0},
        'device': device,
        'dtype': {'fp32': 'float32', 'bf16': 'bfloat16'}[dtype],
    }
    file = folder.with_suffix('.json')
    file.write_text(json.dumps(config))
    flash_gsa('train', '--config', file, '--json')
    return folder / 'step-000012'


def make_theirs(folder, kind, dtype):
    """A folder that save_pretrained() left: random weights, the norms' too."""
    import torch

    config_class, model_class = import_fla()
    torch.manual_seed(7)
    width = {**BASE, **KINDS[kind]}['hidden_size']
    # Large enough that every part of the layer matters; larger, and FLA in bf16 is 8e-2 from itself in fp32 on wide heads.
    config = config_class(**{**BASE, **KINDS[kind], 'vocab_size': VOCABULARY, 'initializer_range': 0.9 * width**-0.5})
    model = model_class(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.normal_(1, 0.2)
    model.to({'fp32': torch.float32, 'bf16': torch.bfloat16}[dtype]).save_pretrained(folder)
    return folder


def logits_of_fla(folder, ids_file, dtype):
    """Logits in float64 on the host, as from_pretrained() users get them."""
    import torch
    from safetensors.torch import load_file

    _, model_class = import_fla()
    torch.backends.cuda.matmul.allow_tf32 = False
    model, info = model_class.from_pretrained(folder, dtype=dtype, output_loading_info=True)
    wrong = {key: sorted(map(str, names)) for key, names in info.items() if names}
    if wrong:
        raise RuntimeError(f'FLA did not take every tensor of {folder} as it is: {wrong}')
    with torch.no_grad():
        return model.cuda().eval()(load_file(ids_file)['input_ids'].cuda()).logits.double().cpu()


def logits_of_ours(folder, ids_file, dtype, device):
    """Logits in float64, and the loss that flash-gsa reports."""
    from safetensors.torch import load_file

    out = Path(f'{folder}.{ids_file.stem}.{dtype}.safetensors')
    flash_gsa('logits', folder, '--ids', ids_file, '--out', out, '--device', device, '--dtype', dtype)
    stored = load_file(out)
    return stored['logits'].double(), stored['loss'].item()


def compare(folder, ids_file, dtype, device):
    """The figures of one comparison."""
    import torch
    import torch.nn.functional as F
    from safetensors.torch import load_file

    def distance(a, b):
        return ((a - b).norm() / b.norm()).item()

    ours, loss = logits_of_ours(folder, ids_file, dtype, device)
    theirs = logits_of_fla(folder, ids_file, {'fp32': torch.float32, 'bf16': torch.bfloat16}[dtype])
    ids = load_file(ids_file)['input_ids']
    their_loss = F.cross_entropy(theirs[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).item()
    figures = {
        'relative': distance(ours, theirs),
        'largest': (ours - theirs).abs().max().item(),
        'logits_norm': (theirs.norm() / theirs.numel() ** 0.5).item(),
        'loss_difference': abs(loss - their_loss),
    }
    limit = BOUNDS[dtype]
    if dtype == 'bf16':
        exact = logits_of_fla(folder, ids_file, torch.float32)
        figures |= {'ours_to_fp32': distance(ours, exact), 'fla_to_fp32': distance(theirs, exact)}
        return figures, figures['relative'] <= limit
    return figures, figures['relative'] <= limit and figures['largest'] <= limit


def run_kind(kind, device, folder):
    """All comparisons of one kind; False when one failed."""
    import_fla()
    ids = save_ids(folder)
    passed = True
    for dtype in BOUNDS:
        for direction in ('ours -> FLA', 'FLA -> ours'):
            record = {'kind': kind, 'dtype': dtype, 'direction': direction}
            try:
                if direction == 'ours -> FLA':
                    model = train_ours(folder / f'ours-{dtype}', kind, dtype, device)
                else:
                    model = make_theirs(folder / f'fla-{dtype}', kind, dtype)
                for name, file in ids.items():
                    figures, ok = compare(model, file, dtype, device)
                    passed &= ok
                    print(json.dumps({**record, 'tokens': name, 'pass': ok, **figures}), flush=True)
            except Exception as error:  # whatever the other library throws is a failed comparison
                passed = False
                print(json.dumps({**record, 'pass': False, 'error': f'{type(error).__name__}: {error}'}), flush=True)
    return passed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--device', default='cuda:0', help='of flash-gsa; FLA runs on the first GPU')
    parser.add_argument('--kinds', nargs='*', choices=KINDS, default=list(KINDS))
    parser.add_argument('--jobs', type=int, default=8, help='kinds at a time: most of the work is compiling kernels')
    parser.add_argument('--worker', help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        with tempfile.TemporaryDirectory() as folder:
            sys.exit(0 if run_kind(options.worker, options.device, Path(folder)) else 1)

    def start(kind):
        command = [sys.executable, __file__, '--worker', kind, '--device', options.device]
        return subprocess.run(command, capture_output=True, text=True)

    failed = []
    with ThreadPoolExecutor(options.jobs) as pool:
        for kind, done in zip(options.kinds, pool.map(start, options.kinds)):
            print(done.stdout, end='', flush=True)
            if done.returncode != 0:
                failed.append(kind)
                print(done.stderr, file=sys.stderr)
    print(f'{len(options.kinds) - len(failed)} of {len(options.kinds)} kinds agree', *failed, file=sys.stderr)
    sys.exit(1 if failed else 0)


if __name__ == '__main__':
    main()
