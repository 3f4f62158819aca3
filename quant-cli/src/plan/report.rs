//! What a plan shows, and the recipe that it writes.

use std::collections::BTreeMap;
use std::fmt::Write;

use quant_core::error::Printable;
use serde::Serialize;

use crate::report::{and_more, bold, table};
use crate::size::{bytes, count};

/// How far the size of a fixed mix may be from that of the plan to be shown beside it.
const NEAR: f64 = 0.3;

/// A distance from the bound that says more of the bound than of the plan.
const LOOSE: f64 = 0.05;

/// A plan.
#[derive(Serialize)]
pub struct Report {
    pub model: String,
    pub weights: u64,
    /// The most bytes of tensors; none if the error was the limit.
    pub budget: Option<u64>,
    /// Bytes of the tensors.
    pub bytes: u64,
    /// Bytes of the file, with metadata and tokenizer; in BQT double quantization may write a few digits more or less.
    pub file_bytes: u64,
    pub bits_per_weight: f64,
    /// √(Σw·r²/Σw), r the relative error of a tensor, w how much it counts.
    pub error: f64,
    /// How far Σw·r² (or the bytes, if the error was the limit) may be above the least there is, relative to it.
    pub gap: f64,
    /// Weights that were measured, and how many there are in these tensors.
    pub sampled: u64,
    pub measured_of: u64,
    pub imatrix: Option<String>,
    /// Mixes of llama-quantize, with the error that they are expected to have.
    pub mixes: Vec<MixRow>,
    pub tensors: Vec<TensorRow>,
    /// Tensors whose type is not chosen.
    pub kept: Vec<KeptRow>,
    pub notes: Vec<String>,
    /// The text of the recipe.
    #[serde(skip)]
    pub recipe: String,
    /// Whether it quantizes again what is quantized, which `convert` has to be allowed.
    #[serde(skip)]
    pub requantizes: bool,
}

/// A mix of llama-quantize.
#[derive(Serialize)]
pub struct MixRow {
    pub mix: String,
    pub bytes: u64,
    pub bits_per_weight: f64,
    pub error: f64,
}

/// A tensor whose type is not chosen.
#[derive(Serialize)]
pub struct KeptRow {
    pub name: String,
    pub scheme: String,
    pub bytes: u64,
}

/// A tensor and its type.
#[derive(Serialize)]
pub struct TensorRow {
    pub name: String,
    pub role: &'static str,
    pub shape: Vec<u64>,
    pub scheme: String,
    pub bytes: u64,
    /// Its relative error, by importance where that is known.
    pub error: f64,
    /// Its share of the total.
    pub share: f64,
}

impl Report {
    /// The text for a terminal.
    pub fn text(&self) -> String {
        let mut text = format!("{} {}\n", bold("Plan for"), Printable(&self.model));
        let share = 100.0 * self.sampled as f64 / self.measured_of.max(1) as f64;
        let _ = writeln!(text, " measured on {} of {} weights ({share:.1} %)", count(self.sampled), count(self.measured_of));
        let mut rows: Vec<(bool, &str, u64, f64, f64)> =
            self.mixes.iter().map(|m| (false, m.mix.as_str(), m.bytes, m.bits_per_weight, m.error)).collect();
        rows.retain(|row| self.is_near(row.2));
        rows.push((true, "this plan", self.bytes, self.bits_per_weight, self.error));
        rows.sort_by_key(|row| (row.2, row.0));
        let row = |(is_plan, name, size, bits, error): (bool, &str, u64, f64, f64)| {
            let mark = if is_plan && !self.mixes.is_empty() { "←".to_owned() } else { String::new() };
            vec![name.to_owned(), bytes(size), format!("{bits:.3}"), format!("{:.3}", 100.0 * error), mark]
        };
        let title = if self.mixes.is_empty() { "The whole" } else { "Beside the mixes of llama-quantize" };
        let _ = writeln!(text, "\n{}", bold(title));
        text += &table(&["mix", ">size", ">bits a weight", ">expected error %", ""], rows.into_iter().map(row));
        let _ = writeln!(text, "\n{}", bold("Types by role"));
        text += &table(&["role", "types", ">size", ">error %", ">share %"], self.roles());
        text += &self.kept_text();
        let what = if self.budget.is_some() { "squared error" } else { "size" };
        let _ = writeln!(text, "\n the file, with metadata and tokenizer: {}", bytes(self.file_bytes));
        let bound = if self.gap > LOOSE { "; so loose a bound comes from few tensors or far steps between types" } else { "" };
        let _ = writeln!(text, " the {what} is at most {:.3} % above the least that these types allow{bound}", 100.0 * self.gap);
        text
    }

    /// Whether a mix of this size is shown: it is near, or the next smaller or the next larger one.
    fn is_near(&self, size: u64) -> bool {
        let between = |m: &MixRow| (size < m.bytes && m.bytes <= self.bytes) || (self.bytes <= m.bytes && m.bytes < size);
        (size as f64 / self.bytes.max(1) as f64 - 1.0).abs() <= NEAR || !self.mixes.iter().any(between)
    }

    /// What is not chosen: a line for each type, with the first name.
    fn kept_text(&self) -> String {
        let mut types: BTreeMap<&str, Vec<&KeptRow>> = BTreeMap::new();
        self.kept.iter().for_each(|t| types.entry(&t.scheme).or_default().push(t));
        let line = |(scheme, rows): (&str, Vec<&KeptRow>)| {
            let (n, size) = (rows.len(), rows.iter().map(|t| t.bytes).sum());
            format!("  not chosen: {n} × {scheme}, {} ({}{})\n", bytes(size), Printable(&rows[0].name), and_more(n - 1))
        };
        types.into_iter().map(line).collect()
    }

    /// One row for each role.
    fn roles(&self) -> Vec<Vec<String>> {
        let mut order: Vec<&str> = Vec::new();
        self.tensors.iter().for_each(|t| {
            if !order.contains(&t.role) {
                order.push(t.role)
            }
        });
        let row = |role: &&str| {
            let of: Vec<&TensorRow> = self.tensors.iter().filter(|t| t.role == *role).collect();
            let types = counted(of.iter().map(|t| t.scheme.as_str()));
            let error = (of.iter().map(|t| t.error * t.error).sum::<f64>() / of.len().max(1) as f64).sqrt();
            let share: f64 = of.iter().map(|t| t.share).sum();
            let size: u64 = of.iter().map(|t| t.bytes).sum();
            vec![(*role).to_owned(), types, bytes(size), format!("{:.3}", 100.0 * error), format!("{:.1}", 100.0 * share)]
        };
        order.iter().map(row).collect()
    }
}

/// How many of each: "3 × q5_k, 1 × q6_k".
fn counted<'a>(types: impl Iterator<Item = &'a str>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    types.for_each(|ty| *counts.entry(ty).or_default() += 1);
    let texts: Vec<String> = counts.iter().map(|(ty, n)| format!("{n} × {ty}")).collect();
    texts.join(", ")
}
