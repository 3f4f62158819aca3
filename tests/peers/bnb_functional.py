"""Proves single tensors: what bitsandbytes' CPU functions, torch's mean and torch's dtype conversions give.

Writes one safetensors file. Its metadata key "cases" is a JSON list; an entry holds "case", "input" (tensor name),
"scheme" (as `quant` spells it; "@cpu": results of the library on the CPU, no suffix: the CUDA restatement in bnb_cuda.py,
int8: the library, the same on both), "maker" ("library" or "restatement"), "shape" and "parts" {part: tensor name}.
  decoded       float32 before the rounding to the input's dtype; decoded_as: in that dtype
  quant_state   the packed JSON the library stores beside a 4-bit weight
Equal tensors are stored once. Not in the list: mean.n, mean.bits (mean of n values v[i] = float32((i * 2654435761) % 1009) * float32(0.37));
conv.in (float32) with conv.{f16,bf16,e4m3fn,e5m2} and conv.<float8 kind>.to_f32 of all 256 codes.

Needs torch==2.15.0 bitsandbytes==0.50.2 safetensors==0.8.0 numpy.
Run:   python bnb_functional.py tests/goldens/bnb_functional.safetensors           (check)
       python bnb_functional.py tests/goldens/bnb_functional.safetensors --write   (remake)
Exits 1 if anything differs.
"""

import argparse
import json
import sys
from pathlib import Path

import bitsandbytes as bnb
import bitsandbytes.functional as F
import numpy as np
import torch
from bitsandbytes.backends.default.ops import _dequantize_4bit_compute
from safetensors import safe_open
from safetensors.torch import save_file

import bnb_cuda

BF16, F16, F32 = torch.bfloat16, torch.float16, torch.float32
tensors, stored, cases = {}, {}, []


def put(name, value):
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(value)
    tensors[name] = value.detach().reshape(-1 if name.endswith(".codes") else value.shape).clone().contiguous()
    return name


def put_once(name, value):
    """The name of the tensor with these bytes: of an equal one if it is stored already."""
    value = tensors.pop(put(name, value))
    key = (value.dtype, value.shape, value.reshape(-1).view(torch.uint8).numpy().tobytes())
    tensors.setdefault(stored.setdefault(key, name), value)
    return stored[key]


def add(case, scheme, maker, parts):
    """Stores the tensors of `parts` (a str is a tensor stored already) and describes them."""
    base = f"{case}.{scheme.replace(':', '.').replace('@', '.')}"
    if maker == "restatement":
        base += ".cuda"
    names = {k: v if isinstance(v, str) else put_once(f"{base}.{k}", v) for k, v in parts.items()}
    shape = list(tensors[f"{case}.x"].shape)
    cases.append(dict(case=case, input=f"{case}.x", scheme=scheme, maker=maker, shape=shape, parts=names))


def scheme_name(kind, blocksize, usual, suffix):
    return kind + ("" if blocksize == usual else f":{blocksize}") + suffix


def inputs():
    g = torch.Generator().manual_seed(20260902)

    def normal(*shape):
        return torch.randn(shape, generator=g)

    def ties(*shape):  # ratios of small integers: exactly on thresholds and midpoints of fp4, int8
        x = torch.randint(-12, 13, shape, generator=g).float()
        x[:, ::16] = 12
        return x / 12

    heavy = normal(16, 128) / normal(16, 128).abs().clamp(min=0.02)
    zeros = normal(24, 64) * 0.02
    zeros[3] = 0
    zeros[8:11] = 0
    zeros[12, :63] = 0
    signed = zeros.clone()
    signed[8] = -signed[8]  # negative zeros
    constants = torch.tensor([1.0, -1.0, 0.1, -0.1, 3e-5, 448.0, 1 / 3, -7.0]).repeat_interleave(96).reshape(8, 96)
    steps = torch.arange(-1024, 1024).float().reshape(16, 128) / 1023  # every code, in order
    levels = F.get_4bit_type("nf4", "cpu")
    middles = torch.cat([levels, (levels[:-1] + levels[1:]) / 2, torch.tensor([1.0])])
    near = torch.cat([middles, torch.nextafter(middles, torch.tensor(2.0)), torch.nextafter(middles, torch.tensor(-2.0))])
    ranges = normal(16, 128) * torch.logspace(-8, 3, 16)[:, None]
    half = normal(32, 64)
    half[5, 7] = half[5].abs().max() / 2
    half[6] = 0
    return [  # (what, tensor, blocksizes 4-bit, blocksizes 8-bit)
        ("normal bf16", (normal(33, 65) * 0.02).to(BF16), None),
        ("normal f16", (normal(33, 65) * 0.02).to(F16), None),
        ("normal f32", normal(33, 65) * 0.02, None),
        ("heavy tails bf16", heavy.to(BF16), None),
        ("heavy tails f32", heavy[:8].clone(), None),
        ("odd count, under a block of 64", normal(7, 9).to(BF16), None),
        ("one element", torch.tensor([[-0.75]]), None),
        ("three elements", torch.tensor([[0.5, -2.0, 0.0]]).to(F16), None),
        ("blocks of zeros", zeros.to(BF16), None),
        ("blocks of negative zeros f32", signed, None),
        ("all zeros, partial block", torch.zeros(3, 50).to(BF16), None),
        ("constants f32", constants, None),
        ("ties f32", ties(16, 96), None),
        ("ties bf16", ties(16, 96).to(BF16), None),
        ("steps f32", steps, None),
        ("nf4 midpoints and neighbours f32", near.reshape(3, -1), None),
        ("tiny 1e-30 f32", normal(8, 64) * 1e-30, None),
        ("subnormals f32", normal(4, 72) * 1e-39, None),
        ("many ranges bf16", ranges.to(BF16), None),
        ("int8 ties f16", half.to(F16), None),
        ("near the f16 limit f16", (normal(8, 64).clamp(-3, 3) * 21000).to(F16), None),
        ("f16 subnormals", (normal(8, 64) * 2e-6).to(F16), None),
        ("625 absmax values at 32", (normal(100, 200) * 0.05).to(BF16), ((32,), ())),
    ]


def dynamic_map():
    return F.create_dynamic_map().numpy()


def four_bit(case, x, blocksizes, subnormal):
    for kind in ("nf4", "fp4"):
        book = F.get_4bit_type(kind, "cpu")
        for size in blocksizes:
            def decoded(codes, absmax):
                value = [_dequantize_4bit_compute(codes.reshape(-1), absmax, book, size, x.shape, t) for t in (F32, x.dtype)]
                if size != 64:
                    return {}
                return {"decoded": value[0]} | ({} if x.dtype == F32 else {"decoded_as": value[1]})

            codes, state = F.quantize_4bit(x, blocksize=size, quant_type=kind)
            packed = state.as_dict(packed=True)[f"quant_state.bitsandbytes__{kind}"]
            add(case, scheme_name(kind, size, 64, "@cpu"), "library",
                dict(codes=codes, absmax=state.absmax, quant_map=f"quant_map.{kind}", quant_state=packed)
                | decoded(codes, state.absmax))  # fmt: skip

            codes, state = F.quantize_4bit(x, blocksize=size, quant_type=kind, compress_statistics=True)
            packed = state.as_dict(packed=True)[f"quant_state.bitsandbytes__{kind}"]
            absmax = F.dequantize_blockwise(state.absmax, state.state2) + state.offset
            add(case, scheme_name(f"{kind}-dq", size, 64, "@cpu"), "library",
                dict(codes=codes, absmax=state.absmax, quant_map=f"quant_map.{kind}", nested_absmax=state.state2.absmax,
                     nested_quant_map="quant_map.dynamic", offset=state.offset, quant_state=packed)
                | decoded(codes, absmax))  # fmt: skip

            if subnormal:
                continue
            codes, absmax = bnb_cuda.quantize_4bit(x.float().numpy(), kind, size)
            add(case, scheme_name(kind, size, 64, ""), "restatement",
                dict(codes=codes, absmax=absmax, quant_map=f"quant_map.{kind}"))  # fmt: skip
            offset = torch.from_numpy(absmax).mean()  # the order of torch's CPU mean, one thread
            q, nested = bnb_cuda.quantize_blockwise(absmax - offset.numpy(), dynamic_map(), 256)
            add(case, scheme_name(f"{kind}-dq", size, 64, ""), "restatement",
                dict(codes=codes, absmax=q, quant_map=f"quant_map.{kind}", nested_absmax=nested,
                     nested_quant_map="quant_map.dynamic", offset=offset))  # fmt: skip


def eight_bit(case, x, blocksizes, subnormal):
    for size in blocksizes:
        codes, state = F.quantize_blockwise(x, blocksize=size)
        parts = dict(codes=codes, absmax=state.absmax, quant_map="quant_map.dynamic")
        if size == 256:
            state.dtype = F32
            parts["decoded"] = F.dequantize_blockwise(codes, state)
        add(case, f"int8-block:{size}@cpu", "library", parts)
        if not subnormal:
            codes, absmax = bnb_cuda.quantize_blockwise(x.float().numpy(), dynamic_map(), size)
            codes = codes.reshape(x.shape)
            add(case, f"int8-block:{size}", "restatement", dict(codes=codes, absmax=absmax, quant_map="quant_map.dynamic"))


def int8(case, x):
    rows, columns = x.shape
    linear = bnb.nn.Linear8bitLt(columns, rows, bias=False, has_fp16_weights=False)
    linear.weight = bnb.nn.Int8Params(x.clone(), requires_grad=False, has_fp16_weights=False)
    state = linear.to("cpu").state_dict()
    weight, scb = state["weight"], state["SCB"]
    add(case, "int8", "library", dict(weight=weight, SCB=scb, decoded=F.int8_vectorwise_dequant(weight, scb)))


def means():
    counts = [*range(1, 41), 64, 100, 255, 1000, 4096, 32767, 32768, 70001, 300000, 1000003]
    k = (np.arange(max(counts), dtype=np.uint64) * np.uint64(2654435761)) % np.uint64(1009)
    v = torch.from_numpy(k.astype(np.float32) * np.float32(0.37))
    put("mean.n", torch.tensor(counts))
    put("mean.bits", torch.stack([v[:n].clone().mean() for n in counts]).view(torch.int32))


def conversions():
    kinds = {"e4m3fn": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2,
             "e4m3fnuz": torch.float8_e4m3fnuz, "e5m2fnuz": torch.float8_e5m2fnuz}  # fmt: skip
    for name, kind in kinds.items():
        put(f"conv.{name}.to_f32", torch.arange(256, dtype=torch.uint8).view(kind).float())
    # every exponent with mantissas around the places where each target rounds: exact, tie (even and odd), tie +- 1
    mantissas = [0, 1, 0x7FFFFF, 0x400000, 0x8000, 0x7FFF, 0x8001, 0x18000, 0x1000, 0xFFF, 0x1001, 0x3000]
    words = {e << 23 | m for e in range(255) for m in mantissas}
    for low, high in ((100, 147), (96, 145)):  # around float8's and float16's ranges, with finer ties
        words |= {e << 23 | m << 19 | d for e in range(low, high) for m in range(0, 16, 5) for d in (0, 1, 0x3FFFF, 0x40000)}
    for edge in (448.0, 464.0, 480.0, 57344.0, 61440.0, 65504.0, 65520.0, 65536.0, 3.3895314e38, 2**-9, 2**-10, 2**-16,
                 2**-17, 2**-24, 2**-25, 1.5 * 2**-24, 2**-126, 2**-133, 2**-134, 240.0, 248.0):  # fmt: skip
        word = int(np.float32(edge).view(np.uint32))
        words |= {word - 1, word, word + 1}
    words |= {0x7F800000, 0x7F7FFFFF, 0x7F7F8000, 0x7F7F7FFF}
    positive = np.array(sorted(words), np.uint32)
    rng = np.random.default_rng(3)
    negative = rng.choice(positive, 400, replace=False) | np.uint32(0x80000000)
    x = torch.from_numpy(np.concatenate([positive, negative, np.array([0xFF800000, 0x80000000], np.uint32)]).view(np.float32))
    put("conv.in", x)
    for name, kind in dict(f16=F16, bf16=BF16, e4m3fn=kinds["e4m3fn"], e5m2=kinds["e5m2"]).items():
        put(f"conv.{name}", x.to(kind))


def main():
    args = argparse.ArgumentParser()
    args.add_argument("file", type=Path)
    args.add_argument("--write", action="store_true")
    args = args.parse_args()

    torch.set_num_threads(1)
    torch.compiler.set_stance("force_eager")  # the same bits, sooner
    put("quant_map.nf4", F.get_4bit_type("nf4", "cpu"))
    put("quant_map.fp4", F.get_4bit_type("fp4", "cpu"))
    put("quant_map.dynamic", F.create_dynamic_map())
    for number, (what, x, sizes) in enumerate(inputs()):
        case = f"case{number:02}"
        put(f"{case}.x", x)
        first = len(cases)
        small, large = sizes or ((32, 64, 128, 4096), (64, 256, 4096))
        subnormal = what.startswith("subnormals")
        four_bit(case, x, small, subnormal)
        eight_bit(case, x, large, subnormal)
        if sizes is None:
            int8(case, x)
        for entry in cases[first:]:
            entry["what"] = what
    means()
    conversions()

    text = json.dumps(cases, separators=(",", ":"))
    if args.write:
        save_file(tensors, args.file, metadata={"cases": text})
    with safe_open(args.file, "pt") as f:
        golden = {name: f.get_tensor(name) for name in f.keys()}
        bad = [] if f.metadata()["cases"] == text else ["cases"]
    for name in sorted(golden.keys() | tensors.keys()):
        a, b = golden.get(name), tensors.get(name)
        if a is None or b is None or (a.dtype, a.shape) != (b.dtype, b.shape):
            bad.append(name)
        elif not torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8)):
            bad.append(name)
    print(f"{len(cases)} cases, {len(tensors)} tensors, {args.file.stat().st_size} bytes;", "different:" if bad else "same", *bad)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
