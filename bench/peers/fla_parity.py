#!/usr/bin/env python3
"""The training that bench/parity prepared, by flash-linear-attention as it is trained: float32 weights under bfloat16
autocast, gradient norm clipped, fused AdamW, the same learning rates. Writes DIR/losses-NAME.json.

  PYTHONPATH=<flash-linear-attention> fla_parity.py DIR [--name fla]
"""
import argparse
import json
from pathlib import Path

import torch

from common import compile_variants_in_parallel

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument('dir', type=Path)
parser.add_argument('--name', default='fla')
a = parser.parse_args()
compile_variants_in_parallel()
import transformers  # noqa: E402
from fla.models import GSAForCausalLM  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

if int(transformers.__version__.split('.')[0]) >= 5 and isinstance(GSAForCausalLM._tied_weights_keys, list):
    # FLA declares tied weights as transformers 4 wants them; 5 wants to know what they are tied to.
    GSAForCausalLM._tied_weights_keys = {'lm_head.weight': 'model.embeddings.weight'}

settings = json.loads((a.dir / 'settings.json').read_text())
options, lrs = settings['config']['optimizer'], settings['lrs']
tokens = load_file(a.dir / 'tokens.safetensors')['ids'].long().cuda()
model, info = GSAForCausalLM.from_pretrained(a.dir / 'model', dtype=torch.float32, output_loading_info=True)
wrong = {key: sorted(map(str, names)) for key, names in info.items() if names}
if wrong:
    raise SystemExit(f'flash-linear-attention did not take every tensor as it is: {wrong}')
model = model.cuda().train()
model.config.use_cache = False
decays = [p for p in model.parameters() if p.ndim >= 2]
others = [p for p in model.parameters() if p.ndim < 2]
optimizer = torch.optim.AdamW(
    [{'params': decays, 'weight_decay': options['weightDecay']}, {'params': others, 'weight_decay': 0.0}],
    lr=options['lr'], betas=tuple(options['betas']), eps=options['eps'], fused=True)

losses = []
for ids, lr in zip(tokens, lrs):
    for group in optimizer.param_groups:
        group['lr'] = lr
    with torch.autocast('cuda', dtype=torch.bfloat16):
        loss = model(ids, labels=ids).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), options['clip'])
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    losses.append(loss.detach())
losses = torch.stack(losses).float().tolist()
(a.dir / f'losses-{a.name}.json').write_text(json.dumps({'name': a.name, 'dtype': 'bfloat16', 'losses': losses}, indent=2) + '\n')
print(f'{a.name}: {len(losses)} steps, loss {losses[0]:.4f} to {losses[-1]:.4f}')
