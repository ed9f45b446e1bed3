#!/usr/bin/env python3
"""The layer form of gated slot attention on a CUDA backend: its backward against the two ops that it joins, times of both and
of the plain operator, repeats. Needs a GPU and torch. FLASH_GSA_LAYER=0 in the environment has it composed.

  layer.py --lib gsa_cuda.so [--shapes 8x4096x4x512,...] [--repeats N]     shapes: B x T x H x K, 64 slots, K = V
"""
import argparse, sys

import torch

from abi import Ops

bf16, f32 = torch.bfloat16, torch.float32
NORMALIZER, M = 8.0, 64


def median_ms(ops, fn, repeats=9, n=20):
    import time
    samples = []
    for i in range(repeats + 2):
        ops.synchronize()
        t = time.perf_counter()
        for _ in range(n): fn()
        ops.synchronize()
        if i >= 2: samples.append((time.perf_counter() - t) / n * 1e3)
    return sorted(samples)[len(samples) // 2]


def relative(a, b):
    a, b = a.float(), b.float()
    return ((a - b).norm() / b.norm()).item()


def layer(ops, B, T, H, K, repeats):
    torch.manual_seed(1)
    widths = [H * K] * 3 + [H * M]
    x = torch.randn(B, T, sum(widths), device='cuda', dtype=bf16)
    do = torch.randn(B, T, H, K, device='cuda', dtype=bf16)
    empty = lambda width, dtype: torch.full((B, T, H, width), float('nan'), device='cuda', dtype=dtype)
    q, k, v, o = (empty(K, bf16) for _ in range(4))
    g, s, ok = (empty(M, f32) for _ in range(3))
    plain = [q, k, v, s, g, None, None, None]
    inputs_fwd = ops.prepare('gsa_inputs_fwd', [x], [q, k, v, g, s], [NORMALIZER])
    chunk_fwd = ops.prepare('gsa_chunk_fwd', plain, [o, ok, None, None], [1.0])
    gradients = [torch.empty_like(t) for t in (q, k, v, s, g)]
    dq, dk, dv, ds, dg = gradients
    composed, fused = torch.empty_like(x), torch.full_like(x, float('nan'))
    chunk_bwd = ops.prepare('gsa_chunk_bwd', plain + [ok, do, None, None], gradients + [None, None], [1.0])
    inputs_bwd = ops.prepare('gsa_inputs_bwd', [dq, dk, dv, dg, ds, x], [composed, None], [NORMALIZER])
    layer_bwd = ops.prepare('gsa_layer_bwd', [x] + plain + [ok, do, None, None], [fused, None, None, None],
                            [1.0, NORMALIZER])
    torch.cuda.synchronize()  # the ops have a stream of their own
    inputs_fwd(); chunk_fwd(); chunk_bwd(); inputs_bwd(); layer_bwd()
    ops.synchronize()
    parts = zip('qkvf', composed.split(widths, 2), fused.split(widths, 2))
    differences = {name: relative(b, a) for name, a, b in parts}
    good = all(d <= 1e-2 for d in differences.values())
    print(f'{"ok  " if good else "FAIL"} B{B} T{T} H{H} K=V={K}: fused against composed ' +
          ' '.join(f'{n} {d:.1e}' for n, d in differences.items()))
    if repeats:
        first, same = fused.clone(), True
        for _ in range(repeats):
            fused.fill_(float('nan')); torch.cuda.synchronize()
            layer_bwd(); ops.synchronize()
            same = same and torch.equal(first, fused)
        print(f'{"ok  " if same else "FAIL"} {repeats} repeats bit-equal')
        good = good and same
    def plain_both(): chunk_fwd(); chunk_bwd()
    def composed_both(): inputs_fwd(); chunk_fwd(); chunk_bwd(); inputs_bwd()
    def layer_both(): inputs_fwd(); chunk_fwd(); layer_bwd()
    for name, fn in (('inputs forward', inputs_fwd), ('inputs backward', inputs_bwd), ('plain forward', chunk_fwd),
                     ('plain backward', chunk_bwd), ('layer backward', layer_bwd), ('plain, both', plain_both),
                     ('composed, both', composed_both), ('layer, both', layer_both)):
        print(f'     {name}: {median_ms(ops, fn):.4f} ms', flush=True)
    return good


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument('--lib', required=True)
    ap.add_argument('--shapes', default='8x4096x4x512,8x2048x4x512,16x2048x4x256,1x32768x4x512')
    ap.add_argument('--repeats', type=int, default=0)
    a = ap.parse_args()
    ops = Ops(a.lib)
    results = [layer(ops, *map(int, shape.split('x')), a.repeats) for shape in a.shapes.split(',')]
    sys.exit(not all(results))


main()
