//! A report as CSV (RFC 4180): a line for each tensor of each scheme.

use super::report::{Report, TensorRow};

const HEAD: &str = "scheme,tensor,role,layer,shape,from,to,parameters,bytes,bits_per_weight,rmse,relative_error,sqnr_db,max_abs_error,\
                    max_abs_index,mean_error,cosine,error_p50,error_p90,error_p99,error_p999,predicted_rmse,noise_ratio,output_error,\
                    activation_error,spectral_norm,min,max,mean,std,kurtosis,outliers,outlier_columns,zeros,non_finite";

/// The text. A figure that does not exist is empty; an infinite SQNR is too, and its tensor has the rmse 0.
pub fn text(report: &Report) -> String {
    let rows = report.schemes.iter().flat_map(|s| s.tensors.iter().map(|row| line(&s.scheme, row)));
    std::iter::once(HEAD.to_owned()).chain(rows).map(|line| line + "\r\n").collect()
}

fn line(scheme: &str, row: &TensorRow) -> String {
    let (m, w) = (&row.metrics, &row.weights);
    let shape: Vec<String> = row.shape.iter().map(u64::to_string).collect();
    let texts = [
        field(scheme),
        field(&row.name),
        row.role.into(),
        or_empty(row.layer),
        shape.join("x"),
        field(&row.from),
        field(&row.to),
        m.n.to_string(),
        row.bytes.to_string(),
        row.bits_per_weight.to_string(),
        known(m.rmse),
        or_empty(m.relative_error),
        or_empty(m.sqnr_db),
        known(m.max_abs_error),
        or_empty(m.max_abs_index),
    ];
    let figures = [m.mean_error, m.cosine, m.error_p50, m.error_p90, m.error_p99, m.error_p999].map(known);
    let finite = |v: Option<f64>| or_empty(v.filter(|v| v.is_finite()));
    let measured = [m.predicted_rmse, m.noise_ratio, m.output_error, m.activation_error, m.spectral_norm].map(finite);
    let weights = [w.min, w.max, w.mean, w.std].map(known);
    let counts = [w.outliers, w.outlier_columns, w.zeros, Some(w.non_finite)].map(or_empty);
    let parts = texts.into_iter().chain(figures).chain(measured).chain(weights).chain([or_empty(w.kurtosis)]).chain(counts);
    parts.collect::<Vec<String>>().join(",")
}

/// A figure; nothing if it was not measured.
fn known(v: f64) -> String {
    if v.is_nan() { String::new() } else { v.to_string() }
}

fn or_empty<T: ToString>(value: Option<T>) -> String {
    value.map_or(String::new(), |v| v.to_string())
}

/// A text as a field. What a spreadsheet would take for a formula is kept from being one by a quote before it.
fn field(text: &str) -> String {
    let text = quant_core::error::Printable(text).to_string();
    let guarded = if text.starts_with(['=', '+', '-', '@']) { format!("'{text}") } else { text };
    if guarded.contains([',', '"', '\n', '\r']) { format!("\"{}\"", guarded.replace('"', "\"\"")) } else { guarded }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_quoted() {
        assert_eq!(field("a,b"), "\"a,b\"");
        assert_eq!(field("a\"b"), "\"a\"\"b\"");
        assert_eq!(field("=1+1"), "'=1+1");
        assert_eq!(field("plain.weight"), "plain.weight");
    }

    #[test]
    fn there_are_as_many_fields_as_names() {
        let measured = super::super::build::Measured {
            name: "x.weight".into(),
            shape: vec![2, 3],
            from: "f32".into(),
            to: "q8_0".into(),
            role: quant_core::source::Role::Linear,
            bytes: 4,
            stats: quant_core::audit::ErrorStats::default(),
        };
        let scheme = super::super::build::scheme(None, vec![measured]);
        assert_eq!(line("s", &scheme.tensors[0]).split(',').count(), HEAD.split(',').count());
    }
}
