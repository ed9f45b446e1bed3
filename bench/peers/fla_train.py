#!/usr/bin/env python3
"""A training step of flash-linear-attention's GSA model (training.py says how). With torch.compile the model does not run
(version bc3b101: a shape error in its backward), so it is measured without.

  PYTHONPATH=<flash-linear-attention> fla_train.py [--shapes D2048L24H4M64V32000B8T2048] [--recompute] [--steps 10]
                                                   [--json FILE]
"""
import torch

from common import Report, arguments, compile_variants_in_parallel
from training import bench, options

a = options(arguments(__doc__, 'D2048L24H4M64V32000B8T2048')).parse_args()
compile_variants_in_parallel()
import fla  # noqa: E402
import fla_model  # noqa: E402


def create(n):
    model = fla_model.create(n, torch.float32)
    model.config.use_cache = False
    if a.recompute:
        model.gradient_checkpointing_enable()
    return model.train()


report = Report('flash-linear-attention', a.peer_version or fla.__version__, a.json)
bench(report, a.shapes, create, 'fla.models GSA, bfloat16 autocast, torch.optim.AdamW(fused)', a)
