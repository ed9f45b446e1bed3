#!/usr/bin/env python3
"""Checks the GSA ops of a CUDA backend against float64 and times them. Needs a GPU and torch; for the peer, triton and
flash-linear-attention at $FLA_PATH.

  check.py --lib gsa_cuda.so [--golden DIR] [--cases] [--time [--shapes I,J]] [--peer] [--repeats N] [--small] [--json FILE]
           [--match REGEX]   (of --cases and --small, those whose title and dtype it finds)
"""
import argparse, json, math, os, random, re, sys
from pathlib import Path

import torch
import torch.nn.functional as F

from abi import Ops
from reference import with_gradients

BOUNDS = {torch.float32: (1e-5, 1e-4), torch.bfloat16: (1e-2, 1e-2)}
GRADS = ['q', 'k', 'v', 's', 'g']
failures, results = 0, []


def poisoned(shape, dtype, guard=4096):
    """A tensor full of NaN between two red zones of NaN, and a function that says whether those are untouched."""
    n = 1
    for extent in shape: n *= extent
    memory = torch.full((n + 2 * guard,), float('nan'), dtype=dtype, device='cuda')
    return memory[guard:guard + n].view(shape), lambda: bool(
        memory[:guard].isnan().all() and memory[guard + n:].isnan().all())


def run(ops, x, up, scale, states=True):
    B, T, HQ, K = x['q'].shape
    H, V, M = x['k'].shape[2], x['v'].shape[3], x['s'].shape[3]
    N = len(x['cu_seqlens']) - 1 if 'cu_seqlens' in x else B
    dtype, zones, out = x['q'].dtype, [], {}
    def make(name, shape, kind):
        out[name], intact = poisoned(shape, kind)
        zones.append((name, intact))
        return out[name]
    head = [x[n] for n in GRADS] + [x.get('hk0'), x.get('hv0'), x.get('cu_seqlens')]
    f32 = torch.float32
    o, ok = make('o', (B, T, HQ, V), dtype), make('ok', (B, T, HQ, M), f32)
    hkT, hvT = (make('hkT', (N, H, K, M), f32), make('hvT', (N, H, M, V), f32)) if states else (None, None)
    ops.call('gsa_chunk_fwd', head, [o, ok, hkT, hvT], [scale])
    grads = [make('d' + n, x[n].shape, x[n].dtype) for n in GRADS]
    initial = [make('d' + n, x[n].shape, f32) if n in x else None for n in ('hk0', 'hv0')]
    ops.call('gsa_chunk_bwd', head + [ok, up['do'], up.get('dhkT'), up.get('dhvT')], grads + initial, [scale])
    r = [make('r_o', (B, T, HQ, V), dtype), make('r_hkT', (N, H, K, M), f32), make('r_hvT', (N, H, M, V), f32)]
    ops.call('gsa_recurrent', head, r, [scale])
    torch.cuda.synchronize()
    return out, [name for name, intact in zones if not intact()]


def relative(a, b, floor=0.0):
    return (a.double() - b).norm().item() / max(b.norm().item(), floor, 1e-30) if b.numel() else 0.0


def compare(label, out, expected, dtype, broken):
    global failures
    worst = {}
    bound_out, bound_grad = BOUNDS[dtype]
    for name, value in out.items():
        reference = expected.get(name[2:] if name.startswith('r_') else name)
        if reference is None or name == 'ok': continue
        gradient = name.startswith('d')
        # A gradient whose norm is rounding noise beside dv's: differences of nearly equal numbers, bounded by dv's norm.
        dv = expected['dv'].norm().item()
        floor = dv if gradient and reference.norm().item() < 1e-6 * dv else 0.0
        error = relative(value, reference, floor)
        worst[name] = error
        if not error <= (bound_grad if gradient else bound_out): broken = broken + [f'{name} {error:.2e}']
    failures += bool(broken)
    print(('FAIL ' if broken else 'ok   ') + label + ' ' + ' '.join(f'{n}={e:.1e}' for n, e in worst.items()) +
          (f'   <-- {broken}' if broken else ''), flush=True)


def golden(ops, folder, dtypes):
    from safetensors import safe_open
    for path in sorted(Path(folder).glob('*.safetensors')):
        with safe_open(path, 'pt', device='cuda') as file:
            x = {n: file.get_tensor(n) for n in file.keys()}
            scale = float(file.metadata()['scale'])
        inputs = {n: x[n] for n in GRADS + ['hk0', 'hv0', 'cu_seqlens'] if n in x}
        up = {n: x[n] for n in ('do', 'dhkT', 'dhvT') if n in x}
        for dtype in dtypes:
            for group in (inputs, up):
                for n in ('q', 'k', 'v', 'do'):
                    if n in group: group[n] = group[n].to(dtype).contiguous()
            expected = ({n: t.double() for n, t in x.items()} if dtype == torch.float32 else
                        with_gradients(inputs, up, scale))
            out, broken = run(ops, inputs, up, scale)
            compare(f'{path.stem} {dtype}', out, expected, dtype, broken)


def draw(B, T, HQ, H, K, V, M, dtype, gates='paper', cu=None, states=False, seed=0, key_state=1.0):
    """`states`: their size beside N(0, 1), True as 1; `key_state`: that of the initial key states beside it."""
    gen = torch.Generator('cuda').manual_seed(seed)
    rand = lambda *shape: torch.randn(*shape, device='cuda', generator=gen)
    x = {n: F.silu(rand(B, T, h, w)).to(dtype) for n, h, w in (('q', HQ, K), ('k', H, K), ('v', H, V))}
    f = rand(B, T, H, M)
    g = F.logsigmoid(f) / 8
    if gates == 'zero': g = torch.zeros_like(f)
    if gates == 'forget': g = torch.full_like(f, -1e4)
    if gates == 'mixed':
        g = torch.where(f > 1.2, torch.full_like(f, -1e4), torch.where(f < -0.5, torch.zeros_like(f), g))
    if gates.startswith('span'): g = -float(gates[4:]) * torch.rand(f.shape, device='cuda', generator=gen)
    x['g'], x['s'] = g, -torch.expm1(g)
    if gates in ('zero', 'mixed'): x['s'] = x['s'].clamp(min=0.1)
    if cu is not None: x['cu_seqlens'] = torch.tensor(cu, dtype=torch.int32, device='cuda')
    N = B if cu is None else len(cu) - 1
    up = {'do': rand(B, T, HQ, V).to(dtype)}
    if states:
        x['hk0'], x['hv0'] = key_state * states * rand(N, H, K, M), states * rand(N, H, M, V)
        up['dhkT'], up['dhvT'] = states * rand(N, H, K, M), states * rand(N, H, M, V)
    return x, up


def cases(small):
    ragged = [0, 0, 1, 17, 17, 80, 144, 209, 209]
    if small:
        yield 'small', dict(B=1, T=70, HQ=2, H=2, K=64, V=128, M=64, states=True)
        yield 'small varlen', dict(B=1, T=209, HQ=2, H=1, K=64, V=64, M=64, cu=ragged, states=True)
        yield 'small odd', dict(B=1, T=19, HQ=1, H=1, K=24, V=40, M=7)
        for M in (16, 128):
            yield f'small M={M}', dict(B=1, T=70, HQ=2, H=2, K=64, V=128, M=M, states=True)
            yield f'small varlen gqa M={M}', dict(B=1, T=209, HQ=2, H=1, K=64, V=64, M=M, cu=ragged, states=True)
        return
    for T in (1, 15, 16, 17, 63, 64, 65, 127, 200):
        yield f'T={T}', dict(B=2, T=T, HQ=2, H=2, K=64, V=128, M=64, states=T % 2 == 1)
    for gates in ('zero', 'forget', 'mixed', 'span5', 'span6', 'span20', 'span0.5'):
        yield gates, dict(B=1, T=160, HQ=2, H=2, K=128, V=64, M=64, gates=gates, states=True)
    # Widths of the sweeps, which these reach with FLASH_GSA_SWEEP=1.
    for T in (1, 15, 17, 63, 64, 65, 130):
        yield f'K=V=64 T={T}', dict(B=3, T=T, HQ=2, H=2, K=64, V=64, M=64, states=T % 2 == 1)
    for gates in ('zero', 'forget', 'mixed', 'span5', 'span6', 'span20', 'span0.5'):
        yield f'K=V=128 {gates}', dict(B=2, T=160, HQ=2, H=2, K=128, V=128, M=64, gates=gates, states=True)
    yield 'K=V=256 states', dict(B=2, T=300, HQ=2, H=2, K=256, V=256, M=64, states=True)
    for K, V, M in ((512, 512, 64), (256, 320, 64), (64, 64, 16), (128, 128, 32), (192, 64, 128), (100, 72, 64),
                    (64, 64, 48), (520, 40, 5), (600, 700, 520)):
        yield f'K={K} V={V} M={M}', dict(B=1, T=150, HQ=2, H=2, K=K, V=V, M=M)
    yield 'gqa', dict(B=2, T=100, HQ=8, H=2, K=128, V=128, M=64, states=True)
    yield 'varlen', dict(B=1, T=209, HQ=2, H=2, K=64, V=128, M=64, cu=ragged, states=True)
    yield 'K=V=512 states', dict(B=2, T=300, HQ=2, H=2, K=512, V=512, M=64, states=True)
    yield 'K=512 V=256 states', dict(B=1, T=130, HQ=2, H=1, K=512, V=256, M=64, states=True)
    yield 'K=256 V=512 states', dict(B=1, T=130, HQ=2, H=2, K=256, V=512, M=64, states=True)
    yield 'K=V=256 states varlen', dict(B=1, T=209, HQ=2, H=2, K=256, V=256, M=64, cu=ragged, states=True)
    for gates in ('forget', 'mixed', 'span6', 'span20'):
        yield f'K=V=512 {gates}', dict(B=1, T=160, HQ=1, H=1, K=512, V=512, M=64, gates=gates, states=True)
    # Fewer walks than clusters: the states at the cuts are computed before the sweep.
    few = [0, 0, 700, 700, 716, 1300, 1300]
    for K in (64, 128, 256, 512):
        yield f'K=V={K} T=1000, a walk', dict(B=1, T=1000, HQ=1, H=1, K=K, V=K, M=64, states=True)
        yield f'K=V={K} long documents', dict(B=1, T=1300, HQ=1, H=1, K=K, V=K, M=64, cu=few, states=True)
    yield 'K=V=256 T=3000, a walk', dict(B=1, T=3000, HQ=1, H=1, K=256, V=256, M=64, states=True)
    for gates in ('zero', 'forget', 'mixed', 'span0.5', 'span6', 'span20'):
        yield f'K=V=128 T=900 {gates}', dict(B=1, T=900, HQ=2, H=2, K=128, V=128, M=64, gates=gates)
    yield 'gqa K=V=128 T=700', dict(B=1, T=700, HQ=4, H=2, K=128, V=128, M=64, states=True)
    yield 'K=V=64 documents of 10', dict(B=1, T=1000, HQ=2, H=2, K=64, V=64, M=64, cu=[*range(0, 1001, 10)] + [1000] * 50)
    yield 'gqa K=V=512', dict(B=1, T=200, HQ=3, H=1, K=512, V=512, M=64)
    yield 'varlen gqa', dict(B=1, T=209, HQ=4, H=2, K=64, V=64, M=64, cu=ragged)
    for G, width, T in ((3, 64, 130), (4, 64, 65), (3, 128, 200), (4, 128, 17), (3, 256, 150), (4, 256, 64), (4, 512, 130)):
        yield f'gqa of {G} K=V={width} T={T} states', dict(
            B=2, T=T, HQ=2 * G, H=2, K=width, V=width, M=64, states=1 if width < 512 else 0.3)
    for gates in ('forget', 'mixed', 'span6'):
        yield f'gqa K=V=128 {gates}', dict(B=2, T=160, HQ=6, H=2, K=128, V=128, M=64, gates=gates, states=True)
    for width in (64, 256):
        yield f'varlen gqa K=V={width} states', dict(B=1, T=209, HQ=6, H=2, K=width, V=width, M=64, cu=ragged, states=True)
    # Initial key states as in the package's tests: of size 1 they make logits whose rounding to bfloat16 is all that is seen.
    for M in (16, 32, 128):
        for T in (1, 15, 17, 63, 64, 65, 127, 200):
            yield f'M={M} T={T}', dict(B=2, T=T, HQ=2, H=2, K=64, V=128, M=M, states=T % 2 == 1, key_state=0.3)
        for gates in ('zero', 'forget', 'mixed', 'span5', 'span20', 'span0.5'):
            yield f'M={M} {gates}', dict(B=1, T=160, HQ=2, H=2, K=128, V=64, M=M, gates=gates, states=True,
                                         key_state=0.3)
        yield f'M={M} K=V=512 states', dict(B=1, T=150, HQ=2, H=2, K=512, V=512, M=M, states=True, key_state=0.3)
        yield f'M={M} gqa', dict(B=2, T=100, HQ=6, H=2, K=128, V=192, M=M, states=True, key_state=0.3)
        yield f'M={M} varlen gqa', dict(B=1, T=209, HQ=4, H=2, K=64, V=64, M=M, cu=ragged, states=True, key_state=0.3)
    for K in (64, 128, 256, 512):
        for T in (1, 31, 33, 64, 65, 200):
            yield f'M=128 K=V={K} T={T}', dict(B=2, T=T, HQ=2, H=2, K=K, V=K, M=128, states=T % 2 == 1, key_state=0.3)
        yield f'M=128 K=V={K} documents', dict(B=1, T=209, HQ=2, H=2, K=K, V=K, M=128, cu=ragged, states=True, key_state=0.3)
    for gates in ('zero', 'forget', 'mixed', 'span5', 'span20', 'span0.5'):
        for K in (128, 512):
            yield f'M=128 K=V={K} {gates}', dict(B=1, T=160, HQ=2, H=2, K=K, V=K, M=128, gates=gates, states=True, key_state=0.3)
    yield 'M=128 K=V=512 40 walks', dict(B=10, T=150, HQ=4, H=4, K=512, V=512, M=128, states=True, key_state=0.3)
    yield 'M=128 K=V=256 100 walks', dict(B=25, T=70, HQ=4, H=4, K=256, V=256, M=128, states=True, key_state=0.3)
    for M in (4, 48, 60):
        yield f'M={M} gqa states', dict(B=1, T=130, HQ=2, H=1, K=64, V=128, M=M, states=True, key_state=0.3)


def peer_results(x, up, scale):
    """The peer's outputs and gradients, under our names."""
    from fla.ops.gsa import chunk_gsa
    states = [n for n in ('hk0', 'hv0') if n in x]
    t = {n: x[n].detach().to(torch.bfloat16 if n in GRADS else torch.float32).requires_grad_() for n in GRADS + states}
    packed = dict(cu_seqlens=x['cu_seqlens'].long()) if 'cu_seqlens' in x else {}
    if states: packed.update(initial_state=tuple(t[n] for n in states), output_final_state=True)
    o, final = chunk_gsa(*(t[n] for n in GRADS), scale=scale, **packed)
    ends = dict(zip(('hkT', 'hvT'), final)) if states else {}
    grads = torch.autograd.grad([o, *ends.values()], list(t.values()), [up['do'], *(up['d' + n] for n in ends)])
    return {'o': o, **ends, **{'d' + n: g for n, g in zip(t, grads)}}


def check_cases(ops, dtypes, small, match, peer):
    for seed, (label, shape) in enumerate(cases(small)):
        for dtype in dtypes:
            if not re.search(match, f'{label} {dtype}'): continue
            for scale in ((1.0,) if seed % 3 else (0.5,)):
                x, up = draw(dtype=dtype, seed=seed, **shape)
                # The peer takes s and g in bfloat16 only: then ours gets the same values.
                if peer: x['s'], x['g'] = x['s'].bfloat16().float(), x['g'].bfloat16().float()
                out, broken = run(ops, x, up, scale, states=shape.get('states', False))
                if small: continue
                expected = with_gradients(x, up, scale)
                compare(f'{label} {dtype}', out, expected, dtype, broken)
                if peer and dtype == torch.bfloat16:
                    try: theirs = peer_results(x, up, scale)
                    except Exception as error: print(f'peer {label}: {str(error)[:200]}'); continue
                    print(f'peer {label} ' + ' '.join(
                        f'{n}={relative(t, expected[n]):.1e}' for n, t in theirs.items() if n in expected), flush=True)


def check_repeats(ops, n):
    global failures
    for label, shape in (('T 1000 K=V=128', dict(B=2, T=1000, HQ=2, H=2, K=128, V=128, M=64)),
                         ('gqa of 4, K=V=256', dict(B=3, T=300, HQ=8, H=2, K=256, V=256, M=64)),
                         *((f'M={M}', dict(B=2, T=1000, HQ=2, H=2, K=128, V=128, M=M)) for M in (128, 16)),
                         ('M=128 K=V=512', dict(B=10, T=150, HQ=4, H=4, K=512, V=512, M=128))):
        x, up = draw(dtype=torch.bfloat16, states=True, **shape)
        first, same = None, True
        for i in range(n):
            out, _ = run(ops, x, up, 1.0)
            if first is None: first = {name: t.clone() for name, t in out.items()}
            same = all(torch.equal(t, first[name]) for name, t in out.items())
            if not same: break
        failures += not same
        print(f'ok   {label}: {n} repeats bit-equal' if same else f'FAIL {label}: repeat {i} differs')


def median_ms(ops, fn, repeats=9):
    """Host clock around 20 enqueued calls, the same for ours and the peer: what is measured is the device, not the host.
    No flush between them: the inputs of every shape here are several times the 50 MB of L2."""
    import time
    samples, n = [], 20
    for i in range(repeats + 2):
        torch.cuda.synchronize(); ops.synchronize()
        t = time.perf_counter()
        for _ in range(n): fn()
        torch.cuda.synchronize(); ops.synchronize()
        if i >= 2: samples.append((time.perf_counter() - t) / n * 1e3)
    samples.sort()
    return samples[len(samples) // 2]


SHAPES = [(8, 4096, 4, 4, 512, 512, 64), (16, 2048, 4, 4, 512, 512, 64), (16, 2048, 5, 5, 512, 512, 64),
          (1, 32768, 4, 4, 512, 512, 64), (16, 2048, 4, 4, 256, 256, 64), (8, 2048, 32, 8, 128, 128, 64),
          (8, 4096, 4, 4, 512, 512, 128)]
GOALS = len(SHAPES)
SHAPES += [(16, 2048, 16, 16, 128, 128, 64), (16, 2048, 16, 16, 64, 64, 64), (16, 2048, 8, 4, 256, 256, 64),
           (8, 2048, 16, 2, 256, 256, 64), (8, 2048, 8, 2, 512, 512, 64),
           (8, 4096, 4, 4, 512, 512, 32), (8, 4096, 4, 4, 512, 512, 16), (8, 2048, 32, 8, 128, 128, 128)]
# All chunks at once: what exactness costs there (FLASH_GSA_EXACT=0 and 1).
SHAPES += [(1, 128, 4, 4, 64, 64, 16), (1, 1024, 4, 4, 512, 512, 64), (1, 2048, 4, 4, 256, 256, 64),
           (1, 2048, 4, 4, 512, 512, 128)]


def documents(total=32768, low=16, high=8192, seed=1):
    """Offsets of documents whose lengths are uniform in their logarithm."""
    draw_length, cu = random.Random(seed), [0]
    while cu[-1] < total:
        cu.append(min(cu[-1] + int(math.exp(draw_length.uniform(math.log(low), math.log(high)))), total))
    return cu


def timing(ops, shapes, peer, gates='paper', cu=None):
    for B, T, HQ, H, K, V, M in shapes:
        x, up = draw(B, T, HQ, H, K, V, M, torch.bfloat16, gates, cu)
        head = [x[n] for n in GRADS] + [None, None, x.get('cu_seqlens')]
        o = torch.empty(B, T, HQ, V, dtype=torch.bfloat16, device='cuda')
        ok = torch.empty(B, T, HQ, M, device='cuda')
        grads = [torch.empty_like(x[n]) for n in GRADS]
        fwd = ops.prepare('gsa_chunk_fwd', head, [o, ok, None, None], [1.0])
        bwd = ops.prepare('gsa_chunk_bwd', head + [ok, up['do'], None, None], grads + [None, None], [1.0])
        row = dict(B=B, T=T, HQ=HQ, H=H, K=K, V=V, M=M, gates=gates, documents=len(cu or [0]) - 1,
                   fwd_ms=median_ms(ops, fwd))
        def both():
            fwd(); bwd()
        row['fwdbwd_ms'] = median_ms(ops, both)
        if peer: row.update(fla(ops, x, up['do'], {'o': o, **dict(zip(['dq', 'dk', 'dv', 'ds', 'dg'], grads))}))
        results.append(row)
        print(json.dumps(row), flush=True)
        del x, up, head, o, ok, grads, fwd, bwd, both
        torch.cuda.empty_cache()


def accuracy(ops):
    """Errors against float64 of ours and the peer's on the same bfloat16 inputs."""
    for seed, gates in enumerate(('paper', 'zero', 'mixed', 'span0.5')):
        x, up = draw(1, 512, 2, 2, 256, 256, 64, torch.bfloat16, gates, seed=seed)
        x['s'], x['g'] = x['s'].bfloat16().float(), x['g'].bfloat16().float()
        expected, theirs = with_gradients(x, up, 1.0), peer_results(x, up, 1.0)
        ours, _ = run(ops, x, up, 1.0, states=False)
        print(f'accuracy {gates}: ' + ' '.join(
            f'{n} {relative(ours[n], expected[n]):.1e} (peer {relative(t, expected[n]):.1e})' for n, t in theirs.items()))


def fla(ops, x, do, ours):
    from fla.ops.gsa import chunk_gsa
    G = x['q'].shape[2] // x['k'].shape[2]
    t = [x[n].to(torch.bfloat16).requires_grad_() for n in GRADS]
    packed = dict(cu_seqlens=x['cu_seqlens'].long()) if 'cu_seqlens' in x else {}
    def fwd():
        with torch.no_grad(): return chunk_gsa(*t, scale=1.0, **packed)[0]
    def both(): return torch.autograd.grad(chunk_gsa(*t, scale=1.0, **packed)[0], t, do)
    theirs = dict(zip(['o', 'dq', 'dk', 'dv', 'ds', 'dg'], [fwd(), *both()]))
    difference = {n: float(f'{relative(ours[n].float(), theirs[n].double()):.2e}') for n in theirs}
    return dict(fla_fwd_ms=median_ms(ops, fwd), fla_fwdbwd_ms=median_ms(ops, both),
                difference=difference)


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument('--lib', required=True); ap.add_argument('--golden'); ap.add_argument('--cases', action='store_true')
    ap.add_argument('--match', default='', help='regular expression: only cases in whose title and dtype it is found')
    ap.add_argument('--small', action='store_true'); ap.add_argument('--time', action='store_true')
    ap.add_argument('--shapes', default=','.join(map(str, range(GOALS))), help='indices into SHAPES'); ap.add_argument('--peer', action='store_true')
    ap.add_argument('--gates', default='paper', help='of what is timed')
    ap.add_argument('--documents', action='store_true', help='the tokens of what is timed packed as documents of 16..8192')
    ap.add_argument('--repeats', type=int, default=0); ap.add_argument('--json')
    a = ap.parse_args()
    if a.peer: sys.path.insert(0, os.environ['FLA_PATH'])
    ops, dtypes = Ops(a.lib), [torch.float32, torch.bfloat16]
    if a.golden: golden(ops, a.golden, dtypes)
    if a.cases or a.small: check_cases(ops, dtypes, a.small, a.match, a.peer)
    if a.repeats: check_repeats(ops, a.repeats)
    if a.peer and not a.cases: accuracy(ops)
    if a.time:
        for i in a.shapes.split(','):
            shape = SHAPES[int(i)]
            timing(ops, [shape], a.peer, a.gates, documents(shape[1]) if a.documents else None)
    if a.json: Path(a.json).write_text(json.dumps(dict(gpu=torch.cuda.get_device_name(), results=results), indent=1))
    print('failures:', failures)
    sys.exit(failures > 0)


main()
