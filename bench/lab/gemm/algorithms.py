#!/usr/bin/env python3
"""What is to be had from the choice of cuBLASLt's algorithms for the products of the 1.3B model's step: how many it names, with
what workspace, alone and in bursts that heat the card; and what of it is left when the products of all layers follow each other, on one
stream or on two. docs/training-step.md has the figures.

  FLASH_GSA_CUBLASLT=<libcublasLt.so.13> algorithms.py [--rounds 4]
"""
import argparse

import torch

from cublaslt import WORKSPACES, Product

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument('--rounds', type=int, default=4)
a = parser.parse_args()
ROWS, WIDTH, INNER, JOINED, CLASSES, LAYERS = 16384, 2048, 5632, 6400, 32000, 24


def filled(*shape):
    return torch.randn(*shape, device='cuda').bfloat16()


def empty(*shape, dtype=torch.bfloat16):
    return torch.empty(*shape, device='cuda', dtype=dtype)


def products():
    x, dy, act = filled(ROWS, WIDTH), filled(ROWS, WIDTH), filled(ROWS, INNER)
    d_up, d_in = filled(ROWS, 2 * INNER), filled(ROWS, JOINED)
    y, act_out, up, qkvf = empty(ROWS, WIDTH), empty(ROWS, INNER), empty(ROWS, 2 * INNER), empty(ROWS, JOINED)
    w_up, w_down, w_in, w_o = (0.02 * filled(*s) for s in ((2 * INNER, WIDTH), (WIDTH, INNER), (JOINED, WIDTH), (WIDTH, WIDTH)))
    chunk, words, logits, d_words = filled(4096, WIDTH), 0.02 * filled(CLASSES, WIDTH), filled(4096, CLASSES), empty(4096, CLASSES)
    P, n = Product, LAYERS

    def weight(name, d, x, calls=n):
        return P(name, calls, d, x, empty(d.shape[1], x.shape[1]), trans_a=True)
    q, k, v, f = (d_in[:, start:end] for start, end in ((0, 2048), (2048, 4096), (4096, 6144), (6144, 6400)))
    return [
        P('forward gate|up', n, x, w_up, up, trans_b=True), P('forward down', n, act, w_down, y, trans_b=True),
        P('forward q|k|v|f', n, x, w_in, qkvf, trans_b=True), P('forward o', n, dy, w_o, y, trans_b=True),
        P('input gate|up', n, d_up, w_up, y), P('input down', n, dy, w_down, act_out),
        P('input q|k|v|f', n, d_in, w_in, y), P('input o', n, dy, w_o, y),
        weight('weight gate', d_up[:, :INNER], x), weight('weight up', d_up[:, INNER:], x), weight('weight down', dy, act),
        weight('weight q', q, x), weight('weight k', k, x), weight('weight v', v, x), weight('weight f', f, x),
        weight('weight o', dy, x),
        # What might be joined.
        weight('weight v|f', d_in[:, 4096:], x, 0), weight('weight q|k|v|f', d_in, x, 0), weight('weight gate|up', d_up, x, 0),
        P('loss logits', 4, chunk, words, d_words, trans_b=True), P('loss input', 4, logits, words, empty(4096, WIDTH)),
        P('loss weight', 3, logits, chunk, empty(CLASSES, WIDTH, dtype=torch.float32), trans_a=True, beta=1.0)]


def elapsed(body):
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    body()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def alone(product, candidates):
    """Of each candidate the shortest of `rounds` times, all of them in turns."""
    best = [float('inf')] * len(candidates)
    for turn in range(a.rounds):
        for i, candidate in enumerate(candidates):
            ms = elapsed(lambda: product.run(candidate))
            if turn > 0:
                best[i] = min(best[i], ms)
    return best


def bursts(product, candidates, ms=20):
    """Of each candidate the median time in bursts of about `ms`."""
    count = max(2, int(ms * 6.5e11 / product.flops))
    times = [[] for _ in candidates]
    for _ in range(a.rounds):
        for own, candidate in zip(times, candidates):
            own.append(elapsed(lambda: [product.run(candidate) for _ in range(count)]) / count)
    return [sorted(own)[len(own) // 2] for own in times]


def survey(product):
    few, many = (product.candidates(workspace) for workspace in WORKSPACES)
    once, once_many = alone(product, few), alone(product, many)
    hot = bursts(product, few)
    fastest, hottest = (min(range(len(few)), key=times.__getitem__) for times in (once, hot))
    large = min(range(len(many)), key=once_many.__getitem__)
    print(f'{product.name:17} {len(few)} named; alone: first {once[0]:.4f}, fastest #{fastest} {once[fastest]:.4f}, with 512 MiB '
          f'#{large} {once_many[large]:.4f} ({many[large].workspace >> 20} MiB); in bursts: '
          + ', '.join(f'#{i} {t:.4f}' for i, t in enumerate(hot)), flush=True)
    return dict(first=few[0], alone=few[fastest], bursts=few[hottest])


def sequence(by_name, choice, pick, two):
    def run(name, *where):
        by_name[name].run(choice[name][pick], *where)
    main = torch.cuda.current_stream()
    for _ in range(LAYERS):
        for name in ('q|k|v|f', 'o', 'gate|up', 'down'):
            run(f'forward {name}')
    for _ in range(LAYERS):
        for name, parts in (('down', ['down']), ('gate|up', ['gate', 'up']), ('o', ['o']), ('q|k|v|f', ['q', 'k', 'v', 'f'])):
            if two:
                side.wait_stream(main)
            for part in parts:
                run(f'weight {part}', *((side, 1) if two else ()))
            run(f'input {name}')
            if two:
                main.wait_stream(side)


side = torch.cuda.Stream()
step = products()
by_name = {product.name: product for product in step}
choice = {product.name: survey(product) for product in step}
versions = {'first': ('first', False), 'fastest alone': ('alone', False), 'fastest in bursts': ('bursts', False),
            'fastest alone, two streams': ('alone', True), 'fastest in bursts, two streams': ('bursts', True)}
times = {name: [] for name in versions}
for _ in range(a.rounds):
    for name, (pick, two) in versions.items():
        times[name].append(elapsed(lambda: [sequence(by_name, choice, pick, two) for _ in range(2)]) / 2)
for name, own in times.items():
    print(f'{LAYERS} layers, {name}: ' + ', '.join(f'{ms:.1f}' for ms in own) + ' ms')
