#!/usr/bin/env python3
"""Whole GGUF files: `quant convert` against llama-gguf-split, llama-quantize --keep-split and gguf-py's gguf_new_metadata.

  python gguf_tools.py write --llama BIN --gguf-py DIR
      remakes goldens/gguf_tools.json, the hashes of the files that the tools make of data/tiny-llama.gguf and
      data/aligned.gguf, and data/aligned.gguf itself. BIN is the folder with llama-gguf-split and llama-quantize, DIR the
      folder gguf-py of the same llama.cpp. Needs numpy and tqdm.
  python gguf_tools.py compare --llama BIN --gguf-py DIR --quant QUANT
      runs tools and quant for the same cases; exits 1 on a difference.

A case says what it reads (a file of data/, or an earlier case), what the tool is asked for, and what quant is asked for. Its
result is called after it: NAME.gguf, or a folder NAME with shards NAME-00001-of-0000N.gguf. Programs run in data/.

Reference: llama.cpp 0.5.0-dev, ggml 0.25.3, as in llama-cpp-python 0.3.36, default x86-64 build (no FMA), gcc 12.2; gguf-py
0.19.0 of the same source.

Left out, because quant does not do what the tool does:
  - gguf-split and llama-quantize on a file with general.alignment: they lay data out in steps of 32 all the same, and the
    file that comes out cannot be read by any of these tools;
  - gguf_new_metadata on tokenizer.chat_template where there is one: the tool moves it to the end, quant changes it in its place.
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
GOLDEN = os.path.join(HERE, "..", "goldens", "gguf_tools.json")
TINY, ALIGNED = "tiny-llama.gguf", "aligned.gguf"

SPLIT, MERGE, QUANTIZE, METADATA = "llama-gguf-split --split", "llama-gguf-split --merge", "llama-quantize", "gguf_new_metadata"
IMATRIX = ["--imatrix", "tiny-llama.imatrix.gguf"]
PAD = "tokenizer.ggml.padding_token_id"

# Name, input, tool, its arguments, arguments of quant.
CASES = [
    ("tensors-10", TINY, SPLIT, ["--split-max-tensors", "10"], ["--max-shard-tensors", "10"]),
    ("tensors-1", TINY, SPLIT, ["--split-max-tensors", "1"], ["--max-shard-tensors", "1"]),
    ("tensors-39", TINY, SPLIT, ["--split-max-tensors", "39"], ["--max-shard-tensors", "39"]),
    ("tensors-38", TINY, SPLIT, ["--split-max-tensors", "38"], ["--max-shard-tensors", "38"]),
    ("size-1M", TINY, SPLIT, ["--split-max-size", "1M"], ["--max-shard-size", "1MB"]),
    ("size-3M", TINY, SPLIT, ["--split-max-size", "3M"], ["--max-shard-size", "3MB"]),
    ("size-1G", TINY, SPLIT, ["--split-max-size", "1G"], ["--max-shard-size", "1GB"]),
    ("merged", "tensors-10", MERGE, [], []),
    ("merged-39", "tensors-1", MERGE, [], []),
    ("merged-size", "size-1M", MERGE, [], []),
    ("split-again", "merged", SPLIT, ["--split-max-tensors", "20"], ["--max-shard-tensors", "20"]),
    ("merged-again", "split-again", MERGE, [], []),
    ("kept-q4_k_m", "tensors-10", QUANTIZE, ["--keep-split", "Q4_K_M"], ["--keep-split", "--type", "q4_k_m"]),
    ("kept-q8_0", "size-1M", QUANTIZE, ["--keep-split", "Q8_0"], ["--keep-split", "--type", "q8_0"]),
    ("kept-copy", "tensors-10", QUANTIZE, ["--keep-split", "COPY"], ["--keep-split", "--type", "copy"]),
    ("kept-pure", "tensors-1", QUANTIZE, ["--keep-split", "--pure", "Q5_K_S"], ["--keep-split", "--pure", "--type", "q5_k_s"]),
    ("kept-pruned", "tensors-10", QUANTIZE, ["--keep-split", "--prune-layers", "1", "Q8_0"], ["--keep-split", "--prune-layers", "1", "--type", "q8_0"]),
    ("kept-imatrix", "size-3M", QUANTIZE, ["--keep-split", *IMATRIX, "IQ3_S"], ["--keep-split", *IMATRIX, "--type", "iq3_s"]),
    ("joined-q4_k_m", "tensors-10", QUANTIZE, ["Q4_K_M"], ["--type", "q4_k_m"]),
    ("joined-copy", "size-1M", QUANTIZE, ["COPY"], ["--type", "copy"]),
    ("merged-q6_k", "merged", QUANTIZE, ["Q6_K"], ["--type", "q6_k"]),
    ("merged-kept-q4_k_m", "kept-q4_k_m", MERGE, [], []),
    ("q4_k_m-1M", "joined-q4_k_m", SPLIT, ["--split-max-size", "1M"], ["--max-shard-size", "1MB"]),
    ("name", TINY, METADATA, ["--general-name", "Another"], ["--set", "general.name=str:Another"]),
    ("description", TINY, METADATA, ["--general-description", "What it is: ü"], ["--set", "general.description=str:What it is: ü"]),
    ("template", TINY, METADATA, ["--chat-template", "{{ x = 1 }}"], ["--set", "tokenizer.chat_template=str:{{ x = 1 }}"]),
    ("removed", TINY, METADATA, ["--remove-metadata", "general.size_label"], ["--remove", "general.size_label"]),
    ("token", TINY, METADATA, ["--special-token-by-id", "bos", "7"], ["--set", "tokenizer.ggml.bos_token_id=u32:7"]),
    ("new-token", TINY, METADATA, ["--special-token-by-id", "padding", "9"], ["--set", PAD + "=u32:9"]),
    (
        "several",
        "joined-q4_k_m",
        METADATA,
        ["--general-name", "B", "--remove-metadata", "general.type", "--remove-metadata", "tokenizer.ggml.scores", "--pre-tokenizer", "p"],
        ["--set", "general.name=str:B", "--remove", "general.type", "--remove", "tokenizer.ggml.scores", "--set", "tokenizer.ggml.pre=str:p"],
    ),
    ("aligned-name", ALIGNED, METADATA, ["--general-name", "Another, longer one"], ["--set", "general.name=str:Another, longer one"]),
    ("aligned-removed", ALIGNED, METADATA, ["--remove-metadata", "some.array"], ["--remove", "some.array"]),
]


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def hashes(path):
    """The hash of every file of a result, by name."""
    files = [os.path.join(path, name) for name in sorted(os.listdir(path))] if os.path.isdir(path) else [path]
    return {os.path.basename(file): sha256(file) for file in files}


def first_file(path):
    """What stands for a model: the file, or the first of its shards."""
    return os.path.join(path, sorted(os.listdir(path))[0]) if os.path.isdir(path) else path


def place(folder, case):
    """Where the result of a case, or a file of data, lies."""
    if case.endswith(".gguf"):
        return os.path.join(DATA, case)
    path = os.path.join(folder, case)
    return path if os.path.isdir(path) else path + ".gguf"


def is_folder(tool, arguments):
    return tool == SPLIT or "--keep-split" in arguments


def reference(options, folder, case):
    """What the tool makes, at the place of the case."""
    name, source, tool, arguments, _ = case
    source, out = first_file(place(folder, source)), os.path.join(folder, name)
    if is_folder(tool, arguments):
        os.mkdir(out)
    binary = lambda words: [os.path.join(options.llama, words.split()[0]), *words.split()[1:]]
    env = dict(os.environ)
    if tool == SPLIT:
        command = [*binary(tool), *arguments, source, os.path.join(out, name)]
    elif tool == MERGE:
        command = [*binary(tool), source, out + ".gguf"]
    elif tool == QUANTIZE:
        # The last argument is the mix. With --keep-split the name of the output is what the names of the shards begin with.
        result = os.path.join(out, name) if is_folder(tool, arguments) else out + ".gguf"
        command = [*binary(tool), *arguments[:-1], source, result, arguments[-1], "2"]
    else:
        env["PYTHONPATH"] = options.gguf_py
        command = [sys.executable, "-m", "gguf.scripts.gguf_new_metadata", source, out + ".gguf", *arguments, "--force"]
    subprocess.run(command, cwd=DATA, env=env, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return hashes(place(folder, name))


def ours(options, folder, case):
    """What quant makes; its reason where it refuses."""
    name, source, tool, _, arguments = case
    out = os.path.join(folder, name) + ("" if is_folder(tool, arguments) else ".gguf")
    command = [options.quant, "convert", place(folder, source), out, "--to", "gguf", *arguments]
    done = subprocess.run(command, cwd=DATA, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return hashes(out) if done.returncode == 0 else done.stderr.strip()


def compare(options):
    wrong = 0
    with tempfile.TemporaryDirectory() as theirs, tempfile.TemporaryDirectory() as own:
        for case in CASES:
            expected, found = reference(options, theirs, case), ours(options, own, case)
            wrong += expected != found
            print(f"{case[0]:20} {'same' if expected == found else f'DIFFERENT: {expected} {found}'}", flush=True)
    print(f"{len(CASES)} cases, {wrong} different")
    return wrong


def write_aligned(gguf_py):
    """A small file with an alignment of 64, dimensions that leave padding, and an array."""
    sys.path.insert(0, gguf_py)
    import gguf
    import numpy

    writer = gguf.GGUFWriter(os.path.join(DATA, ALIGNED), arch="llama")
    writer.add_name("Aligned")
    writer.add_custom_alignment(64)
    writer.add_block_count(1)
    writer.add_array("some.array", [1, 2, 3])
    for name, shape in [("blk.0.ffn_up.weight", (3, 7)), ("blk.0.ffn_down.weight", (2, 33)), ("experts", (2, 3, 4)), ("output_norm.weight", (5,))]:
        values = numpy.arange(numpy.prod(shape), dtype=numpy.float32).reshape(shape)
        writer.add_tensor(name, values / 64 - 0.5)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write(options):
    write_aligned(options.gguf_py)
    golden = []
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES:
            name, source, tool, arguments, quant = case
            golden.append({"name": name, "from": source, "tool": tool, "arguments": arguments, "quant": quant, "files": reference(options, folder, case)})
    with open(GOLDEN, "w") as file:
        json.dump(golden, file, indent=1, ensure_ascii=False)
        file.write("\n")
    print(f"{len(golden)} cases, {sum(len(case['files']) for case in golden)} files")
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for run in [write, compare]:
        command = commands.add_parser(run.__name__)
        command.add_argument("--llama", required=True, type=os.path.abspath)
        command.add_argument("--gguf-py", required=True, type=os.path.abspath)
        command.set_defaults(run=run)
        if run is compare:
            command.add_argument("--quant", required=True, type=os.path.abspath)
    options = parser.parse_args()
    sys.exit(options.run(options) != 0)


if __name__ == "__main__":
    main()
