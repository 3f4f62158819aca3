"""Proves that tests/goldens/bnb is what the real libraries write for tests/data/tiny-llama on a CPU.

Needs torch==2.15.0 bitsandbytes==0.50.2 transformers==5.23.0 accelerate safetensors==0.8.0.
Run:   python bnb_tiny_llama.py tests/data/tiny-llama tests/goldens/bnb           (check)
       python bnb_tiny_llama.py tests/data/tiny-llama tests/goldens/bnb --write   (remake)
       --keep DIR leaves the quantized checkpoints in DIR.
Exits 1 if a hash differs from the golden.
"""

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
import warnings
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

SCHEMES = {
    "nf4": dict(load_in_4bit=True, bnb_4bit_quant_type="nf4"),
    "nf4-dq": dict(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True),
    "fp4": dict(load_in_4bit=True, bnb_4bit_quant_type="fp4"),
    "int8": dict(load_in_8bit=True),
}


def bnb_config(scheme, **more):
    """The library's configuration of a scheme, with the compute type the goldens use."""
    options = dict(SCHEMES[scheme])
    if "load_in_4bit" in options:
        options["bnb_4bit_compute_dtype"] = torch.bfloat16
    return BitsAndBytesConfig(**options, **more)


def hashes(folder):
    files = sorted(p for p in Path(folder).iterdir() if p.suffix in (".json", ".safetensors"))
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def main():
    args = argparse.ArgumentParser()
    args.add_argument("model", type=Path)
    args.add_argument("goldens", type=Path)
    args.add_argument("--write", action="store_true")
    args.add_argument("--keep", type=Path)
    args = args.parse_args()

    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    print("cpu capability:", torch.backends.cpu.get_cpu_capability())
    different = 0
    for scheme in SCHEMES:
        model = AutoModelForCausalLM.from_pretrained(
            args.model, quantization_config=bnb_config(scheme), dtype=torch.bfloat16, device_map="cpu"
        )
        with tempfile.TemporaryDirectory() as temporary:
            model.save_pretrained(temporary)
            made = hashes(temporary)
            golden = args.goldens / scheme
            if args.write:
                golden.mkdir(parents=True, exist_ok=True)
                (golden / "sha256.json").write_text(json.dumps(made, indent=1) + "\n")
                for name in ("config.json", "generation_config.json"):
                    shutil.copyfile(Path(temporary) / name, golden / name)
            if args.keep:
                shutil.copytree(temporary, args.keep / scheme, dirs_exist_ok=True)
        expected = json.loads((golden / "sha256.json").read_text())
        for name in sorted(expected | made):
            same = made.get(name) == expected.get(name)
            different += not same
            print(f"{scheme:7} {name:24} {'same' if same else 'DIFFERENT'}")
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    main()
