//! From measured errors to the rows of a report.

use std::collections::BTreeMap;

use quant_core::audit::ErrorStats;
use quant_core::source::Role;
use quant_formats::audit::{Part, layer_of, part_of};
use quant_formats::safetensors::order;

use super::report::{Bin, LayerRow, Metrics, RoleRow, SchemeReport, TensorRow, Weights, WorstBlock};

/// A tensor and its errors.
pub struct Measured {
    pub name: String,
    pub shape: Vec<u64>,
    /// How the reference stores it.
    pub from: String,
    /// How the candidate stores it.
    pub to: String,
    pub role: Role,
    /// Its bytes in the candidate.
    pub bytes: u64,
    pub stats: ErrorStats,
}

/// Errors of several tensors together.
#[derive(Default)]
struct Sum<'a> {
    tensors: usize,
    stats: ErrorStats,
    worst: Option<&'a str>,
}

impl<'a> Sum<'a> {
    fn add(&mut self, tensor: &'a Measured) {
        self.tensors += 1;
        if tensor.stats.max_abs > self.stats.max_abs {
            self.worst = Some(&tensor.name);
        }
        self.stats.merge(&tensor.stats);
    }

    fn metrics(&self) -> Metrics {
        Metrics { max_abs_index: None, max_abs_tensor: self.worst.map(str::to_owned), ..metrics(&self.stats) }
    }
}

/// The report of a scheme. Without a name it is called after what most weights are stored as.
pub fn scheme(name: Option<String>, mut measured: Vec<Measured>) -> SchemeReport {
    measured.sort_by_cached_key(|tensor| order::key(&tensor.name));
    let (mut model, mut layers, mut roles) = (Sum::default(), BTreeMap::<u64, Sum<'_>>::new(), BTreeMap::<Part, Sum<'_>>::new());
    for tensor in &measured {
        model.add(tensor);
        layers.entry(layer_of(&tensor.name).unwrap_or(u64::MAX)).or_default().add(tensor);
        roles.entry(part_of(&tensor.name, tensor.role)).or_default().add(tensor);
    }
    let parameters = measured.iter().map(|t| t.shape.iter().product::<u64>()).sum::<u64>();
    let bytes = measured.iter().map(|t| t.bytes).sum::<u64>();
    let layer = |(layer, sum): (u64, Sum<'_>)| LayerRow { layer: (layer != u64::MAX).then_some(layer), tensors: sum.tensors, metrics: sum.metrics() };
    let role = |part: Part| roles.get(&part).map(|sum| RoleRow { role: part.name(), tensors: sum.tensors, metrics: sum.metrics() });
    SchemeReport {
        scheme: name.unwrap_or_else(|| usual(&measured)),
        compared: measured.len(),
        parameters,
        bytes,
        bits_per_weight: share(8.0 * bytes as f64, parameters),
        compression: share(4.0 * parameters as f64, bytes),
        model: model.metrics(),
        layers: layers.into_iter().map(layer).collect(),
        roles: Part::all().filter_map(role).collect(),
        histogram: model.stats.sketch.bins().map(bin).collect(),
        tensors: measured.iter().map(row).collect(),
    }
}

/// A bin of the sketch. What is smaller than any number that matters is no error.
fn bin((from, to, count): (f64, f64, u64)) -> Bin {
    Bin { from, to: if from == 0.0 { 0.0 } else { to }, count }
}

/// What most weights are stored as.
fn usual(measured: &[Measured]) -> String {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    measured.iter().for_each(|t| *counts.entry(&t.to).or_default() += t.stats.n());
    counts.into_iter().max_by_key(|(_, n)| *n).map_or("nothing".into(), |(to, _)| to.to_owned())
}

fn share(part: f64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part / whole as f64 }
}

fn row(tensor: &Measured) -> TensorRow {
    let Measured { name, shape, stats, .. } = tensor;
    let n = shape.iter().product::<u64>();
    let columns = shape.last().copied().unwrap_or(1).max(1);
    let block = |block: &quant_core::audit::WorstBlock| WorstBlock {
        start: block.start,
        elements: block.n,
        row: block.start / columns,
        column: block.start % columns,
        rmse: (block.sum_e2 / block.n as f64).sqrt(),
    };
    TensorRow {
        name: name.clone(),
        shape: shape.clone(),
        from: tensor.from.clone(),
        to: tensor.to.clone(),
        layer: layer_of(name),
        role: part_of(name, tensor.role).name(),
        bytes: tensor.bytes,
        bits_per_weight: share(8.0 * tensor.bytes as f64, n),
        metrics: metrics(stats),
        weights: weights(stats),
        worst_blocks: stats.worst.iter().map(block).collect(),
    }
}

fn metrics(stats: &ErrorStats) -> Metrics {
    let (known, exact) = (stats.n() > 0, stats.n() > 0 && stats.is_exact());
    let or_nan = |v: f64| if known { v } else { f64::NAN };
    // What a file tells of itself has no quantiles.
    let quantile = |q: f64| if stats.sketch.n() == 0 { f64::NAN } else { stats.sketch.quantile(q) };
    Metrics {
        n: stats.n(),
        exact,
        rmse: or_nan(stats.rmse()),
        relative_error: stats.relative().filter(|_| known),
        sqnr_db: stats.sqnr_db(),
        max_abs_error: or_nan(stats.max_abs),
        max_abs_index: (known && !exact).then_some(stats.max_at),
        max_abs_tensor: None,
        mean_error: or_nan(stats.mean_error()),
        cosine: or_nan(stats.cosine()),
        error_p50: quantile(0.5),
        error_p90: quantile(0.9),
        error_p99: quantile(0.99),
        error_p999: quantile(0.999),
        predicted_rmse: stats.predicted_rmse(),
        noise_ratio: stats.noise_ratio(),
        output_error: stats.output_error(),
        activation_error: stats.activation_error(),
        spectral_norm: stats.spectral,
    }
}

fn weights(stats: &ErrorStats) -> Weights {
    // Nor has it statistics of the weights.
    let (moments, known) = (&stats.weights, stats.weights.min <= stats.weights.max);
    let or_nan = |v: f64| if known { v } else { f64::NAN };
    Weights {
        min: or_nan(moments.min.into()),
        max: or_nan(moments.max.into()),
        mean: or_nan(moments.mean),
        std: or_nan(moments.std()),
        kurtosis: moments.kurtosis(),
        outliers: known.then_some(stats.outliers),
        outlier_share: known.then(|| share(stats.outliers as f64, stats.n())),
        outlier_columns: known.then(|| stats.outlier_columns.count()),
        zeros: known.then_some(stats.zeros),
        non_finite: stats.non_finite,
    }
}
