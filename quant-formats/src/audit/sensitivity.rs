//! How much the error of a tensor matters to what a model says.
//!
//! For small errors the divergence between what a model says before and after quantization grows with the square of the relative
//! error of each tensor, and what different tensors add is summed (Malinovskii et al., "Pushing the Limits of Large Language Model
//! Quantization via the Linearity Theorem", 2024). The factors belong to a model. Those here are rounded from two, a Llama of 4
//! layers and SmolLM2-135M of 30: one part after the other was quantized alone, and the Kullback-Leibler divergence that
//! llama-perplexity measured was divided by the sum of squared errors (docs/plan.md).
//!
//! ```text
//! head:         0.9/√layers        embeddings: 0.6/√layers        embeddings that serve as head: both
//! all others:   factor of the part · weights of the tensor / Σ of the same over all of these
//!
//! A model that answers with embeddings, such as BERT, has no head; its embeddings serve as none.
//! ```

use super::Part;
use crate::Checkpoint;
use crate::gguf::{Entry, Scalar};

const HEAD: f64 = 0.9;
const EMBEDDING: f64 = 0.6;

/// The factor of a weight in a layer.
fn factor(part: Part) -> f64 {
    match part {
        Part::AttnQ => 0.7,
        Part::AttnK | Part::FfnDown => 2.2,
        Part::AttnV => 6.0,
        Part::AttnQkv => 2.0,
        Part::AttnO => 1.6,
        Part::FfnUp => 1.0,
        Part::FfnGate | Part::FfnGateUp => 1.1,
        Part::Experts | Part::Router | Part::Norm | Part::Bias | Part::Other | Part::Embedding | Part::Head => 1.5,
    }
}

/// Whether a model gives tokens: not one whose metadata of GGUF says that it pools what it finds, or that it sees what comes later.
pub fn has_head(checkpoint: &Checkpoint) -> bool {
    let sees_all = |e: &Entry| e.key.ends_with(".attention.causal") && e.scalar() == Some(Scalar::Bool(false));
    !checkpoint.kv.iter().any(|e| e.key.ends_with(".pooling_type") || sees_all(e))
}

/// How much the squared relative errors of tensors count, given the part and the weights of each. Those of all but head and embeddings
/// sum to 1. Embeddings serve as head in a model that has one without a tensor for it.
pub fn sensitivities(tensors: &[(Part, u64)], n_layers: u64, has_head: bool) -> Vec<f64> {
    let is_outside = |part: Part| matches!(part, Part::Head | Part::Embedding);
    let share = |&(part, n): &(Part, u64)| if is_outside(part) { 0.0 } else { factor(part) * n as f64 };
    let total: f64 = tensors.iter().map(share).sum::<f64>().max(f64::MIN_POSITIVE);
    let is_tied = has_head && !tensors.iter().any(|(part, _)| *part == Part::Head);
    let outside = 1.0 / (n_layers.max(1) as f64).sqrt();
    let of = |tensor: &(Part, u64)| match tensor.0 {
        Part::Head => HEAD * outside,
        Part::Embedding if is_tied => (HEAD + EMBEDDING) * outside,
        Part::Embedding => EMBEDDING * outside,
        _ => share(tensor) / total,
    };
    tensors.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_sum_to_one_and_tied_embeddings_count_twice() {
        let layer = [(Part::AttnV, 100), (Part::FfnUp, 400)];
        let untied = sensitivities(&[layer[0], layer[1], (Part::Embedding, 1000), (Part::Head, 1000)], 4, true);
        assert_eq!(untied, [0.6, 0.4, 0.3, 0.45]);
        assert_eq!(sensitivities(&[layer[0], (Part::Embedding, 1000)], 4, true), [1.0, 0.75]);
        assert_eq!(sensitivities(&[layer[0], (Part::Embedding, 1000)], 4, false), [1.0, 0.3]);
    }
}
