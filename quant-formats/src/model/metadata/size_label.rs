//! How many parameters a model has, and how that is said: `7B`, `8x7B`.
//!
//! Source: `GGUFWriter.get_total_parameter_count` of gguf-py/gguf/gguf_writer.py and `size_label` of gguf-py/gguf/utility.py,
//! llama.cpp 0.5.0-dev.

/// Numbers of parameters. Sums that 64 bits cannot hold stay at the greatest number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// All; negative for an adapter, where it is not exact.
    pub(crate) total: i64,
    /// Those outside the experts.
    pub(crate) shared: i64,
    /// Those of one expert of each layer.
    pub(crate) expert: i64,
    /// The mean number of experts.
    pub(crate) n_experts: i64,
}

/// Counts the parameters of tensors with the names of GGUF; the outermost dimension of a shape comes first.
pub(crate) fn counts<'a>(tensors: impl Iterator<Item = (&'a str, &'a [u64])>) -> Counts {
    let mut sum = Counts::default();
    let mut n_expert_tensors = 0;
    let mut lora_a: Option<(&str, &[u64])> = None;
    for (name, shape) in tensors {
        if name.ends_with(".lora_a") {
            lora_a = Some((name, shape));
            continue;
        }
        let mut size = elements(shape);
        if let Some(stem) = name.strip_suffix(".lora_b") {
            // The pair stands for a matrix of the rows of one and the columns of the other.
            match lora_a.filter(|(a, _)| a.strip_suffix(".lora_a") == Some(stem)) {
                Some((_, a)) => size = elements(&shape[..shape.len().saturating_sub(1)]).saturating_mul(elements(&a[a.len().saturating_sub(1)..])),
                None => return Counts::default(),
            }
        }
        match n_experts(name, shape) {
            Some(n) => {
                sum.expert = sum.expert.saturating_add(size.checked_div(n).unwrap_or(0));
                sum.n_experts = sum.n_experts.saturating_add(n);
                n_expert_tensors += 1;
            }
            None => sum.shared = sum.shared.saturating_add(size),
        }
        sum.total = sum.total.saturating_add(size);
    }
    sum.n_experts = sum.n_experts.checked_div(n_expert_tensors).unwrap_or(0);
    if lora_a.is_some() {
        sum.total = -sum.total;
    }
    sum
}

/// How many experts a tensor stacks, if it does.
fn n_experts(name: &str, shape: &[u64]) -> Option<i64> {
    let inner = if name.contains(".bias") { 2 } else { 3 };
    let stacked = name.contains("_exps.") && shape.len() >= 3;
    stacked.then(|| shape.iter().nth_back(inner - 1).map(|&n| to_signed(n))).flatten()
}

fn elements(shape: &[u64]) -> i64 {
    shape.iter().fold(1, |n: i64, &d| n.saturating_mul(to_signed(d)))
}

fn to_signed(n: u64) -> i64 {
    n.try_into().unwrap_or(i64::MAX)
}

/// The size of a model in at least two digits.
pub(super) fn size_label(counts: &Counts) -> String {
    if counts.n_experts > 0 {
        return format!("{}x{}", counts.n_experts, rounded(counts.shared.saturating_abs().saturating_add(counts.expert.saturating_abs())));
    }
    rounded(counts.total.saturating_abs())
}

fn rounded(n: i64) -> String {
    const UNITS: [(f64, f64, char); 3] = [(1e12, 1e-12, 'T'), (1e9, 1e-9, 'B'), (1e6, 1e-6, 'M')];
    let n = n as f64;
    let (scale, unit) = UNITS.iter().find(|(above, ..)| n > *above).map_or((1e-3, 'K'), |&(_, scale, unit)| (scale, unit));
    let scaled = n * scale;
    let whole = format!("{:.0}", scaled.round_ties_even());
    let decimals = 2_usize.saturating_sub(whole.trim_start_matches('0').len());
    format!("{scaled:.decimals$}{unit}")
}
