//! `--fail-if`: conditions on figures.

use quant_core::recipe::pattern;
use quant_core::{Error, Result};
use regex::Regex;
use serde_json::Value;

use super::args::AuditArgs;
use super::report::{Failed, Metrics, Report, SchemeReport, TensorRow, Weights};
use crate::report::first_and_more;

/// What the whole model is called in a condition.
const MODEL: &str = "model";

/// A figure against a limit.
type Comparison = fn(f64, f64) -> bool;

/// A condition, such as `ffn_down:sqnr_db<20`.
pub struct Condition {
    text: String,
    subject: Subject,
    metric: &'static str,
    is_met: Comparison,
    limit: f64,
}

enum Subject {
    Model,
    Any,
    Matching(Regex),
}

impl Condition {
    /// Reads `[PATTERN:]METRIC<VALUE`, with `<=`, `>`, `>=` too.
    ///
    /// # Errors
    /// If it is none, or there is no such metric, with those that there are.
    pub fn parse(text: &str, args: &AuditArgs) -> Result<Condition> {
        let bad = |problem: String| Error::request(format!("--fail-if '{text}': {problem}"));
        let operators: [(&str, Comparison); 4] = [("<=", |a, b| a <= b), (">=", |a, b| a >= b), ("<", |a, b| a < b), (">", |a, b| a > b)];
        // Patterns may have these characters too, so the last of them counts.
        let at = text.rfind(['<', '>']).ok_or_else(|| bad("needs METRIC<VALUE or METRIC>VALUE".into()))?;
        let (operator, is_met) = operators.into_iter().find(|(operator, _)| text[at..].starts_with(operator)).unwrap_or(operators[2]);
        let (left, limit) = (text[..at].trim(), text[at + operator.len()..].trim());
        let (subject, name) = match left.rsplit_once(':') {
            None => (Subject::Any, left),
            Some((MODEL, name)) => (Subject::Model, name),
            Some((text, name)) => (Subject::Matching(pattern(text).map_err(|e| bad(e.to_string()))?), name),
        };
        let known = Metrics::NAMES.iter().chain(Weights::NAMES).copied();
        let metric = known.clone().find(|known| *known == name.trim());
        let metric = metric.ok_or_else(|| bad(format!("'{name}' is no metric; there are {}", known.collect::<Vec<_>>().join(", "))))?;
        let limit = limit_of(limit, metric).map_err(&bad)?;
        if matches!(subject, Subject::Model) && Weights::NAMES.contains(&metric) {
            return Err(bad(format!("{metric} is a figure of single tensors")));
        }
        if args.candidate.is_none() && !args.tries() && !Metrics::STORED.contains(&metric) {
            let file = args.reference.display();
            return Err(bad(format!("a file that tells of itself has no {metric}; name the model that it was made of: quant audit MODEL {file}")));
        }
        let needed = match metric {
            "output_error" if args.imatrix.is_none() => Some("--imatrix"),
            "activation_error" if args.activations.is_none() => Some("--activations"),
            "spectral_norm" if !args.spectral => Some("--spectral"),
            _ => None,
        };
        match needed {
            Some(option) => Err(bad(format!("{metric} needs {option}"))),
            None => Ok(Condition { text: text.into(), subject, metric, is_met, limit }),
        }
    }

    /// Judges a report: where it holds, the schemes that have no such figure, and what it does not reach.
    pub fn judge(&self, report: &mut Report) {
        let (mut failed, mut problems, mut notes) = (Vec::new(), Vec::new(), Vec::new());
        notes.extend(self.slip());
        for scheme in &report.schemes {
            let values = self.values(scheme);
            let of = if report.schemes.len() > 1 { format!(" of {}", scheme.scheme) } else { String::new() };
            match values.is_empty() {
                true => problems.push(format!("--fail-if '{}': {}", self.text, self.why_unseen(&of))),
                false => notes.extend(self.unreached(scheme, &of)),
            }
            failed.extend(values.into_iter().filter(|(_, value)| (self.is_met)(*value, self.limit)).map(|(tensor, value)| Failed {
                condition: self.text.clone(),
                scheme: scheme.scheme.clone(),
                tensor: tensor.into(),
                metric: self.metric,
                value: value.is_finite().then_some(value),
            }));
        }
        report.failed.extend(failed);
        report.problems.extend(problems);
        report.notes.extend(notes);
    }

    /// A limit that was most likely meant in percent.
    fn slip(&self) -> Option<String> {
        let is_slip = Metrics::SHARES.contains(&self.metric) && self.limit > 1.0 && !self.text.trim_end().ends_with('%');
        let (metric, limit) = (self.metric, self.limit);
        is_slip
            .then(|| format!("--fail-if '{}': {metric} is a share of 1, so {limit} means {} %; {limit}% is a percentage", self.text, 100.0 * limit))
    }

    /// Tensors that differ and have no such figure.
    fn unreached(&self, scheme: &SchemeReport, of: &str) -> Option<String> {
        let is_unreached = |row: &&TensorRow| row.metrics.differs() && self.concerns(row) && self.value(&row.metrics, Some(&row.weights)).is_none();
        let names = first_and_more(scheme.tensors.iter().filter(is_unreached).map(|row| row.name.as_str()))?;
        Some(format!("--fail-if '{}': says nothing of {names}{of}: no {} is known there", self.text, self.metric))
    }

    /// The figures of a scheme that it looks at, by tensor.
    fn values<'a>(&self, scheme: &'a SchemeReport) -> Vec<(&'a str, f64)> {
        if let Subject::Model = self.subject {
            return self.value(&scheme.model, None).map(|value| (MODEL, value)).into_iter().collect();
        }
        let rows = scheme.tensors.iter().filter(|row| self.concerns(row));
        rows.filter_map(|row| Some((row.name.as_str(), self.value(&row.metrics, Some(&row.weights))?))).collect()
    }

    fn concerns(&self, row: &TensorRow) -> bool {
        match &self.subject {
            Subject::Matching(pattern) => pattern.is_match(&row.name) || pattern.is_match(row.role),
            _ => true,
        }
    }

    /// The figure; none if it was not measured.
    fn value(&self, metrics: &Metrics, weights: Option<&Weights>) -> Option<f64> {
        if metrics.n == 0 && !["n", "non_finite"].contains(&self.metric) {
            return None;
        }
        let of = |figures: serde_json::Result<Value>| figures.ok().and_then(|figures| figures.get(self.metric).cloned());
        match of(serde_json::to_value(metrics)).or_else(|| of(serde_json::to_value(weights?)))? {
            Value::Number(n) => n.as_f64(),
            // Without an error the ratio is infinite; with one and all weights 0 it is the worst there is.
            Value::Null if self.metric == "sqnr_db" => Some(if metrics.exact { f64::INFINITY } else { f64::NEG_INFINITY }),
            Value::Null if self.metric == "relative_error" => Some(f64::INFINITY),
            Value::Null => self.infinite(metrics),
            _ => None,
        }
    }

    /// A figure that JSON has no number for: errors of weights, outputs or steps that are all 0.
    fn infinite(&self, metrics: &Metrics) -> Option<f64> {
        let found = match self.metric {
            "output_error" => metrics.output_error,
            "activation_error" => metrics.activation_error,
            "noise_ratio" => metrics.noise_ratio,
            _ => None,
        };
        found.filter(|value| value.is_infinite())
    }

    /// Why there is no figure; `of` names the scheme where there are several.
    fn why_unseen(&self, of: &str) -> String {
        match (self.metric, &self.subject) {
            ("output_error", _) => format!("needs --imatrix with entries for these tensors{of}; its names are those of GGUF"),
            ("activation_error", _) => format!("needs --activations with entries for these tensors{of}"),
            ("spectral_norm", _) => format!("needs --spectral, and single tensors{of}"),
            (_, Subject::Matching(pattern)) => format!("the pattern '{pattern}' matches no tensor and no role{of} with this metric"),
            (metric, _) => format!("nothing{of} has {metric}"),
        }
    }
}

/// The limit of a condition; that of a share may be in percent.
fn limit_of(text: &str, metric: &str) -> std::result::Result<f64, String> {
    let number = |text: &str| text.trim().parse::<f64>().ok().filter(|v| !v.is_nan());
    match text.strip_suffix('%') {
        Some(text) if Metrics::SHARES.contains(&metric) => number(text).map(|v| v / 100.0),
        Some(_) => return Err(format!("{metric} is no share, so '{text}' cannot be a percentage of it")),
        None => number(text),
    }
    .ok_or_else(|| format!("'{text}' is not a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The arguments of `audit` with these options.
    fn args(options: &[&str]) -> AuditArgs {
        let line = ["quant", "audit", "a", "b"].iter().chain(options);
        match <crate::args::Args as clap::Parser>::try_parse_from(line).unwrap().command {
            crate::args::Command::Audit(args) => *args,
            _ => unreachable!("the command is audit"),
        }
    }

    #[test]
    fn conditions_are_read() {
        let plain = args(&[]);
        for text in [
            "sqnr_db<20",
            "ffn_(up|down):rmse >= 1e-3",
            "model:relative_error>0.1",
            "(?<x>a):cosine<=0.9",
            "kurtosis>9",
            "relative_error>5%",
            "outlier_share > 0.1 %",
        ] {
            assert!(Condition::parse(text, &plain).is_ok(), "{text}");
        }
        for text in
            ["", "sqnr_db", "sqnr_db<x", "sqnr<20", "sqnr_db<nan", "(:rmse<1", "model:zeros>1", "spectral_norm>1", "rmse>5%", "relative_error>%"]
        {
            assert!(Condition::parse(text, &plain).is_err(), "{text}");
        }
        assert!(Condition::parse("spectral_norm>1", &args(&["--spectral"])).is_ok());
    }

    #[test]
    fn the_names_are_those_of_the_json() {
        let stats = quant_core::audit::ErrorStats::default();
        let measured = super::super::build::Measured {
            name: "x".into(),
            shape: vec![1],
            from: String::new(),
            to: String::new(),
            role: quant_core::source::Role::Other,
            bytes: 4,
            stats,
        };
        let row = super::super::build::scheme(None, vec![measured]).tensors.remove(0);
        let keys = |value: Value| value.as_object().unwrap().keys().cloned().collect::<std::collections::BTreeSet<_>>();
        let names = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect::<std::collections::BTreeSet<_>>();
        let mut metrics = keys(serde_json::to_value(&row.metrics).unwrap());
        ["exact", "max_abs_index"].iter().for_each(|key| assert!(metrics.remove(*key)));
        assert_eq!(metrics, names(Metrics::NAMES));
        assert_eq!(keys(serde_json::to_value(&row.weights).unwrap()), names(Weights::NAMES));
    }
}
