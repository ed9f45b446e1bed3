"""A peer's training step, as such models are trained in PyTorch: float32 weights under bfloat16 autocast, gradient norm clipped
to 1, fused AdamW. What fla_train.py and llama_train.py share."""
import gc
import time

import torch

from common import laps, parse, summary


def options(parser):
    parser.add_argument('--steps', type=int, default=10)
    parser.add_argument('--warmup', type=int, default=4)
    parser.add_argument('--recompute', action='store_true',
                        help='keep only what enters each block (gradient checkpointing)')
    return parser


def step_phases(model, n):
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.01, fused=True)
    ids = torch.randint(0, n['V'], (n['B'], n['T']), device='cuda')
    loss = None

    def forward():
        nonlocal loss
        with torch.autocast('cuda', dtype=torch.bfloat16):
            loss = model(input_ids=ids, labels=ids).loss

    def backward():
        nonlocal loss
        loss.backward()
        loss = None  # or the next forward runs beside what this one's graph still holds

    def update():
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return forward, backward, update


def timed(create, n, a):
    """Times of each phase and of each step by the host's clock, in ms; the number of parameters; the peak in GiB."""
    model = create(n)
    parameters = sum(p.numel() for p in model.parameters())
    phases = step_phases(model, n)
    for _ in range(a.warmup):
        laps(phases)
    torch.cuda.reset_peak_memory_stats()
    times, wall = [], []
    for _ in range(a.steps):
        started = time.perf_counter()
        times.append(laps(phases))
        wall.append((time.perf_counter() - started) * 1e3)
    return times, wall, parameters, torch.cuda.max_memory_allocated() / 2**30


def bench(report, shapes, create, by, a):
    """Each shape after the other; one that does not fit is noted as such and the next is tried."""
    variant = 'recompute blocks' if a.recompute else None  # as ours is called that does the same
    for shape in shapes.split(','):
        n = parse(shape)
        try:
            times, wall, parameters, peak = timed(create, n, a)
        except torch.cuda.OutOfMemoryError as error:
            report.fail('train', 'training step', shape, f'out of memory: {str(error).splitlines()[0]}', variant)
            times = None
            del error  # its traceback holds the model
        torch._dynamo.reset()
        gc.collect()
        torch.cuda.empty_cache()
        if times is None:
            continue
        wall_ms, tokens = summary(wall)['medianMs'], n['B'] * n['T']
        report.add('train', 'training step', shape, summary([sum(t) for t in times]), by, variant, wallMs=wall_ms,
                   tokensPerSecond=tokens / wall_ms * 1e3, parameters=parameters, peakGiB=peak,
                   mfu=6 * parameters * tokens / wall_ms * 1e3 / 989e12)
        for i, phase in enumerate(('forward', 'backward', 'optimizer')):
            report.add('train', f'training step: {phase}', shape, summary([t[i] for t in times]), by, variant)
