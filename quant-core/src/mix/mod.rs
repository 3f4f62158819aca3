//! `llama-quantize`'s mixes: which type each tensor of a GGUF model gets, as a pure function of names, shapes and model facts.
//!
//! A mix such as `Q4_K_M` has a default type and rules that give some tensors more or fewer bits: `rules.rs` holds them as a
//! table. Some rules count tensors, so decisions are made for all tensors of a file at once, in the order of [`order_key`]
//! (or of the file, where its shards are kept).
//!
//! Source: `src/llama-quant.cpp` and `tools/quantize/quantize.cpp` of llama.cpp 0.5.0-dev (ggml 0.25.3). The rules change
//! between versions. Checked against llama.cpp's own snapshots: `tests/tests/mixes.rs`.

mod chooser;
mod ftype;
mod names;
mod rules;

use regex::Regex;

pub use ftype::Ftype;

use crate::{Result, Scheme};
use chooser::{Chooser, Target, Tensor, looked_at};

/// The name under which `llama-quantize` keeps every tensor as it is. It is no mix: nothing is left to choose.
pub const COPY: &str = "COPY";

/// What the rules need to know of a model, from its metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    /// `general.architecture`.
    pub arch: String,
    /// The number of blocks, with those for predicting further tokens: `block_count`.
    pub n_layer: u32,
    /// Query heads of the first layer: `attention.head_count`.
    pub n_head: u32,
    /// Key heads of the first layer: `attention.head_count_kv`; 0 if it has none.
    pub n_head_kv: u32,
    /// Experts: `expert_count`; 0 without.
    pub n_expert: u32,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// The mix.
    pub ftype: Ftype,
    /// Gives every tensor the default type of the mix. Shapes that do not fit, `rules` and the two types below still count.
    pub pure: bool,
    /// Whether there is an importance matrix, which some rules ask; whether it covers a tensor does not matter here.
    pub has_imatrix: bool,
    /// Keeps `output.weight` as it is.
    pub leave_output: bool,
    /// The type of `output.weight`, or of the embeddings that serve as output.
    pub output_type: Option<Scheme>,
    /// The type of the embeddings.
    pub embedding_type: Option<Scheme>,
    /// Types by name: the first pattern that is found in a name decides. They count for quantizing mixes only.
    pub rules: Vec<(Regex, Scheme)>,
    /// Refuses shapes that do not fit the type chosen, instead of taking another type.
    pub no_fallback: bool,
}

impl Options {
    /// The mix as it is, without an importance matrix.
    pub fn new(ftype: Ftype) -> Options {
        let (output_type, embedding_type) = (None, None);
        Options { ftype, pure: false, has_imatrix: false, leave_output: false, output_type, embedding_type, rules: Vec::new(), no_fallback: false }
    }
}

/// A tensor to decide on.
#[derive(Clone, Copy, Debug)]
pub struct Item<'a> {
    /// Its name in GGUF files.
    pub name: &'a str,
    /// Its shape: row-major, last dimension contiguous; dimensions of 1 in front do not count.
    pub shape: &'a [u64],
    /// How it is stored.
    pub from: Scheme,
}

/// The decision on one tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// The scheme, possibly that in which it is stored; none to keep the stored bytes whatever they are.
    pub scheme: Option<Scheme>,
    /// Why, in a few words for people.
    pub reason: String,
    /// The scheme wanted and the one taken, where the shape does not fit the first.
    pub fallback: Option<(Scheme, Scheme)>,
    /// Whether `llama-quantize` refuses to encode it without an importance matrix that covers it.
    pub needs_importance: bool,
}

/// The order in which `llama-quantize` visits tensors and writes them: by layer (-1 for those outside of layers), then by name.
pub fn order_key(name: &str) -> (i64, &str) {
    (names::layer(name).map_or(-1, i64::from), name)
}

/// Decides on `items`, which are all tensors of a model in the order of visiting: see [`order_key`].
///
/// # Errors
/// Naming the tensor, if its rows fit neither the type wanted nor a substitute (or `no_fallback` forbids one), if a type
/// asked for cannot be written, or if a mixture's tensor has no layer below `n_layer` in its name. If the mix is one that cannot
/// be asked for.
pub fn choose(options: &Options, model: &Model, items: &[Item<'_>]) -> Result<Vec<Choice>> {
    let tensors = looked_at(model, items);
    let mut chooser = Chooser::new(options, model, &tensors)?;
    tensors.iter().map(|tensor| chooser.choice(tensor)).collect()
}

/// The mix that gives all `items` the types under which they are stored, if there is one: with or without an importance
/// matrix, or pure. `items` are all tensors of a model, in any order.
///
/// Several mixes may give the same types: then it is `stated`, what the file says of itself, if that is one of them, else the
/// simplest, by number.
pub fn recognise(model: &Model, items: &[Item<'_>], stated: Option<Ftype>) -> Option<Ftype> {
    let mut tensors = looked_at(model, items);
    tensors.sort_by_key(|tensor| order_key(tensor.item.name));
    if tensors.iter().all(|tensor| tensor.never.is_some()) {
        return None;
    }
    let fits = |options: &Options| {
        let is_as_stored = |target: Target<'_>, tensor: &Tensor<'_>| target.scheme.is_none_or(|scheme| scheme == tensor.item.from);
        let all = |mut chooser: Chooser<'_>| tensors.iter().all(|tensor| chooser.target(tensor).is_ok_and(|target| is_as_stored(target, tensor)));
        Chooser::new(options, model, &tensors).is_ok_and(all)
    };
    let plain = |ftype| Options::new(ftype);
    let with_matrix = |ftype| Options { has_imatrix: true, ..Options::new(ftype) };
    let pure = |ftype| Options { pure: true, ..Options::new(ftype) };
    let stated = stated.into_iter().flat_map(|ftype| [plain(ftype), with_matrix(ftype), pure(ftype)]);
    // Pure files go by the name of their type, if a mix has it.
    let is_eponym = |ftype: &Ftype| ftype.name().eq_ignore_ascii_case(&ftype.default_scheme().to_string());
    let mixed = Ftype::all().map(plain).chain(Ftype::all().map(with_matrix));
    let pure = Ftype::all().filter(is_eponym).chain(Ftype::all()).map(pure);
    stated.chain(mixed).chain(pure).find(fits).map(|options| options.ftype)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dtype;
    use crate::recipe::pattern;

    const HALF: Scheme = Scheme::Dense(Dtype::F16);

    fn scheme(text: &str) -> Scheme {
        text.parse().unwrap()
    }

    fn llama(n_layer: u32) -> Model {
        Model { arch: "llama".into(), n_layer, n_head: 8, n_head_kv: 2, n_expert: 0 }
    }

    /// The choices for tensors of 2 rows, as `scheme reason`.
    fn chosen(options: &Options, model: &Model, tensors: &[(&str, u64)]) -> Result<Vec<String>> {
        let shapes: Vec<[u64; 2]> = tensors.iter().map(|(_, row)| [2, *row]).collect();
        let items: Vec<Item<'_>> = tensors.iter().zip(&shapes).map(|((name, _), shape)| Item { name, shape, from: HALF }).collect();
        let choices = choose(options, model, &items)?;
        Ok(choices.iter().map(|c| format!("{} {}", c.scheme.map_or("-".into(), |s| s.to_string()), c.reason)).collect())
    }

    fn refused(options: &Options, model: &Model, tensors: &[(&str, u64)]) -> String {
        chosen(options, model, tensors).unwrap_err().to_string()
    }

    const TIED: [(&str, u64); 3] = [("per_layer_token_embd.weight", 512), ("token_embd.weight", 512), ("blk.0.attn_q.weight", 512)];
    const UNTIED: [(&str, u64); 3] = [("output.weight", 512), ("token_embd.weight", 512), ("blk.0.attn_q.weight", 512)];

    #[test]
    fn reasons_are_told() {
        let tensors = [
            ("output.weight", 512),
            ("token_embd.weight", 512),
            ("blk.0.attn_norm.weight", 512),
            ("blk.0.attn_q.weight", 512),
            ("blk.0.attn_v.bias", 512),
            ("blk.0.attn_v.weight", 512),
            ("blk.0.ffn_down.weight", 576),
            ("blk.1.ffn_down.weight", 33),
        ];
        let expected = [
            "q6_k Q4_K_M: more bits for the output",
            "q4_k Q4_K_M",
            "- norms are not quantized",
            "q4_k Q4_K_M",
            "- tensors other than weights are not quantized",
            "q6_k Q4_K_M: more bits for attn_v",
            "q5_0 fallback: rows of 576 are no multiple of 256, q4_k became q5_0",
            "f16 fallback: rows of 33 are no multiple of 256, q4_k became f16",
        ];
        assert_eq!(chosen(&Options::new(Ftype::Q4_K_M), &llama(4), &tensors).unwrap(), expected);
        let options = Options { leave_output: true, ..Options::new(Ftype::F16) };
        assert_eq!(chosen(&options, &llama(1), &UNTIED).unwrap(), ["- the output is left as it is", "f16 F16", "f16 F16"]);
    }

    #[test]
    fn types_asked_for_win() {
        let output = Options { output_type: Some(scheme("q5_1")), ..Options::new(Ftype::Q4_K_S) };
        assert_eq!(chosen(&output, &llama(1), &UNTIED).unwrap(), ["q5_1 asked for the output", "q4_k Q4_K_S", "q4_k Q4_K_S"]);
        let reached = "q5_1 asked for the output, which the embeddings serve as";
        assert_eq!(chosen(&output, &llama(1), &TIED).unwrap(), [reached, reached, "q4_k Q4_K_S"]);
        let pure = Options { pure: true, ..output };
        assert_eq!(chosen(&pure, &llama(1), &TIED).unwrap(), ["q4_k Q4_K_S, pure"; 3]);
        let rules = vec![(pattern("token").unwrap(), scheme("q4_0")), (pattern("attn|embd").unwrap(), scheme("q8_0"))];
        let embedding = Options { embedding_type: Some(scheme("f16")), rules, ..pure };
        assert_eq!(chosen(&embedding, &llama(1), &TIED).unwrap(), ["q4_0 rule 'token'", "f16 asked for the embeddings", "q8_0 rule 'attn|embd'"]);
        // Mixes that do not quantize have no rules by name.
        let dense = Options { ftype: Ftype::BF16, ..embedding };
        assert_eq!(chosen(&dense, &llama(1), &TIED).unwrap(), ["bf16 BF16", "f16 asked for the embeddings", "bf16 BF16"]);
    }

    #[test]
    fn glm5_next_keeps_some_tensors_at_8_bits() {
        let tensors = [("blk.0.attn_q_a.weight", 512), ("blk.0.ssm_beta.weight", 512), ("blk.1.nextn.eh_proj.weight", 512)];
        let model = Model { arch: "glm5-next".into(), ..llama(2) };
        let found = chosen(&Options::new(Ftype::Q2_K), &model, &tensors).unwrap();
        let more = "q8_0 Q2_K: more bits for this tensor";
        assert_eq!(found, [more, "- small tensors of glm5-next are not quantized", more]);
        assert_eq!(chosen(&Options::new(Ftype::F32), &model, &tensors[..1]).unwrap(), ["f32 F32"]);
    }

    #[test]
    fn only_experts_of_bailingmoe3_become_mxfp4() {
        let shape = [4, 2, 512];
        let of = |arch: &str, name: &str| {
            let items = [Item { name, shape: &shape, from: HALF }];
            choose(&Options::new(Ftype::MXFP4_MOE), &Model { arch: arch.into(), ..llama(1) }, &items).unwrap()[0].scheme.unwrap().to_string()
        };
        let found = [("deepseek2", "attn_k_b"), ("bailingmoe3", "attn_k_b"), ("bailingmoe3", "ffn_up_exps")]
            .map(|(a, n)| of(a, &format!("blk.0.{n}.weight")));
        assert_eq!(found, ["mxfp4", "q8_0", "mxfp4"]);
    }

    #[test]
    fn importance_is_needed_below_3_bits_but_not_for_embeddings() {
        let needs = |ftype: Ftype, from: Scheme| {
            let items = ["token_embd.weight", "blk.0.attn_q.weight"].map(|name| Item { name, shape: &[2, 512], from });
            choose(&Options::new(ftype), &llama(1), &items).unwrap().iter().map(|c| c.needs_importance).collect::<Vec<_>>()
        };
        let needy: Vec<Ftype> = Ftype::all().filter(|f| f.is_selectable() && needs(*f, HALF)[1]).collect();
        use Ftype::*;
        assert_eq!(needy, [IQ2_XXS, IQ2_XS, Q2_K_S, IQ3_XS, IQ3_XXS, IQ1_S, IQ2_S, IQ2_M, IQ1_M]);
        assert!(Ftype::all().filter(|f| f.is_selectable()).all(|f| !needs(f, HALF)[0]));
        assert_eq!(needs(IQ2_XXS, scheme("iq2_xxs")), [false, false]);
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        let odd = [("blk.0.attn_q.weight", 576)];
        let q1_0 =
            "tensor 'blk.0.attn_q.weight': q1_0 needs rows of a multiple of 128 elements, got shape [2, 576], and no other type takes its place";
        assert_eq!(refused(&Options::new(Ftype::Q1_0), &llama(1), &odd), q1_0);
        let strict = Options { no_fallback: true, ..Options::new(Ftype::Q4_K_M) };
        let q4_k = "tensor 'blk.0.attn_q.weight': q4_k needs rows of a multiple of 256 elements, got shape [2, 576], and no other type is allowed";
        assert_eq!(refused(&strict, &llama(1), &odd), q4_k);
        let output = Options { output_type: Some(scheme("q4_k")), ..Options::new(Ftype::Q4_0) };
        let fixed = "tensor 'output.weight': q4_k needs rows of a multiple of 256 elements, got shape [2, 576]";
        assert_eq!(refused(&output, &llama(1), &[("output.weight", 576)]), fixed);
        for text in ["nf4", "ggml:9", "i8", "f64"] {
            let options = Options { rules: vec![(pattern("attn_q").unwrap(), scheme(text))], ..Options::new(Ftype::Q4_0) };
            let expected = format!("tensor 'blk.0.attn_q.weight': {text} is not a type that GGUF files are quantized to");
            assert_eq!(refused(&options, &llama(1), &[("blk.0.attn_q.weight", 512)]), expected);
        }
        assert_eq!(refused(&Options::new(Ftype::NVFP4), &llama(1), &odd), "there is no mix for files of type NVFP4");
    }

    #[test]
    fn layers_of_mixtures_come_from_names() {
        let mixture = Model { n_expert: 8, ..llama(2) };
        let options = Options::new(Ftype::Q6_K);
        let beyond = "tensor 'blk.2.ffn_up.weight': layer 2 is not one of the model's 2";
        assert_eq!(refused(&options, &mixture, &[("blk.2.ffn_up.weight", 512)]), beyond);
        let none = "tensor 'v.ffn_up.weight': the name of an expert or feed-forward tensor has no layer";
        assert_eq!(refused(&options, &mixture, &[("v.ffn_up.weight", 512)]), none);
        for ftype in [Ftype::IQ2_M, Ftype::MXFP4_MOE, Ftype::F16] {
            assert!(chosen(&Options::new(ftype), &mixture, &[("v.ffn_up.weight", 512)]).is_ok());
        }
    }

    #[test]
    fn tensors_are_visited_by_layer_then_name() {
        let mut names = ["blk.10.a", "output.weight", "blk.2.b", "blk.2.a", "Z", "blk.x"];
        names.sort_by_key(|name| order_key(name));
        assert_eq!(names, ["Z", "blk.x", "output.weight", "blk.2.a", "blk.2.b", "blk.10.a"]);
    }

    #[test]
    fn pure_files_are_recognised_and_others_not() {
        let stored = |texts: [&str; 3]| {
            let items: Vec<Item<'_>> =
                UNTIED.iter().zip(texts).map(|((name, _), text)| Item { name, shape: &[2, 512], from: scheme(text) }).collect();
            recognise(&llama(1), &items, None)
        };
        assert_eq!(stored(["q4_k"; 3]), Some(Ftype::Q4_K_S));
        assert_eq!(stored(["iq3_s"; 3]), Some(Ftype::IQ3_S));
        assert_eq!(stored(["bf16"; 3]), Some(Ftype::BF16));
        assert_eq!(stored(["q4_k", "q4_k", "nf4"]), None);
        let norm = [Item { name: "output_norm.weight", shape: &[512], from: HALF }];
        assert_eq!(recognise(&llama(1), &norm, None), None);
    }
}
