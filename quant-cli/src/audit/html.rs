//! The report as one HTML page that needs nothing else: no network, no fonts, no images. It is complete without scripts; a small one sorts
//! and filters the tables. Its size and time grow with the number of tensors, and nothing in it depends on when or where it was made.

mod axis;
mod glossary;
mod heat;
mod hint;
mod histogram;
mod left_out;
mod scatter;
mod tensors;
mod text;
mod words;

use std::fmt::Write as _;

use self::text::{Escaped, cosine, counted, decibels, error, number, optional, percent};
use super::report::{Report, SchemeReport};
use crate::size;

/// Only what stands in the page itself may be used.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:";

/// The page.
pub fn page(report: &Report) -> String {
    let title = title(report);
    let (style, script) = (include_str!("page.css"), include_str!("page.js"));
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{title}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n"
    );
    html += &header(report, &title);
    html += &left_out::alerts(report);
    html += &section("In words", "words", &list(&words::summary(report)));
    html += &section("Summary", "summary", &summary(report));
    html += &drawings(report);
    html += "<section id=\"details\">\n<h2>Where the error is</h2>\n";
    for i in 0..report.schemes.len() {
        details(&mut html, report, i);
    }
    html += "</section>\n";
    html += &left_out::section(report);
    let notes: Vec<String> = report.notes.iter().map(|note| Escaped(note).to_string()).collect();
    html += &if notes.is_empty() { String::new() } else { section("Notes", "notes", &list(&notes)) };
    html += &section("What the words mean", "glossary", &glossary::list());
    let _ = write!(html, "</main>\n<script>\n{script}</script>\n</body>\n</html>\n");
    html
}

/// `A against B`, or `Schemes tried on A`, escaped.
fn title(report: &Report) -> String {
    let reference = Escaped(last_part(&report.reference));
    match &report.candidate {
        Some(candidate) => format!("{} against {reference}", Escaped(last_part(candidate))),
        None => format!("Schemes tried on {reference}"),
    }
}

fn last_part(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().filter(|part| !part.is_empty() && *part != ".").unwrap_or(path)
}

fn section(heading: &str, id: &str, content: &str) -> String {
    format!("<section id=\"{id}\">\n<h2>{heading}</h2>\n{content}</section>\n")
}

fn list(items: &[String]) -> String {
    let items: String = items.iter().map(|item| format!("<li>{item}\n")).collect();
    format!("<ul>\n{items}</ul>\n")
}

/// What was compared, and how many tensors.
fn header(report: &Report, title: &str) -> String {
    let compared = report.schemes.iter().map(|s| s.compared).max().unwrap_or(0);
    let parameters = report.schemes.iter().map(|s| s.parameters).max().unwrap_or(0);
    let counts = [(report.skipped.len(), "skipped"), (report.missing.len(), "missing"), (report.extra.len(), "extra")];
    let counts: String = counts.iter().map(|(n, what)| format!(", <b>{n}</b> {what}")).collect();
    let problems = counted(report.problems.len(), "problem");
    let beside = [("Candidate", &report.candidate), ("Importance of columns", &report.imatrix), ("Activations", &report.activations)];
    let given = |(what, path): (&str, &Option<String>)| Some(format!("<br>{what}: <code>{}</code>", Escaped(path.as_ref()?)));
    let beside: String = beside.into_iter().filter_map(given).collect();
    format!(
        "<header>\n<p class=\"kind\">quant audit: what quantizing changes in the weights</p>\n<h1>{title}</h1>\n\
         <p><b>{}</b> of {} weights compared{counts}, {problems}.<br>\n\
         Reference: <code>{}</code>{beside}<br>Tensor names: {}<br>Measured by quant {}</p>\n</header>\n",
        counted(compared, "tensor"),
        size::count(parameters),
        Escaped(&report.reference),
        Escaped(report.names),
        report.quant
    )
}

/// A row for each scheme. The error of outputs has a column if it is known of one.
fn summary(report: &Report) -> String {
    let is_weighed = report.schemes.iter().any(|s| s.model.output_error.is_some());
    let output = if is_weighed { vec!["output error %"] } else { Vec::new() };
    let headings = ["size", "bits a weight", "relative error %"].into_iter().chain(output).chain(["SQNR dB", "smaller than f32", "cosine"]);
    let headings: String = headings.map(|h| format!("<th scope=\"col\">{h}")).collect();
    let rows: String = report.schemes.iter().enumerate().map(|(i, scheme)| summary_row(scheme, i, is_weighed)).collect();
    format!(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Summary\"><table class=\"summary sortable\">\n\
         <thead><tr><th scope=\"col\">scheme{headings}<th scope=\"col\">worst tensor</thead>\n<tbody>\n{rows}</table></div>\n"
    )
}

fn summary_row(scheme: &SchemeReport, index: usize, is_weighed: bool) -> String {
    let worst = tensors::worst_first(scheme).first().map(|t| format!("<code>{}</code>", Escaped(&t.name))).unwrap_or_default();
    let worst = if scheme.model.differs() { worst } else { "–".into() };
    let error = if scheme.model.n == 0 { f64::NAN } else { error(&scheme.model) };
    let output = optional(scheme.model.output_error.map(|share| 100.0 * share));
    let output = if is_weighed { format!("<td>{output}") } else { String::new() };
    format!(
        "<tr><th scope=\"row\"><a href=\"#s{index}\">{}</a><td data-v=\"{}\">{}<td>{:.2}<td>{}{output}<td>{}<td>{:.2}×<td>{}<td>{worst}\n",
        Escaped(&scheme.scheme),
        scheme.bytes,
        size::bytes(scheme.bytes),
        scheme.bits_per_weight,
        number(100.0 * error),
        decibels(&scheme.model),
        scheme.compression,
        cosine(&scheme.model)
    )
}

/// The drawings that compare schemes.
fn drawings(report: &Report) -> String {
    let scatter = scatter::drawing(&report.schemes).map(|svg| section("Error against size", "scatter", &svg));
    let what = "<p>The height says how many weights have an error of that size. All drawings have the same axis.</p>\n";
    let histogram = histogram::drawings(&report.schemes).map(|svg| section("How large the errors are", "histogram", &format!("{what}{svg}")));
    [scatter, histogram].into_iter().flatten().collect()
}

/// Layers, roles and tensors of one scheme; the first is open.
fn details(html: &mut String, report: &Report, index: usize) {
    let scheme = &report.schemes[index];
    let open = if index == 0 { " open" } else { "" };
    let _ = write!(
        html,
        "<details id=\"s{index}\"{open}>\n<summary><h3>{}</h3> <span>relative error {}</span></summary>\n",
        Escaped(&scheme.scheme),
        percent(error(&scheme.model))
    );
    let _ = write!(html, "<p>{} {}</p>\n<h4>Layers and roles, SQNR in dB</h4>\n", words::about(scheme), hint::advice(report, scheme));
    *html += &heat::map(scheme);
    *html += "<h4>Tensors, worst first</h4>\n";
    *html += &tensors::table(scheme);
    *html += "</details>\n";
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::report::{Bin, Failed, LayerRow, Metrics, RoleRow, Skipped, TensorRow, Weights};

    const HOSTILE: &str = "<script>alert(\"1\")</script>'&\u{202e}";
    const SHOWN: &str = "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&#39;&amp;\\u{202e}";

    #[test]
    fn hostile_texts_are_escaped() {
        let html = page(&report(HOSTILE));
        assert_eq!(html.matches("<script>").count(), 1, "only the page's own");
        assert!(!html.contains('\u{202e}') && !html.contains("alert(\"1\")"));
        assert!(html.matches(SHOWN).count() >= 8);
    }

    #[test]
    fn nothing_is_loaded() {
        let html = page(&report("a"));
        assert!(!["http://", "https://", "src=", "url(", "@import", "<link"].iter().any(|text| html.contains(text)));
    }

    #[test]
    fn every_tensor_is_named() {
        let html = page(&report("blk.0"));
        assert!(["blk.0.q", "blk.0.norm", "blk.0.missing", "blk.0.extra", "blk.0.skipped"].iter().all(|name| html.contains(&format!("<th>{name}<"))));
        assert!(html.contains("Failed: 1 condition of --fail-if holds"));
    }

    #[test]
    fn nothing_and_exact_models_have_a_page() {
        let mut report = report("a");
        report.schemes.truncate(1);
        report.schemes[0].model = metrics(0.0);
        report.schemes[0].tensors.clear();
        assert!(page(&report).contains("No weight differs"));
        report.schemes.clear();
        assert!(page(&report).contains("Nothing was compared"));
    }

    /// Two schemes with an exact and an inexact tensor each.
    fn report(name: &str) -> Report {
        Report {
            version: 1,
            quant: "0.1.0",
            reference: name.into(),
            candidate: Some(format!("b/{name}")),
            imatrix: Some(name.into()),
            activations: Some(name.into()),
            names: "as stored",
            schemes: vec![scheme(name, 0.1), scheme("int8", 0.01)],
            skipped: vec![Skipped { name: format!("{name}.skipped"), reason: name.into() }],
            missing: vec![format!("{name}.missing")],
            extra: vec![format!("{name}.extra")],
            problems: vec![name.into()],
            failed: vec![Failed { condition: name.into(), scheme: name.into(), tensor: name.into(), metric: "cosine", value: None }],
            notes: vec![name.into()],
            seconds: 1.0,
        }
    }

    fn scheme(name: &str, error: f64) -> SchemeReport {
        SchemeReport {
            scheme: name.into(),
            compared: 2,
            parameters: 512,
            bytes: 256,
            bits_per_weight: 4.0,
            compression: 8.0,
            model: metrics(error),
            layers: vec![LayerRow { layer: Some(0), tensors: 2, metrics: metrics(error) }],
            roles: ["attn_q", "norm"].map(|role| RoleRow { role, tensors: 1, metrics: metrics(error) }).into(),
            tensors: vec![tensor(format!("{name}.norm"), "norm", 0.0), tensor(format!("{name}.q"), "attn_q", error)],
            histogram: vec![Bin { from: 0.0, to: 0.0, count: 256 }, Bin { from: 0.01, to: 0.02, count: 256 }],
        }
    }

    fn tensor(name: String, role: &'static str, error: f64) -> TensorRow {
        let weights = Weights {
            min: -1.0,
            max: 1.0,
            mean: 0.0,
            std: 1.0,
            kurtosis: None,
            outliers: Some(0),
            outlier_share: Some(0.0),
            outlier_columns: Some(0),
            zeros: Some(0),
            non_finite: 0,
        };
        let (from, to) = ("bf16".into(), "nf4".into());
        TensorRow {
            name,
            shape: vec![1, 256],
            from,
            to,
            layer: Some(0),
            role,
            bytes: 128,
            bits_per_weight: 4.0,
            metrics: metrics(error),
            weights,
            worst_blocks: Vec::new(),
        }
    }

    fn metrics(error: f64) -> Metrics {
        Metrics {
            n: 256,
            exact: error == 0.0,
            rmse: error,
            relative_error: Some(error),
            sqnr_db: (error > 0.0).then(|| -20.0 * error.log10()),
            max_abs_error: error,
            max_abs_index: None,
            max_abs_tensor: None,
            mean_error: 0.0,
            cosine: 1.0,
            error_p50: error,
            error_p90: error,
            error_p99: error,
            error_p999: error,
            predicted_rmse: None,
            noise_ratio: None,
            output_error: None,
            activation_error: None,
            spectral_norm: None,
        }
    }
}
