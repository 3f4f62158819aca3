//! A report as text for a terminal.

use std::fmt::Write;

use quant_core::error::Printable;

use super::report::{Failed, LayerRow, Metrics, Report, SchemeReport, TensorRow};
use crate::report::{bold, by_reason, counted, first_and_more, table};
use crate::size::{bytes, count, duration};

/// Tensors that are listed without `--all`.
const WORST: usize = 12;
/// The fewest and the most characters of a name.
const NAME: (usize, usize) = (17, 38);
/// Characters of a line, if names can be shortened so far.
const WIDTH: usize = 80;
/// Characters of a column of roles.
const ROLE: usize = 14;
/// Names of a list that are shown.
const SHOWN: usize = 8;

/// The text.
pub fn text(report: &Report, all: bool) -> String {
    let (what, how) = match &report.candidate {
        Some(candidate) => (candidate, format!("against {}", report.reference)),
        None => (&report.reference, "schemes tried on it".to_owned()),
    };
    let mut text = format!("{} {}, {}\n", bold("Audit of"), Printable(what), Printable(&how));
    if let Some(path) = report.imatrix.as_ref().filter(|_| report.schemes.iter().any(|s| s.model.output_error.is_some())) {
        let _ = writeln!(text, " output %: weighed by {}", Printable(path));
    }
    text += &summary(report);
    if report.schemes.len() > 1 && !all {
        text += &compared(report);
    } else {
        report.schemes.iter().for_each(|scheme| text += &scheme_text(scheme, report.schemes.len() > 1, all));
    }
    text += &lists(report);
    text + &closing(report)
}

fn summary(report: &Report) -> String {
    let weighed = report.schemes.iter().any(|s| s.model.output_error.is_some());
    let worst = |s: &SchemeReport| {
        let worst = s.tensors.iter().max_by(|a, b| by_error(a, b)).filter(|t| t.metrics.differs());
        let none = if s.model.n == 0 { "nothing compared" } else { "none differs" };
        worst.map_or(none.to_owned(), |t| t.name.clone())
    };
    let row = |(s, worst): (&SchemeReport, String)| {
        let beside = if weighed { [percent(&s.model), output(&s.model)] } else { [format!("{:.2}", s.compression), percent(&s.model)] };
        let ([a, b], bits) = (beside, format!("{:.2}", s.bits_per_weight));
        vec![s.scheme.clone(), bytes(s.bytes), bits, a, b, decibels(&s.model), worst]
    };
    let [a, b] = if weighed { [">error %", ">output %"] } else { [">× under f32", ">error %"] };
    let headings = ["scheme", ">size", ">bits", a, b, ">SQNR dB", "worst tensor"];
    let worst: Vec<String> = report.schemes.iter().map(worst).collect();
    fitting(|most| {
        let worst = shortened(worst.iter().map(String::as_str).collect(), most);
        table(&headings, report.schemes.iter().zip(worst).map(row))
    })
}

/// A table whose names are shortened until it fits, as far as they may be.
fn fitting(table: impl Fn(usize) -> String) -> String {
    let fits = |text: &String| text.lines().all(|line| line.chars().count() <= WIDTH);
    (NAME.0..=NAME.1).rev().map(&table).find(fits).unwrap_or_else(|| table(NAME.0))
}

/// What a conversion cost, below its own report.
pub fn cost(scheme: &SchemeReport) -> String {
    let m = &scheme.model;
    if !m.differs() {
        return format!("\n {} none\n", bold("Cost:")) + &scheme_text(scheme, false, false);
    }
    let output = m.output_error.map_or(String::new(), |_| format!(", output error {} %", output(m)));
    let total = format!("\n {} error {} %, SQNR {} dB{output}\n", bold("Cost:"), percent(m), decibels(m));
    total + &scheme_text(scheme, false, false)
}

fn scheme_text(scheme: &SchemeReport, is_named: bool, all: bool) -> String {
    let name = if is_named { format!(", {}", Printable(&scheme.scheme)) } else { String::new() };
    let mut text = String::new();
    if scheme.model.n == 0 {
        return format!("\n Nothing was compared{name}.\n");
    }
    if scheme.model.exact {
        let _ = writeln!(text, "\n Nothing differs{name}: {} weights have exactly the values of the reference.", count(scheme.model.n));
        return text;
    }
    let _ = writeln!(text, "\n{}", bold(&format!("By layer{name}")));
    text += &sparkline(&scheme.layers);
    if all {
        let layer = |l: &LayerRow| l.layer.map_or("–".to_owned(), |n| n.to_string());
        text.push('\n');
        text += &aggregates(">layer", scheme.layers.iter().map(|l| (layer(l), l.tensors, &l.metrics)), scheme.model.output_error.is_some());
    }
    let _ = writeln!(text, "\n{}", bold(&format!("By role{name}")));
    let weighed = scheme.model.output_error.is_some();
    text += &aggregates("role", scheme.roles.iter().map(|r| (r.role.to_owned(), r.tensors, &r.metrics)), weighed);
    text + &worst(scheme, &name, all)
}

/// Tensors together: their name, how many they are, their figures.
fn aggregates<'a>(what: &str, rows: impl Iterator<Item = (String, usize, &'a Metrics)>, weighed: bool) -> String {
    let row = |(name, tensors, metrics): (String, usize, &Metrics)| {
        let mut cells = vec![name, tensors.to_string(), count(metrics.n)];
        cells.extend(figures(metrics));
        cells.extend(weighed.then(|| output(metrics)));
        cells
    };
    let mut headings = vec![what, ">tensors", ">weights", ">error %", ">SQNR dB", ">max |e|", ">cosine"];
    headings.extend(weighed.then_some(">output %"));
    table(&headings, rows.map(row))
}

/// Several schemes side by side.
fn compared(report: &Report) -> String {
    let mut text = format!("\n{}\n", bold("By layer"));
    for scheme in report.schemes.iter().filter(|s| s.model.differs()) {
        let _ = write!(text, " {}\n{}", Printable(&scheme.scheme), sparkline(&scheme.layers));
    }
    text += &roles(report, "Error % by role (--all lists every tensor)", percent);
    if report.schemes.iter().any(|s| s.model.output_error.is_some()) {
        text += &roles(report, "Output error % by role", output);
    }
    text
}

/// A figure of each role and scheme; several tables if the schemes do not fit into one.
fn roles(report: &Report, title: &str, figure: fn(&Metrics) -> String) -> String {
    let mut roles: Vec<&str> = Vec::new();
    report.schemes.iter().flat_map(|s| &s.roles).for_each(|r| {
        if !roles.contains(&r.role) {
            roles.push(r.role)
        }
    });
    let cell = |s: &SchemeReport, role: &str| match s.roles.iter().find(|r| r.role == role) {
        Some(r) if r.metrics.exact => "exact".into(),
        Some(r) => figure(&r.metrics),
        None => "–".into(),
    };
    let mut text = format!("\n{}\n", bold(title));
    let mut left = &report.schemes[..];
    while !left.is_empty() {
        let mut width = ROLE;
        let n = left.iter().take_while(|s| {
            width += s.scheme.chars().count().max(7) + 2;
            width <= WIDTH
        });
        let (these, rest) = left.split_at(n.count().max(1));
        let headings: Vec<String> = std::iter::once("role".to_owned()).chain(these.iter().map(|s| format!(">{}", s.scheme))).collect();
        let headings: Vec<&str> = headings.iter().map(String::as_str).collect();
        let row = |role: &&str| std::iter::once((*role).to_owned()).chain(these.iter().map(|s| cell(s, role))).collect();
        text += &table(&headings, roles.iter().map(row));
        left = rest;
    }
    text
}

fn worst(scheme: &SchemeReport, name: &str, all: bool) -> String {
    let mut rows: Vec<&TensorRow> = scheme.tensors.iter().collect();
    rows.sort_by(|a, b| by_error(b, a));
    let differing = rows.iter().filter(|t| t.metrics.differs()).count();
    let shown = if all { rows.len() } else { WORST.min(differing) };
    let weighed = rows.iter().any(|t| t.metrics.output_error.is_some());
    let spectral = rows.iter().any(|t| t.metrics.spectral_norm.is_some());
    let title = if all { format!("Tensors{name}, worst first") } else { format!("Worst tensors{name}: {shown} of {}", rows.len()) };
    // With all columns no name would fit.
    let n_figures = if weighed && spectral { 3 } else { 4 };
    let cells = |(t, name): (&&TensorRow, String)| {
        let mut cells = vec![name, t.to.clone(), format!("{:.2}", t.bits_per_weight)];
        cells.extend(figures(&t.metrics).into_iter().take(n_figures));
        cells.extend(weighed.then(|| output(&t.metrics)));
        cells.extend(spectral.then(|| t.metrics.spectral_norm.map_or("–".into(), scientific)));
        cells
    };
    let mut headings = vec!["tensor", "to", ">bits"];
    headings.extend([">error %", ">SQNR dB", ">max |e|", ">cosine"].iter().take(n_figures));
    headings.extend(weighed.then_some(">output %"));
    headings.extend(spectral.then_some(">‖E‖₂"));
    let rows = &rows[..shown];
    let text = fitting(|most| {
        let names = shortened(rows.iter().map(|t| t.name.as_str()).collect(), most);
        table(&headings, rows.iter().zip(names).map(cells))
    });
    format!("\n{}\n", bold(&title)) + &text
}

/// A bar for each layer, from that with the least error to that with the greatest.
fn sparkline(layers: &[LayerRow]) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    const BARS_A_LINE: usize = 60;
    let error = |l: &LayerRow| l.metrics.relative_error.unwrap_or(1.0);
    let numbered: Vec<&LayerRow> = layers.iter().filter(|l| l.layer.is_some()).collect();
    let Some(worst) = numbered.iter().copied().max_by(|a, b| error(a).total_cmp(&error(b))) else { return " no layers have numbers\n".into() };
    let best = numbered.iter().copied().min_by(|a, b| error(a).total_cmp(&error(b))).unwrap_or(worst);
    let span = (error(worst) - error(best)).max(f64::MIN_POSITIVE);
    let bar = |l: &&LayerRow| BARS[((error(l) - error(best)) / span * 7.0).round() as usize % 8];
    let bars: Vec<char> = numbered.iter().map(bar).collect();
    let mut text = String::new();
    for (i, line) in bars.chunks(BARS_A_LINE).enumerate() {
        let (first, last) = (numbered[i * BARS_A_LINE].layer.unwrap_or(0), numbered[i * BARS_A_LINE + line.len() - 1].layer.unwrap_or(0));
        let _ = writeln!(text, " {} layers {first} to {last}", line.iter().collect::<String>());
    }
    let number = |l: &LayerRow| l.layer.unwrap_or(0);
    let (from, to) = (percent(&best.metrics), percent(&worst.metrics));
    let _ = writeln!(text, " lowest bar: layer {}, {from} %; highest: layer {}, {to} %", number(best), number(worst));
    for outside in layers.iter().filter(|l| l.layer.is_none()) {
        let _ = writeln!(text, " outside of layers: {}, error {} %", counted(outside.tensors, "tensor"), percent(&outside.metrics));
    }
    text
}

fn lists(report: &Report) -> String {
    let mut text = String::new();
    let mut list = |title: &str, items: Vec<String>| {
        if !items.is_empty() {
            let _ = writeln!(text, "\n{}", bold(title));
            for item in items.iter().take(SHOWN) {
                let _ = writeln!(text, " {}", Printable(item));
            }
            if items.len() > SHOWN {
                let _ = writeln!(text, " … and {} more (--json lists all)", items.len() - SHOWN);
            }
        }
    };
    list("Problems", report.problems.clone());
    list("Missing in the candidate", report.missing.clone());
    list("Only in the candidate", report.extra.clone());
    list("Skipped", skipped(report));
    list("Conditions that hold (--fail-if)", report.failed.iter().map(failed).collect());
    text
}

/// What was skipped: a line for each reason, with the first name.
fn skipped(report: &Report) -> Vec<String> {
    let reasons = by_reason(report.skipped.iter().map(|s| (s.name.as_str(), s.reason.as_str())));
    reasons.into_iter().map(|(reason, names)| format!("{}: {reason}", first_and_more(names).unwrap_or_default())).collect()
}

/// A condition that holds, in a line.
pub fn failed(f: &Failed) -> String {
    let value = f.value.map_or("infinite".into(), |v| format!("{v:.6}"));
    format!("{} ({}): {} is {value} ({})", f.tensor, f.scheme, f.metric, f.condition)
}

/// How much was compared, and how fast.
fn closing(report: &Report) -> String {
    let (least, compared) = report.schemes.iter().map(|s| s.compared).fold((usize::MAX, 0), |(a, b), n| (a.min(n), b.max(n)));
    let from = if least < compared { format!("{least} to ") } else { String::new() };
    let weights: u64 = report.schemes.iter().map(|s| s.model.n).sum();
    let rate = if report.seconds > 0.0 { weights as f64 * 4.0 / report.seconds } else { 0.0 };
    let (skipped, missing, extra, problems) = (report.skipped.len(), report.missing.len(), report.extra.len(), report.problems.len());
    let (compared, problems) = (counted(compared, "tensor"), counted(problems, "problem"));
    let counts = format!("{from}{compared} compared, {skipped} skipped, {missing} missing, {extra} extra, {problems}");
    format!("\n {counts}\n took {} ({}/s of f32)\n", duration(report.seconds), bytes(rate as u64))
}

fn figures(m: &Metrics) -> Vec<String> {
    match m.n {
        0 => vec!["–".to_owned(); 4],
        _ => vec![percent(m), decibels(m), scientific(m.max_abs_error), format!("{:.6}", m.cosine)],
    }
}

fn percent(m: &Metrics) -> String {
    if m.n == 0 {
        return "–".into();
    }
    m.relative_error.map_or("∞".into(), |v| format!("{:.3}", 100.0 * v))
}

/// The expected error of outputs, if it is known.
fn output(m: &Metrics) -> String {
    m.output_error.map_or("–".into(), |v| if v.is_finite() { format!("{:.3}", 100.0 * v) } else { "∞".into() })
}

fn decibels(m: &Metrics) -> String {
    match (m.exact, m.sqnr_db) {
        _ if m.n == 0 => "–".into(),
        (true, _) => "exact".into(),
        (_, Some(v)) => format!("{:.2}", if v.abs() < 0.005 { 0.0 } else { v }),
        _ => "−∞".into(),
    }
}

fn scientific(v: f64) -> String {
    if v == 0.0 { "0".into() } else { format!("{v:.2e}") }
}

/// From the least relative error to the greatest.
fn by_error(a: &TensorRow, b: &TensorRow) -> std::cmp::Ordering {
    let error = |t: &TensorRow| if t.metrics.n == 0 { -1.0 } else { t.metrics.relative_error.unwrap_or(f64::INFINITY) };
    error(a).total_cmp(&error(b)).then_with(|| b.name.cmp(&a.name))
}

/// Names of at most so many characters: if some are longer, `.weight`, then `model.` are left out of all, and at last of the long ones all
/// but the number of the layer and the end.
fn shortened(mut names: Vec<&str>, most: usize) -> Vec<String> {
    let length = |name: &str| name.chars().count();
    let fit = |names: &[&str]| names.iter().all(|name| length(name) <= most);
    if !fit(&names) {
        names.iter_mut().for_each(|name| *name = name.strip_suffix(".weight").unwrap_or(name));
    }
    if !fit(&names) {
        names.iter_mut().for_each(|name| *name = name.strip_prefix("model.").unwrap_or(name));
    }
    names.into_iter().map(|name| if length(name) <= most { name.to_owned() } else { cut(name, most) }).collect()
}

/// The end of a name with the number of its layer: `…layer.4.attention.self.value`, or `…4…self.value`.
fn cut(name: &str, most: usize) -> String {
    let ends = || name.split_inclusive('.').scan(0, |at, part| Some(&name[std::mem::replace(at, *at + part.len())..]));
    let fitting = |room: usize| ends().find(|end| end.chars().count() <= room);
    let number = ends().find(|end| end.starts_with(|c: char| c.is_ascii_digit()));
    let Some(number) = number else { return fitting(most - 1).map_or_else(|| tail(name, most), |end| format!("…{end}")) };
    match fitting(most - 1).filter(|end| end.len() >= number.len()) {
        Some(end) => format!("…{end}"),
        None => {
            let head = format!("…{}…", number.split('.').next().unwrap_or_default());
            let room = most.saturating_sub(head.chars().count());
            head + &fitting(room).map_or_else(|| tail(name, room), str::to_owned)
        }
    }
}

/// The last characters of a name.
fn tail(name: &str, n: usize) -> String {
    name.chars().skip(name.chars().count().saturating_sub(n)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_the_number_of_their_layer() {
        let name = "encoder.layer.4.attention.self.value";
        assert_eq!(cut(name, 30), "…layer.4.attention.self.value");
        assert_eq!(cut(name, 24), "…4.attention.self.value");
        assert_eq!(cut(name, 17), "…4…self.value");
        assert_eq!(cut("embeddings.word_embeddings.weight", 20), "…weight");
        assert_eq!(cut(&"x".repeat(40), 17), "x".repeat(17));
        assert_eq!(cut("blk.12345678901234567890.ffn", 17), "…12345678901234567890…");
        let names = vec!["model.layers.0.mlp.down_proj.weight", "model.norm.weight"];
        assert_eq!(shortened(names.clone(), 38), names);
        assert_eq!(shortened(names.clone(), 28), ["model.layers.0.mlp.down_proj", "model.norm"]);
        assert_eq!(shortened(names, 22), ["layers.0.mlp.down_proj", "norm"]);
    }
}
