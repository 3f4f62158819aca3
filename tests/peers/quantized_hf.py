#!/usr/bin/env python3
"""Checkpoints that other tools quantized, and the numbers that they stand for.

    quantized_hf.py goldens FOLDER     small checkpoints, one folder each, with expected.safetensors: tests/goldens/quantized_hf
    quantized_hf.py llama MODEL OUT    the model in each method that convert_hf_to_gguf.py reads, and some that it does not

Expected numbers are float32: those of the library that owns the format, run on the CPU with float32 scales, where it can be run
there (compressed-tensors 0.20.0, transformers 5.23.0, torchao 0.18.0, HQQ 0.2.8, optimum-quanto 0.2.7), and otherwise numpy after
the library's source (GPTQModel f4c327a, AutoAWQ 88e4c76, ModelOpt 5a4242f). Blocks of ggml are those of conversion/base.py of
llama.cpp 0.5.0-dev; LLAMA_CPP names its folder.

Every random number comes from one seed, so a second run writes the same bytes, but for the order of torchao's metadata.
"""
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

E2M1 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])
NIBBLE_OF = [0, 2, 4, 6, 1, 3, 5, 7]


class Rng:
    """Numbers and weights from one seed."""

    def __init__(self, seed):
        self.g = torch.Generator().manual_seed(seed)

    def weight(self, *shape):
        return torch.randn(shape, generator=self.g) * 0.05

    def ints(self, high, *shape):
        return torch.randint(0, high, shape, generator=self.g)

    def perm(self, n):
        return torch.randperm(n, generator=self.g)

    def scale(self, *shape):
        return torch.rand(shape, generator=self.g) * 0.02 + 0.001


def pack_words(codes, bits, loose=False):
    """Fields of `bits` bits along the last axis, in words, bit by bit."""
    codes = np.ascontiguousarray(codes).astype(np.uint64)
    lead, n = codes.shape[:-1], codes.shape[-1]
    per = 32 // bits
    n_words = -(-n // per) if loose else -(-n * bits // 32)
    out = np.zeros((*lead, n_words), np.uint64)
    for i in range(n):
        at = (i // per) * 32 + (i % per) * bits if loose else i * bits
        wide = codes[..., i] << np.uint64(at % 32)
        out[..., at // 32] |= wide & np.uint64(0xFFFFFFFF)
        if at % 32 + bits > 32:
            out[..., at // 32 + 1] |= wide >> np.uint64(32)
    return torch.from_numpy(out.astype(np.uint32).view(np.int32).copy())


def nibbles(codes):
    """Two codes a byte, the first in the low nibble."""
    return (codes[..., 0::2] | codes[..., 1::2] << 4).to(torch.uint8)


def quantize(w, bits, groups, symmetric):
    """Codes, scales [out, groups] and zero points of rows of `w`; `groups` gives the group of each column."""
    n = int(groups.max()) + 1
    scales, zeros, codes = torch.zeros(len(w), n), torch.zeros(len(w), n, dtype=torch.int64), torch.zeros(w.shape, dtype=torch.int64)
    top = 2**bits - 1
    for g in range(n):
        x = w[:, groups == g]
        if symmetric:
            s, z = x.abs().amax(1) * 2 / top, torch.full((len(w),), 2 ** (bits - 1))
        else:
            low, high = x.amin(1).clamp(max=0), x.amax(1).clamp(min=0)
            s = (high - low) / top
            z = torch.round(-low / s).long()
        s = s.clamp(min=1e-6).half().float()
        scales[:, g], zeros[:, g] = s, z
        codes[:, groups == g] = torch.clamp(torch.round(x / s[:, None]) + z[:, None], 0, top).long()
    return codes, scales, zeros


def affine(codes, zeros, scales, groups):
    return (codes - zeros[:, groups]).float() * scales.float()[:, groups]


class Case:
    """A folder of one checkpoint."""

    def __init__(self, folder, name, config, dtype="bfloat16"):
        self.folder, self.tensors, self.expected, self.metadata = Path(folder) / name, {}, {}, {}
        self.config = {"architectures": ["LlamaForCausalLM"], "dtype": dtype, "model_type": "llama", "quantization_config": config}

    def put(self, **tensors):
        for name, tensor in tensors.items():
            self.tensors[name.replace("__", ".")] = tensor.contiguous()

    def add(self, module, parts, expected, name="weight"):
        for part, tensor in parts.items():
            self.tensors[f"{module}.{part}"] = tensor.contiguous()
        self.expected[f"{module}.{name}"] = expected.float().contiguous()

    def blocks(self, name, raw, **beside):
        self.expected[f"blocks:{name}"] = torch.from_numpy(np.ascontiguousarray(raw))
        for ending, value in beside.items():
            self.expected[f"beside:{name}:{ending}"] = torch.tensor([value], dtype=torch.float32)

    def write(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        save_file({k: v.clone() for k, v in self.tensors.items()}, self.folder / "model.safetensors", metadata=self.metadata or {"format": "pt"})
        save_file(self.expected, self.folder / "expected.safetensors")
        (self.folder / "config.json").write_text(json.dumps(self.config, indent=2, sort_keys=True) + "\n")


# GPTQ and AWQ


def gptq_zeros(zeros, bits, version):
    """Version 1 is saved less 1: of words by GPTQModel's convert_gptq_v2_to_v1_format_module, of fields for three bits."""
    if version == 1 and bits == 3:
        return pack_words((zeros.numpy() - 1) & 7, 3)
    words = pack_words(zeros.numpy(), bits).numpy().view(np.uint32)
    ones = {2: 0x55555555, 4: 0x11111111, 8: 0x01010101}.get(bits, 0) if version == 1 else 0
    return torch.from_numpy((words - np.uint32(ones)).view(np.int32).copy())


def gptq_layer(w, bits, group, version=1, act_order=None, symmetric=False, scale_dtype=torch.float16, with_g_idx=True):
    n, k = w.shape
    size = k if group == -1 else group
    groups = torch.arange(k) // size
    if act_order is not None:
        groups = groups[act_order]
    codes, scales, zeros = quantize(w, bits, groups, symmetric)
    parts = {
        "qweight": pack_words(codes.numpy(), bits).T,
        "qzeros": gptq_zeros(zeros.T, bits, version),
        "scales": scales.T.to(scale_dtype),
    }
    if with_g_idx:
        parts["g_idx"] = groups.to(torch.int32)
    return parts, affine(codes, zeros, scales.to(scale_dtype), groups)


def gptq_cases(out, rng):
    case = Case(out, "gptq", {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": True, "sym": False}, "float16")
    case.add("a", *gptq_layer(rng.weight(48, 64), 4, 16, act_order=rng.perm(64)))
    case.add("b", *gptq_layer(rng.weight(40, 96), 4, 32, with_g_idx=False))
    case.add("c", *gptq_layer(rng.weight(136, 64), 4, -1, scale_dtype=torch.bfloat16))
    case.add("d", *gptq_layer(rng.weight(16, 32).abs(), 4, 16))  # zero points of 0
    case.put(a__bias=rng.weight(48).half(), norm__weight=torch.ones(64))
    case.write()
    for bits, shape, group, version in [(2, (48, 80), 16, 2), (3, (96, 160), 32, 1), (8, (20, 64), -1, 1), (3, (32, 64), -1, 2)]:
        checkpoint_format = "gptq" if version == 1 else "gptq_v2"
        config = {"quant_method": "gptq", "bits": bits, "group_size": group, "sym": False, "checkpoint_format": checkpoint_format}
        case = Case(out, f"gptq{bits}_v{version}", config)
        case.add("m.a", *gptq_layer(rng.weight(*shape), bits, group, version, act_order=rng.perm(shape[1]) if group > 0 else None))
        case.write()


def awq_words(codes):
    codes = codes.numpy().astype(np.uint32)
    words = sum(codes[:, NIBBLE_OF[i] :: 8] << np.uint32(4 * i) for i in range(8))
    return torch.from_numpy(words.astype(np.uint32).view(np.int32).copy())


def awq_layer(w, group, zero_point=True):
    groups = torch.arange(w.shape[1]) // group
    codes, scales, zeros = quantize(w, 4, groups, not zero_point)
    parts = {"qweight": awq_words(codes.T), "scales": scales.T.half()}
    if zero_point:
        parts["qzeros"] = awq_words(zeros.T)
    return parts, affine(codes, zeros, scales.half(), groups)


def awq_cases(out, rng):
    case = Case(out, "awq", {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm"}, "float16")
    case.add("a", *awq_layer(rng.weight(48, 64), 32))
    case.add("b", *awq_layer(rng.weight(40, 96), 32))
    case.add("c", *awq_layer(rng.weight(8, 64), 32, zero_point=False))
    case.write()


# compressed-tensors


def ct_scheme(**weights):
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    return QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**weights))


def ct_decompress(fmt, parts, scheme):
    """The library's own numbers, with the scales as float32."""
    from compressed_tensors.compressors import BaseCompressor

    wide = {k: v.float() if k == "weight_scale" and v.dtype in (torch.float16, torch.bfloat16) else v for k, v in parts.items()}
    return BaseCompressor.get_value_from_registry(fmt).decompress(wide, scheme)["weight"]


def ct_group(weights, fmt=None):
    return {"targets": ["Linear"], "weights": weights, **({"format": fmt} if fmt else {})}


def ct_config(fmt, *groups):
    return {"quant_method": "compressed-tensors", "format": fmt, "quantization_status": "compressed", "ignore": ["lm_head"],
            "config_groups": {f"group_{i}": ct_group(g) for i, g in enumerate(groups)}}


def ct_pack_layer(w, bits, group, symmetric, loose=False, scale_dtype=torch.bfloat16, order=None):
    n, k = w.shape
    groups = torch.arange(k) // (group or k)
    if order is not None:
        groups = groups[order]
    codes, scales, zeros = quantize(w, bits, groups, symmetric)
    parts = {"weight_packed": pack_words(codes.numpy(), bits, loose), "weight_scale": scales.to(scale_dtype), "weight_shape": torch.tensor([n, k])}
    if not symmetric:
        parts["weight_zero_point"] = pack_words(zeros.T.numpy(), bits, loose).T
    expected = affine(codes, zeros, parts["weight_scale"], groups)
    if order is not None:
        parts["weight_g_idx"] = groups.to(torch.int32)
    elif not loose:
        strategy = {"strategy": "group", "group_size": group} if group else {"strategy": "channel"}
        library = ct_decompress("pack-quantized", parts, ct_scheme(num_bits=bits, type="int", symmetric=symmetric, **strategy))
        assert torch.equal(library, expected)
    return parts, expected


def ct_pack_cases(out, rng):
    def weights(bits, group):
        return {"num_bits": bits, "type": "int", "symmetric": False, "strategy": "group" if group else "channel", "group_size": group}

    case = Case(out, "ct_pack", ct_config("pack-quantized", *[weights(b, g) for b, g in [(4, 32), (2, 16), (3, None), (5, 16), (6, None), (7, 32), (8, 16)]]))
    for bits, group, symmetric in [(4, 32, True), (4, 16, False), (2, 16, False), (3, None, False), (5, 16, True), (6, None, False), (7, 32, False), (8, 16, True)]:
        case.add(f"m{bits}{'s' if symmetric else 'a'}", *ct_pack_layer(rng.weight(21, 96), bits, group, symmetric))
    case.add("order", *ct_pack_layer(rng.weight(12, 96), 4, 32, True, order=rng.perm(96)))
    case.write()
    case = Case(out, "ct_pack_loose", ct_config("pack-quantized", *[weights(b, 32) for b in (3, 5, 6, 7)]))
    for bits in (3, 5, 6, 7):
        case.add(f"m{bits}", *ct_pack_layer(rng.weight(21, 160), bits, 32, False, loose=True, scale_dtype=torch.float16))
    case.write()


def ct_plain_layer(w, fmt, scheme, parts):
    return parts, ct_decompress(fmt, parts, ct_scheme(**scheme))


def ct_plain_cases(out, rng):
    int8 = {"num_bits": 8, "type": "int", "symmetric": False}
    channel, group = {**int8, "strategy": "channel"}, {**int8, "strategy": "group", "group_size": 16}
    case = Case(out, "ct_int", ct_config("int-quantized", channel, group))
    q = lambda *shape: (rng.ints(255, *shape) - 127).to(torch.int8)  # noqa: E731
    case.add("channel", *ct_plain_layer(None, "int-quantized", {**channel, "symmetric": True}, {"weight": q(20, 48), "weight_scale": rng.scale(20, 1).bfloat16()}))
    zero = {"weight_zero_point": (rng.ints(9, 20, 1) - 4).to(torch.int8)}
    case.add("zero", *ct_plain_layer(None, "int-quantized", channel, {"weight": q(20, 48), "weight_scale": rng.scale(20, 1), **zero}))
    case.add("tensor", *ct_plain_layer(None, "int-quantized", {**int8, "strategy": "tensor", "symmetric": True}, {"weight": q(20, 48), "weight_scale": rng.scale(1).half()}))
    case.add("group", *ct_plain_layer(None, "int-quantized", {**group, "symmetric": True}, {"weight": q(20, 48), "weight_scale": rng.scale(20, 3)}))
    case.put(channel__input_scale=torch.ones(1))
    case.write()
    fp8 = {"num_bits": 8, "type": "float", "symmetric": True}
    f = lambda *shape: (rng.weight(*shape) * 2000).to(torch.float8_e4m3fn)  # noqa: E731
    block = {**fp8, "strategy": "block", "block_structure": [16, 32]}
    case = Case(out, "ct_float", ct_config("float-quantized", block, {**fp8, "strategy": "channel"}))
    case.add("tensor", *ct_plain_layer(None, "float-quantized", {**fp8, "strategy": "tensor"}, {"weight": f(20, 48), "weight_scale": rng.scale(1)}))
    case.add("channel", *ct_plain_layer(None, "float-quantized", {**fp8, "strategy": "channel"}, {"weight": f(20, 48), "weight_scale": rng.scale(20, 1).bfloat16()}))
    parts = {"weight": f(32, 64), "weight_scale": rng.scale(2, 2)}
    case.add("block", *ct_plain_layer(None, "float-quantized", block, parts))
    w, s = f(40, 80), rng.scale(3, 3)
    wide = s.repeat_interleave(16, 0)[:40].repeat_interleave(32, 1)[:, :80]
    case.add("edges", {"weight": w, "weight_scale": s}, w.float() * wide)
    case.write()
    case = Case(out, "ct_mxfp8", ct_config("mxfp8-quantized", {**fp8, "strategy": "group", "group_size": 32}))
    w, e = f(20, 64), (rng.ints(16, 20, 2) + 115).to(torch.uint8)
    library = ct_decompress("mxfp8-quantized", {"weight": w, "weight_scale": e}, ct_scheme(**fp8, strategy="group", group_size=32))
    expected = w.float() * torch.exp2(e.float() - 127).repeat_interleave(32, 1)
    assert torch.equal(library.float(), expected.bfloat16().float())
    case.add("m", {"weight": w, "weight_scale": e}, expected)
    case.write()


def fp4_numbers(codes, scales, group):
    return E2M1[codes.long()] * scales.float().repeat_interleave(group, -1)


def model_base():
    sys.path[:0] = [os.environ["LLAMA_CPP"], os.environ["LLAMA_CPP"] + "/gguf-py"]
    from conversion.base import ModelBase

    return ModelBase


def ct_fp4_cases(out, rng):
    fp4 = {"num_bits": 4, "type": "float", "symmetric": True}
    case = Case(out, "ct_nvfp4", ct_config("nvfp4-pack-quantized", {**fp4, "strategy": "tensor_group", "group_size": 16}))
    for name, shape in [("a", (12, 128)), ("b", (6, 48))]:
        codes, g = rng.ints(16, *shape), torch.tensor([448.0 * 6 / 0.23])
        scales = (rng.scale(shape[0], shape[1] // 16) * 20000).clamp(max=448).to(torch.float8_e4m3fn)
        parts = {"weight_packed": nibbles(codes), "weight_scale": scales, "weight_global_scale": g, "input_global_scale": torch.tensor([320.0])}
        expected = fp4_numbers(codes, scales.float() / g, 16)
        library = ct_decompress("nvfp4-pack-quantized", parts, ct_scheme(**fp4, strategy="tensor_group", group_size=16))
        assert torch.equal(library.float(), expected.bfloat16().float())
        case.add(name, parts, expected)
        if shape[1] % 64 == 0:
            case.blocks(f"{name}.weight", model_base()._nvfp4_pack(parts["weight_packed"], scales)[0], scale=float(1 / g), input_scale=1 / 320)
    case.write()
    case = Case(out, "ct_mxfp4", ct_config("mxfp4-pack-quantized", {**fp4, "strategy": "group", "group_size": 32}))
    codes, e = rng.ints(16, 10, 96), (rng.ints(20, 10, 3) + 110).to(torch.uint8)
    parts = {"weight_packed": nibbles(codes), "weight_scale": e}
    expected = fp4_numbers(codes, torch.exp2(e.float() - 127), 32)
    library = ct_decompress("mxfp4-pack-quantized", parts, ct_scheme(**fp4, strategy="group", group_size=32))
    assert torch.equal(library.float(), expected)
    case.add("m", parts, expected)
    case.blocks("m.weight", model_base().repack_mxfp4_blocks(parts["weight_packed"], e))
    case.write()
    case = Case(out, "ct_mxfp6", ct_config("mxfp6-pack-quantized", {**fp4, "num_bits": 6, "strategy": "group", "group_size": 32}))
    packed, e = rng.ints(256, 10, 48).to(torch.uint8), (rng.ints(20, 10, 2) + 110).to(torch.uint8)
    from compressed_tensors.compressors.mxfp6.helpers import unpack_fp6_from_uint8

    expected = unpack_fp6_from_uint8(packed, 10, 64).float() * torch.exp2(e.float() - 127).repeat_interleave(32, 1)
    case.add("m", {"weight_packed": packed, "weight_scale": e}, expected)
    case.write()


# FP8, ModelOpt, gpt-oss


def blockwise(w, s, block):
    wide = s.float().repeat_interleave(block[0], -2)[..., : w.shape[-2], :].repeat_interleave(block[1], -1)[..., : w.shape[-1]]
    return w.float() * wide


def fp8_cases(out, rng):
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize

    library = Fp8Dequantize(None)
    f = lambda *shape: (rng.weight(*shape) * 2000).to(torch.float8_e4m3fn)  # noqa: E731
    case = Case(out, "fp8", {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [16, 32]})
    w, s = f(32, 64), rng.scale(2, 2)
    expected = library._dequantize_one(w, s, torch.float32)
    assert torch.equal(expected, blockwise(w, s, (16, 32)))
    case.add("a", {"weight": w, "weight_scale_inv": s}, expected)
    w, s = f(41, 80), rng.scale(3, 3)
    case.add("edges", {"weight": w, "weight_scale_inv": s}, blockwise(w, s, (16, 32)))
    w, s = f(3, 24, 48), rng.scale(3, 2, 2).bfloat16()
    case.put(experts__gate_up_proj=w, experts__gate_up_proj_scale_inv=s)
    case.expected["experts.gate_up_proj"] = blockwise(w, s, (16, 32))
    case.put(a__input_scale=torch.ones(1))
    case.write()
    case = Case(out, "fp8_tensor", {"quant_method": "fp8", "activation_scheme": "static", "weight_block_size": None})
    w, s = f(20, 48), torch.tensor(0.0123)
    case.add("a", {"weight": w, "weight_scale_inv": s, "activation_scale": torch.tensor(0.5)}, w.float() * s)
    w, s = f(4, 20, 48), rng.scale(4)
    case.add("e", {"weight": w, "weight_scale_inv": s}, w.float() * s[:, None, None])
    case.write()
    case = Case(out, "fp8_e8m0", {"quant_method": "fp8", "fmt": "e4m3", "scale_fmt": "ue8m0", "weight_block_size": [16, 32]})
    e = (rng.ints(9, 3, 2) + 115).to(torch.uint8)
    w = f(40, 64)
    case.add("a", {"weight": w, "scale": e.view(torch.float8_e8m0fnu)}, blockwise(w, torch.exp2(e.float() - 127), (16, 32)))
    codes, e = rng.ints(16, 12, 64), (rng.ints(9, 12, 2) + 115).to(torch.uint8)
    packed = nibbles(codes).view(torch.int8)
    expected = library._dequantize_one(packed, e, torch.float32)
    case.add("expert", {"weight": packed, "scale": e.view(torch.float8_e8m0fnu)}, expected)
    case.blocks("expert.weight", model_base().repack_mxfp4_blocks(packed, e))
    case.write()
    case = Case(out, "mxfp8", {"quant_method": "mxfp8"})
    w, e = f(20, 96), (rng.ints(9, 20, 3) + 115).to(torch.uint8)
    case.add("a", {"weight": w, "weight_scale_inv": e}, library._dequantize_one(w, e, torch.float32))
    case.write()
    case = Case(out, "fbgemm", {"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0})
    w, s = f(20, 48), rng.scale(20, 1)
    case.add("a", {"weight": w, "weight_scale": s, "input_scale_ub": torch.tensor([1200.0])}, w.float() * s)
    w, s = f(2, 24, 16), rng.scale(2, 1, 16)
    case.put(x__gate_up_proj=w, x__gate_up_proj_scale=s)
    case.expected["x.gate_up_proj"] = w.float() * s
    case.write()


def modelopt_cases(out, rng):
    f = lambda *shape: (rng.weight(*shape) * 2000).to(torch.float8_e4m3fn)  # noqa: E731
    case = Case(out, "modelopt", {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION"})
    w = f(20, 48)
    case.add("fp8", {"weight": w, "weight_scale": torch.tensor(0.0123), "input_scale": torch.tensor(0.5)}, w.float() * torch.tensor(0.0123))
    codes, s2 = rng.ints(16, 12, 128), torch.tensor(0.000123)
    scales = (rng.scale(12, 8) * 20000).clamp(max=448).to(torch.float8_e4m3fn)
    parts = {"weight": nibbles(codes), "weight_scale": scales, "weight_scale_2": s2, "input_scale": torch.tensor(0.25)}
    case.add("nvfp4", parts, fp4_numbers(codes, scales.float() * s2, 16))
    case.blocks("nvfp4.weight", model_base()._nvfp4_pack(parts["weight"], scales)[0], scale=float(s2), input_scale=0.25)
    case.put(k_proj__k_scale=torch.tensor(1.0))
    case.write()


def gpt_oss_cases(out, rng):
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    case = Case(out, "gpt_oss", {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn"]})
    codes, e = rng.ints(16, 3, 10, 64), (rng.ints(9, 3, 10, 2) + 118).to(torch.uint8)
    blocks = nibbles(codes).reshape(3, 10, 2, 16)
    expected = convert_moe_packed_tensors(blocks, e, dtype=torch.float32).transpose(1, 2).contiguous()
    assert torch.equal(expected, fp4_numbers(codes, torch.exp2(e.float() - 127), 32))
    case.put(experts__down_proj_blocks=blocks, experts__down_proj_scales=e, experts__down_proj_bias=torch.zeros(3, 10).bfloat16())
    case.expected["experts.down_proj"] = expected
    flat = blocks.reshape(30, 32)
    case.blocks("experts.down_proj", model_base().repack_mxfp4_blocks(flat, e.reshape(30, 2)))
    case.write()


# HQQ, torchao, quanto


def hqq_cases(out, rng):
    from hqq.core.quantize import Quantizer

    case = Case(out, "hqq", {"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 4, "group_size": 16, "axis": 1}}}, "float16")
    for bits in (8, 6, 5, 4, 3, 2, 1):
        for axis in (0, 1):
            w = rng.weight(24, 32)
            w_q, meta = Quantizer.quantize(w, nbits=bits, group_size=16, axis=axis, optimize=False, compute_dtype=torch.float32, device="cpu")
            meta["scale"], meta["zero"] = meta["scale"].half().float(), meta["zero"].half().float()
            meta["compute_dtype"] = torch.float32
            expected = Quantizer.dequantize(w_q, meta)
            ascii_of = lambda text: torch.tensor(list(text.encode()), dtype=torch.uint8)  # noqa: E731
            parts = {"W_q": w_q, "scale": meta["scale"].half(), "zero": meta["zero"].half(), "shape": torch.tensor(list(w.shape)),
                     "nbits": torch.tensor(bits, dtype=torch.int32), "axis": torch.tensor(axis, dtype=torch.int32),
                     "group_size": torch.tensor(16, dtype=torch.int32), "packing": ascii_of(meta["packing"]), "view_as_float": torch.tensor(False)}
            case.add(f"m{bits}{axis}", parts, expected)
    case.write()


def torchao_cases(out, rng):
    from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict
    from torchao.quantization import PerGroup, PerRow, PerTensor
    from torchao.quantization.quantize_.workflows.float8.float8_tensor import Float8Tensor
    from torchao.quantization.quantize_.workflows.int8.int8_tensor import Int8Tensor
    from torchao.quantization.quantize_.workflows.intx.intx_unpacked_to_int8_tensor import IntxUnpackedToInt8Tensor

    state = {
        "int8.weight": Int8Tensor.from_hp(rng.weight(20, 48), PerRow()),
        "float8.weight": Float8Tensor.from_hp(rng.weight(20, 48), granularity=PerRow()),
        "float8t.weight": Float8Tensor.from_hp(rng.weight(20, 48), granularity=PerTensor()),
        "intx.weight": IntxUnpackedToInt8Tensor.from_hp(rng.weight(20, 64), block_size=(1, 16), target_dtype=torch.int4),
        "norm.weight": torch.ones(8),
    }
    del PerGroup
    case = Case(out, "torchao", {"quant_method": "torchao", "quant_type": {"default": {"_type": "Int8WeightOnlyConfig", "_version": 2, "_data": {}}}}, "float32")
    case.expected = {name: t.dequantize().float().contiguous() for name, t in state.items() if name != "norm.weight"}
    case.tensors, case.metadata = flatten_tensor_state_dict(state)
    case.write()


def quanto_cases(out, rng):
    case = Case(out, "quanto", {"quant_method": "quanto", "weights": "int8"})
    q, s = (rng.ints(255, 20, 48) - 127).to(torch.int8), rng.scale(20, 1).bfloat16()
    case.add("a", {"weight._data": q, "weight._scale": s, "input_scale": torch.tensor(1.0)}, q.float() * s.float())
    case.write()


def goldens(out):
    shutil.rmtree(out, ignore_errors=True)
    makers = [gptq_cases, awq_cases, ct_pack_cases, ct_plain_cases, ct_fp4_cases, fp8_cases, modelopt_cases, gpt_oss_cases, hqq_cases, torchao_cases, quanto_cases]
    for seed, make in enumerate(makers):
        make(out, Rng(seed))


# A whole model


def is_quantized(name, tensor):
    return tensor.ndim == 2 and ".layers." in name


def to_fp8(w, scale):
    return (w / scale).clamp(-448, 448).to(torch.float8_e4m3fn)


def fp8_block_layer(w, rng, block=128):
    rows, cols = -(-w.shape[0] // block), -(-w.shape[1] // block)
    s = torch.stack([torch.stack([w[i * block : (i + 1) * block, j * block : (j + 1) * block].abs().max() / 448 for j in range(cols)]) for i in range(rows)])
    wide = s.repeat_interleave(block, 0)[: w.shape[0]].repeat_interleave(block, 1)[:, : w.shape[1]]
    return {"weight": to_fp8(w, wide), "weight_scale_inv": s}


def nvfp4_layer(w, divide):
    whole = w.abs().max() / (448 * 6)
    scales = (w.reshape(len(w), -1, 16).abs().amax(2) / 6 / whole).clamp(max=448).to(torch.float8_e4m3fn)
    x = w / (scales.float() * whole).clamp(min=1e-12).repeat_interleave(16, 1)
    codes = (x[..., None] - E2M1).abs().argmin(-1)
    if divide:
        return {"weight_packed": nibbles(codes), "weight_scale": scales, "weight_global_scale": (1 / whole)[None], "input_global_scale": torch.tensor([64.0])}
    return {"weight": nibbles(codes), "weight_scale": scales, "weight_scale_2": whole, "input_scale": torch.tensor(0.02)}


def int8_channel_layer(w, rng):
    s = (w.abs().amax(1, keepdim=True) / 127).bfloat16()
    return {"weight": torch.round(w / s.float()).clamp(-127, 127).to(torch.int8), "weight_scale": s}


def fp8_channel_layer(w, rng):
    s = w.abs().amax(1, keepdim=True) / 448
    return {"weight": to_fp8(w, s), "weight_scale": s}


def hqq_layer(w):
    from hqq.core.quantize import Quantizer

    w_q, meta = Quantizer.quantize(w, nbits=4, group_size=64, axis=1, optimize=False, compute_dtype=torch.float16, device="cpu")
    return {"W_q": w_q, "scale": meta["scale"].half(), "zero": meta["zero"].half(), "shape": torch.tensor(list(w.shape)),
            "nbits": torch.tensor(4, dtype=torch.int32), "axis": torch.tensor(1, dtype=torch.int32)}


def llama(model, out):
    int4 = {"num_bits": 4, "type": "int", "symmetric": False, "strategy": "group", "group_size": 32}
    int8 = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel"}
    fp8 = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "channel"}
    fp4 = {"num_bits": 4, "type": "float", "symmetric": True, "strategy": "tensor_group", "group_size": 16}
    gptq = {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": True, "sym": False, "checkpoint_format": "gptq"}
    kinds = {
        "gptq": (gptq, lambda w, r: gptq_layer(w, 4, 32, act_order=r.perm(w.shape[1]))[0]),
        "gptq8": ({**gptq, "bits": 8}, lambda w, r: gptq_layer(w, 8, 128, symmetric=True)[0]),
        "gptq2v2": ({**gptq, "bits": 2, "checkpoint_format": "gptq_v2"}, lambda w, r: gptq_layer(w, 2, 64, version=2)[0]),
        "awq": ({"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm"}, lambda w, r: awq_layer(w, 32)[0]),
        "ct-pack": (ct_config("pack-quantized", int4), lambda w, r: ct_pack_layer(w, 4, 32, False)[0]),
        "ct-pack-sym": (ct_config("pack-quantized", {**int4, "symmetric": True}), lambda w, r: ct_pack_layer(w, 4, 32, True)[0]),
        "ct-int": (ct_config("int-quantized", int8), int8_channel_layer),
        "ct-fp8": (ct_config("float-quantized", fp8), fp8_channel_layer),
        "ct-nvfp4": (ct_config("nvfp4-pack-quantized", fp4), lambda w, r: nvfp4_layer(w, True)),
        "fp8": ({"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}, fp8_block_layer),
        "modelopt-nvfp4": ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, lambda w, r: nvfp4_layer(w, False)),
        "hqq": ({"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 4, "group_size": 64, "axis": 1}}}, lambda w, r: hqq_layer(w)),
    }
    tensors = load_file(Path(model) / "model.safetensors")
    for kind, (config, layer) in kinds.items():
        rng, folder, stored = Rng(1), Path(out) / kind, {}
        shutil.copytree(model, folder, dirs_exist_ok=True)
        for name, tensor in tensors.items():
            module = name.removesuffix(".weight")
            parts = layer(tensor.float(), rng) if is_quantized(name, tensor) else {"weight": tensor}
            stored |= {f"{module}.{part}": t.contiguous() for part, t in parts.items()}
        save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
        original = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**original, "quantization_config": config}, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    if sys.argv[1] == "goldens":
        goldens(sys.argv[2])
    else:
        llama(sys.argv[2], sys.argv[3])
