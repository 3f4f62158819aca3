//! How much a relative error of a tensor matters to what a model says.
//!
//! For small errors the divergence between what a model says before and after quantization grows with the square of the relative
//! error of each tensor, and errors of different tensors add up (Malinovskii et al., "Pushing the Limits of Large Language Model
//! Quantization via the Linearity Theorem", 2024). The factors belong to a model; these are those of [`Part`]s in two Llamas,
//! where one part after the other was quantized alone and the Kullback-Leibler divergence of llama-perplexity divided by the sum
//! of squares: see docs/plan.md. A layer's share is 1/layers.

use super::Part;

/// The factor of a tensor in a model with so many layers.
pub fn sensitivity(part: Part, n_layers: u64) -> f64 {
    let (outside, factor) = match part {
        Part::Head => (true, 0.55),
        Part::Embedding => (true, 0.37),
        Part::AttnQ => (false, 0.03),
        Part::AttnK => (false, 0.035),
        Part::AttnV | Part::AttnO => (false, 0.11),
        Part::AttnQkv => (false, 0.1),
        Part::FfnGate | Part::FfnUp => (false, 0.18),
        Part::FfnGateUp => (false, 0.36),
        Part::FfnDown | Part::Experts => (false, 0.32),
        Part::Router | Part::Norm | Part::Bias | Part::Other => (false, 0.3),
    };
    if outside { factor } else { factor / n_layers.max(1) as f64 }
}
