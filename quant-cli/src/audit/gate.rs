//! `--fail-if`: conditions on figures.

use quant_core::recipe::pattern;
use quant_core::{Error, Result};
use regex::Regex;
use serde_json::Value;

use super::args::AuditArgs;
use super::report::{Failed, Metrics, Report, SchemeReport, TensorRow, Weights};

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
        let limit = limit.parse::<f64>().ok().filter(|v| !v.is_nan()).ok_or_else(|| bad(format!("'{limit}' is not a number")))?;
        let (subject, name) = match left.rsplit_once(':') {
            None => (Subject::Any, left),
            Some((MODEL, name)) => (Subject::Model, name),
            Some((text, name)) => (Subject::Matching(pattern(text).map_err(|e| bad(e.to_string()))?), name),
        };
        let known = Metrics::NAMES.iter().chain(Weights::NAMES).copied();
        let metric = known.clone().find(|known| *known == name.trim());
        let metric = metric.ok_or_else(|| bad(format!("'{name}' is no metric; there are {}", known.collect::<Vec<_>>().join(", "))))?;
        if matches!(subject, Subject::Model) && Weights::NAMES.contains(&metric) {
            return Err(bad(format!("{metric} is a figure of single tensors")));
        }
        const COUNTS: [&str; 4] = ["outliers", "outlier_columns", "zeros", "non_finite"];
        let is_stored = args.candidate.is_none() && !args.tries();
        let needed = match metric {
            _ if is_stored && COUNTS.contains(&metric) => Some("a CANDIDATE or --type"),
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

    /// Where it holds in a report, and the schemes that have no such figure.
    pub fn of(&self, report: &Report) -> (Vec<Failed>, Vec<String>) {
        let (mut failed, mut problems) = (Vec::new(), Vec::new());
        for scheme in &report.schemes {
            let values = self.values(scheme);
            if values.is_empty() {
                let of = if report.schemes.len() > 1 { format!(" of {}", scheme.scheme) } else { String::new() };
                problems.push(format!("--fail-if '{}': {}", self.text, self.why_unseen(&of)));
            }
            failed.extend(values.into_iter().filter(|(_, value)| (self.is_met)(*value, self.limit)).map(|(tensor, value)| Failed {
                condition: self.text.clone(),
                scheme: scheme.scheme.clone(),
                tensor: tensor.into(),
                metric: self.metric,
                value: value.is_finite().then_some(value),
            }));
        }
        (failed, problems)
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
        for text in ["sqnr_db<20", "ffn_(up|down):rmse >= 1e-3", "model:relative_error>0.1", "(?<x>a):cosine<=0.9", "kurtosis>9"] {
            assert!(Condition::parse(text, &plain).is_ok(), "{text}");
        }
        for text in ["", "sqnr_db", "sqnr_db<x", "sqnr<20", "sqnr_db<nan", "(:rmse<1", "model:zeros>1", "spectral_norm>1"] {
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
