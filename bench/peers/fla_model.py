"""flash-linear-attention's GSA model of a shape of `flash-gsa bench train` or `decode`, freshly initialised."""
import torch


def create(n, dtype):
    import fla  # noqa: F401  registers the model's type
    from fla.models import GSAConfig
    from transformers import AutoModelForCausalLM
    config = GSAConfig(hidden_size=n['D'], num_hidden_layers=n['L'], num_heads=n['H'], num_slots=n['M'],
                       vocab_size=n['V'])
    with torch.device('cuda'):
        return AutoModelForCausalLM.from_config(config).to(device='cuda', dtype=dtype)
