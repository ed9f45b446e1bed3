#!/usr/bin/env python3
"""A training step of a Llama-shaped transformer of the same width, layers and vocabulary, which makes it as large as the GSA
model of a shape (heads of 64; H and M of the shape mean nothing here): Hugging Face's model with torch's scaled dot product
attention, the rest as training.py says.

  llama_train.py [--shapes D2048L24H4M64V32000B8T2048] [--compile] [--recompute] [--steps 10] [--json FILE]
"""
import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM

from common import Report, arguments
from training import bench, options

parser = options(arguments(__doc__, 'D2048L24H4M64V32000B8T2048'))
parser.add_argument('--compile', action='store_true', help='torch.compile')
a = parser.parse_args()
torch.set_float32_matmul_precision('high')


def create(n):
    # As wide as the GSA model's: 8/3 of the width, rounded up to 256.
    inner = -(-n['D'] * 8 // 3 // 256) * 256
    config = LlamaConfig(hidden_size=n['D'], num_hidden_layers=n['L'], num_attention_heads=n['D'] // 64,
                         intermediate_size=inner, vocab_size=n['V'], max_position_embeddings=n['T'], use_cache=False,
                         attn_implementation='sdpa')
    with torch.device('cuda'):
        model = LlamaForCausalLM(config).float().train()
    if a.recompute:
        model.gradient_checkpointing_enable()
    return torch.compile(model) if a.compile else model


name = 'transformer, compiled' if a.compile else 'transformer'
report = Report(name, f'transformers {transformers.__version__}', a.json)
bench(report, a.shapes, create, 'transformers Llama, SDPA, bfloat16 autocast, torch.optim.AdamW(fused)', a)
