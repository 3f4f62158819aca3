//! What the numbers say, in short sentences.

use super::hint;
use super::tensors::worst_first;
use super::text::{Escaped, counted, decibels, error, number, percent};
use crate::audit::report::{Metrics, Report, RoleRow, SchemeReport};

/// A tensor stands out if its error is so many times that of the median tensor.
pub const STANDS_OUT: f64 = 1.5;

/// The sentences on the whole report, as HTML.
pub fn summary(report: &Report) -> Vec<String> {
    let mut by_error: Vec<_> = report.schemes.iter().filter(|s| s.model.n > 0).collect();
    by_error.sort_by(|a, b| error(&a.model).total_cmp(&error(&b.model)));
    let Some(worst) = by_error.last() else { return vec!["Nothing was compared.".into()] };
    if worst.model.exact {
        return vec!["No weight differs.".into()];
    }
    let mut words = vec![meaning().into(), if by_error.len() > 1 { ranking(&by_error) } else { single(worst) }];
    words.extend(beaten(&by_error));
    let detail = if by_error.len() > 1 { format!("{} in detail. ", name(worst)) } else { String::new() };
    words.push(detail + &about(worst));
    words.push(hint::advice(report, worst));
    words.push("These are errors of weights. How much the model&#39;s answers change, only a run can show, for example its perplexity.".into());
    words
}

/// Where the error of a scheme is: layer, role and tensor.
pub fn about(scheme: &SchemeReport) -> String {
    if !scheme.model.differs() {
        return if scheme.model.n == 0 { "Nothing was compared.".into() } else { "No weight differs.".into() };
    }
    let layers = scheme.layers.iter().filter_map(|l| l.layer.map(|n| (format!("layer {n}"), &l.metrics)));
    let roles = scheme.roles.iter().map(|r| (shown_role(r), &r.metrics));
    let places: Vec<_> = [most(layers), most(roles)].into_iter().flatten().collect();
    format!("Most error is in {}. {}", places.join(" and in "), worst_tensor(scheme))
}

/// The error of the median tensor, of those that have one.
pub fn median_error(scheme: &SchemeReport) -> f64 {
    let errors: Vec<f64> = worst_first(scheme).iter().map(|t| error(&t.metrics)).filter(|e| *e > 0.0).collect();
    errors.get(errors.len() / 2).copied().unwrap_or(0.0)
}

fn meaning() -> &'static str {
    "Relative error is the size of all errors against the size of all weights. SQNR says the same in decibels: \
     6\u{a0}dB more is half the error, 20\u{a0}dB more is a tenth."
}

fn name(scheme: &SchemeReport) -> String {
    format!("<b>{}</b>", Escaped(&scheme.scheme))
}

fn bits(scheme: &SchemeReport) -> String {
    format!("{:.2}\u{a0}bits a weight", scheme.bits_per_weight)
}

fn single(scheme: &SchemeReport) -> String {
    let (error, db) = (percent(error(&scheme.model)), decibels(&scheme.model));
    let output = scheme.model.output_error.map_or(String::new(), |share| format!(", and {} weighed by the importance of columns", percent(share)));
    let smaller = format!("{:.1} times smaller than f32", scheme.compression);
    format!("{} has a relative error of {error} ({db}\u{a0}dB){output} at {}, {smaller}.", name(scheme), bits(scheme))
}

/// The best and the worst scheme, of at least one.
fn ranking(by_error: &[&SchemeReport]) -> String {
    let (best, worst) = (by_error[0], by_error[by_error.len() - 1]);
    let times = error(&worst.model) / error(&best.model);
    let more = if times.is_finite() { format!(", {} times as much", number(times)) } else { String::new() };
    let of = |s: &SchemeReport| format!("{} at {}", percent(error(&s.model)), bits(s));
    format!("{} has the least error: {}. {} has the most: {}{more}.", name(best), of(best), name(worst), of(worst))
}

/// A scheme that another one beats in both size and error.
fn beaten(by_error: &[&SchemeReport]) -> Option<String> {
    let is_beaten = |i: &usize| by_error[..*i].iter().any(|s| s.bytes <= by_error[*i].bytes && error(&s.model) < error(&by_error[*i].model));
    let i = (0..by_error.len()).rev().find(is_beaten)?;
    let better = by_error[..i].iter().find(|s| s.bytes <= by_error[i].bytes)?;
    Some(format!("{} has less error than {} and is not larger.", name(better), name(by_error[i])))
}

/// The place with the greatest error, and how great it is.
fn most<'a>(places: impl Iterator<Item = (String, &'a Metrics)>) -> Option<String> {
    let (place, metrics) = places.max_by(|a, b| error(a.1).total_cmp(&error(b.1)))?;
    Some(format!("<b>{place}</b> ({})", percent(error(metrics))))
}

fn shown_role(role: &RoleRow) -> String {
    Escaped(role.role).to_string()
}

fn worst_tensor(scheme: &SchemeReport) -> String {
    let tensors = worst_first(scheme);
    let Some(worst) = tensors.first() else { return String::new() };
    if error(&worst.metrics).is_infinite() {
        return format!("<code>{}</code> is zero in the reference and not in the candidate.", Escaped(&worst.name));
    }
    let times = error(&worst.metrics) / median_error(scheme);
    let verdict = if times >= STANDS_OUT { "it stands out" } else { "it does not stand out" };
    let all = counted(tensors.len(), "tensor");
    format!(
        "The worst of {all} is <code>{}</code> with {}, {} times the median: {verdict}.",
        Escaped(&worst.name),
        percent(error(&worst.metrics)),
        number(times)
    )
}
