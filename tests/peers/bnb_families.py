"""Proves that tests/goldens/hf is what the real libraries write: which modules of a family are quantized, which
names, dtypes, shards, index and configuration come out. Makes tiny random models (dense) and quantizes each.

Needs torch==2.15.0 bitsandbytes==0.50.2 transformers==5.23.0 accelerate safetensors==0.8.0.
Run:   python bnb_families.py tests/goldens/hf           (check the dense models committed there)
       python bnb_families.py tests/goldens/hf --write   (make everything again, dense models too)
Exits 1 if anything differs. --keep DIR leaves the quantized checkpoints in DIR; --only MODEL takes one model.
"""

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
import warnings
from pathlib import Path

import bitsandbytes as bnb
import torch
import transformers as tf
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import BitsAndBytesConfig

SCHEMES = {
    "nf4": dict(load_in_4bit=True, bnb_4bit_quant_type="nf4"),
    "nf4-dq": dict(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True),
    "fp4": dict(load_in_4bit=True, bnb_4bit_quant_type="fp4"),
    "int8": dict(load_in_8bit=True),
}
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}

LLAMA = dict(
    vocab_size=128, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=64,
)
BERT = dict(
    vocab_size=128, hidden_size=64, intermediate_size=96, num_hidden_layers=1, num_attention_heads=4,
    max_position_embeddings=32,
)
# 35 inputs: rows end inside a block, every tensor has a partial last block, mlp weights have an odd count (33 x 35).
ODD = dict(LLAMA, hidden_size=35, intermediate_size=33, num_attention_heads=5, num_key_value_heads=1, head_dim=8)

# name: (class, configuration, dtype, max_shard_size of the dense model)
MODELS = {
    "llama": (tf.LlamaForCausalLM, tf.LlamaConfig(**LLAMA), "bfloat16", None),
    "llama-sharded": (tf.LlamaForCausalLM, tf.LlamaConfig(**dict(LLAMA, num_hidden_layers=1)), "bfloat16", "40KB"),
    "llama-tied": (tf.LlamaForCausalLM, tf.LlamaConfig(**LLAMA, tie_word_embeddings=True), "bfloat16", None),
    "llama-odd": (tf.LlamaForCausalLM, tf.LlamaConfig(**ODD), "bfloat16", None),
    "llama-f16": (tf.LlamaForCausalLM, tf.LlamaConfig(**dict(LLAMA, num_hidden_layers=1)), "float16", None),
    "llama-f32": (tf.LlamaForCausalLM, tf.LlamaConfig(**dict(LLAMA, num_hidden_layers=1, intermediate_size=32)), "float32", None),
    "llama-classify": (
        tf.LlamaForSequenceClassification, tf.LlamaConfig(**dict(LLAMA, num_hidden_layers=1), num_labels=3, pad_token_id=0), "bfloat16", None,
    ),
    "llama-old": (tf.LlamaForCausalLM, tf.LlamaConfig(**dict(LLAMA, num_hidden_layers=1), tie_word_embeddings=True), "bfloat16", None),
    "gpt2": (
        tf.GPT2LMHeadModel,
        tf.GPT2Config(vocab_size=128, n_embd=64, n_inner=96, n_layer=1, n_head=4, n_positions=32,
                      bos_token_id=0, eos_token_id=0),
        "bfloat16", None,
    ),
    "gptneox": (
        tf.GPTNeoXForCausalLM,
        tf.GPTNeoXConfig(vocab_size=128, hidden_size=64, intermediate_size=96, num_hidden_layers=1,
                         num_attention_heads=4, max_position_embeddings=32),
        "bfloat16", None,
    ),
    "bert": (tf.BertModel, tf.BertConfig(**BERT), "bfloat16", None),
    "bert-mlm": (tf.BertForMaskedLM, tf.BertConfig(**BERT), "bfloat16", None),
    "mixtral": (
        tf.MixtralForCausalLM,
        tf.MixtralConfig(**dict(LLAMA, intermediate_size=32), num_local_experts=3, num_experts_per_tok=2),
        "bfloat16", None,
    ),
    "qwen2": (tf.Qwen2ForCausalLM, tf.Qwen2Config(**dict(LLAMA, num_hidden_layers=1)), "bfloat16", None),
    "gemma2": (tf.Gemma2ForCausalLM, tf.Gemma2Config(**LLAMA, head_dim=16), "bfloat16", None),
    "t5-f16": (
        tf.T5ForConditionalGeneration,
        tf.T5Config(vocab_size=128, d_model=64, d_kv=16, d_ff=64, num_layers=1, num_decoder_layers=1, num_heads=4),
        "float16", None,
    ),
}

# (model, case, scheme, further BitsAndBytesConfig options, max_shard_size of the quantized model)
CASES = [
    ("llama", "nf4", "nf4", {}, None),
    ("llama", "int8", "int8", {}, None),
    ("llama", "nf4-skip", "nf4", dict(llm_int8_skip_modules=["lm_head", "q_proj"]), None),
    ("llama", "nf4-skip-layer", "nf4", dict(llm_int8_skip_modules=["lm_head", "model.layers.1.mlp", "0.self_attn"]), None),
    ("llama", "nf4-skip-regex", "nf4", dict(llm_int8_skip_modules=["lm_head", r"model\.layers\.0\.(self_attn|mlp\.up)"]), None),
    ("llama", "nf4-skip-none", "nf4", dict(llm_int8_skip_modules=[]), None),
    ("llama", "nf4-storage-bf16", "nf4", dict(bnb_4bit_quant_storage="bfloat16"), None),
    ("llama-sharded", "nf4", "nf4", {}, "5KB"),
    ("llama-sharded", "nf4-dq", "nf4-dq", {}, "3KB"),
    ("llama-sharded", "int8", "int8", {}, "5KB"),
    ("llama-tied", "nf4-dq", "nf4-dq", {}, None),
    ("llama-tied", "int8-sharded", "int8", {}, "16KB"),
    ("llama-odd", "nf4", "nf4", {}, "2KB"),
    ("llama-odd", "nf4-dq", "nf4-dq", {}, None),
    ("llama-odd", "fp4", "fp4", {}, None),
    ("llama-odd", "int8", "int8", {}, None),
    ("llama-f16", "nf4-storage-f32", "nf4", dict(bnb_4bit_quant_storage="float32"), None),
    ("llama-f16", "nf4-dq", "nf4-dq", {}, None),
    ("llama-f16", "int8", "int8", {}, None),
    ("llama-f32", "fp4", "fp4", {}, None),
    ("llama-f32", "int8", "int8", {}, None),
    ("llama-classify", "nf4", "nf4", {}, None),
    ("llama-old", "nf4", "nf4", {}, None),
    ("gpt2", "nf4-dq", "nf4-dq", {}, None),
    ("gpt2", "int8", "int8", {}, None),
    ("gptneox", "nf4", "nf4", {}, None),
    ("bert", "nf4", "nf4", {}, None),
    ("bert-mlm", "nf4", "nf4", {}, None),
    ("mixtral", "nf4", "nf4", {}, None),
    ("mixtral", "nf4-sharded", "nf4", {}, "10KB"),
    ("qwen2", "nf4", "nf4", {}, None),
    ("qwen2", "int8", "int8", {}, None),
    ("gemma2", "nf4", "nf4", {}, None),
    ("t5-f16", "nf4", "nf4", {}, None),
    ("t5-f16", "int8", "int8", {}, None),
]


def make_dense(name, folder):
    kind, config, dtype, shard = MODELS[name]
    torch.manual_seed(20260901)
    model = kind(config)
    for parameter in model.parameters():  # biases and norms too, so that no two tensors look alike
        parameter.data.normal_(0, 0.05).mul_(torch.rand(1).item() + 0.5)
    kwargs = dict(max_shard_size=shard) if shard else {}
    model.to(DTYPES[dtype]).save_pretrained(folder, **kwargs)
    if name == "llama-old":
        make_old(folder)


def make_old(folder):
    """What older files hold: lm_head beside the embedding it is tied to, a buffer, a float32 norm, a v4 configuration."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = 10000.0 ** -(torch.arange(0, 16, 2) / 16)
    tensors["model.norm.weight"] = tensors["model.norm.weight"].float() + 2**-20
    save_file(tensors, path, metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    for key in ("rope_parameters", "dtype", "head_dim", "pad_token_id", "attention_dropout"):
        del config[key]
    config |= dict(_name_or_path="old", torch_dtype="bfloat16", rope_theta=10000.0, rope_scaling=None,
                   transformers_version="4.36.0", unknown_key=[1, 2.5e-06])
    (folder / "config.json").write_text(dump(config, 2))


def quantize(name, scheme, options, shard, dense, folder):
    """Loads `dense` quantized and saves it in `folder`; returns the modules that could have been quantized and were not."""
    options = SCHEMES[scheme] | options
    if "load_in_4bit" in options:
        options["bnb_4bit_compute_dtype"] = torch.bfloat16
    config = BitsAndBytesConfig(**options)
    model = MODELS[name][0].from_pretrained(dense, quantization_config=config, dtype="auto", device_map="cpu")
    kwargs = dict(max_shard_size=shard) if shard else {}
    model.save_pretrained(folder, **kwargs)
    quantized = (bnb.nn.Linear4bit, bnb.nn.Linear8bitLt)
    linear = (torch.nn.Linear, tf.pytorch_utils.Conv1D)
    left = [n for n, m in model.named_modules() if isinstance(m, linear) and not isinstance(m, quantized)]
    return sorted(left), sorted(model.hf_quantizer.modules_to_not_convert)


def hashes(folder):
    files = sorted(p for p in Path(folder).iterdir() if p.suffix in (".json", ".safetensors"))
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def listing(folder):
    """{file: {tensor: "DTYPE [shape]"}}"""
    files = {}
    for path in sorted(Path(folder).glob("*.safetensors")):
        with safe_open(path, "pt") as f:
            slices = {name: f.get_slice(name) for name in f.keys()}
            files[path.name] = {n: f"{s.get_dtype()} {s.get_shape()}" for n, s in slices.items()}
    return files


def dump(value, indent=1):
    return json.dumps(value, indent=indent) + "\n"


def main():
    args = argparse.ArgumentParser()
    args.add_argument("goldens", type=Path)
    args.add_argument("--write", action="store_true")
    args.add_argument("--keep", type=Path)
    args.add_argument("--only")
    args = args.parse_args()

    warnings.filterwarnings("ignore")
    tf.logging.set_verbosity_error()
    tf.logging.disable_progress_bar()
    torch.set_num_threads(1)
    if args.write:
        for name in MODELS:
            if args.only in (None, name):
                make_dense(name, args.goldens / name / "dense")
    different, cases = 0, []
    for name, case, scheme, options, shard in CASES:
        golden = args.goldens / name / case
        if args.only not in (None, name):
            continue
        with tempfile.TemporaryDirectory() as temporary:
            made_at = Path(temporary)
            left, patterns = quantize(name, scheme, options, shard, args.goldens / name / "dense", made_at)
            made = {"sha256.json": dump(hashes(made_at)), "tensors.json": dump(listing(made_at))}
            made |= {p.name: p.read_text() for p in sorted(made_at.glob("*.json"))}
            if args.keep:
                shutil.copytree(made_at, args.keep / name / case, dirs_exist_ok=True)
        cases.append(dict(model=name, case=case, scheme=scheme, options=options, max_shard_size=shard,
                          skip_patterns=patterns, left_dense=left))
        if args.write:
            golden.mkdir(parents=True, exist_ok=True)
            for file, text in made.items():
                (golden / file).write_text(text)
        same = all((golden / f).is_file() and (golden / f).read_text() == text for f, text in made.items())
        different += not same
        print(f"{name + '/' + case:28} {'same' if same else 'DIFFERENT'}", flush=True)
    if args.only is None:
        path = args.goldens / "cases.json"
        if args.write:
            path.write_text("[\n" + ",\n".join(" " + json.dumps(c) for c in cases) + "\n]\n")
        different += json.loads(path.read_text()) != cases
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    main()
