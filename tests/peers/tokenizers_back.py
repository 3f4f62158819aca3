#!/usr/bin/env python3
"""Tokenizers on the way back: model folder -> GGUF (convert_hf_to_gguf.py) -> folder (`quant convert`) -> the same ids.

  python tokenizers_back.py folders --quant QUANT --llama-cpp DIR [--lib DIR] MODEL...
      converts each model folder there and back, loads both tokenizers with transformers.AutoTokenizer and compares ids, with and
      without special tokens, and decoded texts, for the texts below and any given with --text.
  python tokenizers_back.py table --quant QUANT --llama-cpp DIR --lib DIR [NAME...]
      for every name that tokenizer.ggml.pre can have: a byte-level vocabulary whose merges know no words, so that every cut
      shows, as a GGUF; ids of the rebuilt tokenizer against those of llama.cpp.
  python tokenizers_back.py trained --quant QUANT --llama-cpp DIR [--lib DIR]
      trains small tokenizers in the manner of well-known models (as their tokenizer.json cut texts) and does what `folders` does.
  python tokenizers_back.py sentencepieces --quant QUANT --llama-cpp DIR [--lib DIR]
      the same for models of SentencePiece: Llama, Gemma, T5; ids are also compared with those of sentencepiece. Needs protobuf.

QUANT is the binary, or a command with {gguf} and {folder} in it. --llama-cpp is the folder of convert_hf_to_gguf.py, --lib that of
libllama.so; with it, llama.cpp is asked, too. Exits 1 on a difference that is not listed as known.

Known: a SentencePiece vocabulary does not say where a space is put before a word. quant does as llama.cpp does, before every
stretch between added tokens; LlamaTokenizer of transformers 5 only at the start of the text, and not before a space. Texts on
which the two differ for this reason are compared with llama.cpp alone. All that the converter knows of how a byte-level tokenizer
cuts a text is a name, found by the ids of one text: where another tokenizer goes by the same name (SmolLM2 with and without a
step for digits), quant does as llama.cpp. Both count as known to differ.

Reference: llama.cpp 0.5.0-dev as in llama-cpp-python 0.3.36; transformers 5.23.0, tokenizers 0.22, sentencepiece.
"""
import argparse
import ctypes
import json
import os
import shlex
import subprocess
import sys
import tempfile

TEXTS = [
    "Hello world", " Hello world", "  Hello   world  ", "Hello\nworld\n\n\n  x\r\n\ty", "", " ", "  ", "\n", "\t\t x", "a", "ab  ",
    "I've can't WE'LL it'S 'RE 'm don’t l'eau", "3 33 333 3333 33333 333333 3333333 33333333 3.3 3..3 3...3 1,234,567.89 ½ ² ٣٤٥ १२३",
    "def f(x):\n    return {'a': [1, 2, 3], \"b\": x ** 2}  # comment\n\n\tif x != 0x1F and y <= 1e-5: pass\n",
    "camelCase HTTPServer snake_case SCREAMING_CASE iPhone12 x1y2z3", "https://example.com/a?b=c&d=%20#frag user@mail.example",
    "🚀 (normal) 😶‍🌫️ (multiple emojis concatenated) ✅ 🦙🦙 👨‍👩‍👧‍👦 🇩🇪", "中文字符和标点，。！？测试 日本語のテキスト カタカナ 한국어 텍스트 ㄅㄆㄇ",
    "កាន់តែពិសេសអាច ไทยภาษา ພາສາລາວ தமிழ் हिन्दी বাংলা മലയാളം", "нещо на Български Ελληνικά ΑΒΓ עברית العربية، فارسی؟ ქართული",
    "caf\u00e9 cafe\u0301 na\u00efve nai\u0308ve \u212b A\u030a \ufb01 \u2460 \u2167 \u01c5", "------======= ''''''```````\"\"\"\"......!!!!!!?????? $100 €5 x^2 ~y `z` |w| a<b>c",
    "tabs\tand\u00a0nbsp\u3000ideographic\u2003em\u200bzero", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa haha hahaha ===================", "x\u0000y\u007fz",
    "ſ 'ſ K Å µ ß ẞ İ ı", "end with space ", "end with newline\n", "\n\n  indented\n    more\n", "<0x41> ▁ literal ▁▁ marks ## [UNK",
]
SPECIAL = ["{0}", "a{0}b", " {0} x {0}{0}  y", "{0}\n{0}Hello", "x {0}Hello"]


def pre_texts(more):
    page = open(more, encoding="utf-8").read() if more else ""
    return TEXTS + ["\n".join(TEXTS)] + [page[i:i + 4096] for i in range(0, min(len(page), 1 << 16), 4096)]


class Llama:
    """Ids as llama.cpp gives them."""

    class Params(ctypes.Structure):
        _fields_ = [("devices", ctypes.c_void_p), ("overrides", ctypes.c_void_p), ("n_gpu_layers", ctypes.c_int32), ("split_mode", ctypes.c_int),
                    ("load_mode", ctypes.c_int), ("lazy_mode", ctypes.c_int), ("main_gpu", ctypes.c_int32), ("tensor_split", ctypes.c_void_p),
                    ("progress", ctypes.c_void_p), ("user_data", ctypes.c_void_p), ("kv_overrides", ctypes.c_void_p)] + [
                        (n, ctypes.c_bool) for n in ("vocab_only", "check_tensors", "use_extra_bufts", "no_host", "no_alloc", "load_mtp")]

    def __init__(self, folder):
        self.lib = ctypes.CDLL(os.path.join(folder, "libllama.so"))
        self.lib.llama_model_default_params.restype = Llama.Params
        self.lib.llama_model_load_from_file.restype = ctypes.c_void_p
        self.lib.llama_model_load_from_file.argtypes = [ctypes.c_char_p, Llama.Params]
        self.lib.llama_model_get_vocab.restype = ctypes.c_void_p
        self.lib.llama_model_get_vocab.argtypes = [ctypes.c_void_p]
        self.lib.llama_model_free.argtypes = [ctypes.c_void_p]
        self.lib.llama_tokenize.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int32, ctypes.c_void_p, ctypes.c_int32, ctypes.c_bool, ctypes.c_bool]
        self.silent = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)
        self.lib.llama_log_set(self.silent, None)
        self.model = None

    def load(self, path):
        if self.model:
            self.lib.llama_model_free(self.model)
        params = self.lib.llama_model_default_params()
        params.vocab_only = True
        self.model = self.lib.llama_model_load_from_file(path.encode(), params)
        assert self.model, f"llama.cpp does not load {path}"
        self.vocab = self.lib.llama_model_get_vocab(self.model)

    def ids(self, text, specials):
        data = text.encode()
        out = (ctypes.c_int32 * (len(data) + 16))()
        n = self.lib.llama_tokenize(self.vocab, data, len(data), out, len(out), specials, True)
        assert n >= 0
        return list(out[:n])


def quant_back(args, gguf, folder):
    command = args.quant if "{gguf}" in args.quant else shlex.quote(args.quant) + " convert {gguf} {folder}"
    done = subprocess.run(command.format(gguf=shlex.quote(gguf), folder=shlex.quote(folder)), shell=True, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{command}: {done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def reference(args, model, out, pre=None, vocab_only=None):
    """convert_hf_to_gguf.py; `pre` is for tokenizers that it does not know by their hash."""
    has_weights = any(n.endswith(".safetensors") for n in os.listdir(model))
    patch = f"import conversion.base as b; b.TextModel.get_vocab_base_pre = lambda self, tokenizer: {pre!r}; " if pre else ""
    argv = ["convert_hf_to_gguf.py", model, "--outfile", out, "--outtype", "f16"] + ([] if has_weights and not vocab_only else ["--vocab-only"])
    code = f"import sys, runpy; sys.path.insert(0, {args.llama_cpp!r}); sys.path.insert(1, {os.path.join(args.llama_cpp, 'gguf-py')!r}); {patch}sys.argv = {argv!r}; " \
           f"runpy.run_path({os.path.join(args.llama_cpp, 'convert_hf_to_gguf.py')!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"convert_hf_to_gguf.py {model}: {done.stderr[-3000:]}")


def legacy(tokenizer):
    """The tokenizer with a space before every stretch of text, if it is one that has it before the first only."""
    from tokenizers import Tokenizer, normalizers
    state = json.loads(tokenizer.to_str())
    pre = state.get("pre_tokenizer") or {}
    if pre.get("type") != "Metaspace" or pre.get("prepend_scheme") == "never":
        return None
    state["pre_tokenizer"] = None
    other = Tokenizer.from_str(json.dumps(state))
    other.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return other


def compare(name, args, model, gguf, folder, texts, llama, pieces=None):
    from transformers import AutoTokenizer
    before, after = AutoTokenizer.from_pretrained(model), AutoTokenizer.from_pretrained(folder)
    added = [t.content for t in after.added_tokens_decoder.values()]
    plain = [t for t in texts if not any(a in t for a in added)]
    texts = texts + [s.format(t) for t in added[:3] + added[-3:] for s in SPECIAL]
    other = legacy(before.backend_tokenizer)
    same = known = llama_same = 0
    problems = []
    if len(before) != len(after):
        problems.append(f"{len(before)} tokens, {len(after)} after")
    for purpose in ("bos", "eos", "unk", "pad", "sep", "cls", "mask"):
        a, b = getattr(before, f"{purpose}_token_id"), getattr(after, f"{purpose}_token_id")
        if a != b:
            problems.append(f"note: {purpose}_token_id is {a}, {b} after")
    if before.chat_template != after.chat_template:
        problems.append("another chat template")
    if llama:
        llama.load(gguf)
    for text in texts:
        for specials in (True, False):
            a, b = (t(text, add_special_tokens=specials)["input_ids"] for t in (before, after))
            if a == b:
                same += 1
            elif (other and other.encode(text, add_special_tokens=specials).ids == b) or (llama and llama.ids(text, specials) == b):
                known += 1
            else:
                problems.append(f"{text[:60]!r}: {a[:20]} {b[:20]}")
            if a == b and before.decode(a) != after.decode(b):
                problems.append(f"{text[:60]!r}: decoded {before.decode(a)[:60]!r} {after.decode(b)[:60]!r}")
            if llama:
                c = llama.ids(text, specials)
                llama_same += b == c
                if b != c and args.verbose:
                    print(f"  llama.cpp {text[:60]!r}: {c[:20]} {b[:20]}")
    total = 2 * len(texts)
    note = f", {llama_same} as llama.cpp" if llama else ""
    if pieces:
        encoded = [(t, pieces.encode(t), after(t, add_special_tokens=False)["input_ids"]) for t in plain]
        note += f", {sum(a == b for _, a, b in encoded)} of {len(plain)} as sentencepiece"
        for text, a, b in encoded:
            if a != b and args.verbose:
                print(f"  sentencepiece {text[:60]!r}: {a[:20]} {b[:20]}")
    print(f"{name}: {type(before).__name__} -> {type(after).__name__}: {same} of {total} the same, {known} known to differ{note}")
    for problem in problems[:10]:
        print("  " + problem)
    return not [p for p in problems if not p.startswith("note")]


def folders(args, llama, texts):
    fine = True
    for model in args.rest:
        with tempfile.TemporaryDirectory() as work:
            name = os.path.basename(os.path.normpath(model))
            gguf, folder = os.path.join(work, name + ".gguf"), os.path.join(work, name)
            reference(args, model, gguf)
            notes = quant_back(args, gguf, folder)
            config = os.path.join(folder, "config.json")
            if not os.path.exists(config):
                with open(os.path.join(model, "config.json"), encoding="utf-8") as f, open(config, "w", encoding="utf-8") as g:
                    g.write(f.read())
            if args.verbose:
                print(notes)
            fine &= compare(name, args, model, gguf, folder, texts, llama)
    return fine


NAMES = """default gpt-2 phi-2 jina-es jina-de jina-v1-en jina-v2-es jina-v2-de jina-v2-code roberta-bpe gigachat a.x-4.0 mellum modern-bert exaone4 mpt olmo
jais trillion granite-docling starcoder refact command-r smollm codeshell exaone minerva-7b mellum2 llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral
midm-2.0 lfm2 jina-v5-nano dbrx smaug-bpe chatglm-bpe glm4 glm5 qwen2 deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2 qwen35
minicpm5 ufakzeka seed-coder bailingmoe bailingmoe2 llada-moe exaone-moe jais-2 laguna tekken gpt-4o llama4 kanana2 talkie minimax-m2
granite-embed-multi-97m tiny_aya cohere2moe youtu kimi-k2 deepseek-llm deepseek-coder deepseek-v3 hunyuan-dense joyai-llm hy_v4 spark2_5 afmoe falcon
bloom poro-chat gpt3-finnish viking superbpe chameleon""".split()


def wordless(size, texts):
    """A byte-level vocabulary whose merges cross everything."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    pieces = [t[i:i + n] for t in texts for n in (3, 5, 8, 13) for i in range(0, len(t), n)]
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False, min_frequency=1, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(pieces, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return sorted(model["vocab"], key=model["vocab"].get), [" ".join(m) for m in model["merges"]]


def table(args, llama, texts):
    sys.path.insert(0, os.path.join(args.llama_cpp, "gguf-py"))
    import gguf
    from tokenizers import Tokenizer
    tokens, merges = wordless(12000, texts)
    tokens += ["<s>", "</s>", "<mask>", "<|end|>"]
    kinds = [1] * (len(tokens) - 4) + [3, 3, 3, 4]
    fine = True
    for name in args.rest or NAMES:
        with tempfile.TemporaryDirectory() as work:
            path, folder = os.path.join(work, "m.gguf"), os.path.join(work, "m")
            writer = gguf.GGUFWriter(path, "llama")
            writer.add_tokenizer_model("gpt2")
            writer.add_tokenizer_pre(name)
            writer.add_token_list(tokens)
            writer.add_token_types(kinds)
            writer.add_token_merges(merges)
            writer.add_bos_token_id(len(tokens) - 4)
            writer.add_eos_token_id(len(tokens) - 3)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.close()
            quant_back(args, path, folder)
            ours = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
            llama.load(path)
            differ = [t for t in texts + ["x<s> y", "<|end|>"] if ours.encode(t).ids != llama.ids(t, True)]
            print(f"{name}: {len(texts) + 2 - len(differ)} of {len(texts) + 2} as llama.cpp")
            for text in differ[:40 if args.verbose else 3]:
                a, b = ours.encode(text), llama.ids(text, True)
                at = next((i for i, (x, y) in enumerate(zip(a.ids, b)) if x != y), min(len(a.ids), len(b)))
                show = lambda ids: [tokens[i] for i in ids[max(0, at - 1):at + 4]]
                print(f"    {text[:30]!r} at {at}: ours {show(a.ids)}, llama.cpp {show(b)}")
    return fine


def trained(args, llama, texts):
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    cut = lambda *regexes: [pre_tokenizers.Split(Regex(r), "isolated") for r in regexes]
    words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    digits = pre_tokenizers.Digits(individual_digits=True)
    llama3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    deepseek = cut(r"\p{N}{1,3}", "[一-龥\u3040-ゟ゠-ヿ]+", r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+""")
    # Name of the pre-tokenizer, its steps, whether text is composed first, special tokens, whether the first begins a text, arch.
    cases = [
        ("gpt-2", [words], False, ["<|endoftext|>"], False, "GPT2LMHeadModel"),
        ("llama-bpe", cut(llama3) + [plain], False, ["<|begin_of_text|>", "<|eot_id|>"], True, "LlamaForCausalLM"),
        ("qwen2", cut(llama3.replace("{1,3}", "")) + [plain], True, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], False, "Qwen2ForCausalLM"),
        ("deepseek-v3", deepseek + [plain], False, ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"], True, "LlamaForCausalLM"),
        ("command-r", [digits, words], True, ["<BOS_TOKEN>", "<|END_OF_TURN_TOKEN|>"], True, "LlamaForCausalLM"),
        ("falcon", [pre_tokenizers.Punctuation("contiguous"), words, pre_tokenizers.Digits(individual_digits=False)] + cut("[0-9][0-9][0-9]"), False, ["<|endoftext|>"], False, "LlamaForCausalLM"),
    ]
    fine = True
    for pre, steps, nfc, specials, bos, arch in cases:
        tokenizer = Tokenizer(models.BPE(ignore_merges=pre == "llama-bpe"))
        tokenizer.normalizer = normalizers.NFC() if nfc else None
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(vocab_size=3000, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
        tokenizer.train_from_iterator(texts, trainer)
        tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in specials])
        tokenizer.add_tokens([AddedToken("<tool_call>", normalized=False)])
        first = specials[0]
        if bos:
            tokenizer.post_processor = processors.TemplateProcessing(f"{first} $A", f"{first} $A {first} $B", [(first, tokenizer.token_to_id(first))])
        else:
            tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
        with tempfile.TemporaryDirectory() as work:
            model, gguf, folder = (os.path.join(work, n) for n in ("m", "m.gguf", "back"))
            os.mkdir(model)
            tokenizer.save(os.path.join(model, "tokenizer.json"))
            n = tokenizer.get_vocab_size() + 7
            config = {"architectures": [arch], "model_type": "qwen2" if pre == "qwen2" else "gpt2" if pre == "gpt-2" else "llama", "vocab_size": n, "hidden_size": 64,
                      "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64, "max_position_embeddings": 128}
            config |= {"n_ctx": 128, "n_embd": 64, "n_layer": 1, "n_head": 4} if pre == "gpt-2" else {}
            settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": first, "eos_token": specials[-1], "chat_template": "{{ messages }}\n"}
            settings |= {"unk_token": "<|endoftext|>", "pad_token": "<|endoftext|>"} if pre == "qwen2" else {}
            for name, value in (("config.json", config), ("tokenizer_config.json", settings)):
                with open(os.path.join(model, name), "w", encoding="utf-8") as f:
                    json.dump(value, f)
            reference(args, model, gguf, pre=pre)
            quant_back(args, gguf, folder)
            with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as f:
                json.dump(config, f)
            fine &= compare(pre, args, model, gguf, folder, texts, llama)
    return fine


def sentencepieces(args, llama, texts):
    import sentencepiece
    common = {"num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 4, "hidden_size": 64, "intermediate_size": 64, "rms_norm_eps": 1e-6,
              "max_position_embeddings": 128, "head_dim": 16}
    t5 = {"d_model": 64, "d_ff": 64, "num_heads": 4, "d_kv": 16, "num_layers": 1, "relative_attention_num_buckets": 32, "layer_norm_epsilon": 1e-6,
          "decoder_start_token_id": 0, "n_positions": 128, "pad_token_id": 0, "eos_token_id": 1}
    spaces = ["\u2581" * n for n in range(2, 9)]
    cases = [  # name, architecture, model type, trainer settings, more of config.json, tokenizer_config.json, tokens more than pieces
        ("llama-spm", "LlamaForCausalLM", "llama", {"model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity",
            "remove_extra_whitespaces": False, "split_digits": True, "allow_whitespace_only_pieces": True}, common,
            {"tokenizer_class": "LlamaTokenizer", "legacy": False, "add_bos_token": True, "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}, 3),
        ("gemma-spm", "GemmaForCausalLM", "gemma", {"model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity", "add_dummy_prefix": False,
            "remove_extra_whitespaces": False, "allow_whitespace_only_pieces": True, "pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3, "pad_piece": "<pad>",
            "eos_piece": "<eos>", "bos_piece": "<bos>", "user_defined_symbols": ["<mask>", "\n", "\n\n", "\t"] + spaces + ["<table>"]},
            common | {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2, "unk_token_id": 3},
            {"tokenizer_class": "GemmaTokenizer", "add_bos_token": True, "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>",
             "added_tokens_decoder": {"4": {"content": "<mask>", "special": False}, "5": {"content": "\n", "special": False}, "6": {"content": "\n\n", "special": False},
             "7": {"content": "\t", "special": False}} | {str(8 + i): {"content": t, "special": False} for i, t in enumerate(spaces)} |
             {"15": {"content": "<table>", "special": False}}}, 0),
        ("t5-spm", "T5ForConditionalGeneration", "t5", {"model_type": "unigram", "pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}, t5,
            {"tokenizer_class": "T5Tokenizer", "extra_ids": 100, "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}, 100),
    ]
    fine = True
    for name, arch, kind, settings, config, tokenizer_config, more in cases:
        with tempfile.TemporaryDirectory() as work:
            model, gguf, folder = (os.path.join(work, n) for n in (name, name + ".gguf", "back"))
            os.mkdir(model)
            prefix = os.path.join(model, "spiece" if kind == "t5" else "tokenizer")
            sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter("\n".join(texts).split("\n")), model_prefix=prefix, vocab_size=1500,
                                                     hard_vocab_limit=False, minloglevel=2, character_coverage=1.0, **settings)
            os.remove(prefix + ".vocab")
            pieces = sentencepiece.SentencePieceProcessor(model_file=prefix + ".model")
            n = pieces.vocab_size() + more
            config = {"architectures": [arch], "model_type": kind, "vocab_size": n} | config
            for file, value in (("config.json", config), ("tokenizer_config.json", tokenizer_config)):
                with open(os.path.join(model, file), "w", encoding="utf-8") as f:
                    json.dump(value, f)
            reference(args, model, gguf)
            quant_back(args, gguf, folder)
            with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as f:
                json.dump(config, f)
            fine &= compare(name, args, model, gguf, folder, texts, llama, pieces)
    return fine


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["folders", "table", "trained", "sentencepieces"])
    parser.add_argument("rest", nargs="*")
    parser.add_argument("--quant", required=True)
    parser.add_argument("--llama-cpp", required=True)
    parser.add_argument("--lib")
    parser.add_argument("--text", help="a file with more text")
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_intermixed_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    llama = Llama(args.lib) if args.lib else None
    texts = pre_texts(args.text)
    if args.what == "table" and not llama:
        parser.error("table needs --lib")
    sys.exit(0 if {"folders": folders, "table": table, "trained": trained, "sentencepieces": sentencepieces}[args.what](args, llama, texts) else 1)


if __name__ == "__main__":
    main()
