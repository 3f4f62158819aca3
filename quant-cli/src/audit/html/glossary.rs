//! What the words of the page mean, a line each. Formulas: docs/audit.md.

/// Each word with its meaning. w is a weight, e its error, n their number.
const WORDS: &[(&str, &str)] = &[
    ("error e", "The weight of the candidate less that of the reference."),
    ("exact", "No weight differs."),
    ("bits a weight", "Stored bits, with scales and the like, divided by the number of weights."),
    ("relative error", "√(Σe² / Σw²). 0 is exact; 100 % is an error as large as the weights."),
    ("SQNR", "Signal to quantization noise ratio, −20·log₁₀ of the relative error, in decibels. More is better; 6 dB are a factor of 2."),
    ("cosine", "How well the directions of the weights agree: 1 is the same direction."),
    ("max |e|", "The largest error of a single weight."),
    ("p99 |e|", "99 % of the errors are at most this, to about 3 %."),
    ("noise ratio", "Σe² against what evenly spread rounding would give (s²/12 for a step s). About 1 is rounding as theory has it."),
    ("output error", "Expected relative error of the layer's output, with the importance of columns as weights."),
    ("activation error", "Relative error of the layer's output for the activations that were given."),
    ("‖E‖₂", "The greatest singular value of the error: the most that it can add to an output, for an input of length 1."),
    ("kurtosis", "How heavy the tails of the weights are: 3 for a normal distribution. The heavier, the harder to quantize."),
    ("outliers", "Weights farther than 6 standard deviations from the mean."),
    ("role", "What a tensor does: attn_q, attn_k, attn_v and attn_o are attention, ffn_gate, ffn_up and ffn_down the feed-forward part."),
];

/// The list of definitions.
pub fn list() -> String {
    let items: String = WORDS.iter().map(|(word, meaning)| format!("<dt>{word}<dd>{meaning}\n")).collect();
    format!("<dl>\n{items}</dl>\n")
}
