//! What could be done about the error of a scheme, with an option for `quant convert`.

use quant_core::Scheme;

use super::tensors::worst_first;
use super::text::{Escaped, counted, error};
use super::words::{STANDS_OUT, median_error};
use crate::audit::report::{Report, RoleRow, SchemeReport, TensorRow};

/// The role of the greatest error is worth a rule if its error is so many times that of the median tensor.
const ROLE_STANDS_OUT: f64 = 1.15;

/// A sentence, as HTML.
pub fn advice(report: &Report, scheme: &SchemeReport) -> String {
    if !scheme.model.differs() {
        return String::new();
    }
    format!("Worth a try with <b>{}</b>: {}", Escaped(&scheme.scheme), what(report, scheme))
}

fn what(report: &Report, scheme: &SchemeReport) -> String {
    let tensors: Vec<_> = worst_first(scheme).into_iter().filter(|t| error(&t.metrics).is_finite()).collect();
    let limit = STANDS_OUT * median_error(scheme);
    let standing_out = tensors.iter().take_while(|t| error(&t.metrics) >= limit).count();
    match (tensors.first(), worst_role(scheme)) {
        (Some(worst), _) if standing_out > 0 && standing_out * 10 <= tensors.len() => {
            let all = counted(standing_out, "tensor");
            let which = if standing_out == 1 { "the worst tensor".into() } else { format!("the {all} that stand out, such as the worst") };
            format!("give more bits to {which}{}", option(report, scheme, worst, true))
        }
        (_, Some(role)) => {
            let example = tensors.iter().find(|t| t.role == role.role);
            let option = example.map_or(".".into(), |t| option(report, scheme, t, false));
            format!("more bits for <b>{}</b>{option}", Escaped(role.role))
        }
        _ => "a scheme with more bits. No tensor and no role stands out, so a rule for some of them would not help much.".into(),
    }
}

fn worst_role(scheme: &SchemeReport) -> Option<&RoleRow> {
    let worst = scheme.roles.iter().max_by(|a, b| error(&a.metrics).total_cmp(&error(&b.metrics)))?;
    (error(&worst.metrics) >= ROLE_STANDS_OUT * median_error(scheme)).then_some(worst)
}

/// `: --tensor-type 'PATTERN=SCHEME'` for a tensor, and unless for it only, for those of the same name in other layers; a full stop if there
/// is no safe text.
fn option(report: &Report, scheme: &SchemeReport, like: &TensorRow, only: bool) -> String {
    let stored = like.to.parse::<Scheme>();
    let is_ggml = matches!(stored, Ok(Scheme::Ggml(_)));
    let pattern = if is_ggml && report.names == "Hugging Face" { gguf_pattern(like, only) } else { pattern(scheme, like, only) };
    let more = match stored {
        Ok(Scheme::Ggml(_)) if like.bits_per_weight < 8.0 => "q8_0",
        Ok(Scheme::Ggml(_)) => "f16",
        Ok(Scheme::Affine { bits: ..8, .. }) => "affine8",
        Ok(Scheme::Absmax { bits: ..8, .. }) => "absmax8",
        Ok(Scheme::Dense(_)) | Err(_) => return ".".into(),
        _ => "",
    };
    match pattern {
        Some(pattern) if more.is_empty() => format!(", or keep it as it is: <code class=\"option\">--keep &#39;{}&#39;</code>", Escaped(&pattern)),
        Some(pattern) => format!(": <code class=\"option\">--tensor-type &#39;{}={more}&#39;</code>", Escaped(&pattern)),
        None => ".".into(),
    }
}

/// A pattern for a name, or for its last words, `\.down_proj\.weight$`; for the same name in all layers where these would fit other roles.
fn pattern(scheme: &SchemeReport, like: &TensorRow, only: bool) -> Option<String> {
    let name = &like.name;
    let is_plain = name.len() <= 120 && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    if !is_plain {
        return None;
    }
    let words: Vec<&str> = name.rsplit('.').collect();
    match words[..] {
        [last, word, _, ..] if !only => {
            let ending = format!(".{word}.{last}");
            if scheme.tensors.iter().all(|t| t.role == like.role || !t.name.ends_with(&ending)) {
                return Some(format!("{}$", regex::escape(&ending)));
            }
            let is_number = |word: &str| word.bytes().all(|b| b.is_ascii_digit());
            let words: Vec<String> = name.split('.').map(|w| if is_number(w) { "[0-9]+".into() } else { regex::escape(w) }).collect();
            Some(format!("^{}$", words.join("\\.")))
        }
        _ => Some(format!("^{}$", regex::escape(name))),
    }
}

/// A pattern for the name in GGUF of a tensor that is called as Hugging Face does.
fn gguf_pattern(tensor: &TensorRow, only: bool) -> Option<String> {
    let word = match tensor.role {
        "embedding" => return Some("^token_embd\\.weight$".into()),
        "head" => return Some("^output\\.weight$".into()),
        "attn_o" => "attn_output",
        "experts" => "ffn_.*_exps",
        role @ ("attn_q" | "attn_k" | "attn_v" | "attn_qkv" | "ffn_gate" | "ffn_up" | "ffn_down") => role,
        _ => return None,
    };
    match tensor.layer {
        Some(layer) if only => Some(format!("^blk\\.{layer}\\.{word}\\.weight$")),
        _ => Some(format!("\\.{word}\\.weight$")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str) -> crate::audit::build::Measured {
        let role = quant_core::source::Role::Linear;
        let (shape, stats) = (vec![4, 4], quant_core::audit::ErrorStats::default());
        crate::audit::build::Measured { name: name.into(), shape, from: "f32".into(), to: "nf4".into(), role, bytes: 8, stats }
    }

    fn pattern_of(names: &[&str], only: bool) -> Option<String> {
        let scheme = crate::audit::build::scheme(None, names.iter().map(|name| row(name)).collect());
        let first = scheme.tensors.iter().find(|t| t.name == names[0]).unwrap();
        pattern(&scheme, first, only)
    }

    #[test]
    fn patterns_fit_names() {
        assert_eq!(pattern_of(&["a.layers.3.down_proj.weight"], true).as_deref(), Some("^a\\.layers\\.3\\.down_proj\\.weight$"));
        assert_eq!(pattern_of(&["a.layers.3.down_proj.weight"], false).as_deref(), Some("\\.down_proj\\.weight$"));
        assert_eq!(pattern_of(&["a' --force '"], true), None);
        // BERT calls what it has in three roles `dense`.
        let names =
            ["encoder.layer.0.output.dense.weight", "encoder.layer.0.attention.output.dense.weight", "encoder.layer.0.intermediate.dense.weight"];
        assert_eq!(pattern_of(&names, false).as_deref(), Some("^encoder\\.layer\\.[0-9]+\\.output\\.dense\\.weight$"));
    }
}
