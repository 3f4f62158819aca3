"""Which weights of which models bitsandbytes quantizes by default, found out by letting it do so.

Writes tests/goldens/linear_modules.json, the truth for the roles that quant-formats reads from tensor names.

Needs: torch, transformers 5.23.0, bitsandbytes 0.50.2, accelerate. No network, no GPU, a few minutes.
How: for every model below, a tiny random one is saved by `save_pretrained`, loaded again with
`BitsAndBytesConfig(load_in_4bit=True)` and saved once more. A weight that has a quant state in the second file was
quantized; all others were left. Names and shapes are those of the first file, so fused experts stand there in the
way in which they are saved. For what was left, the type of its module is noted where the model has a module of
that name.

    python tests/peers/linear_modules.py [model_type ...]     # with types: prints those, writes nothing
"""

import json
import logging
import pathlib
import struct
import sys
import tempfile
import warnings

import torch
import transformers
from transformers import BitsAndBytesConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.quantizers.base import get_keys_to_not_convert

OUTPUT = pathlib.Path(__file__).parents[1] / "goldens" / "linear_modules.json"

# Sizes of a decoder; every configuration takes those that it knows.
SMALL = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2,
             head_dim=16, vocab_size=160, max_position_embeddings=80, pad_token_id=0)
MOE = dict(SMALL, moe_intermediate_size=32, shared_expert_intermediate_size=48, num_experts=2, num_local_experts=2,
           n_routed_experts=2, num_experts_per_tok=1, moe_topk=1, moe_num_experts=2, moe_k=1)
MLA = dict(MOE, num_key_value_heads=4, num_hidden_layers=2, first_k_dense_replace=1, q_lora_rank=32, kv_lora_rank=24, qk_rope_head_dim=8,
           qk_nope_head_dim=16, v_head_dim=16, n_group=1, topk_group=1, n_shared_experts=1)
GPT = dict(n_embd=64, n_layer=1, n_head=4, n_positions=80, vocab_size=160)
ENCODER = dict(SMALL, type_vocab_size=2, embedding_size=32)
SEQ2SEQ = dict(d_model=64, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4, decoder_attention_heads=4,
               encoder_ffn_dim=96, decoder_ffn_dim=96, vocab_size=160, max_position_embeddings=80, pad_token_id=0)
FALCON = {key: value for key, value in SMALL.items() if key != "head_dim"}
T5 = dict(d_model=64, d_kv=16, d_ff=96, num_layers=1, num_decoder_layers=1, num_heads=4, vocab_size=160)
MAMBA = dict(hidden_size=64, num_hidden_layers=1, vocab_size=160, state_size=8, num_heads=8, head_dim=16, n_groups=1, expand=2)

# (model type, class, configuration)
MODELS = [
    ("llama", "LlamaForCausalLM", SMALL),
    ("llama", "LlamaForCausalLM", dict(SMALL, tie_word_embeddings=True, attention_bias=True, mlp_bias=True)),
    ("llama", "LlamaModel", SMALL),
    ("llama", "LlamaForSequenceClassification", SMALL),
    ("llama", "LlamaForTokenClassification", SMALL),
    ("mistral", "MistralForCausalLM", SMALL),
    ("mixtral", "MixtralForCausalLM", MOE),
    ("qwen2", "Qwen2ForCausalLM", SMALL),
    ("qwen2", "Qwen2ForCausalLM", dict(SMALL, tie_word_embeddings=True)),
    ("qwen2_moe", "Qwen2MoeForCausalLM", MOE),
    ("qwen3", "Qwen3ForCausalLM", SMALL),
    ("qwen3_moe", "Qwen3MoeForCausalLM", MOE),
    ("gemma", "GemmaForCausalLM", SMALL),
    ("gemma2", "Gemma2ForCausalLM", SMALL),
    ("gemma3_text", "Gemma3ForCausalLM", SMALL),
    ("phi", "PhiForCausalLM", SMALL),
    ("phi3", "Phi3ForCausalLM", SMALL),
    ("gpt2", "GPT2LMHeadModel", GPT),
    ("gpt2", "GPT2LMHeadModel", dict(GPT, tie_word_embeddings=False)),
    ("gpt2", "GPT2ForSequenceClassification", dict(GPT, pad_token_id=0)),
    ("gpt_bigcode", "GPTBigCodeForCausalLM", GPT),
    ("gptj", "GPTJForCausalLM", dict(GPT, rotary_dim=8)),
    ("gpt_neo", "GPTNeoForCausalLM", dict(SMALL, num_layers=1, num_heads=4, attention_types=[[["global"], 1]])),
    ("gpt_neox", "GPTNeoXForCausalLM", SMALL),
    ("opt", "OPTForCausalLM", dict(SMALL, ffn_dim=96, word_embed_proj_dim=64)),
    ("opt", "OPTForCausalLM", dict(SMALL, ffn_dim=96, word_embed_proj_dim=32)),
    ("bloom", "BloomForCausalLM", dict(hidden_size=64, n_layer=1, n_head=4, vocab_size=160)),
    ("falcon", "FalconForCausalLM", FALCON),
    ("falcon", "FalconForCausalLM", dict(FALCON, new_decoder_architecture=True, tie_word_embeddings=False)),
    ("mpt", "MptForCausalLM", dict(d_model=64, n_heads=4, n_layers=1, vocab_size=160, max_seq_len=80)),
    ("stablelm", "StableLmForCausalLM", SMALL),
    ("bert", "BertForMaskedLM", ENCODER),
    ("bert", "BertForMaskedLM", dict(ENCODER, tie_word_embeddings=False)),
    ("bert", "BertModel", ENCODER),
    ("bert", "BertForSequenceClassification", ENCODER),
    ("roberta", "RobertaForMaskedLM", ENCODER),
    ("roberta", "RobertaModel", ENCODER),
    ("distilbert", "DistilBertForMaskedLM", dict(dim=64, hidden_dim=96, n_layers=1, n_heads=4, vocab_size=160, max_position_embeddings=80)),
    ("electra", "ElectraForPreTraining", ENCODER),
    ("deberta-v2", "DebertaV2ForMaskedLM", ENCODER),
    ("modernbert", "ModernBertForMaskedLM", ENCODER),
    ("deepseek_v2", "DeepseekV2ForCausalLM", MLA),
    ("deepseek_v3", "DeepseekV3ForCausalLM", MLA),
    ("gpt_oss", "GptOssForCausalLM", MOE),
    ("olmo2", "Olmo2ForCausalLM", SMALL),
    ("olmoe", "OlmoeForCausalLM", MOE),
    ("granite", "GraniteForCausalLM", SMALL),
    ("granitemoe", "GraniteMoeForCausalLM", MOE),
    ("granitemoehybrid", "GraniteMoeHybridForCausalLM", dict(MOE, num_hidden_layers=2, layer_types=["attention", "mamba"], mamba_n_heads=4,
                                                             mamba_d_state=8, mamba_d_head=32, mamba_n_groups=1, shared_intermediate_size=48)),
    ("starcoder2", "Starcoder2ForCausalLM", SMALL),
    ("smollm3", "SmolLM3ForCausalLM", SMALL),
    ("cohere", "CohereForCausalLM", SMALL),
    ("glm4", "Glm4ForCausalLM", SMALL),
    ("glm4_moe", "Glm4MoeForCausalLM", dict(MLA, num_key_value_heads=2)),
    ("phimoe", "PhimoeForCausalLM", MOE),
    ("minimax_m2", "MiniMaxM2ForCausalLM", MOE),
    ("qwen3_next", "Qwen3NextForCausalLM", dict(MOE, num_hidden_layers=2, layer_types=["linear_attention", "full_attention"], linear_num_value_heads=4,
                                               linear_num_key_heads=2, linear_key_head_dim=16, linear_value_head_dim=16)),
    ("ernie4_5_moe", "Ernie4_5_MoeForCausalLM", dict(MOE, num_hidden_layers=2, moe_layer_start_index=1)),
    ("hunyuan_v1_dense", "HunYuanDenseV1ForCausalLM", SMALL),
    ("lfm2", "Lfm2ForCausalLM", dict(SMALL, num_hidden_layers=2, layer_types=["conv", "full_attention"])),
    ("jamba", "JambaForCausalLM", dict(MOE, num_hidden_layers=2, attn_layer_period=2, attn_layer_offset=1, expert_layer_period=2,
                                       expert_layer_offset=1, use_mamba_kernels=False, mamba_dt_rank=4)),
    ("mamba", "MambaForCausalLM", MAMBA),
    ("mamba2", "Mamba2ForCausalLM", MAMBA),
    ("dbrx", "DbrxForCausalLM", dict(d_model=64, n_heads=4, n_layers=1, vocab_size=160, max_seq_len=80,
                                     attn_config=dict(kv_n_heads=2, clip_qkv=8.0, rope_theta=1e4),
                                     ffn_config=dict(ffn_hidden_size=96, moe_num_experts=2, moe_top_k=1))),
    ("t5", "T5ForConditionalGeneration", T5),
    ("t5", "T5EncoderModel", dict(T5, feed_forward_proj="gated-gelu")),
    ("mt5", "MT5ForConditionalGeneration", dict(T5, feed_forward_proj="gated-gelu")),
    ("bart", "BartForConditionalGeneration", SEQ2SEQ),
    ("whisper", "WhisperForConditionalGeneration", dict(SEQ2SEQ, num_mel_bins=16, max_source_positions=40, max_target_positions=40)),
    ("clip", "CLIPModel", dict(projection_dim=48, text_config=SMALL, vision_config=dict(SMALL, image_size=32, patch_size=16))),
    ("vit", "ViTForImageClassification", dict(SMALL, image_size=32, patch_size=16, num_labels=5)),
    ("llava", "LlavaForConditionalGeneration", dict(text_config=dict(SMALL, model_type="llama"), image_token_index=3,
                                                    vision_config=dict(SMALL, model_type="clip_vision_model", image_size=32, patch_size=16))),
    ("gemma3", "Gemma3ForConditionalGeneration", dict(text_config=dict(SMALL), vision_config=dict(SMALL, image_size=32, patch_size=16),
                                                      mm_tokens_per_image=4)),
    ("qwen2_vl", "Qwen2VLForConditionalGeneration", dict(text_config=dict(SMALL, rope_parameters=dict(rope_type="default", rope_theta=1e4, mrope_section=[2, 3, 3])), vision_config=dict(
        embed_dim=32, hidden_size=64, depth=1, num_heads=2, patch_size=14, mlp_ratio=2))),
    ("qwen3_vl", "Qwen3VLForConditionalGeneration", dict(text_config=dict(SMALL), vision_config=dict(
        hidden_size=32, out_hidden_size=64, intermediate_size=48, depth=1, num_heads=2, patch_size=14, deepstack_visual_indexes=[0]))),
]

# Keys of the configuration that are kept beside the model's type, if they are set.
KEPT = ["tie_word_embeddings", "architectures"]


def header(folder):
    """The tensors of the one safetensors file in `folder`: name -> (type, shape)."""
    data = (pathlib.Path(folder) / "model.safetensors").read_bytes()
    entries = json.loads(data[8:8 + struct.unpack("<Q", data[:8])[0]])
    return {name: (e["dtype"], e["shape"]) for name, e in entries.items() if name != "__metadata__"}


def module_type(model, name):
    """The type of the module that owns the parameter `name`, if the model has it under that name."""
    try:
        return type(model.get_submodule(name.rpartition(".")[0])).__name__ if "." in name else ""
    except AttributeError:
        return ""


def truth(model_type, class_name, config):
    """What bitsandbytes does to one model."""
    cls = getattr(transformers, class_name)
    torch.manual_seed(0)
    model = cls(CONFIG_MAPPING[model_type](**config)).to(torch.bfloat16)
    skipped = sorted(get_keys_to_not_convert(model))
    with tempfile.TemporaryDirectory() as dense, tempfile.TemporaryDirectory() as quantized:
        model.save_pretrained(dense)
        bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
        loaded = cls.from_pretrained(dense, quantization_config=bnb, dtype=torch.bfloat16, device_map="cpu")
        loaded.save_pretrained(quantized)
        before, after = header(dense), header(quantized)
        saved = json.loads((pathlib.Path(dense) / "config.json").read_text())
    states = {name.rsplit(".quant_state.", 1)[0] for name in after if ".quant_state." in name}
    assert states <= before.keys(), states - before.keys()
    count = sum(type(m).__name__ == "Linear4bit" for m in loaded.modules())
    assert count == len(states), (count, len(states))
    left = {name: shape for name, (_, shape) in before.items() if name not in states}
    return {
        "config": {"model_type": saved["model_type"], **{k: saved[k] for k in KEPT if k in saved}},
        "skipped_by_default": skipped,
        "keep_in_fp32": sorted(getattr(model, "_keep_in_fp32_modules", None) or []),
        "quantized": [[n, before[n][1], module_type(model, n)] for n in sorted(states)],
        "left": [[n, left[n], module_type(model, n)] for n in sorted(left)],
    }


def main(wanted):
    """Makes all of them and writes the file, one line a tensor list."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    found = []
    for row in MODELS:
        if wanted and row[0] not in wanted:
            continue
        try:
            found.append(truth(*row))
        except Exception as problem:
            if not wanted:
                print(f"{row[0]} {row[1]}: {type(problem).__name__}: {str(problem)[:300]}", file=sys.stderr)
            else:
                raise
    lines = ",\n".join(json.dumps(model, separators=(",", ":")) for model in found)
    if wanted:
        print(lines)
    else:
        OUTPUT.write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main(sys.argv[1:])
