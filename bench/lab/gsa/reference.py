"""The operator in float64, token by token (the equations of native/ops/gsa/README.md), gradients by autograd."""
import torch


def recurrence(q, k, v, s, g, hk, hv, scale):
    """One sequence: q [T, H, G, K], k [T, H, K], v [T, H, V], s, g [T, H, M], hk [H, K, M], hv [H, M, V]."""
    out = []
    for t in range(q.shape[0]):
        decay = g[t].exp()
        hk = hk * decay[:, None, :] + k[t][:, :, None] * s[t][:, None, :]
        hv = hv * decay[:, :, None] + s[t][:, :, None] * v[t][:, None, :]
        p = (scale * torch.einsum('hgk,hkm->hgm', q[t], hk)).softmax(-1)
        out.append(torch.einsum('hgm,hmv->hgv', p, hv))
    return (torch.stack(out) if out else q.new_zeros(0, *q.shape[1:3], v.shape[-1])), hk, hv


def gsa(x, scale):
    """x: dict of q, k, v, s, g [B, T, heads, width], optional hk0, hv0, cu_seqlens. Returns o, hkT, hvT."""
    B, T, HQ, K = x['q'].shape
    H, V, M = x['k'].shape[2], x['v'].shape[3], x['s'].shape[3]
    cu = x.get('cu_seqlens')
    spans = [(b, 0, T) for b in range(B)] if cu is None else [
        (0, a, b) for a, b in zip(cu.tolist()[:-1], cu.tolist()[1:])]
    outputs, hks, hvs = [], [], []
    for n, (b, first, last) in enumerate(spans):
        part = {name: x[name][b, first:last] for name in 'qkvsg'}
        hk = x['hk0'][n] if x.get('hk0') is not None else part['k'].new_zeros(H, K, M)
        hv = x['hv0'][n] if x.get('hv0') is not None else part['k'].new_zeros(H, M, V)
        o, hk, hv = recurrence(part['q'].unflatten(1, (H, HQ // H)), part['k'], part['v'], part['s'], part['g'], hk,
                               hv, scale)
        outputs.append(o.flatten(1, 2))
        hks.append(hk)
        hvs.append(hv)
    o = torch.cat(outputs)[None] if cu is not None else torch.stack(outputs)
    return o, torch.stack(hks), torch.stack(hvs)


def with_gradients(inputs, upstream, scale):
    """inputs and upstream (do, dhkT, dhvT, the latter two optional) of any dtype; everything returned in float64."""
    x = {name: t.double().requires_grad_() if t.is_floating_point() else t for name, t in inputs.items()}
    o, hkT, hvT = gsa(x, scale)
    loss = (o * upstream['do'].double()).sum()
    for state, name in ((hkT, 'dhkT'), (hvT, 'dhvT')):
        if name in upstream:
            loss = loss + (state * upstream[name].double()).sum()
    names = [name for name, t in x.items() if t.is_floating_point()]
    grads = torch.autograd.grad(loss, [x[name] for name in names], allow_unused=True)
    found = {'d' + name: torch.zeros_like(x[name]) if d is None else d for name, d in zip(names, grads)}
    return {'o': o.detach(), 'hkT': hkT.detach(), 'hvT': hvT.detach(), **found}
