//! What a reader must not miss: conditions that hold, problems, and tensors that were not compared.

use super::text::{Escaped, counted, number};
use crate::audit::report::{Failed, Report};

/// Conditions that hold, problems and missing tensors, at the head of the page; nothing if there are none.
pub fn alerts(report: &Report) -> String {
    let mut html = String::new();
    if !report.failed.is_empty() {
        let of = if report.failed.len() == 1 { "condition of --fail-if holds" } else { "conditions of --fail-if hold" };
        html += &alert(&format!("Failed: {} {of}", report.failed.len()), report.failed.iter().map(failed));
    }
    if !report.problems.is_empty() {
        let problems = report.problems.iter().map(|problem| Escaped(problem).to_string());
        html += &alert(&counted(report.problems.len(), "problem"), problems);
    }
    if !report.missing.is_empty() {
        let names = report.missing.iter().map(|name| format!("<code>{}</code>", Escaped(name)));
        html += &alert(&format!("{} of the reference missing in the candidate", counted(report.missing.len(), "tensor")), names);
    }
    html
}

/// A table of the tensors that were not compared; nothing if all were.
pub fn section(report: &Report) -> String {
    let skipped = report.skipped.iter().map(|s| row(&s.name, "skipped", &s.reason));
    let missing = report.missing.iter().map(|name| row(name, "missing", "the candidate lacks it"));
    let extra = report.extra.iter().map(|name| row(name, "extra", "the reference lacks it"));
    let rows: String = skipped.chain(missing).chain(extra).collect();
    if rows.is_empty() {
        return String::new();
    }
    let table = format!(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Tensors not compared\"><table class=\"left-out sortable\">\n\
         <thead><tr><th scope=\"col\">tensor<th scope=\"col\">what<th scope=\"col\">why</thead>\n<tbody>\n{rows}</table></div>\n"
    );
    super::section("Not compared", "left-out", &table)
}

fn alert(heading: &str, items: impl Iterator<Item = String>) -> String {
    let items: String = items.map(|item| format!("<li>{item}\n")).collect();
    format!("<section class=\"alert\" tabindex=\"0\">\n<h2>{heading}</h2>\n<ul>\n{items}</ul>\n</section>\n")
}

fn failed(failed: &Failed) -> String {
    let Failed { condition, scheme, tensor, metric, value } = failed;
    let value = number(value.unwrap_or(f64::INFINITY));
    let place = if tensor == "model" { "the model".into() } else { format!("<code>{}</code>", Escaped(tensor)) };
    format!("<code>{}</code>: with {} {place} has {} {value}", Escaped(condition), Escaped(scheme), Escaped(metric))
}

fn row(name: &str, what: &str, why: &str) -> String {
    format!("<tr><th>{}<td>{what}<td>{}\n", Escaped(name), Escaped(why))
}
