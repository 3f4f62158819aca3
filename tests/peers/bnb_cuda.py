"""bitsandbytes' CUDA quantizers restated in numpy, one rounding at a time (float32, no fused operations).

Not the library: thresholds and order of operations were read from its CUDA source and machine code, and no GPU ran
this. The kernels use an approximate reciprocal (at most 1 ulp off); here it is rounded correctly. Subnormals are flushed
by the kernels' build; do not pass any. Used by bnb_functional.py; needs numpy only; not run by itself.
"""

import numpy as np

F = np.float32


def bits(*words):
    return np.array(words, np.uint32).view(F)


# code = number of thresholds below v; a value on a threshold goes to the lower code
NF4 = bits(0xBF591CD9, 0xBF1C5270, 0xBEEB8480, 0xBEADEA76, 0xBE703CEC, 0xBE0D38BC, 0xBD3A7871, 0x3D22FAFF,
           0x3DF64863, 0x3E5067E0, 0x3E9582D4, 0x3EC753F9, 0x3F006D03, 0x3F248DAF, 0x3F5C89D9)  # fmt: skip
FP4 = bits(0x3B2AAAB9, 0x3DB00000, 0x3E555555, 0x3E955555, 0x3ED55556, 0x3F155550, 0x3F555555)  # of the magnitude
FP4_CODES = np.array([0, 1, 6, 7, 4, 5, 2, 3], np.uint8)  # by rank of magnitude


def blocks(x, blocksize):
    """Rows of `blocksize` values (the last padded with 0), their absmax, and the values scaled to [-1, 1]."""
    x = np.ascontiguousarray(x, F).reshape(-1)
    padded = np.zeros(-(-x.size // blocksize) * blocksize, F)
    padded[: x.size] = x
    padded = padded.reshape(-1, blocksize)
    absmax = np.abs(padded).max(1)
    with np.errstate(all="ignore"):
        scaled = padded * (F(1) / absmax)[:, None]  # 0 * inf = NaN in a block of zeros
    return absmax, scaled.reshape(-1)[: x.size]


def quantize_4bit(x, kind, blocksize):
    """(packed codes, absmax)"""
    absmax, v = blocks(x, blocksize)
    if v.size % 2:
        v = np.append(v, F(0))
    if kind == "nf4":
        q = np.searchsorted(NF4, v, side="left").astype(np.uint8)
        q[np.isnan(v)] = 0
    else:
        rank = np.searchsorted(FP4, np.abs(v), side="left")
        rank[np.isnan(v)] = 0
        q = FP4_CODES[rank] + np.where(v < 0, 8, 0).astype(np.uint8)
    return q[0::2] << 4 | q[1::2], absmax


def quantize_blockwise(x, code, blocksize):
    """(codes, absmax): the nearest entry of `code`; an exact midpoint goes to the even index; NaN to 0."""
    absmax, v = blocks(x, blocksize)
    middle = F(0.5) * (code[:-1] + code[1:])
    low, high = (np.searchsorted(middle, v, side=side) for side in ("left", "right"))
    q = np.where((low != high) & (low % 2 == 1), high, low).astype(np.uint8)
    q[np.isnan(v)] = 0
    return q, absmax
