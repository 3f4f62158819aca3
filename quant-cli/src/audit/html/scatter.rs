//! Error against bits a weight: a drawing with a large dot for each scheme and a small one for each tensor.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::axis::{Axis, range};
use super::text::{Escaped, counted, error, number, percent, short};
use crate::audit::report::SchemeReport;
use crate::report::and_more;

const WIDTH: f64 = 600.0;
const HEIGHT: f64 = 380.0;
/// Between the lines of labels.
const LINE: f64 = 18.0;
/// Errors that are smaller by this many powers of ten than the largest are left out.
const DECADES: f64 = 5.0;

/// The drawing. None if there is no error to draw.
pub fn drawing(schemes: &[SchemeReport]) -> Option<String> {
    let (x, y) = axes(schemes)?;
    let mut svg = frame(&x, &y);
    let mut left_out = 0;
    for (i, scheme) in schemes.iter().enumerate() {
        left_out += tensors(&mut svg, scheme, i, (&x, &y));
    }
    svg += &models(schemes, (&x, &y));
    let label = "Relative error against bits a weight. The numbers are in the tables.";
    let note = match left_out {
        0 => String::new(),
        n => format!(" Not drawn: {} with no or hardly any error.", counted(n, "small dot")),
    };
    let caption = format!("Large dots: whole models. Small dots: single tensors. Lower and further left is better.{note}");
    Some(format!(
        "<figure class=\"scatter\"><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{label}\">{svg}</svg>\
         <figcaption>{caption}</figcaption></figure>\n"
    ))
}

/// The axes: bits, and the logarithm of the error.
fn axes(schemes: &[SchemeReport]) -> Option<(Axis, Axis)> {
    let tensors = || schemes.iter().flat_map(|s| s.tensors.iter().map(|t| (t.bits_per_weight, error(&t.metrics).log10())));
    let models = schemes.iter().map(|s| (s.bits_per_weight, error(&s.model).log10()));
    let all = || tensors().chain(models.clone()).filter(|(_, y)| y.is_finite());
    let (low, high) = range(all().map(|dot| dot.1))?;
    let low = low.max(high - DECADES);
    let (left, right) = range(all().filter(|dot| dot.1 >= low).map(|dot| dot.0))?;
    let margin = ((right - left) * 0.06).max(0.25);
    let x = Axis { low: (left - margin).max(0.0), high: right + margin, start: 104.0, end: WIDTH - 14.0 };
    Some((x, Axis { low: low - 0.1, high: high + 0.1, start: HEIGHT - 54.0, end: 16.0 }))
}

/// Lines and names of the axes.
fn frame(x: &Axis, y: &Axis) -> String {
    let mut svg = String::new();
    for mark in y.decades() {
        let at = y.at(mark.log10());
        let _ = write!(svg, "<path class=\"grid\" d=\"M{} {at:.1}H{}\"/>", x.start, x.end);
        let _ = write!(svg, "<text class=\"end\" x=\"{}\" y=\"{:.1}\">{} %</text>", x.start - 7.0, at + 4.5, short(100.0 * mark));
    }
    for mark in x.steps() {
        let at = x.at(mark);
        let _ = write!(svg, "<path class=\"grid\" d=\"M{at:.1} {}V{}\"/>", y.start, y.end);
        let _ = write!(svg, "<text class=\"mid\" x=\"{at:.1}\" y=\"{}\">{}</text>", y.start + 19.0, short(mark));
    }
    let (middle, bottom, centre) = ((x.start + x.end) / 2.0, HEIGHT - 10.0, (y.start + y.end) / 2.0);
    let _ = write!(svg, "<text class=\"mid\" x=\"{middle}\" y=\"{bottom}\">bits a weight</text>");
    svg + &format!("<text class=\"mid\" transform=\"translate(14 {centre})rotate(-90)\">relative error</text>")
}

/// A scheme's tensors, those at the same place as one dot. Gives the number of those that are not drawn.
fn tensors(svg: &mut String, scheme: &SchemeReport, index: usize, (x, y): (&Axis, &Axis)) -> usize {
    let (mut dots, mut left_out) = (BTreeMap::<(i64, i64), (&str, usize)>::new(), 0);
    for tensor in &scheme.tensors {
        let (bits, error) = (tensor.bits_per_weight, error(&tensor.metrics).log10());
        if x.holds(bits) && y.holds(error) {
            dots.entry((x.at(bits).round() as i64, y.at(error).round() as i64)).or_insert((&tensor.name, 0)).1 += 1;
        } else {
            left_out += 1;
        }
    }
    let _ = write!(svg, "<g class=\"small c{}\">", index % 6);
    for ((cx, cy), (name, count)) in dots {
        let more = and_more(count - 1);
        let _ = write!(svg, "<circle cx=\"{cx}\" cy=\"{cy}\" r=\"3\"><title>{}{more}</title></circle>", Escaped(name));
    }
    svg.push_str("</g>");
    left_out
}

/// A dot and a name for each scheme that has an error.
fn models(schemes: &[SchemeReport], (x, y): (&Axis, &Axis)) -> String {
    let mut dots: Vec<_> = schemes.iter().enumerate().map(|(i, s)| (i, s, x.at(s.bits_per_weight), y.at(error(&s.model).log10()))).collect();
    dots.retain(|dot| dot.3.is_finite() && dot.3 <= y.start);
    dots.sort_by(|a, b| a.3.total_cmp(&b.3));
    let places: Vec<_> = dots.iter().map(|dot| (dot.2, dot.3)).collect();
    let (mut svg, mut taken) = (String::new(), Vec::<(f64, f64)>::new());
    for (i, scheme, cx, cy) in dots {
        let title = format!("{}: {} at {} bits a weight", scheme.scheme, percent(error(&scheme.model)), number(scheme.bits_per_weight));
        let _ = write!(svg, "<circle class=\"c{}\" cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"7\"><title>{}</title></circle>", i % 6, Escaped(&title));
        let at = free(&taken, cx, cy);
        taken.push((cx, at));
        svg += &label(&scheme.scheme, (cx, cy), (beside(&places, cx, at), at));
    }
    svg
}

/// A name, with a line to its dot if it had to be moved.
fn label(name: &str, (cx, cy): (f64, f64), (x, y): (f64, f64)) -> String {
    let class = if x < cx { "name end" } else { "name" };
    let gap = 3f64.copysign(x - cx);
    let line = if y == cy { String::new() } else { format!("<path class=\"leader\" d=\"M{cx:.1} {cy:.1}L{:.1} {y:.1}\"/>", x - gap) };
    format!("{line}<text class=\"{class}\" x=\"{x:.1}\" y=\"{:.1}\">{}</text>", y + 4.5, Escaped(name))
}

/// Where a label at height `y` begins, or ends: beside all dots that it could lie on.
fn beside(dots: &[(f64, f64)], cx: f64, y: f64) -> f64 {
    let near = dots.iter().filter(|dot| (dot.0 - cx).abs() < 70.0 && (dot.1 - y).abs() < LINE).map(|dot| dot.0);
    if cx > WIDTH * 0.72 { near.fold(cx, f64::min) - 14.0 } else { near.fold(cx, f64::max) + 14.0 }
}

/// The height nearest below `y` where a label does not lie on another one.
fn free(taken: &[(f64, f64)], x: f64, mut y: f64) -> f64 {
    for (other_x, other_y) in taken {
        if (x - other_x).abs() < 130.0 && (y - other_y).abs() < LINE {
            y = other_y + LINE;
        }
    }
    y
}
