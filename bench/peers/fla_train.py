#!/usr/bin/env python3
"""A training step of flash-linear-attention's GSA model, as it is trained: float32 weights under bfloat16 autocast, gradient
norm clipped to 1, fused AdamW. With torch.compile the model does not run (version bc3b101: a shape error in its backward),
so it is measured without.

  PYTHONPATH=<flash-linear-attention> fla_train.py [--shapes D2048L24H4M64V32000B8T2048] [--steps 10] [--json FILE]
"""
import time

import torch

from common import Report, arguments, compile_variants_in_parallel, laps, parse, summary

parser = arguments(__doc__, 'D2048L24H4M64V32000B8T2048')
parser.add_argument('--steps', type=int, default=10)
parser.add_argument('--warmup', type=int, default=4)
a = parser.parse_args()
compile_variants_in_parallel()
import fla  # noqa: E402
import fla_model  # noqa: E402

report = Report('flash-linear-attention', a.peer_version or fla.__version__, a.json)


def bench(shape):
    n = parse(shape)
    model = fla_model.create(n, torch.float32)
    model.config.use_cache = False
    parameters = sum(p.numel() for p in model.parameters())
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.01, fused=True)
    ids = torch.randint(0, n['V'], (n['B'], n['T']), device='cuda')
    loss = None

    def forward():
        nonlocal loss
        with torch.autocast('cuda', dtype=torch.bfloat16):
            loss = model(ids, labels=ids).loss

    def backward():
        nonlocal loss
        loss.backward()
        loss = None  # or the next forward runs beside what this one's graph still holds

    def update():
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    for _ in range(a.warmup):
        laps([forward, backward, update])
    torch.cuda.reset_peak_memory_stats()
    times, wall = [], []
    for _ in range(a.steps):
        started = time.perf_counter()
        times.append(laps([forward, backward, update]))
        wall.append((time.perf_counter() - started) * 1e3)
    wall_ms, tokens = summary(wall)['medianMs'], n['B'] * n['T']
    by = 'fla.models GSA, bfloat16 autocast, torch.optim.AdamW(fused)'
    report.add('train', 'training step', shape, summary([sum(t) for t in times]), by, wallMs=wall_ms,
               tokensPerSecond=tokens / wall_ms * 1e3, parameters=parameters,
               peakGiB=torch.cuda.max_memory_allocated() / 2**30, mfu=6 * parameters * tokens / wall_ms * 1e3 / 989e12)
    for i, phase in enumerate(('forward', 'backward', 'optimizer')):
        report.add('train', f'training step: {phase}', shape, summary([t[i] for t in times]), by)


for shape in a.shapes.split(','):
    bench(shape)
