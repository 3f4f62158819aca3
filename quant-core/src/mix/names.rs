//! What a tensor's name says: its place in the order, its category, whether it is ever quantized.

/// What the rules of the mixes tell apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Category {
    Output,
    Embedding,
    /// Values: on their own, fused with queries and keys, or as the second half of latent attention.
    AttnV,
    AttnK,
    AttnQ,
    AttnOutput,
    FfnUp,
    FfnGate,
    FfnDown,
    Other,
}

/// The number of categories.
pub(super) const N_CATEGORIES: usize = Category::Other as usize + 1;

/// Parts of names and what they mean; the first that is found decides.
const PARTS: [(&str, Category); 9] = [
    ("attn_qkv.weight", Category::AttnV),
    ("attn_kv_b.weight", Category::AttnV),
    ("attn_v.weight", Category::AttnV),
    ("attn_k.weight", Category::AttnK),
    ("attn_q.weight", Category::AttnQ),
    ("attn_output.weight", Category::AttnOutput),
    ("ffn_up", Category::FfnUp),
    ("ffn_gate", Category::FfnGate),
    ("ffn_down", Category::FfnDown),
];

/// The second table of embeddings that some models have.
pub(super) const PER_LAYER_EMBEDDING: &str = "per_layer_token_embd.weight";

impl Category {
    pub(super) fn of(name: &str) -> Category {
        match name {
            "output.weight" => Category::Output,
            "token_embd.weight" | PER_LAYER_EMBEDDING => Category::Embedding,
            _ => PARTS.iter().find(|(part, _)| name.contains(part)).map_or(Category::Other, |(_, category)| *category),
        }
    }

    /// The word shown to people.
    pub(super) fn word(self) -> &'static str {
        match self {
            Category::Output => "the output",
            Category::Embedding => "the embeddings",
            Category::AttnV => "attn_v",
            Category::AttnK => "attn_k",
            Category::AttnQ => "attn_q",
            Category::AttnOutput => "attn_output",
            Category::FfnUp => "ffn_up",
            Category::FfnGate => "ffn_gate",
            Category::FfnDown => "ffn_down",
            Category::Other => "this tensor",
        }
    }
}

/// Parts of the names of tensors that are never quantized, and what they are.
const NEVER: [(&str, &str); 35] = [
    ("_norm.weight", "norms"),
    ("ffn_gate_inp.weight", "routers"),
    ("ffn_gate_tid2eid.weight", "routers"),
    ("altup", "altup tensors"),
    ("laurel", "laurel tensors"),
    ("per_layer_model_proj", "per-layer projections"),
    ("ssm_conv1d", "convolutions"),
    ("shortconv.conv.weight", "convolutions"),
    ("indexer.k_proj.weight", "indexers"),
    ("indexer.q_proj.weight", "indexers"),
    ("time_mix_first.weight", "small time-mix tensors"),
    ("time_mix_w0.weight", "small time-mix tensors"),
    ("time_mix_w1.weight", "small time-mix tensors"),
    ("time_mix_w2.weight", "small time-mix tensors"),
    ("time_mix_v0.weight", "small time-mix tensors"),
    ("time_mix_v1.weight", "small time-mix tensors"),
    ("time_mix_v2.weight", "small time-mix tensors"),
    ("time_mix_a0.weight", "small time-mix tensors"),
    ("time_mix_a1.weight", "small time-mix tensors"),
    ("time_mix_a2.weight", "small time-mix tensors"),
    ("time_mix_g1.weight", "small time-mix tensors"),
    ("time_mix_g2.weight", "small time-mix tensors"),
    ("time_mix_decay_w1.weight", "small time-mix tensors"),
    ("time_mix_decay_w2.weight", "small time-mix tensors"),
    ("time_mix_lerp_fused.weight", "small time-mix tensors"),
    ("attn_rel_b.weight", "position biases"),
    (".position_embd", "position embeddings"),
    ("sam.pos_embd", "position embeddings"),
    ("sam.neck.", "image encoders' necks"),
    ("sam.net_", "image encoders' necks"),
    (".rel_pos", "position embeddings"),
    (".patch_embd", "patch embeddings"),
    (".patch_merger", "patch mergers"),
    ("a.rvq.codebook", "audio codebooks"),
    ("mm.a.code_embd", "audio codebooks"),
];

/// Which tensors of `glm5-next` are not quantized either.
const NEVER_IN_GLM5_NEXT: [&str; 14] = [
    "hc_",
    "indexer.attn_q_b",
    "indexer.attn_k",
    "indexer.proj",
    "indexer_compressor_gate",
    "indexer_compressor_ape",
    "ssm_f_a.weight",
    "ssm_f_b.weight",
    "ssm_g_a.weight",
    "ssm_g_b.weight",
    "ssm_beta.weight",
    "attn_kv_a_mqa.weight",
    "attn_k_b.weight",
    "attn_v_b.weight",
];

pub(super) const GLM5_NEXT: &str = "glm5-next";

/// What the tensors that are kept as they are have in common, in the plural, if `name` of `shape` is one of them.
///
/// `shape` is row-major; dimensions of 1 in front do not count.
pub(super) fn never_quantized(name: &str, shape: &[u64], arch: &str) -> Option<&'static str> {
    if shape.iter().skip_while(|&&dim| dim == 1).count() < 2 {
        return Some("vectors");
    }
    // llama.cpp's test whether a name ends in "weight" holds for every name of five bytes, too.
    if !name.ends_with("weight") && name.len() != 5 {
        return Some("tensors other than weights");
    }
    match name {
        "position_embd.weight" => return Some("position embeddings"),
        "token_types.weight" => return Some("token types"),
        _ => {}
    }
    let small = || (arch == GLM5_NEXT && NEVER_IN_GLM5_NEXT.iter().any(|part| name.contains(part))).then_some("small tensors of glm5-next");
    NEVER.iter().find(|(part, _)| name.contains(part)).map(|(_, what)| *what).or_else(small)
}

/// Which tensors of `glm5-next` get at least 8 bits.
const TOUCHY_IN_GLM5_NEXT: [&str; 3] = ["attn_q_a", "attn_q_b", "nextn.eh_proj"];

/// Whether no mix for `glm5-next` gives the tensor less than `q8_0`.
pub(super) fn is_touchy_in_glm5_next(name: &str) -> bool {
    TOUCHY_IN_GLM5_NEXT.iter().any(|part| name.contains(part))
}

/// The number after `blk.` at the start of `name`, as C's `sscanf` reads a `%d` on a 64-bit machine.
pub(super) fn layer(name: &str) -> Option<i32> {
    let number = name.strip_prefix("blk.")?.trim_start_matches([' ', '\t', '\n', '\u{b}', '\u{c}', '\r']);
    let (sign, digits) = match number.as_bytes().first()? {
        b'-' => (-1, &number[1..]),
        b'+' => (1, &number[1..]),
        _ => (1, number),
    };
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    if end == 0 {
        return None;
    }
    let push = |value: i64, digit: u8| value.saturating_mul(10).saturating_add(sign * i64::from(digit - b'0'));
    // Numbers beyond 32 bits lose their upper half there, and so here.
    Some(digits.as_bytes()[..end].iter().fold(0, |value, &digit| push(value, digit)) as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_read_as_scanf_reads_them() {
        let cases = [
            ("blk.0.attn_q.weight", Some(0)),
            ("blk.17.x", Some(17)),
            ("blk.17", Some(17)),
            ("blk.-3.x", Some(-3)),
            ("blk. +7x", Some(7)),
            ("blk.4294967297.x", Some(1)),
            ("blk.99999999999999999999.x", Some(-1)),
            ("blk..x", None),
            ("blk.-.x", None),
            ("v.blk.3.x", None),
            ("output.weight", None),
        ];
        for (name, expected) in cases {
            assert_eq!(layer(name), expected, "{name}");
        }
    }

    #[test]
    fn names_have_categories() {
        let cases = [
            ("output.weight", Category::Output),
            ("dec.output.weight", Category::Other),
            ("per_layer_token_embd.weight", Category::Embedding),
            ("v.blk.0.attn_qkv.weight", Category::AttnV),
            ("blk.0.attn_kv_b.weight", Category::AttnV),
            ("blk.0.attn_v_b.weight", Category::Other),
            ("blk.0.attn_q_a.weight", Category::Other),
            ("blk.0.attn_output.weight", Category::AttnOutput),
            ("blk.0.ffn_gate_up_exps.weight", Category::FfnGate),
            ("blk.0.ffn_up_exps.weight", Category::FfnUp),
            ("blk.0.ffn_down_shexp.weight", Category::FfnDown),
            ("blk.0.ssm_out.weight", Category::Other),
        ];
        for (name, expected) in cases {
            assert_eq!(Category::of(name), expected, "{name}");
        }
    }

    #[test]
    fn small_and_touchy_tensors_are_kept() {
        let kept = |name: &str, shape: &[u64], arch: &str| never_quantized(name, shape, arch);
        assert_eq!(kept("blk.0.attn_q.weight", &[8, 256], "llama"), None);
        assert_eq!(kept("blk.0.attn_q.weight", &[1, 1, 256], "llama"), Some("vectors"));
        assert_eq!(kept("blk.0.attn_q.weight", &[8, 1], "llama"), None);
        assert_eq!(kept("blk.0.attn_q.bias", &[8, 256], "llama"), Some("tensors other than weights"));
        assert_eq!(kept("abcde", &[8, 256], "llama"), None);
        assert_eq!(kept("blk.0.attn_norm.weight", &[8, 256], "llama"), Some("norms"));
        assert_eq!(kept("position_embd.weight", &[8, 256], "gpt2"), Some("position embeddings"));
        assert_eq!(kept("v.position_embd.weight", &[8, 256], "clip"), Some("position embeddings"));
        assert_eq!(kept("blk.0.attn_k_b.weight", &[8, 256], "deepseek2"), None);
        assert_eq!(kept("blk.0.attn_k_b.weight", &[8, 256], "glm5-next"), Some("small tensors of glm5-next"));
    }
}
