//! Where the error is: a table of layers and roles, coloured by SQNR.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::axis::range;
use super::text::{Escaped, counted, decibels, error, percent};
use crate::audit::report::{Metrics, SchemeReport, TensorRow};

/// The steps of colour, from little to much error.
const STEPS: usize = 10;
/// The least and the greatest SQNR of the colours are so many decibels apart: small differences should not look large, and one exact tensor
/// should not hide the others.
const SPAN: (f64, f64) = (6.0, 24.0);

/// The table of one scheme, with its legend.
pub fn map(scheme: &SchemeReport) -> String {
    let cells = cells(scheme);
    let colours = Colours::of(cells.iter().flatten().filter_map(Sum::decibels));
    let heads: String = scheme.roles.iter().map(|r| format!("<th scope=\"col\">{}", Escaped(r.role))).collect();
    let mut html = if scheme.model.differs() { legend(&colours) } else { String::new() };
    let label = format!("SQNR of each layer and role, {}", Escaped(&scheme.scheme));
    let _ = writeln!(html, "<div class=\"scroll heat-scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{label}\"><table class=\"heat\">");
    let _ = writeln!(html, "<thead><tr><th scope=\"col\">layer{heads}<th scope=\"col\">all</thead>\n<tbody>");
    for (row, layer) in cells.iter().zip(&scheme.layers) {
        let name = layer.layer.map_or("none".into(), |n| n.to_string());
        let _ = write!(html, "<tr><th scope=\"row\">{name}");
        row.iter().zip(&scheme.roles).for_each(|(sum, role)| html += &sum.cell(&colours, &format!("layer {name}, {}", role.role)));
        html += &total(&layer.metrics);
        html.push('\n');
    }
    let totals: String = scheme.roles.iter().map(|r| total(&r.metrics)).collect();
    let _ = writeln!(html, "<tfoot><tr><th scope=\"row\">all{totals}{}</tfoot></table></div>", total(&scheme.model));
    html
}

/// The tensors of one layer and role.
#[derive(Default, Clone)]
struct Sum {
    tensors: usize,
    squared_error: f64,
    squared_weights: f64,
}

impl Sum {
    fn add(&mut self, tensor: &TensorRow) {
        let (n, w) = (tensor.metrics.n as f64, &tensor.weights);
        if tensor.metrics.n == 0 {
            return;
        }
        let squared_error = tensor.metrics.rmse.powi(2) * n;
        self.tensors += 1;
        self.squared_error += squared_error;
        self.squared_weights += match tensor.metrics.relative_error {
            Some(error) if error > 0.0 => squared_error / error.powi(2),
            _ => (w.std.powi(2) + w.mean.powi(2)) * n,
        };
    }

    fn error(&self) -> f64 {
        if self.squared_error == 0.0 { 0.0 } else { (self.squared_error / self.squared_weights).sqrt() }
    }

    /// None where there is no error.
    fn decibels(&self) -> Option<f64> {
        (self.squared_error > 0.0).then(|| -20.0 * self.error().log10())
    }

    fn cell(&self, colours: &Colours, place: &str) -> String {
        match self.decibels() {
            _ if self.tensors == 0 => "<td>".into(),
            None => "<td class=\"exact\">exact".into(),
            Some(db) => {
                let title = format!("{place}: relative error {}, {}", percent(self.error()), counted(self.tensors, "tensor"));
                let text = if db.is_finite() { format!("{db:.1}") } else { "-∞".into() };
                format!("<td class=\"h{}\" title=\"{}\">{text}", colours.step(db), Escaped(&title))
            }
        }
    }
}

/// A row for each layer with a sum for each role.
fn cells(scheme: &SchemeReport) -> Vec<Vec<Sum>> {
    let rows: BTreeMap<_, _> = scheme.layers.iter().enumerate().map(|(i, l)| (l.layer, i)).collect();
    let columns: BTreeMap<_, _> = scheme.roles.iter().enumerate().map(|(i, r)| (r.role, i)).collect();
    let mut cells = vec![vec![Sum::default(); columns.len()]; scheme.layers.len()];
    for tensor in &scheme.tensors {
        if let (Some(&row), Some(&column)) = (rows.get(&tensor.layer), columns.get(tensor.role)) {
            cells[row][column].add(tensor);
        }
    }
    cells
}

/// From SQNR to colour.
struct Colours {
    low: f64,
    high: f64,
}

impl Colours {
    fn of(decibels: impl Iterator<Item = f64>) -> Colours {
        let (low, high) = range(decibels).unwrap_or((0.0, 0.0));
        Colours { low, high: high.clamp(low + SPAN.0, low + SPAN.1) }
    }

    /// The step, the last for most error.
    fn step(&self, db: f64) -> usize {
        let share = (self.high - db) / (self.high - self.low);
        ((share * STEPS as f64).max(0.0) as usize).min(STEPS - 1)
    }
}

fn legend(colours: &Colours) -> String {
    let swatches: String = (0..STEPS).map(|i| format!("<i class=\"h{i}\"></i>")).collect();
    let Colours { low, high } = colours;
    format!(
        "<p class=\"legend\"><span>{high:.0}\u{a0}dB and more: little error</span> <span class=\"swatches\">{swatches}</span> \
         <span>{low:.0}\u{a0}dB and less: much error</span></p>\n"
    )
}

fn total(metrics: &Metrics) -> String {
    if metrics.n == 0 {
        return "<td>–".into();
    }
    if metrics.exact { "<td class=\"exact\">exact".into() } else { format!("<td title=\"{}\">{}", percent(error(metrics)), decibels(metrics)) }
}
