"""The reference side of `cargo xtask bench`: weights a second of bitsandbytes on the CPU.

Needs: bitsandbytes==0.50.2, torch==2.15.0. Run: python bench_bnb.py THREADS MILLIONS
"""

import sys
import time

import bitsandbytes.functional as F
import torch

threads, million = int(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(threads)
weights = torch.randn(million * 1_000_000 // 4096, 4096, dtype=torch.float32).to(torch.bfloat16)


def best(function, argument):
    function(argument)
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        function(argument)
        times.append(time.perf_counter() - begin)
    return weights.numel() / min(times)


print("quantize_4bit", best(lambda w: F.quantize_4bit(w, quant_type="nf4"), weights))
print("int8_vectorwise_quant", best(F.int8_vectorwise_quant, weights.to(torch.float16)))
