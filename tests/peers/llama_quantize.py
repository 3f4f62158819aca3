#!/usr/bin/env python3
"""Whole files: `quant convert X.gguf out.gguf --type T` against llama-quantize of an installed llama.cpp, byte for byte.

  python llama_quantize.py compare --llama BIN --quant QUANT MODEL.gguf [--imatrix FILE] [--only WORD]
      runs both programs for every mix, without and with the importance matrix, and with the options below; exits 1 on a
      difference. BIN is the folder with llama-quantize and llama-gguf-split.
  python llama_quantize.py write --llama BIN
      remakes goldens/llama_quantize.json: the hashes that llama-quantize gives for data/tiny-llama.gguf, which the tests compare
      with. Without --llama nothing can be remade.

Reference: llama.cpp 0.5.0-dev, ggml 0.25.3, as in llama-cpp-python 0.3.36, default x86-64 build (no FMA), gcc 12.2.
The fixtures: data/tiny-llama.gguf is data/tiny-llama through convert_hf_to_gguf.py --outtype bf16 of the same llama.cpp;
data/tiny-llama.imatrix.{gguf,dat} are llama-imatrix over its eval.txt (-c 128 --chunks 40).
"""
import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
DATA = os.path.join(HERE, "..", "data")
GOLDEN = os.path.join(HERE, "..", "goldens", "llama_quantize.json")

MIXES = """Q1_0 Q2_0 Q4_0 Q4_1 MXFP4_MOE Q5_0 Q5_1 IQ2_XXS IQ2_XS IQ2_S IQ2_M IQ1_S IQ1_M TQ1_0 TQ2_0 Q2_K Q2_K_S IQ3_XXS IQ3_S
IQ3_M IQ3_XS Q3_K Q3_K_S Q3_K_M Q3_K_L IQ4_NL IQ4_XS Q4_K Q4_K_S Q4_K_M Q5_K Q5_K_S Q5_K_M Q6_K Q8_0 F16 BF16 F32 COPY""".split()

# Options beyond the mix: name, mixes, arguments of both programs. IMATRIX stands for `--imatrix FILE`.
OPTIONS = [
    ("pure", ["Q4_0", "Q4_K_M", "Q6_K", "Q3_K_M", "IQ4_XS", "Q8_0", "TQ2_0", "IQ4_NL", "Q5_K_S", "Q2_K"], ["--pure"]),
    ("pure+imatrix", ["Q4_0", "Q5_1", "IQ2_XS", "IQ1_M", "IQ3_S"], ["--pure", "IMATRIX"]),
    ("tensor-type", ["Q4_K_M"], ["--tensor-type", "ffn_down=q8_0", "--tensor-type", r"blk\.[01]\.attn_q=f16"]),
    ("nvfp4", ["Q8_0"], ["--tensor-type", "ffn_(up|gate)=nvfp4", "--tensor-type", "attn_k=mxfp4"]),
    ("low-bits", ["Q4_0"], ["--tensor-type", "ffn_up=q1_0", "--tensor-type", "ffn_gate=q2_0", "--tensor-type", "ffn_down=tq1_0"]),
    ("output", ["Q4_K_S"], ["--output-tensor-type", "q5_1", "--token-embedding-type", "iq4_nl"]),
    ("leave-output", ["Q5_0"], ["--leave-output-tensor"]),
    ("prune", ["Q4_K_M", "Q8_0"], ["--prune-layers", "1"]),
    ("prune+imatrix", ["IQ3_M"], ["--prune-layers", "0,2", "IMATRIX"]),
    ("override", ["Q8_0"], ["--override-kv", "general.name=str:another", "--override-kv", "x.y=float:0.1", "--override-kv", "x.z=int:-7", "--override-kv", "x.b=bool:true"]),
    ("include", ["Q4_0"], ["IMATRIX", "--include-weights", "ffn_down"]),
    ("exclude", ["Q4_K_M"], ["IMATRIX", "--exclude-weights", "attn", "--exclude-weights", "ffn_up"]),
]


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for piece in iter(lambda: file.read(1 << 20), b""):
            digest.update(piece)
    return digest.hexdigest()


def cases(imatrix):
    """Name, mix, arguments."""
    for mix in MIXES:
        yield mix, mix, []
        if imatrix and mix != "COPY":
            yield f"{mix} imatrix", mix, ["--imatrix", imatrix]
    for name, mixes, arguments in OPTIONS:
        if "IMATRIX" in arguments and not imatrix:
            continue
        i = arguments.index("IMATRIX") if "IMATRIX" in arguments else None
        arguments = arguments if i is None else arguments[:i] + ["--imatrix", imatrix] + arguments[i + 1 :]
        for mix in mixes:
            yield f"{mix} {name}", mix, arguments


def reference(llama, model, mix, arguments, out):
    """The hash of what llama-quantize writes; None where it refuses."""
    command = [os.path.join(llama, "llama-quantize"), *arguments, model, out, mix, "2"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        return sha256(out) if done.returncode == 0 else None
    finally:
        if os.path.exists(out):
            os.remove(out)


def ours(quant, model, mix, arguments, out):
    """The hash of what quant writes; None where it refuses, with its reason."""
    command = [quant, "convert", model, out, "--type", mix, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        return None, done.stderr.strip()
    try:
        return sha256(out), ""
    finally:
        os.remove(out)


def compare(options):
    wrong = same = refused = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, mix, arguments in cases(options.imatrix):
            if options.only and options.only not in name:
                continue
            expected = reference(options.llama, options.model, mix, arguments, os.path.join(folder, "a.gguf"))
            found, reason = ours(options.quant, options.model, mix, arguments, os.path.join(folder, "b.gguf"))
            if expected == found:
                same, refused = same + (found is not None), refused + (found is None)
                verdict = "same" if found else f"both refuse: {reason}"
            else:
                wrong += 1
                verdict = f"DIFFERENT: {expected} {found} {reason}"
            print(f"{name:24} {verdict}", flush=True)
    print(f"{same} files identical, {refused} refused by both, {wrong} different")
    return wrong


def write(options):
    os.chdir(DATA)
    golden = {}
    with tempfile.TemporaryDirectory() as folder:
        for imatrix in ["tiny-llama.imatrix.gguf", "tiny-llama.imatrix.dat"]:
            for name, mix, arguments in cases(imatrix):
                key = name if imatrix.endswith(".gguf") else name.replace("imatrix", "imatrix.dat")
                if key in golden:
                    continue
                out = os.path.join(folder, "out.gguf")
                golden[key] = {"mix": mix, "arguments": arguments, "sha256": reference(options.llama, "tiny-llama.gguf", mix, arguments, out)}
    with open(GOLDEN, "w") as file:
        json.dump(golden, file, indent=1)
        file.write("\n")
    print(f"{len(golden)} cases, {sum(c['sha256'] is None for c in golden.values())} refused")
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("compare")
    one.add_argument("model")
    one.add_argument("--llama", required=True)
    one.add_argument("--quant", required=True)
    one.add_argument("--imatrix")
    one.add_argument("--only")
    one.set_defaults(run=compare)
    two = commands.add_parser("write")
    two.add_argument("--llama", required=True)
    two.set_defaults(run=write)
    options = parser.parse_args()
    sys.exit(options.run(options) != 0)


if __name__ == "__main__":
    main()
