#!/usr/bin/env python3
"""Greedy generation with flash-linear-attention's GSA model in bfloat16: a pass over the prompt, then steps with its cache.
The host's clock, since that is what its user waits for.

  PYTHONPATH=<flash-linear-attention> fla_decode.py [--shapes D2048L24H4M64V32000B1P512N64,...] [--json FILE]
"""
import time

import torch

from common import Report, arguments, compile_variants_in_parallel, parse, summary

a = arguments(__doc__, 'D2048L24H4M64V32000B1P512N64').parse_args()
compile_variants_in_parallel()
import fla  # noqa: E402
import fla_model  # noqa: E402

report = Report('flash-linear-attention', a.peer_version or fla.__version__, a.json)


@torch.no_grad()
def generate(model, prompt, new):
    """Milliseconds from the call to the first new token, and from each new token to the next."""
    marks, past, ids = [time.perf_counter()], None, prompt
    for _ in range(new):
        out = model(ids, use_cache=True, past_key_values=past, logits_to_keep=1)
        past, ids = out.past_key_values, out.logits[:, -1:].argmax(-1)
        ids.cpu()  # a token is done when the host has it
        marks.append(time.perf_counter())
    return [(b - x) * 1e3 for x, b in zip(marks, marks[1:])]


models = {}
for shape in a.shapes.split(','):
    n = parse(shape)
    key = tuple(n[name] for name in 'DLHMV')
    if key not in models:
        models = {key: fla_model.create(n, torch.bfloat16).eval()}
    prompt = torch.randint(0, n['V'], (n['B'], n['P']), device='cuda')
    generate(models[key], prompt, 4)
    torch.cuda.reset_peak_memory_stats()
    first, *steps = generate(models[key], prompt, n['N'])
    timing = summary(steps)
    report.add('decode', 'decoding step', shape, timing, 'fla.models GSA with its cache',
               tokensPerSecond=n['B'] / timing['medianMs'] * 1e3, firstTokenMs=first,
               peakGiB=torch.cuda.max_memory_allocated() / 2**30)
