//! The tensors of a scheme, worst first. End tags that HTML does not need are left out: there may be many rows.

use std::fmt::Write as _;

use super::text::{Escaped, cosine, decibels, error, number, optional};
use crate::audit::report::{SchemeReport, TensorRow};

/// A column: its heading, what the heading means, and the text of a cell. Two of the first columns are not numbers; page.css aligns
/// them.
struct Column {
    heading: &'static str,
    meaning: &'static str,
    cell: fn(&TensorRow) -> String,
}

/// The table of one scheme.
pub fn table(scheme: &SchemeReport) -> String {
    let columns = columns(scheme);
    let label = format!("Tensors of {}", Escaped(&scheme.scheme));
    let mut html =
        format!("<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{label}\"><table class=\"tensors sortable\">\n<thead><tr>");
    for column in &columns {
        let sort = if column.heading.starts_with("relative") { " aria-sort=\"descending\"" } else { "" };
        let _ = write!(html, "<th scope=\"col\"{sort} title=\"{}\">{}", column.meaning, column.heading);
    }
    html.push_str("</thead>\n<tbody>\n");
    for tensor in worst_first(scheme) {
        let _ = write!(html, "<tr><th>{}", Escaped(&tensor.name));
        columns[1..].iter().for_each(|column| html += &format!("<td>{}", (column.cell)(tensor)));
        html.push('\n');
    }
    html + "</table></div>\n"
}

/// The tensors by relative error, worst first, then in their order.
pub fn worst_first(scheme: &SchemeReport) -> Vec<&TensorRow> {
    let mut tensors: Vec<_> = scheme.tensors.iter().collect();
    tensors.sort_by(|a, b| error(&b.metrics).total_cmp(&error(&a.metrics)));
    tensors
}

/// The columns, without those that nothing was measured for.
fn columns(scheme: &SchemeReport) -> Vec<Column> {
    let mut columns = fixed();
    let has = |measured: fn(&TensorRow) -> Option<f64>| scheme.tensors.iter().any(|t| measured(t).is_some());
    let mut add = |is_there, heading, meaning, cell| {
        if is_there {
            columns.push(Column { heading, meaning, cell })
        }
    };
    add(has(|t| t.metrics.noise_ratio), "noise ratio", "squared error against that of even rounding", |t| optional(t.metrics.noise_ratio));
    add(has(|t| t.metrics.output_error), "output error %", "expected relative error of the output, by importance", |t| {
        percents(t.metrics.output_error)
    });
    add(has(|t| t.metrics.activation_error), "activation error %", "relative error of the output for given activations", |t| {
        percents(t.metrics.activation_error)
    });
    add(has(|t| t.metrics.spectral_norm), "‖E‖₂", "greatest singular value of the error", |t| optional(t.metrics.spectral_norm));
    add(has(|t| t.weights.kurtosis), "kurtosis", "how heavy the tails of the weights are; 3 is normal", |t| optional(t.weights.kurtosis));
    add(has(|t| t.weights.outlier_share), "outliers %", "weights beyond 6 standard deviations", |t| percents(t.weights.outlier_share));
    columns
}

fn fixed() -> Vec<Column> {
    let column = |heading, meaning, cell| Column { heading, meaning, cell };
    vec![
        column("tensor", "its name", |_| String::new()),
        column("relative error %", "size of the error against size of the weights", |t| number(100.0 * error(&t.metrics))),
        column("SQNR dB", "the same in decibels; more is better", |t| decibels(&t.metrics)),
        column("stored as", "in the reference → in the candidate", |t| format!("{} → {}", Escaped(&t.from), Escaped(&t.to))),
        column("bits", "bits a weight", |t| format!("{:.2}", t.bits_per_weight)),
        column("role", "what it does in the model", |t| Escaped(t.role).to_string()),
        column("layer", "number of the layer", |t| t.layer.map_or("–".into(), |n| n.to_string())),
        column("shape", "rows first", shape),
        column("max |e|", "largest error of a weight", |t| number(t.metrics.max_abs_error)),
        column("cosine", "1 if the directions agree", |t| cosine(&t.metrics)),
        column("p99 |e|", "99 % of the errors are at most this", |t| number(t.metrics.error_p99)),
    ]
}

fn shape(tensor: &TensorRow) -> String {
    tensor.shape.iter().map(u64::to_string).collect::<Vec<_>>().join("×")
}

fn percents(share: Option<f64>) -> String {
    optional(share.map(|x| 100.0 * x))
}
