"""Makes tests/goldens/hf_to_gguf.json: the SHA-256 of what llama.cpp's convert_hf_to_gguf.py makes of the committed models.

With --models the checkpoints under tests/data/models are made first, by transformers from their configuration classes.

Needs what models.py needs.
Run:   python hf_to_gguf.py --llama-cpp DIR [--models]
"""

import argparse
import hashlib
import json
import shutil
import tempfile
from pathlib import Path

from models import CASES, OUTTYPES, Reference, make

TESTS = Path(__file__).resolve().parents[1]
TINY_LLAMA = TESTS / "data" / "tiny-llama"
MODELS = TESTS / "data" / "models"
# A stack of experts, norms with 1 added, fused layers and tensors from the configuration.
COMMITTED = {"mixtral": "mixtral", "gemma2": "gemma2", "phi3": "phi3-longrope"}


def make_models():
    shutil.rmtree(MODELS, ignore_errors=True)
    with tempfile.TemporaryDirectory() as tokenizers:
        spm = Path(tokenizers) / "spm"
        spm.mkdir()
        for name in ("tokenizer.json", "tokenizer.model", "tokenizer_config.json"):
            shutil.copy(TINY_LLAMA / name, spm)
        for folder, name in COMMITTED.items():
            make(next(c for c in CASES if c.name == name), MODELS / folder, Path(tokenizers))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--llama-cpp", type=Path, required=True)
    parser.add_argument("--models", action="store_true")
    args = parser.parse_args()
    if args.models:
        make_models()
    reference = Reference(args.llama_cpp)
    hashes = {}
    with tempfile.TemporaryDirectory() as scratch:
        for folder in [TINY_LLAMA, *sorted(MODELS.iterdir())]:
            for outtype in OUTTYPES:
                out = Path(scratch) / "out.gguf"
                reference.convert(folder, out, outtype)
                hashes.setdefault(folder.name, {})[outtype] = hashlib.sha256(out.read_bytes()).hexdigest()
                out.unlink()
    (TESTS / "goldens" / "hf_to_gguf.json").write_text(json.dumps(hashes, indent=1) + "\n")


main()
