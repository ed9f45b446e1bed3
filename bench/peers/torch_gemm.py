#!/usr/bin/env python3
"""torch.matmul in bfloat16 on the shapes and layouts of `flash-gsa bench gemm`, and torch's copy of 1 GiB.

  torch_gemm.py [--shapes M8192N8192K8192,...] [--seconds 0.2] [--json FILE]
"""
import torch

from common import Report, arguments, measure, parse

a = arguments(__doc__, 'M8192N8192K8192').parse_args()
report = Report('PyTorch', torch.__version__, a.json)


def randn(*shape):
    return torch.randn(*shape, device='cuda').bfloat16()


x, y = torch.randn(2**28, device='cuda'), torch.empty(2**28, device='cuda')
timing = measure(lambda: y.copy_(x), a.seconds)
report.add('copy', 'copy', 'N268435456', timing, 'torch.Tensor.copy_, float32',
           gbPerSecond=8 * 2**28 / timing['medianMs'] / 1e6)
del x, y
for shape in a.shapes.split(','):
    n = parse(shape)
    M, N, K = n['M'], n['N'], n['K']
    for layout in ('NT', 'NN', 'TN'):
        left = randn(K, M).t() if layout[0] == 'T' else randn(M, K)
        right = randn(N, K).t() if layout[1] == 'T' else randn(K, N)
        timing = measure(lambda: torch.matmul(left, right), a.seconds)
        report.add('gemm', 'matmul', shape, timing, 'torch.matmul', variant=layout,
                   gflops=2 * M * N * K / timing['medianMs'] / 1e6)
        del left, right
