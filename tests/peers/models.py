"""Proves the mapping between Hugging Face and GGUF: for every family of models a tiny random checkpoint is converted by
llama.cpp's convert_hf_to_gguf.py and by `quant`, and from GGUF back.

To GGUF, in f32, f16, bf16 and q8_0: every key (order, type, value), every tensor (name, order, type, shape, bytes), and the
whole file. Defaults: the same keys from a config.json that says only what the class is. Back,
from the type of the checkpoint: names, types and bytes of the tensors as at first; transformers loads the folder without a
missing or unexpected tensor; its logits are exactly those of the first checkpoint.

`quant audit` of folder and f32 file: no error at all. Of folder and the file of `--type q8_0`: the figures of `--type q8_0` on the folder.

All parameters are random normal, norms and biases too: what is permuted, transposed or shifted wrongly shows.

Needs torch==2.15.0 transformers==5.23.0 gguf (of the same llama.cpp) sentencepiece safetensors.
Run:   python models.py --llama-cpp DIR --quant BIN --tokenizers DIR [--only FAMILY ...] [--keep DIR] [--write-docs]
       --llama-cpp   llama.cpp 0.5.0-dev, as inside PyPI llama-cpp-python==0.3.36 (vendor/llama.cpp)
       --tokenizers  folders of tokenizer files: spm (any Llama 2), bpe (SmolLM2-135M), wordpiece (all-MiniLM-L6-v2);
                     llama.cpp refuses tokenizers it does not know, so these are real ones
       --write-docs  puts the results into docs/models.md, between its markers
Exits 1 if anything differs.
"""

import argparse
import contextlib
import importlib
import io
import json
import logging
import shutil
import subprocess
import sys
import tempfile
import traceback
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import torch
import transformers as tf
from safetensors import safe_open
from safetensors.torch import load_file, save_file

DOCS = Path(__file__).resolve().parents[2] / "docs" / "models.md"
BEGIN, END = "<!-- models.py: begin -->", "<!-- models.py: end -->"
OUTTYPES = ("f32", "f16", "bf16", "q8_0")
SEED = 20261123

IDS = dict(pad_token_id=0, bos_token_id=1, eos_token_id=2)
# Heads of 24: queries are wider than the embedding, and rows of 144 do not fit q8_0.
SMALL = dict(
    IDS, hidden_size=96, intermediate_size=160, num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=2,
    max_position_embeddings=256,
)  # fmt: skip
HEADS = dict(SMALL, head_dim=24)
EXPERTS = dict(num_experts_per_tok=2, moe_intermediate_size=64)
LLAMA3 = dict(
    rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
    original_max_position_embeddings=64,
)  # fmt: skip
YARN = dict(rope_type="yarn", rope_theta=20000.0, factor=4.0, original_max_position_embeddings=64)
LONGROPE = dict(
    rope_type="longrope", rope_theta=10000.0, short_factor=[1 + i / 16 for i in range(8)],
    long_factor=[2 + i / 4 for i in range(8)], original_max_position_embeddings=64,
)  # fmt: skip
MLA = dict(
    IDS, hidden_size=96, intermediate_size=160, moe_intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=4, max_position_embeddings=256, n_routed_experts=4, num_experts_per_tok=2, n_shared_experts=2,
    first_k_dense_replace=1, kv_lora_rank=32, qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=24, routed_scaling_factor=1.5,
)  # fmt: skip
GEMMA3 = dict(HEADS, num_hidden_layers=7, sliding_window=16, query_pre_attn_scalar=24)
VISION = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, image_size=56, patch_size=14)


@dataclass
class Case:
    """One checkpoint. The name begins with that of the family."""

    name: str
    arch: str
    model: str
    config: dict = field(default_factory=dict)
    tokenizer: str = "bpe"
    change: str = ""  # the name of a function of this file that changes the folder after it was saved
    config_class: str = ""
    others: tuple = ()  # further classes that are the same to the reference
    dtype: torch.dtype = torch.bfloat16
    shard: str = "1GB"  # the size of a file
    lost: tuple = ()  # parts of names of tensors that GGUF does not hold
    comes_back: bool = True  # not if numbers are rounded on the way: the norms of Gemma in f16


CASES = [
    Case("llama", "llama", "LlamaForCausalLM", dict(HEADS, attention_bias=True), "spm", others=("LLaMAForCausalLM",)),
    Case("llama-tied", "llama", "LlamaForCausalLM", dict(SMALL, tie_word_embeddings=True), "bpe"),
    Case("llama-3", "llama", "LlamaForCausalLM", dict(HEADS, rope_parameters=LLAMA3), "bpe"),
    Case("llama-linear", "llama", "LlamaForCausalLM", dict(SMALL, rope_parameters=dict(rope_type="linear", factor=4.0, rope_theta=10000.0)), "spm"),
    Case("llama-old", "llama", "LlamaForCausalLM", SMALL, "spm", "old_rope"),
    Case("llama-sharded", "llama", "LlamaForCausalLM", dict(SMALL, num_hidden_layers=11), "spm", shard="300KB"),
    Case("llama-f16", "llama", "LlamaForCausalLM", dict(SMALL, mlp_bias=True), "spm", dtype=torch.float16),
    Case("llama-f32", "llama", "LlamaForCausalLM", SMALL, "spm", dtype=torch.float32),
    Case("llama-base", "llama", "LlamaModel", SMALL, "spm"),
    Case("mistral", "llama", "MistralForCausalLM", dict(HEADS, sliding_window=None), "spm"),
    Case("mixtral", "llama", "MixtralForCausalLM", dict(SMALL, num_local_experts=3, num_experts_per_tok=2), "spm"),
    Case("qwen2", "qwen2", "Qwen2ForCausalLM", SMALL, "spm"),
    Case("qwen2-tied", "qwen2", "Qwen2ForCausalLM", dict(SMALL, tie_word_embeddings=True, rope_parameters=YARN), "spm"),
    Case("qwen2-base", "qwen2", "Qwen2Model", SMALL, "spm"),
    Case("qwen2moe", "qwen2moe", "Qwen2MoeForCausalLM", dict(SMALL, **EXPERTS, num_experts=4, shared_expert_intermediate_size=96)),
    Case("qwen2moe-fused", "qwen2moe", "Qwen2MoeForCausalLM", dict(SMALL, **EXPERTS, num_experts=4, shared_expert_intermediate_size=96), change="fuse_experts"),
    Case("qwen2moe-sharded", "qwen2moe", "Qwen2MoeForCausalLM", dict(SMALL, **EXPERTS, num_experts=4, shared_expert_intermediate_size=96), shard="200KB"),
    Case("qwen3", "qwen3", "Qwen3ForCausalLM", dict(HEADS, attention_bias=True), "bpe"),
    Case("qwen3-base", "qwen3", "Qwen3Model", dict(HEADS, rope_parameters=YARN), "bpe"),
    Case("qwen3moe", "qwen3moe", "Qwen3MoeForCausalLM", dict(HEADS, **EXPERTS, num_experts=5, norm_topk_prob=True)),
    Case("gemma", "gemma", "GemmaForCausalLM", HEADS, "spm"),
    Case("gemma-f16", "gemma", "GemmaForCausalLM", HEADS, "spm", dtype=torch.float16, comes_back=False),
    Case("gemma2", "gemma2", "Gemma2ForCausalLM", dict(HEADS, sliding_window=16, query_pre_attn_scalar=24), "spm"),
    Case("gemma3", "gemma3", "Gemma3ForCausalLM", GEMMA3, "spm", config_class="Gemma3TextConfig"),
    Case(
        "gemma3-linear", "gemma3", "Gemma3ForCausalLM",
        dict(GEMMA3, rope_parameters=dict(
            full_attention=dict(rope_type="linear", factor=8.0, rope_theta=1000000.0),
            sliding_attention=dict(rope_type="default", rope_theta=10000.0))),
        "bpe", config_class="Gemma3TextConfig",
    ),
    Case("gemma3-vision", "gemma3", "Gemma3ForConditionalGeneration", dict(text_config=GEMMA3, vision_config=VISION, mm_tokens_per_image=4), "spm"),
    Case("phi3", "phi3", "Phi3ForCausalLM", SMALL, "spm"),
    Case("phi3-longrope", "phi3", "Phi3ForCausalLM", dict(SMALL, rope_parameters=LONGROPE, original_max_position_embeddings=64), "spm"),
    Case("phi4", "phi3", "Phi3ForCausalLM", dict(SMALL, tie_word_embeddings=True), "bpe", "gpt2_tokenizer"),
    Case("gpt2", "gpt2", "GPT2LMHeadModel", dict(IDS, n_embd=96, n_layer=2, n_head=6, n_positions=256, n_ctx=256)),
    Case(
        "bert", "bert", "BertModel",
        dict(hidden_size=96, intermediate_size=160, num_hidden_layers=2, num_attention_heads=6, max_position_embeddings=256),
        "wordpiece", lost=("pooler.",),
    ),
    Case("deepseek2", "deepseek2", "DeepseekV2ForCausalLM", dict(MLA, q_lora_rank=48, n_group=2, topk_group=1, topk_method="group_limited_greedy")),
    Case("deepseek2-lite", "deepseek2", "DeepseekV2ForCausalLM", dict(MLA, q_lora_rank=None)),
    Case("deepseek3", "deepseek2", "DeepseekV3ForCausalLM", dict(MLA, q_lora_rank=48, n_group=2, topk_group=1)),
    Case("gpt-oss", "gpt-oss", "GptOssForCausalLM", dict(HEADS, num_local_experts=4, num_experts_per_tok=2, sliding_window=16)),
    Case("gpt-oss-mxfp4", "gpt-oss", "GptOssForCausalLM", dict(HEADS, num_local_experts=4, num_experts_per_tok=2, sliding_window=16), change="mxfp4"),
    Case("olmo2", "olmo2", "Olmo2ForCausalLM", SMALL),
    Case("olmo3", "olmo2", "Olmo3ForCausalLM", dict(SMALL, num_hidden_layers=5, sliding_window=16)),
    Case(
        "granite", "granite", "GraniteForCausalLM",
        dict(SMALL, embedding_multiplier=12.0, attention_multiplier=0.015625, residual_multiplier=0.22, logits_scaling=8.0), "bpe",
    ),
    Case("granite-bias", "granite", "GraniteForCausalLM", dict(SMALL, attention_bias=True, mlp_bias=True), "spm"),
    Case("starcoder2", "starcoder2", "Starcoder2ForCausalLM", SMALL),
    Case("starcoder2-untied", "starcoder2", "Starcoder2ForCausalLM", dict(SMALL, tie_word_embeddings=False, use_bias=False)),
    Case("smollm3", "smollm3", "SmolLM3ForCausalLM", dict(SMALL, num_hidden_layers=5), "bpe"),
    Case("command-r", "command-r", "CohereForCausalLM", SMALL),
    Case("command-r-plus", "command-r", "CohereForCausalLM", dict(SMALL, use_qk_norm=True, model_max_length=512)),
    Case("cohere2", "cohere2", "Cohere2ForCausalLM", dict(SMALL, num_hidden_layers=5, sliding_window=16, rotary_pct=1.0)),
]  # fmt: skip


# Checkpoints


def vocab_size(tokenizer):
    if (tokenizer / "tokenizer.json").is_file():
        text = json.loads((tokenizer / "tokenizer.json").read_text())
        return 1 + max([*text["model"]["vocab"].values(), *(t["id"] for t in text["added_tokens"])])
    return len((tokenizer / "vocab.txt").read_text().splitlines())


def make(case, folder, tokenizers):
    """The checkpoint of `case`."""
    tokenizer = tokenizers / case.tokenizer
    options = json.loads(json.dumps(case.config))
    options.get("text_config", options)["vocab_size"] = vocab_size(tokenizer)
    model_class = getattr(tf, case.model)
    config_class = getattr(tf, case.config_class) if case.config_class else model_class.config_class
    torch.manual_seed(SEED)
    model = model_class(config_class(**options)).to(case.dtype)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.normal_(0, 0.3)
    model.save_pretrained(folder, max_shard_size=case.shard)
    for file in tokenizer.iterdir():
        if file.name not in ("config.json", "generation_config.json", "README.md") and not file.name.endswith((".safetensors", ".bin")):
            shutil.copy(file, folder)
    if case.change:
        globals()[case.change](folder)


def edit_config(folder, change):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config, indent=2) + "\n")


def edit_tensors(folder, change):
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


def old_rope(folder):
    """As transformers 4 wrote it, with what a class fills in left out."""

    def change(config):
        config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]
        config["rope_scaling"] = {"type": "linear", "factor": 2.0}
        for key in ("head_dim", "num_key_value_heads", "attention_bias", "mlp_bias"):
            config.pop(key)
        config["num_key_value_heads"] = 2
        config["torch_dtype"] = config.pop("dtype")

    edit_config(folder, change)


def gpt2_tokenizer(folder):
    """Phi 4 is told from Phi 3 by this."""
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tokenizer_class": "GPT2Tokenizer"}, indent=2) + "\n")


def fuse_experts(folder):
    """All experts of a layer in two tensors, as transformers 5 has them in memory."""

    def change(tensors):
        fused = {}
        for name, tensor in tensors.items():
            stem, _, rest = name.partition(".mlp.experts.")
            if not rest:
                fused[name] = tensor
                continue
            number, kind, _ = rest.split(".")
            fused.setdefault(f"{stem}.mlp.experts.", {}).setdefault(kind, {})[int(number)] = tensor
        for stem in [n for n in fused if n.endswith(".mlp.experts.")]:
            kinds = {kind: torch.stack([t for _, t in sorted(all.items())]) for kind, all in fused.pop(stem).items()}
            fused[stem + "gate_up_proj"] = torch.cat([kinds["gate_proj"], kinds["up_proj"]], dim=1)
            fused[stem + "down_proj"] = kinds["down_proj"]
        return fused

    edit_tensors(folder, change)


def mxfp4(folder):
    """Experts as OpenAI published them: codes of 4 bits in blocks of 32, a power of two for each block."""
    generator = torch.Generator().manual_seed(SEED)

    def change(tensors):
        packed = {}
        for name, tensor in tensors.items():
            if not name.endswith(("experts.gate_up_proj", "experts.down_proj")):
                packed[name] = tensor
                continue
            experts, columns, rows = tensor.shape  # in the model the output is last, in the file the input
            shape = (experts, rows, columns // 32)
            packed[name + "_blocks"] = torch.randint(0, 256, (*shape, 16), generator=generator, dtype=torch.uint8)
            packed[name + "_scales"] = torch.randint(120, 125, shape, generator=generator, dtype=torch.uint8)
        return packed

    edit_tensors(folder, change)
    skip = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
    edit_config(folder, lambda c: c.update(quantization_config=dict(quant_method="mxfp4", modules_to_not_convert=skip)))


# Conversions


class Reference:
    """convert_hf_to_gguf.py, in this process: it takes long to start."""

    def __init__(self, folder):
        sys.path[:0] = [str(folder / "gguf-py"), str(folder)]
        self.main = importlib.import_module("convert_hf_to_gguf").main
        self.reader = importlib.import_module("gguf").GGUFReader

    def convert(self, source, target, *options):
        logging.disable(logging.ERROR)
        before, sys.argv = sys.argv, ["convert", str(source), "--outfile", str(target), *options]
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                self.main()
        finally:
            sys.argv = before


def quant(binary, source, target, *options):
    command = [str(binary), "convert", str(source), str(target), *options]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(" ".join(command) + "\n" + done.stderr.strip())


# Comparison


def short(value):
    text = repr(value)
    return text if len(text) < 100 else text[:60] + f" … ({len(value)} in all)"


def keys_of(reader):
    """Name, types and bytes of every key, in order."""
    fields = [f for f in reader.fields.values() if not f.name.startswith("GGUF.")]
    return [(f.name, [t.name for t in f.types], b"".join(p.tobytes() for p in f.parts)) for f in fields]


def compare_keys(ours, theirs):
    """How many keys are the same, and what differs."""
    a, b = keys_of(ours), keys_of(theirs)
    there, here = {k[0]: k for k in b}, {k[0]: k for k in a}
    problems = [f"key {name}: only in ours" for name in here if name not in there]
    problems += [f"key {name}: only in the reference ({short(theirs.fields[name].contents())})" for name in there if name not in here]
    for name in here:
        if name in there and here[name] != there[name]:
            x, y = ours.fields[name].contents(), theirs.fields[name].contents()
            if isinstance(x, list) and isinstance(y, list):
                at = next((i for i, (p, q) in enumerate(zip(x, y)) if p != q), min(len(x), len(y)))
                x, y = (f"{len(v)} values, at {at} {short(v[at : at + 3])}" for v in (x, y))
            problems.append(f"key {name}: {here[name][1]} {short(x)}, reference {there[name][1]} {short(y)}")
    orders = [[k[0] for k in keys if k[0] in here and k[0] in there] for keys in (a, b)]
    if orders[0] != orders[1]:
        at = next(i for i, pair in enumerate(zip(*orders)) if len(set(pair)) > 1)
        problems.append(f"order of keys: {orders[0][at : at + 4]}, reference {orders[1][at : at + 4]}")
    return sum(here.get(name) == key for name, key in there.items()), problems


def compare_tensors(ours, theirs):
    """How many tensors are the same, and what differs."""
    a, b = ({t.name: t for t in reader.tensors} for reader in (ours, theirs))
    problems = [f"tensor {name}: only in {'ours' if name in a else 'the reference'}" for name in a.keys() ^ b.keys()]
    same = 0
    for name in a.keys() & b.keys():
        x, y = a[name], b[name]
        kinds = [(t.tensor_type.name, [int(n) for n in reversed(t.shape)]) for t in (x, y)]
        if kinds[0] != kinds[1]:
            problems.append(f"tensor {name}: {kinds[0]}, reference {kinds[1]}")
        elif x.data.tobytes() != y.data.tobytes():
            differ = int((x.data.reshape(-1).view("u1") != y.data.reshape(-1).view("u1")).sum())
            problems.append(f"tensor {name}: {differ} of {x.data.nbytes} bytes differ")
        else:
            same += 1
    orders = [[name for name in names if name in a and name in b] for names in (a, b)]
    if orders[0] != orders[1]:
        at = next(i for i, pair in enumerate(zip(*orders)) if len(set(pair)) > 1)
        problems.append(f"order of tensors: {orders[0][at : at + 4]}, reference {orders[1][at : at + 4]}")
    return same, sorted(problems)


def tensors_of(folder):
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            found |= {name: file.get_tensor(name) for name in file.keys()}
    return found


def expected_back(case, folder):
    """What should come back: the text model, under the names of its own class; experts one by one, in numbers."""
    if case.change == "mxfp4":
        return getattr(tf, case.model).from_pretrained(folder, dtype=case.dtype).state_dict()
    tensors = {}
    for name, tensor in tensors_of(folder).items():
        if any(part in name for part in ("vision_tower", "multi_modal_projector", *case.lost)):
            continue
        name = name.replace("language_model.", "")
        if case.change == "fuse_experts" and ".mlp.experts." in name:
            stem, kind = name.rsplit(".", 1)
            for i, expert in enumerate(tensor):
                parts = zip(("gate_proj", "up_proj"), expert.chunk(2)) if kind == "gate_up_proj" else [(kind, expert)]
                tensors |= {f"{stem}.{i}.{part}.weight": values for part, values in parts}
        else:
            tensors[name] = tensor
    return tensors


def raw(tensor):
    return tensor.reshape(-1).contiguous().view(torch.uint8)


def compare_back(case, ours, first):
    a, b = tensors_of(ours), expected_back(case, first)
    if len(b) and not any(name.startswith("model.") for name in b) and any(name.startswith("model.") for name in a):
        a = {name.removeprefix("model."): t for name, t in a.items()}  # a bare model comes back with the prefix of its head
    problems = [f"back: tensor {name}: only in {'ours' if name in a else 'the first checkpoint'}" for name in sorted(a.keys() ^ b.keys())]
    same = 0
    for name in sorted(a.keys() & b.keys()):
        x, y = a[name], b[name]
        if (x.dtype, x.shape) != (y.dtype, y.shape):
            problems.append(f"back: tensor {name}: {x.dtype} {list(x.shape)}, at first {y.dtype} {list(y.shape)}")
        elif not torch.equal(raw(x), raw(y)) and not (case.change == "mxfp4" and torch.equal(x, y)):  # MXFP4 of ggml has no -0
            problems.append(f"back: tensor {name}: {int((x != y).sum())} of {x.numel()} numbers differ")
        else:
            same += 1
    return same, len(b), problems


def logits(case, folder, auto):
    model, info = auto.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    wrong = {kind: [n for n in sorted(names) if not any(part in n for part in case.lost)] for kind, names in info.items()}
    if any(wrong.values()):
        raise RuntimeError(f"transformers: {short(wrong)}")
    size = model.config.get_text_config().vocab_size
    tokens = torch.arange(3, 3 + 40 * 7, 7).reshape(1, 40) % size
    with torch.no_grad():
        return model.eval()(input_ids=tokens)[0]


def compare_logits(case, ours, first):
    original = getattr(tf, case.model)
    headless = case.model.endswith("Model") and case.model != "GPT2LMHeadModel"
    auto = tf.AutoModel if headless else tf.AutoModelForCausalLM
    try:
        a, b = logits(case, ours, auto), logits(case, first, original)
    except Exception as error:  # transformers cannot load or run it
        return False, [f"back: {error}"]
    if not torch.isfinite(b).all():
        return False, ["logits of the first checkpoint are not finite"]
    if not torch.equal(a, b):
        return False, [f"back: logits differ by up to {(a - b).abs().max():.3g} of {b.abs().max():.3g}"]
    return True, []


# The run


def check(case, args, reference, folder):
    """One row of the table."""
    row = dict(case=case, files={}, tensors="", keys="", defaults="", back="", logits="", problems=[])
    source = folder / case.name
    make(case, source, args.tokenizers)
    for outtype in args.outtypes:
        ours, theirs = folder / f"{case.name}-{outtype}.quant.gguf", folder / f"{case.name}-{outtype}.llama.gguf"
        try:
            reference.convert(source, theirs, "--outtype", outtype)
            quant(args.quant, source, ours, "--outtype", outtype)
        except (Exception, SystemExit) as error:
            row["files"][outtype] = False
            row["problems"].append(f"{outtype}: {error if isinstance(error, RuntimeError) else traceback.format_exc(limit=-3)}")
            continue
        row["files"][outtype] = ours.read_bytes() == theirs.read_bytes()
        a, b = reference.reader(ours), reference.reader(theirs)
        tensors, problems = compare_tensors(a, b)
        keys, more = compare_keys(a, b)
        row["tensors"], row["keys"] = f"{tensors}/{len(b.tensors)}", f"{keys}/{len(keys_of(b))}"
        problems += more
        if not problems and not row["files"][outtype]:
            problems = ["only padding or the header differ"]
        row["problems"] += [f"{outtype}: {problem}" for problem in problems]
    check_audit(case, args, folder, source, row)
    if case.comes_back:
        back(case, args, folder, source, row)
    if next(other for other in CASES if other.model == case.model) is case:
        check_defaults(case, args, reference, folder, source, row)
    return row


def back(case, args, folder, source, row):
    outtype = {torch.bfloat16: "bf16", torch.float16: "f16", torch.float32: "f32"}[case.dtype]
    if outtype not in args.outtypes:
        return
    ours = folder / f"{case.name}-{outtype}.{'llama' if args.back_from_reference else 'quant'}.gguf"
    target = folder / f"{case.name}-back"
    shutil.rmtree(target, ignore_errors=True)
    try:
        quant(args.quant, ours, target, "--to", "hf")
    except RuntimeError as error:
        row["problems"].append(f"back: {error}")
        return
    same, total, problems = compare_back(case, target, source)
    equal, more = compare_logits(case, target, source)
    row["back"], row["logits"] = f"{same}/{total}", "equal" if equal else "no"
    row["problems"] += problems + more


def audit(binary, *arguments):
    done = subprocess.run([str(binary), "audit", *map(str, arguments), "--json"], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"audit {' '.join(map(str, arguments))}\n{done.stderr.strip()}")
    return json.loads(done.stdout)["schemes"][0]["tensors"]


def check_audit(case, args, folder, source, row):
    """Names, permutations and stacking are undone: what is the same model has no error, and q8_0 that of q8_0."""
    exact, coarse = folder / f"{case.name}-f32.quant.gguf", folder / f"{case.name}-audited.gguf"
    try:
        if exact.exists():
            tensors = audit(args.quant, source, exact)
            row["problems"] += [f"audit: {t['name']} has an error" for t in tensors if not t["metrics"]["exact"]]
            row["audited"] = len(tensors)
        quant(args.quant, source, coarse, "--type", "q8_0", "--force", "--allow-requantize")
        written, tried = audit(args.quant, source, coarse), audit(args.quant, source, "--type", "q8_0")
    except RuntimeError as error:
        row["problems"].append(f"audit: {error}")
        return
    figures = lambda tensors: {t["name"]: (t["metrics"], t["weights"], t["worst_blocks"]) for t in tensors}
    if figures(written) != figures(tried):
        row["problems"].append("audit: q8_0 written and tried have other figures")
    if all(t["metrics"]["exact"] for t in written):
        row["problems"].append("audit: q8_0 has no error")


def check_defaults(case, args, reference, folder, source, row):
    """What the class fills in: metadata of a folder whose config.json says little more than the class."""
    empty = folder / f"{case.name}-defaults"
    shutil.rmtree(empty, ignore_errors=True)
    shutil.copytree(source, empty, ignore=shutil.ignore_patterns("*.safetensors*"))
    needed = ("architectures", "model_type", "vocab_size", "n_ctx", "rotary_pct", "quantization_config")

    def change(config):
        for level in (config, config.get("text_config", {})):
            for key in [key for key in level if key not in (*needed, "text_config")]:
                level.pop(key)

    edit_config(empty, change)
    save_file({"model.embed_tokens.weight": torch.zeros(1, 1)}, empty / "model.safetensors")
    ours, theirs = folder / f"{case.name}-defaults.quant.gguf", folder / f"{case.name}-defaults.llama.gguf"
    try:
        reference.convert(empty, theirs, "--vocab-only")
        quant(args.quant, empty, ours, "--vocab-only")
    except (Exception, SystemExit) as error:
        row["problems"].append(f"defaults: {error if isinstance(error, RuntimeError) else traceback.format_exc(limit=-3)}")
        return
    a, b = reference.reader(ours), reference.reader(theirs)
    keys, problems = compare_keys(a, b)
    row["defaults"] = f"{keys}/{len(keys_of(b))}"
    row["problems"] += [f"defaults: {problem}" for problem in problems]


def table(rows):
    lines = [
        "| checkpoint | classes | GGUF architecture | tensors | keys | defaults | " + " | ".join(OUTTYPES) + " | back: tensors | logits |",
        "|---|---|---|---|---|---|" + "---|" * len(OUTTYPES) + "---|---|",
    ]
    for row in rows:
        case = row["case"]
        classes = " ".join(f"`{name}`" for name in (case.model, *case.others))
        files = " | ".join({True: "same", False: "differs", None: "-"}[row["files"].get(o)] for o in OUTTYPES)
        lines.append(
            f"| {case.name} | {classes} | `{case.arch}` | {row['tensors']} | {row['keys']} | {row['defaults']} | {files} | {row['back']} | {row['logits']} |"
        )
    return "\n".join(lines)


def write_docs(text):
    old = DOCS.read_text() if DOCS.is_file() else f"# Models\n\n{BEGIN}\n{END}\n"
    before, _, rest = old.partition(BEGIN)
    _, _, after = rest.partition(END)
    DOCS.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--llama-cpp", type=Path, required=True)
    args.add_argument("--quant", type=Path, required=True)
    args.add_argument("--tokenizers", type=Path, required=True)
    args.add_argument("--only", nargs="+", default=[], help="checkpoints: a family, or a family and what follows the hyphen")
    args.add_argument("--outtypes", nargs="+", default=list(OUTTYPES), choices=OUTTYPES)
    args.add_argument("--back-from-reference", action="store_true", help="go back from the reference's file, not ours")
    args.add_argument("--keep", type=Path, help="leave all files here")
    args.add_argument("--write-docs", action="store_true")
    args = args.parse_args()
    args.quant = args.quant.resolve()

    warnings.filterwarnings("ignore")
    tf.logging.set_verbosity_error()
    tf.logging.disable_progress_bar()
    torch.set_num_threads(1)
    names = {case.name for case in CASES} | {case.name.split("-")[0] for case in CASES}
    if unknown := set(args.only) - names:
        sys.exit(f"no such checkpoint: {min(unknown)}; there are {', '.join(case.name for case in CASES)}")
    if args.write_docs and (args.only or len(args.outtypes) < len(OUTTYPES)):
        sys.exit("--write-docs needs all checkpoints and types")
    reference = Reference(args.llama_cpp.resolve())
    rows = []
    for case in CASES:
        if args.only and not any(case.name == name or case.name.startswith(name + "-") for name in args.only):
            continue
        with contextlib.ExitStack() as stack:
            folder = args.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            shutil.rmtree(folder / case.name, ignore_errors=True)
            rows.append(check(case, args, reference, folder))
        row = rows[-1]
        files = " ".join(f"{o}:{'same' if same else 'DIFFERS'}" for o, same in row["files"].items())
        print(f"{case.name:18} tensors {row['tensors']:8} keys {row['keys']:8} defaults {row['defaults']:8} {files}  audited {row.get('audited', 0)}  back {row['back']} logits {row['logits']}", flush=True)
        for problem in row["problems"][:20]:
            print("    " + problem)
        if len(row["problems"]) > 20:
            print(f"    … {len(row['problems'])} in all")
    if args.write_docs:
        write_docs(table(rows))
    sys.exit(any(row["problems"] for row in rows))


if __name__ == "__main__":
    main()
