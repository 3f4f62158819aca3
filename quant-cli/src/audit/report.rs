//! What an audit found, as it is printed: the JSON of `quant audit --json` (schema: docs/audit.schema.json) and the source of
//! tables, CSV and the page.

use serde::Serialize;

/// What an audit found.
#[derive(Serialize)]
pub struct Report {
    /// The version of this form; see docs/audit.schema.json.
    pub version: u32,
    /// The version of quant.
    pub quant: &'static str,
    /// The path of the model that is taken for true.
    pub reference: String,
    /// The path of the model that is compared with it; none if schemes were tried on the reference.
    pub candidate: Option<String>,
    /// The path of the importance matrix, if one was given.
    pub imatrix: Option<String>,
    /// The path of the activations, if some were given.
    pub activations: Option<String>,
    /// Whose names the tensors have: "Hugging Face", "GGUF" or "as stored".
    pub names: &'static str,
    /// What was measured: one for a pair of models, one for each scheme tried.
    pub schemes: Vec<SchemeReport>,
    /// Tensors that were not compared, and why.
    pub skipped: Vec<Skipped>,
    /// Tensors of the reference that the candidate lacks.
    pub missing: Vec<String>,
    /// Tensors of the candidate that the reference lacks.
    pub extra: Vec<String>,
    /// What is wrong: shapes that differ, numbers that are not finite. Each names its tensor.
    pub problems: Vec<String>,
    /// Conditions of `--fail-if` that hold.
    pub failed: Vec<Failed>,
    /// What a reader should know.
    pub notes: Vec<String>,
    /// Seconds that it took.
    #[serde(skip)]
    pub seconds: f64,
}

/// One scheme, or one pair.
#[derive(Serialize)]
pub struct SchemeReport {
    /// What was asked for, `q4_k_m`; for a pair what most of the candidate's weights are stored as.
    pub scheme: String,
    /// Tensors compared.
    pub compared: usize,
    /// Weights compared.
    pub parameters: u64,
    /// Bytes of the compared tensors as they are stored, or would be.
    pub bytes: u64,
    /// `8 · bytes / parameters`.
    pub bits_per_weight: f64,
    /// `4 · parameters / bytes`: how much smaller than f32.
    pub compression: f64,
    /// The whole model: the tensors as one long one.
    pub model: Metrics,
    /// Each layer, in order; tensors outside of layers come last, with no number.
    pub layers: Vec<LayerRow>,
    /// Each role, in a fixed order.
    pub roles: Vec<RoleRow>,
    /// Each tensor, in the order of names, layers by number.
    pub tensors: Vec<TensorRow>,
    /// How many errors have which magnitude, from small to large; the first entry may be that of errors of exactly 0.
    pub histogram: Vec<Bin>,
}

/// Errors of a magnitude from `from` to `to`.
#[derive(Clone, Serialize)]
pub struct Bin {
    pub from: f64,
    pub to: f64,
    pub count: u64,
}

/// A layer.
#[derive(Serialize)]
pub struct LayerRow {
    pub layer: Option<u64>,
    pub tensors: usize,
    pub metrics: Metrics,
}

/// A role.
#[derive(Serialize)]
pub struct RoleRow {
    /// `attn_q`, `attn_k`, `attn_v`, `attn_qkv`, `attn_o`, `ffn_gate`, `ffn_up`, `ffn_gate_up`, `ffn_down`, `experts`, `router`,
    /// `embedding`, `head`, `norm`, `bias`, `other`.
    pub role: &'static str,
    pub tensors: usize,
    pub metrics: Metrics,
}

/// A tensor.
#[derive(Serialize)]
pub struct TensorRow {
    pub name: String,
    /// Row-major, last dimension contiguous.
    pub shape: Vec<u64>,
    /// How the reference stores it.
    pub from: String,
    /// How the candidate stores it.
    pub to: String,
    pub layer: Option<u64>,
    pub role: &'static str,
    pub bytes: u64,
    pub bits_per_weight: f64,
    pub metrics: Metrics,
    pub weights: Weights,
    /// The blocks of 256 elements with the greatest error, worst first.
    pub worst_blocks: Vec<WorstBlock>,
}

/// How large the error is. Formulas: docs/audit.md. W are the weights of the reference, E is the candidate's less those. Of no pair
/// of weights nothing is known: the figures are NaN, which JSON shows as null.
#[derive(Clone, Serialize)]
pub struct Metrics {
    /// Pairs of weights compared.
    pub n: u64,
    /// Whether there are weights and none differs.
    pub exact: bool,
    /// √(Σe²/n).
    pub rmse: f64,
    /// ‖E‖/‖W‖; none where W is zero and E is not.
    pub relative_error: Option<f64>,
    /// −20·log10(‖E‖/‖W‖) in dB; none where there is no error (it is infinite), or no weight.
    pub sqnr_db: Option<f64>,
    /// max|e|.
    pub max_abs_error: f64,
    /// The flat index of the first element with that error, row-major; none for aggregates and where there is no error.
    pub max_abs_index: Option<u64>,
    /// The tensor that has that error; only for aggregates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_abs_tensor: Option<String>,
    /// Σe/n.
    pub mean_error: f64,
    /// ⟨W, Ŵ⟩ / (‖W‖·‖Ŵ‖); 1 where both are zero, 0 where one is.
    pub cosine: f64,
    /// The magnitude that half, 90 %, 99 % and 99.9 % of all errors do not exceed; from a sketch, at most 3.2 % off.
    pub error_p50: f64,
    pub error_p90: f64,
    pub error_p99: f64,
    pub error_p999: f64,
    /// √(Σs²/12/n), the error that evenly spread rounding in steps of s would have; none without steps.
    pub predicted_rmse: Option<f64>,
    /// Σe² / Σs²/12: 1 if rounding is what theory says.
    pub noise_ratio: Option<f64>,
    /// √(Σh·e² / Σh·w²), h the importance of the column: the expected relative error of the layer's output.
    pub output_error: Option<f64>,
    /// ‖XE‖/‖XW‖ for given activations X.
    pub activation_error: Option<f64>,
    /// ‖E‖₂, the greatest singular value.
    pub spectral_norm: Option<f64>,
}

/// What explains an error: the weights of the reference. What was not measured is NaN, or none.
#[derive(Serialize)]
pub struct Weights {
    pub min: f64,
    pub max: f64,
    pub mean: f64,
    pub std: f64,
    /// m₄/m₂²: 3 for a normal distribution; none for constant weights.
    pub kurtosis: Option<f64>,
    /// Weights farther than 6 standard deviations from the mean.
    pub outliers: Option<u64>,
    /// Their share.
    pub outlier_share: Option<f64>,
    /// Columns with a weight of magnitude 6 or more, LLM.int8()'s threshold.
    pub outlier_columns: Option<u64>,
    /// Weights that are exactly 0.
    pub zeros: Option<u64>,
    /// Pairs left out because a number of the reference or of the candidate is NaN or infinite.
    pub non_finite: u64,
}

/// A block of 256 consecutive elements, fewer at the end.
#[derive(Serialize)]
pub struct WorstBlock {
    /// The flat index of its first element.
    pub start: u64,
    pub elements: u64,
    /// Row and column of its first element.
    pub row: u64,
    pub column: u64,
    pub rmse: f64,
}

/// A tensor that was not compared.
#[derive(Serialize)]
pub struct Skipped {
    pub name: String,
    pub reason: String,
}

/// A condition that holds.
#[derive(Serialize)]
pub struct Failed {
    /// As it was given.
    pub condition: String,
    pub scheme: String,
    /// The tensor, or "model".
    pub tensor: String,
    pub metric: &'static str,
    /// None where it is infinite.
    pub value: Option<f64>,
}

impl Metrics {
    /// The figures that are shares of 1.
    pub const SHARES: &[&str] = &["relative_error", "output_error", "activation_error", "outlier_share"];
    /// The figures that a BQT file keeps.
    pub const STORED: &[&str] = &["n", "rmse", "relative_error", "sqnr_db", "max_abs_error", "mean_error", "cosine"];

    /// Whether a weight differs.
    pub fn differs(&self) -> bool {
        self.n > 0 && !self.exact
    }

    /// The figures that conditions can name.
    pub const NAMES: &[&str] = &[
        "n",
        "rmse",
        "relative_error",
        "sqnr_db",
        "max_abs_error",
        "mean_error",
        "cosine",
        "error_p50",
        "error_p90",
        "error_p99",
        "error_p999",
        "predicted_rmse",
        "noise_ratio",
        "output_error",
        "activation_error",
        "spectral_norm",
    ];
}

impl Weights {
    /// The figures that conditions can name.
    pub const NAMES: &[&str] = &["min", "max", "mean", "std", "kurtosis", "outliers", "outlier_share", "outlier_columns", "zeros", "non_finite"];
}
