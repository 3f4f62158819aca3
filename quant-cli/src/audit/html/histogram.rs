//! How many errors have which size: a drawing for each scheme, all with the same axis.

use std::fmt::Write as _;

use super::axis::{Axis, range};
use super::text::{Escaped, number, percent, short};
use crate::audit::report::{Bin, SchemeReport};

const WIDTH: f64 = 380.0;
const HEIGHT: f64 = 210.0;
const BOTTOM: f64 = HEIGHT - 48.0;
const TOP: f64 = 14.0;
/// Where the tallest bar ends: below the first label.
const PEAK: f64 = TOP + 6.0;
/// The share of the smallest errors that is left out.
const TAIL: f64 = 0.002;

/// The drawings. None if there is no error to draw.
pub fn drawings(schemes: &[SchemeReport]) -> Option<String> {
    let low = range(schemes.iter().filter_map(|s| smallest(&s.histogram)).map(f64::log10))?.0;
    let high = range(schemes.iter().flat_map(|s| drawn(&s.histogram)).map(|bin| bin.to.log10()))?.1;
    let axis = Axis { low, high: high.max(low + 0.1), start: 8.0, end: WIDTH - 8.0 };
    let figures: String = schemes.iter().enumerate().map(|(i, s)| figure(s, i, &axis)).collect();
    Some(format!("<div class=\"grid-of-figures\">\n{figures}</div>\n"))
}

fn figure(scheme: &SchemeReport, index: usize, axis: &Axis) -> String {
    let name = Escaped(&scheme.scheme);
    let caption = caption(scheme);
    if drawn(&scheme.histogram).next().is_none() {
        return format!("<figure><figcaption><b>{name}</b>: {caption}</figcaption></figure>\n");
    }
    let mut svg = format!("<path class=\"area c{}\" d=\"{}\"/>", index % 6, area(&scheme.histogram, axis));
    svg += &marks(axis);
    svg += &quantiles(scheme, axis);
    format!(
        "<figure><figcaption><b>{name}</b>: {caption}</figcaption>\
         <svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"Distribution of errors of {name}\">{svg}</svg></figure>\n"
    )
}

/// What the drawing shows, in words.
fn caption(scheme: &SchemeReport) -> String {
    let total: u64 = scheme.histogram.iter().map(|bin| bin.count).sum();
    let zero: u64 = scheme.histogram.iter().filter(|bin| bin.to <= 0.0).map(|bin| bin.count).sum();
    if total == zero {
        return if total == 0 { "nothing was compared.".into() } else { "no weight has an error.".into() };
    }
    let m = &scheme.model;
    let exact = if zero > 0 { format!("; {} of the weights have none", percent(zero as f64 / total as f64)) } else { String::new() };
    format!(
        "half of the errors are at most {}, 99\u{a0}% at most {}, the largest is {}{exact}.",
        number(m.error_p50),
        number(m.error_p99),
        number(m.max_abs_error)
    )
}

/// The bins that have a place on an axis of logarithms.
fn drawn(bins: &[Bin]) -> impl Iterator<Item = &Bin> {
    bins.iter().filter(|bin| bin.from > 0.0 && bin.to > bin.from && bin.to.is_finite() && bin.count > 0)
}

/// Where the drawing begins: all errors but a small share are greater.
fn smallest(bins: &[Bin]) -> Option<f64> {
    let total: u64 = drawn(bins).map(|bin| bin.count).sum();
    let mut passed = 0;
    let is_reached = |bin: &&Bin| {
        passed += bin.count;
        passed as f64 > total as f64 * TAIL
    };
    drawn(bins).find(is_reached).map(|bin| bin.from)
}

/// Errors in an interval of the logarithm.
fn density(bin: &Bin) -> f64 {
    bin.count as f64 / (bin.to / bin.from).ln()
}

/// The outline: a step for each bin, down to the ground where there are none.
fn area(bins: &[Bin], axis: &Axis) -> String {
    let most = drawn(bins).map(density).fold(f64::MIN_POSITIVE, f64::max);
    let mut path = format!("M{} {BOTTOM}", axis.start);
    let mut end = 0.0;
    for bin in drawn(bins).filter(|bin| bin.to.log10() > axis.low) {
        let from = axis.at(bin.from.log10().max(axis.low));
        if (bin.from - end).abs() > bin.from * 1e-9 {
            let _ = write!(path, "V{BOTTOM}H{from:.1}");
        }
        let _ = write!(path, "V{:.1}H{:.1}", BOTTOM - density(bin) / most * (BOTTOM - PEAK), axis.at(bin.to.log10()));
        end = bin.to;
    }
    path + &format!("V{BOTTOM}Z")
}

/// The axis: powers of ten and its name.
fn marks(axis: &Axis) -> String {
    let mut svg = format!("<path class=\"ground\" d=\"M{} {BOTTOM}H{}\"/>", axis.start, axis.end);
    for mark in axis.decades() {
        let at = axis.at(mark.log10());
        let _ = write!(svg, "<path class=\"ground\" d=\"M{at:.1} {BOTTOM}v4\"/>");
        if at > 24.0 && at < WIDTH - 24.0 {
            let _ = write!(svg, "<text class=\"mid\" x=\"{at:.1}\" y=\"{}\">{}</text>", BOTTOM + 19.0, tick(mark));
        }
    }
    svg + &format!("<text class=\"mid\" x=\"{}\" y=\"{}\">size of the error |e|</text>", WIDTH / 2.0, HEIGHT - 8.0)
}

/// `0.01`, and `1e-5` for what is smaller.
fn tick(x: f64) -> String {
    if (1e-3..1e4).contains(&x) { short(x) } else { format!("{x:e}") }
}

/// Lines below which half and 99 % of the errors lie, and at the largest.
fn quantiles(scheme: &SchemeReport, axis: &Axis) -> String {
    let m = &scheme.model;
    let lines = [("half", m.error_p50, 0.0), ("99 %", m.error_p99, 1.0), ("max", m.max_abs_error, 2.0)];
    let mut svg = String::new();
    for (name, error, line) in lines.into_iter().filter(|(_, error, _)| axis.holds(error.log10())) {
        let (at, y) = (axis.at(error.log10()), TOP + 17.0 * line);
        let (class, to) = if at > WIDTH - 50.0 { ("end", at - 4.0) } else { ("start", at + 4.0) };
        let _ = write!(svg, "<path class=\"quantile\" d=\"M{at:.1} {BOTTOM}V{:.1}\"/>", y - 10.0);
        let _ = write!(svg, "<text class=\"{class}\" x=\"{to:.1}\" y=\"{y:.1}\">{name}</text>");
    }
    svg
}
