"""What the peers' scripts share: the notation of shapes, timing as `flash-gsa bench` does it, and the JSON that
bench/compare reads (docs/bench.md). Needs torch on a CUDA device; the fla_*.py scripts also triton, transformers, einops
and flash-linear-attention, found through PYTHONPATH."""
import argparse
import json
import math
import os
import re
import shlex
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

FLUSH_BYTES = 256 * 2**20  # five times the L2 cache of an H100


def arguments(description, default_shapes):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('--shapes', default=default_shapes,
                        help='comma-separated, as `flash-gsa bench KIND --device cuda --list` prints them')
    parser.add_argument('--seconds', type=float, default=0.2, help='time for each case')
    parser.add_argument('--json', help='where the report goes; else to stdout alone')
    parser.add_argument('--peer-version', default='', help='for the stamp, where the package does not tell (a commit)')
    return parser


def parse(shape):
    """'B8T4096HQ4' -> {'B': 8, 'T': 4096, 'HQ': 4}"""
    parts = re.findall(r'([A-Z]+)(\d+)', shape)
    if ''.join(name + digits for name, digits in parts) != shape or not parts:
        raise SystemExit(f'Expected a shape like B8T4096 but received "{shape}"')
    return {name: int(digits) for name, digits in parts}


def document_offsets(T, most):
    """The same documents as documentLengths() in src/bench/shapes.ts."""
    offsets, i = [0], 0
    while offsets[-1] < T:
        length = min(16 * 2 ** ((7 * i) % 10) + (5 * i) % 16, most, T - offsets[-1])
        offsets.append(offsets[-1] + length)
        i += 1
    return offsets


def quantile(ordered, q):
    at = q * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def summary(times):
    ordered = sorted(times)
    return dict(medianMs=quantile(ordered, 0.5), minMs=ordered[0], p10Ms=quantile(ordered, 0.1),
                p90Ms=quantile(ordered, 0.9), maxMs=ordered[-1], iterations=len(ordered))


FLUSH_MS, MOST_FLUSHES = 0.07, 100  # about what overwriting takes the fastest GPUs
_flush = None


def clear_caches(lead_ms):
    """Overwrites the L2 cache, so often that the host, which needs `lead_ms` for the calls to come, has made them all before
    the first of them starts: a launch from Python costs more than many a kernel."""
    global _flush
    if _flush is None:
        _flush = torch.empty(FLUSH_BYTES // 4, dtype=torch.int32, device='cuda')
    for _ in range(min(1 + math.ceil(lead_ms / FLUSH_MS), MOST_FLUSHES)):
        _flush.zero_()


def laps(bodies):
    """CUDA events between the bodies: what each took, in ms."""
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(len(bodies) + 1)]
    marks[0].record()
    for body, mark in zip(bodies, marks[1:]):
        body()
        mark.record()
    torch.cuda.synchronize()
    return [a.elapsed_time(b) for a, b in zip(marks, marks[1:])]


def measure(body, seconds, warmup=3, least=5, most=1000):
    lead = 0.0
    for _ in range(warmup):
        torch.cuda.synchronize()
        started = time.perf_counter()
        body()
        lead = (time.perf_counter() - started) * 1e3
    times, left = [], seconds * 1e3
    while len(times) < least or (left > 0 and len(times) < most):
        clear_caches(lead)
        times += laps([body])
        left -= times[-1]
    return summary(times)


def spills(config):
    """A variant of an elementwise kernel that gives a thread 64 elements or more: its registers do not hold them. Where they
    were tuned too (SwiGLU at 5632), such variants took 20 times as long as the fastest; one takes minutes to compile."""
    return set(config.kwargs) == {'B'} and config.kwargs['B'] >= 64 * 32 * config.num_warps


def compile_variants_in_parallel():
    """Triton compiles the variants of a kernel one after another while it tunes; here all are compiled first, on every
    core, where no tuning result is stored yet, and those that spill are passed over. What is measured is the same."""
    from triton.runtime.autotuner import Autotuner
    if not hasattr(Autotuner, 'check_disk_cache'):  # Triton before 3.2: it tunes as slowly as it does
        return
    run, look_up = Autotuner.run, Autotuner.check_disk_cache

    def run_and_remember(self, *args, **kwargs):
        self.last_call = args, {k: v for k, v in kwargs.items() if k not in ('grid', 'warmup')}
        return run(self, *args, **kwargs)

    def look_up_or_compile(self, key, configs, benchmark):
        def compiled():
            args, kwargs = self.last_call
            every = list(configs)

            def one(config):
                try:
                    self.fn.warmup(*args, grid=(1,), **{**kwargs, **config.all_kwargs()})
                except Exception:  # a variant that does not fit the GPU: the tuner passes it over too
                    pass
            configs[:] = [config for config in every if not spills(config)]
            try:
                with ThreadPoolExecutor(os.cpu_count()) as pool:
                    list(pool.map(one, configs))
                benchmark()
            finally:
                configs[:] = every  # the list is the kernel's own, and stored results are found by it
        return look_up(self, key, configs, compiled)

    Autotuner.run, Autotuner.check_disk_cache = run_and_remember, look_up_or_compile


def driver():
    try:
        text = Path('/proc/driver/nvidia/version').read_text()
        return re.search(r'Kernel Module.*?\s(\d+(?:\.\d+)+)\s', text)[1]
    except (OSError, TypeError):
        return 'unknown'


class Report:
    """Collects results, prints one line for each, and writes the file after each, so that a run cut short leaves what it
    had."""

    def __init__(self, peer, version, path):
        self.path = path
        self.content = dict(peer=peer, version=version, stamp=dict(
            date=time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime()), command=shlex.join(['python3', *sys.argv]),
            deviceName=torch.cuda.get_device_name(), driver=driver(), cuda=torch.version.cuda, torch=torch.__version__),
            results=[], failures=[])

    def add(self, kind, name, shape, timing, by, variant=None, **figures):
        result = dict(kind=kind, name=name, shape=shape, **({'variant': variant} if variant else {}), by=by,
                      timing=timing, figures=figures)
        self.content['results'].append(result)
        self.note(result)

    def fail(self, kind, name, shape, reason, variant=None):
        """What could not be measured, and why."""
        failure = dict(kind=kind, name=name, shape=shape, **({'variant': variant} if variant else {}), reason=reason)
        self.content['failures'].append(failure)
        self.note(failure)

    def note(self, entry):
        print(json.dumps(entry), flush=True)
        if self.path:
            Path(self.path).write_text(json.dumps(self.content, indent=2) + '\n')
