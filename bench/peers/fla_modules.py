#!/usr/bin/env python3
"""The modules of `flash-gsa bench modules` as flash-linear-attention has them, in bfloat16; where it uses torch itself
(embedding, gate, optimizer), torch.

  PYTHONPATH=<flash-linear-attention> fla_modules.py [--shapes rmsnorm:N16384D2048,...] [--seconds 0.2] [--json FILE]
"""
import torch
import torch.nn.functional as F

from common import Report, arguments, compile_variants_in_parallel, measure, parse

a = arguments(__doc__, 'rmsnorm:N16384D2048').parse_args()
compile_variants_in_parallel()
import fla  # noqa: E402
from fla.modules.activations import swiglu  # noqa: E402
from fla.modules.conv.causal_conv1d import causal_conv1d  # noqa: E402
from fla.modules.fused_cross_entropy import cross_entropy_loss  # noqa: E402
from fla.modules.fused_linear_cross_entropy import fused_linear_cross_entropy_loss  # noqa: E402
from fla.modules.layernorm import rms_norm  # noqa: E402
from fla.modules.rotary import rotary_embedding  # noqa: E402

report = Report('flash-linear-attention', a.peer_version or fla.__version__, a.json)
torch.manual_seed(0)
EPS, NORMALIZER = 1e-6, 8


def randn(*shape, std=1.0):
    return (std * torch.randn(*shape, device='cuda')).bfloat16().requires_grad_()


def integers(below, *shape):
    return torch.randint(0, below, shape, device='cuda')


def norm(residual, silu):
    def make(N, D):
        x, weight, stream = randn(N, D), randn(D), randn(N, D) if residual else None
        if residual:
            return [x, weight, stream], lambda: rms_norm(x, weight, None, residual=stream, eps=EPS, prenorm=True)
        return [x, weight], lambda: (rms_norm(F.silu(x) if silu else x, weight, None, eps=EPS),)
    return make, 'rms_norm' + (', after F.silu' if silu else '')


def make_swiglu(N, D):
    gate, up = randn(N, D), randn(N, D)
    return [gate, up], lambda: (swiglu(gate, up),)


def make_cross_entropy(N, C):
    logits, labels = randn(N, C, std=2), integers(C, N)
    return [logits], lambda: (cross_entropy_loss(logits, labels)[0],)


def make_linear_cross_entropy(N, D, C):
    hidden, weight, labels = randn(N, D), randn(C, D, std=D**-0.5), integers(C, N)
    return [hidden, weight], lambda: (fused_linear_cross_entropy_loss(hidden, labels, weight, reduction='sum'),)


def make_embedding(N, D, C):
    weight, ids = randn(C, D), integers(C, N)
    return [weight], lambda: (F.embedding(ids, weight),)


def make_short_conv(B, T, D, W):
    x, weight = randn(B, T, D), randn(D, W, std=0.5)
    return [x, weight], lambda: (causal_conv1d(x, weight, activation='silu')[0],)


def make_rotary(B, T, H, D):
    x = randn(B, T, H, D)
    angles = torch.outer(torch.arange(T), 10000.0 ** (-2 * torch.arange(D // 2) / D)).cuda()
    cos, sin = angles.cos().bfloat16(), angles.sin().bfloat16()
    return [x], lambda: (rotary_embedding(x, cos, sin),)


def make_gate(B, T, H, M):
    f = randn(B, T, H, M, std=2)

    def run():
        g = F.logsigmoid(f) / NORMALIZER
        return g, (1 - g.exp()).to(g.dtype)
    return [f], run


MODULES = {
    'rmsnorm': norm(False, False),
    'rmsnorm+residual': norm(True, False),
    'rmsnorm(silu)': norm(False, True),
    'swiglu': (make_swiglu, 'swiglu'),
    'cross-entropy': (make_cross_entropy, 'cross_entropy_loss'),
    'linear-cross-entropy': (make_linear_cross_entropy,
                             'fused_linear_cross_entropy_loss, whose forward computes the gradients'),
    'embedding': (make_embedding, 'F.embedding (torch)'),
    'short-conv': (make_short_conv, 'causal_conv1d'),
    'rotary': (make_rotary, 'rotary_embedding'),
    'gsa-gate': (make_gate, 'F.logsigmoid and exp (torch), as in its layer'),
}


def bench(name, shape):
    make, by = MODULES[name]
    leaves, run = make(**parse(shape))

    def alone():
        with torch.no_grad():
            run()
    outputs = run()
    upstream = [torch.randn_like(y) if y.numel() > 1 else torch.ones_like(y) for y in outputs]
    del outputs

    def both():
        torch.autograd.grad(run(), leaves, upstream)
    report.add('modules', f'{name} forward', shape, measure(alone, a.seconds), by)
    report.add('modules', f'{name} forward + backward', shape, measure(both, a.seconds), by)


def bench_adamw(shape, largest=2048 * 2048):
    """float32 weights and gradients: what its training has under autocast. 28 bytes a parameter, as our bfloat16 weights
    with float32 master copies."""
    left, parameters = parse(shape)['P'], []
    while left > 0:
        parameters.append(torch.nn.Parameter(0.02 * torch.randn(min(left, largest), device='cuda')))
        parameters[-1].grad = torch.randn_like(parameters[-1])
        left -= largest
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, betas=(0.9, 0.95), weight_decay=0.01, fused=True)
    report.add('modules', 'adamw step', shape, measure(optimizer.step, a.seconds), 'torch.optim.AdamW(fused), float32')


for item in a.shapes.split(','):
    module, shape = item.split(':')
    bench_adamw(shape) if module == 'adamw' else bench(module, shape)
    torch.cuda.empty_cache()
