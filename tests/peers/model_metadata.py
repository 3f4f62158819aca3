"""What gguf-py makes of the names, model cards, settings and sizes of models.

Writes tests/goldens/model_metadata.json, the truth for `quant-formats/src/model/metadata.rs`.

Needs: PyYAML 6.0, numpy, and gguf-py of llama.cpp 0.5.0-dev (inside the sdist of llama-cpp-python 0.3.36) on PYTHONPATH.
No network, a second.
How: names go through `Metadata.get_model_id_components` and `Metadata.id_to_title`, sizes through `size_label` and a
writer's `get_total_parameter_count`, YAML through `yaml.safe_load`; folders with a card and settings go through
`Metadata.load`, and the bytes that a writer packs of it are noted key by key. Where that ends with an exception, null stands.

    PYTHONPATH=.../llama.cpp/gguf-py python tests/peers/model_metadata.py [--write]     # without --write: compares
"""

import datetime
import json
import pathlib
import sys
import tempfile

import gguf
import yaml
from gguf.gguf_writer import TensorInfo
from gguf.utility import size_label

OUTPUT = pathlib.Path(__file__).parents[1] / "goldens" / "model_metadata.json"

# Id and number of parameters; 0 is unknown, negative is an adapter.
IDS = [
    ("meta-llama/Llama-3.2-1B-Instruct", 1235814400), ("Llama-3.2-1B", 0), ("meta-llama/Meta-Llama-3.1-405B-Instruct-FP8", 405853388800),
    ("meta-llama/Llama-2-7b-chat-hf", 6738415616), ("Llama-2-7b-hf", 6738415616), ("mistralai/Mixtral-8x7B-v0.1", 46702792704),
    ("Mixtral-8x22B-Instruct-v0.1", 0), ("mistralai/Mistral-7B-Instruct-v0.3", 7248023552), ("google/gemma-2-2b-it", 2614341888),
    ("gemma-3-27b-it-qat-q4_0-unquantized", 27009346304), ("Qwen/Qwen2.5-Coder-7B-Instruct-GPTQ-Int4", 7615616512),
    ("Qwen3-30B-A3B-Instruct-2507", 30532122624), ("Qwen/Qwen1.5-MoE-A2.7B", 14315784192), ("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", 1777088000),
    ("deepseek-coder-6.7b-instruct", 6740512768), ("DeepSeek-V2-Lite-Chat", 15706484224), ("sentence-transformers/all-MiniLM-L6-v2", 22713216),
    ("microsoft/phi-4", 14659507200), ("microsoft/Phi-3-mini-4k-instruct", 3821079552), ("Phi-3-medium-128k-instruct", 13960238080),
    ("Phi-3.5-mini-instruct", 3821079552), ("microsoft/phi-2", 2779683840), ("tiiuae/falcon-7b", 6921720704), ("bigscience/bloom-7b1", 7069016064),
    ("bigscience/bloom-560m", 559214592), ("EleutherAI/pythia-1.4b-deduped-v0", 1414647808), ("EleutherAI/gpt-neox-20b", 20554567680),
    ("openai-community/gpt2-medium", 354823168), ("gpt2-xl", 1557611200), ("gpt2", 124439808), ("openai/gpt-oss-20b", 20914757184),
    ("BAAI/bge-large-en-v1.5", 335141888), ("bge-m3", 567754752), ("nomic-ai/nomic-embed-text-v1.5", 136731648),
    ("intfloat/e5-mistral-7b-instruct", 7110660096), ("TinyLlama/TinyLlama-1.1B-Chat-v1.0", 1100048384),
    ("TheBloke/Mistral-7B-Instruct-v0.2-GGUF", 7241732096), ("NousResearch/Hermes-2-Pro-Llama-3-8B", 8031309824),
    ("NousResearch/Yarn-Llama-2-7b-64k", 6738415616), ("01-ai/Yi-1.5-34B-Chat-16K", 34388917248), ("Yi-6B-200K", 6061035520),
    ("HuggingFaceTB/SmolLM2-135M-Instruct", 134515008), ("HuggingFaceH4/zephyr-7b-beta", 7241732096), ("CohereForAI/c4ai-command-r-v01", 34980831232),
    ("stabilityai/stablelm-2-1_6b-chat", 1644515328), ("bartowski/Phi-3-medium-4k-instruct-exl2", 0), ("dolphin-2.9.1-mixtral-1x22b", 22000000000),
    ("WizardLM-70B-V1.0", 68976648192), ("Nous-Hermes-2-Mixtral-8x7B-DPO-adapter", -100000000), ("alpaca-lora-7b", -6738415616),
    ("llama-7b-lora", -8000000), ("lora-7b-lora-chat", -64000000000), ("Some-Model-70B-x", -6400000000000), ("model-iter10000-7B", 7000000000),
    ("tiny-llama", 62976), ("tiny-llama", 0), ("model-bf16", 100), ("model-IQ4_XS-Q4_K_M-fp16", 0), ("q8_0-foo", 0), ("foo-f16-v2", 0),
    ("Llama-3-8B-8B-7B-Large", 0), ("foo-large-Small-XXL-xl", 0), ("foo-mini-3B", 3000000000), ("7B-chat", 7000000000), ("v1.0-model-2.0-3", 0),
    ("a-1.0-2.0", 0), ("1-2-3", 0), ("v2", 0), ("./model-7B", 0), ("../x-chat", 0), ("/x-chat", 0), ("org/a/b-7B-v2", 0), ("", 0), ("---", 0),
    ("-x--7B-", 0), ("A sentence about Llama-7B", 7), ("tab\there-7B", 0), ("llama2chat-v2.1.3-it's", 0), ("Ünïcode-größe-7B", 0), ("日本語-7b", 0),
    ("x-7B_1", 0), ("x-1.5_5k", 0), ("x-a3b", 3000000000), ("x-A3b2", 0), ("x-8X7b", 0), ("x-32K-128k-1M-7B", 7000000000), ("x-5t", 5000000000000),
    ("vision-Vision-CHAT-Instruct", 0), ("INSTRUCT-7B", 0), ("foo_bar-7b.gguf", 0), ("mamba-2.8b-hf", 2768345600), ("x-7B-ǆ", 0),
    ("granite-3.1-8b-instruct-r1.0", 8170848256), ("o-v1.2.-7B", 0), ("x-v1-7B-v2-v3", 0), ("gemma-3n-E2B-it", 5439438272), ("K2-Think", 32763876352),
]

# Tensors, in order: GGUF names and shapes, the outermost dimension first.
MODELS = [
    [("token_embd.weight", [49152, 576]), ("output_norm.weight", [576]), ("blk.0.ffn_up.weight", [1536, 576])],
    [("blk.0.ffn_up_exps.weight", [8, 14336, 4096]), ("blk.0.ffn_down_exps.weight", [8, 4096, 14336]), ("blk.0.attn_q.weight", [4096, 4096])],
    [("blk.0.ffn_up_exps.weight", [8, 14, 4]), ("blk.1.ffn_up_exps.weight", [5, 14, 4]), ("blk.0.ffn_up_exps.bias", [8, 14])],
    [("blk.0.ffn_up_exps.bias", [3, 8, 14]), ("blk.0.ffn_up_exps.weight", [14, 4]), ("x", [])],
    [("blk.0.attn_q.weight.lora_a", [16, 4096]), ("blk.0.attn_q.weight.lora_b", [4096, 16])],
    [("a.lora_a", [16, 64]), ("b.lora_b", [64, 16])],
    [("a.lora_b", [64, 16])],
    [("x_exps.y.lora_a", [4, 8, 64]), ("x_exps.y.lora_b", [4, 32, 8]), ("norm", [64])],
    [],
]

# Total, shared, expert, number of experts.
SIZES = [
    (1235814400, 0, 0, 0), (46702792704, 1605636096, 5637144576, 8), (999, 0, 0, 0), (0, 0, 0, 0), (1000000, 0, 0, 0), (1000001, 0, 0, 0),
    (10500000, 0, 0, 0), (9950000, 0, 0, 0), (9500000000, 0, 0, 0), (10500000000, 0, 0, 0), (1e12, 0, 0, 0), (1000000000001, 0, 0, 0), (-8400000, 0, 0, 0),
    (135000000, 0, 0, 0), (62976, 0, 0, 0), (400, 0, 0, 0), (500, 0, 0, 0), (1500, 0, 0, 0), (99500, 0, 0, 0), (30532122624, 1541, 228000000, 128),
    (2500000000, 0, 0, 0), (1250000, 0, 0, 0), (1050000000, 0, 0, 0), (1150000000, 0, 0, 0),
]

YAML = [
    "a: [\nb,\nc\n]\n", 'a: "b\nc"\nd: \'e\n\n\nf\'\n', "a: 1e5\nb: 0o7\nc: 010\nd: 1_000\ne: yes\nf: 1.10\ng: 1:30\nh: 1:30.5\ni: 0x1F\nj: 0b11\nk: -.5\nl: +1\n",
    "a: 2024-01-31\nb: 2024-01-31 10:00:00\nc: 2024-1-1\n", "a: 1\na: 2\n", "a: x\n  y\n\n  z\nb: |\n  x\n   y\n\n  z\n\nc: >-\n  x\n  y\n\n  z\n    w\n  v\n",
    "a: |+\n  x\n\nb: >\n\n x\n\n\nc: |2\n   x\n", "a:\n- b\n- c: d\n  e: f\n-\n  - g\n- - h\n  - i\n", "tags:\n- a\n  - b\n", "- a\n- b\n", "x\n", "# c\n", "",
    "a: &x [1, two]\nb: *x\nc: &y\n  k: v\nd:\n  <<: *y\n  l: w\n", "a: {b: c, d: [e, {f: g}], h}\n", "[a, b: c, ? d : e, 'f':g]\n", "a: 'it''s'\nb: \"x\\u00e9\\x41\\/\\\n  z\\ty\"\n",
    "a: https://x.y/z:1\nb: foo#bar\nc: foo #bar\nd: -x\ne: ?x\nf: :x\n", "'a': x\n\"b\" : y\nc : z\n", "? a\n: b\n? - c\n", "? a\n: b\nd:\n", "no: x\n1: y\n~: z\na: ~\nb: null\nc:\n",
    "a: !!str 12\nb: !!str\nc: !!map {d: e}\n", "é: ü\n日本: [語, \"😀\"]\n", "a:\n    b\n  c\n", "a: b\n...\n", "a: x, y\nb: [x y\nz, w,]\nc: {\n}\n", "a: - b\n", "a: b: c\n", "a: @b\n",
    "a: \"b\n", "a: [b\n", "a: *x\n", "a:\n  - b\n - c\n", "a:  b\n c: d\n", "a: \"b\" c\n", "a: %b\n", "a: b\n...\nc: d\n", "a: b\nc\n", "a: !x b\n", "[a]: b\n", "&k a: b\nc: *k\n", "a: &n\nb: c\n",
    "a: \"\\ud83d\"\n", "a: \"\\q\"\n", "a: | # c\n  x\n", "a: |x\n  y\n", "a:   \n\n   # c\n   b   # d\n\ne: f\n", "---\na: b\n", "a: b\n---\nc: d\n", "a: .inf\nb: .nan\nc: 99999999999999999999\n",
]

CARD = """---
language:
- en
- no
tags: [chat, llama]
pipeline_tag: text-generation
license: apache-2.0
base_model: meta-llama/Llama-2-7b-hf
datasets:
- HuggingFaceH4/ultrachat_200k
- https://huggingface.co/datasets/x/y
model_name: My Model
model_creator: Someone
---
# Text
"""

# Folder, files, --model-name, --metadata, number of parameters.
FOLDERS = [
    ("tiny-llama", {}, None, None, 62976),
    ("Llama-3.2-1B-Instruct", {"README.md": CARD, "config.json": '{"_name_or_path": "x/Other-3B-v2"}'}, None, None, 1235814400),
    ("x", {"config.json": '{"_name_or_path": ""}'}, None, None, 5),
    ("x", {"config.json": '{"_name_or_path": "/home/me/model-7B"}'}, None, None, 5),
    ("x-7B", {"config.json": '{"_name_or_path": null}'}, "Given Name", None, 0),
    ("x-7B", {}, "", None, 0),
    ("gen", {"generation_config.json": '{"temperature": 0.6, "top_p": 0.95, "top_k": 20, "repetition_penalty": 1.05, "do_sample": true, "min_p": 0, "mirostat": true, "sequence": "kT"}'}, None, None, 9),
    ("gen", {"generation_config.json": '{"temperature": null, "penalty_repeat": null, "repetition_penalty": 2, "top_k": -1}'}, None, {"general.sampling.temp": 0.5, "general.sampling.top_k": None}, 9),
    ("gen", {"generation_config.json": "{"}, None, None, 9),
    ("gen", {"generation_config.json": "[]"}, None, None, 9),
    ("gen", {"generation_config.json": '{"top_k": 50.0}'}, None, None, 9),
    ("gen", {"generation_config.json": '{"temperature": 1e39}'}, None, None, 9),
    ("over-7B-v1", {"README.md": CARD}, None, {
        "general.name": None, "general.author": "A", "general.version": "9", "general.size_label": None, "general.license": "no", "general.license.name": "L",
        "general.license.link": "K", "general.url": "U", "general.doi": "D", "general.uuid": "I", "general.repo_url": "R", "general.source.url": "SU",
        "general.source.doi": "SD", "general.source.uuid": "SI", "general.source.repo_url": "SR", "general.quantized_by": "Q", "general.description": "", "general.tags": "ab",
        "general.base_models": [{"name": "N", "author": "A", "version": "1", "organization": "O", "description": "D", "url": "U", "doi": "d", "uuid": "i", "repo_url": "R"}, {}, {"name": None}, "x"],
        "general.datasets": [], "general.languages": [1, 2], "general.finetune": "F", "general.basename": "B", "general.organization": "O"}, 7000000000),
    ("x", {}, None, {"general.tags": [1.5, 2.0], "general.languages": [True]}, 1),
    ("x", {}, None, {"general.tags": [1, "a"]}, 1),
    ("x", {}, None, {"general.tags": None, "general.languages": []}, 1),
    ("x", {"README.md": "---\nlicense:\n- mit\n- apache-2.0\nbase_model:\ndatasets: {a: b}\nlanguage: no\ntags:\n---\n"}, None, None, 1),
    ("x", {"README.md": "---\nbase_models: [a/b-7B-v3, ./c, d, https://huggingface.co/e/f-1.0, http://huggingface.co/e/f/g, ssh://h, 5, {name: n, url: u}]\n---\n"}, None, None, 7000000000),
    ("x", {"README.md": "---\nbase_model_sources: A Model Of Ours\ndataset: squad\nname: ''\nversion: 0\nauthor: []\nlicense_name: n\nlicense_link: l\n---\n"}, None, None, 1),
    ("x", {"README.md": "---\nname: a\ndescription: >\n  b\n  c\nfinetune: d\nbasename: e\nsize_label: f\nurl: g\ndoi: h\nuuid: i\nrepo_url: j\norganization: k\n---\n"}, None, None, 1),
    ("x", {"README.md": "---\nmodel_author: a\nmodel_creator: b\nmodel_version: '1.0'\nmodel_organization: c\nmodel_description: d\nmodel_finetune: e\nmodel_type: llama\nmodel_size_label: f\nmodel_url: g\nmodel_doi: h\nmodel_uuid: i\nmodel_repo_url: j\n---\n"}, None, None, 1),
    ("x", {"README.md": "---\r\nlanguages: de\r\nlanguage: [fr, \"no\"]\r\ntags: a\r\npipeline_tag: [b]\r\n---\r\n"}, None, None, 1),
    ("x", {"README.md": "---\nversion: 1.0\n---\n"}, None, None, 1),
    ("x", {"README.md": "---\ntags: [a, 2024-01-01]\n---\n"}, None, None, 1),
    ("x", {"README.md": "---\nlicense: [a, 1]\n---\n"}, None, None, 1),
    ("x", {"README.md": "---\na: b: c\n---\n"}, None, None, 1),
    ("x", {"README.md": "---\n- a\n---\n"}, None, None, 1),
    ("x", {"README.md": "---\n---\n"}, None, None, 1),
    ("x", {"README.md": "---\nname: never closed"}, None, None, 1),
    ("x", {"README.md": "no front matter\n---\nname: y\n---\n"}, None, None, 1),
    ("x", {"README.md": ""}, None, None, 1),
    ("x", {"README.md": "---\ntags:\n\t- a\n\t- b\n---\n"}, None, None, 1),
]


def plain(value):
    """YAML in JSON, as the reader of quant has it: what JSON cannot say is "!!" and keys that are not text are dropped."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if isinstance(k, str)}
    if isinstance(value, list):
        return [plain(v) for v in value]
    if isinstance(value, (datetime.date, datetime.datetime)):
        return "!!"
    if isinstance(value, float) and (value != value or abs(value) == float("inf")) or isinstance(value, int) and abs(value) >= 2**63:
        return "!!"
    return value


def read_yaml(text):
    try:
        value = plain(yaml.safe_load(text))
        json.dumps(value, ensure_ascii=False).encode("utf-8")
        return {"value": value}
    except (yaml.YAMLError, UnicodeEncodeError, ValueError):
        return None


def count(tensors):
    writer = gguf.GGUFWriter(None, "llama")
    writer.tensors = [{name: TensorInfo(tuple(shape), None, 0) for name, shape in tensors}]
    return list(writer.get_total_parameter_count())


def folder(name, files, model_name, override, total):
    """The entries that `prepare_metadata` writes, as hexadecimal text of type and value."""
    with tempfile.TemporaryDirectory() as root:
        path = pathlib.Path(root) / name
        path.mkdir()
        for file, text in files.items():
            (path / file).write_bytes(text.encode())
        overriding = pathlib.Path(root) / "override.json"
        if override is not None:
            overriding.write_text(json.dumps(override))
        try:
            metadata = gguf.Metadata.load(overriding, path, model_name, total)
            if metadata.name is None:
                metadata.name = name
            if metadata.size_label is None and total > 0:
                metadata.size_label = size_label(total, total, 0, 0)
            writer = gguf.GGUFWriter(None, "llama")
            writer.kv_data[0].clear()
            writer.add_type(gguf.GGUFType.MODEL)
            metadata.set_gguf_meta_model(writer)
            return [[key, writer._pack_val(v.value, v.type, add_vtype=True).hex()] for key, v in writer.kv_data[0].items()]
        except Exception:
            return None


def made():
    components = gguf.Metadata.get_model_id_components
    return {
        "ids": [[name, total, list(components(name, total)), gguf.Metadata.id_to_title(name)] for name, total in IDS],
        "counts": [[tensors, count(tensors)] for tensors in MODELS],
        "size_labels": [[[int(n) for n in counts], size_label(*(int(n) for n in counts))] for counts in SIZES],
        "yaml": [[text, read_yaml(text)] for text in YAML],
        "folders": [[list(case), folder(*case)] for case in FOLDERS],
    }


def main():
    text = ",\n".join(f'"{key}": [\n' + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]" for key, rows in made().items())
    text = "{" + text + "}\n"
    if "--write" in sys.argv:
        OUTPUT.write_text(text, encoding="utf-8")
    elif OUTPUT.read_text(encoding="utf-8") != text:
        sys.exit(f"{OUTPUT} differs from what gguf-py makes")


main()
