#!/usr/bin/env python3
"""flash-linear-attention's chunk_gsa in bfloat16 on the shapes of `flash-gsa bench gsa`: forward, forward and backward, and
the memory that both need beyond their inputs. Gates and write strengths are bfloat16, and key/value heads that several query
heads share are repeated for them, as its layer does both (version bc3b101's kernels for shared heads end in an illegal
memory access at K = V = 128, 32 heads over 8).

  PYTHONPATH=<flash-linear-attention> fla_gsa.py [--shapes B8T4096H4K512V512M64,...] [--seconds 0.2] [--json FILE]
"""
import torch
import torch.nn.functional as F

from common import Report, arguments, compile_variants_in_parallel, document_offsets, measure, parse

a = arguments(__doc__, 'B8T4096H4K512V512M64').parse_args()
compile_variants_in_parallel()
import fla  # noqa: E402
from fla.ops.gsa import chunk_gsa  # noqa: E402

report = Report('flash-linear-attention', a.peer_version or fla.__version__, a.json)
torch.manual_seed(0)


def randn(*shape):
    return torch.randn(*shape, device='cuda')


for shape in a.shapes.split(','):
    n = parse(shape)
    B, T, H, K, V, M = (n[name] for name in 'BTHKVM')
    HQ = n.get('HQ', H)
    q, k, v = (F.silu(randn(B, T, heads, width)).bfloat16() for heads, width in ((HQ, K), (H, K), (H, V)))
    g = (F.logsigmoid(randn(B, T, H, M)) / 8).bfloat16()
    s = (1 - g.float().exp()).bfloat16()
    do = randn(B, T, HQ, V).bfloat16()
    leaves = [t.requires_grad_() for t in (q, k, v, s, g)]
    offsets = torch.tensor(document_offsets(T, n['DOC']), device='cuda') if 'DOC' in n else None

    def forward():
        shared = leaves[1:] if HQ == H else [t.repeat_interleave(HQ // H, dim=2) for t in leaves[1:]]
        return chunk_gsa(q, *shared, scale=1.0, cu_seqlens=offsets)[0]

    def alone():
        with torch.no_grad():
            forward()

    def both():
        return torch.autograd.grad(forward(), leaves, do)

    report.add('gsa', 'gsa forward', shape, measure(alone, a.seconds), 'chunk_gsa')
    both()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    both()
    peak = (torch.cuda.max_memory_allocated() - before) / 2**20
    report.add('gsa', 'gsa forward + backward', shape, measure(both, a.seconds), 'chunk_gsa', peakMiB=peak)
    del q, k, v, g, s, do, leaves
    torch.cuda.empty_cache()
