#!/usr/bin/env python3
"""The layer form of gated slot attention on a CUDA backend against the ops that it joins, times of both and of the plain
operator, repeats. Nobody keeps q, k and v for the backward but in what is called kept, which is composed. Needs a GPU and torch.
FLASH_GSA_LAYER=0 in the environment has everything composed.

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
    made = [torch.full_like(t, float('nan')) for t in (o, s, g, ok)]
    rows = [torch.full_like(t, float('nan')) for t in (q, k, v)]
    def layer_outputs(rows): return [made[0]] + rows + made[1:] + [None, None]
    layer_fwd, kept_fwd = (ops.prepare('gsa_layer_fwd', [x, None, None, None], layer_outputs(r), [1.0, NORMALIZER])
                           for r in ([None] * 3, rows))
    gradients = [torch.empty_like(t) for t in (q, k, v, s, g)]
    dq, dk, dv, ds, dg = gradients
    composed, fused, kept = torch.empty_like(x), torch.full_like(x, float('nan')), torch.full_like(x, float('nan'))
    chunk_bwd = ops.prepare('gsa_chunk_bwd', plain + [ok, do, None, None], gradients + [None, None], [1.0])
    inputs_bwd = ops.prepare('gsa_inputs_bwd', [dq, dk, dv, dg, ds, x], [composed, None], [NORMALIZER])
    layer_bwd, kept_bwd = (ops.prepare('gsa_layer_bwd', [x] + r + plain[3:] + [ok, do, None, None], [dx, None, None, None],
                                       [1.0, NORMALIZER]) for r, dx in (([None] * 3, fused), (rows, kept)))
    torch.cuda.synchronize()  # the ops have a stream of their own
    inputs_fwd(); chunk_fwd(); chunk_bwd(); inputs_bwd(); kept_fwd(); kept_bwd(); layer_bwd(); layer_fwd()
    ops.synchronize()
    parts = zip('qkvf', composed.split(widths, 2), fused.split(widths, 2))
    differences = {name: relative(b, a) for name, a, b in parts}
    differences['kept'] = relative(kept, composed)
    forward = {n: relative(a, b) for n, a, b in zip(['o', 's', 'g', 'ok', 'q', 'k', 'v'], made + rows, [o, s, g, ok, q, k, v])}
    raw = x.split(widths, 2)
    silu = [relative(torch.nn.functional.silu(r.double()), m.flatten(2).double()) for r, m in zip(raw[:3], (q, k, v))]
    print('     forward against composed: ' + ' '.join(f'{n} {d:.1e}' for n, d in forward.items()) +
          '; silu against float64: ' + ' '.join(f'{d:.2e}' for d in silu))
    good = all(d <= 1e-2 for d in [*differences.values(), *forward.values()]) and max(
        forward[n] for n in ('q', 'k', 'v', 's', 'g')) == 0
    print(f'{"ok  " if good else "FAIL"} B{B} T{T} H{H} K=V={K}: fused against composed ' +
          ' '.join(f'{n} {d:.1e}' for n, d in differences.items()))
    if repeats:
        outputs = [fused] + made
        first, same = [t.clone() for t in outputs], True
        for _ in range(repeats):
            for t in outputs: t.fill_(float('nan'))
            torch.cuda.synchronize()
            layer_fwd(); layer_bwd(); ops.synchronize()
            same = same and all(map(torch.equal, first, outputs))
        print(f'{"ok  " if same else "FAIL"} {repeats} repeats bit-equal')
        good = good and same
    def plain_both(): chunk_fwd(); chunk_bwd()
    def composed_both(): inputs_fwd(); chunk_fwd(); chunk_bwd(); inputs_bwd()
    def composed_fwd(): inputs_fwd(); chunk_fwd()
    def layer_both(): layer_fwd(); layer_bwd()
    def kept_both(): kept_fwd(); kept_bwd()
    for name, fn in (('inputs forward', inputs_fwd), ('inputs backward', inputs_bwd), ('plain forward', chunk_fwd),
                     ('composed forward', composed_fwd),
                     ('layer forward', layer_fwd), ('plain backward', chunk_bwd), ('layer backward', layer_bwd), ('plain, both', plain_both),
                     ('composed, both', composed_both), ('layer, both', layer_both), ('kept, both', kept_both)):
        print(f'     {name}: {median_ms(ops, fn):.4f} ms', flush=True)
    return good


def every_silu(ops):
    """Of every finite bfloat16: the largest error of silu, and where, in units of the result's last place and of |x|."""
    bits = torch.arange(65536, device='cuda').to(torch.int16)
    x = bits.view(bf16)
    x = torch.where(x.isfinite(), x, torch.zeros_like(x)).view(1, 1024, 64)
    joined = torch.cat([x, x, x, torch.zeros_like(x)], 2).contiguous()
    made = [torch.empty(1, 1024, 1, 64, device='cuda', dtype=t) for t in (bf16, bf16, bf16, f32, f32)]
    torch.cuda.synchronize()
    ops.call('gsa_inputs_fwd', [joined], made, [NORMALIZER])
    exact = torch.nn.functional.silu(x.double()).flatten()
    error = (made[0].double().flatten() - exact).abs()
    for low, high in ((-1e30, -16), (-16, -4), (-4, -1), (-1, 0), (0, 1), (1, 4), (4, 1e30)):
        at = (x.flatten() >= low) & (x.flatten() < high)
        part = error[at] / x.flatten()[at].double().abs().clamp(min=1e-30)
        relative = error[at] / exact[at].abs().clamp(min=1e-30)
        print(f'     silu of [{low:g}, {high:g}): largest error {part.max():.1e} of |x|, {relative.max():.1e} of the result')


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument('--lib', required=True)
    ap.add_argument('--shapes', default='8x4096x4x512,8x2048x4x512,16x2048x4x256,1x32768x4x512')
    ap.add_argument('--repeats', type=int, default=0)
    a = ap.parse_args()
    ops = Ops(a.lib)
    every_silu(ops)
    results = [layer(ops, *map(int, shape.split('x')), a.repeats) for shape in a.shapes.split(',')]
    sys.exit(not all(results))


main()
