//! The errors that a BQT file tells of itself.

use quant_core::source::Tensor;
use quant_core::{Error, Result, Scheme};
use quant_formats::{Checkpoint, Format};

use super::report::{Report, Skipped};
use super::{Session, build, empty, measured};

/// The report of a BQT file about itself.
///
/// # Errors
/// If it is none, or says nothing.
pub fn report(session: &Session<'_>) -> Result<Report> {
    let args = session.args;
    let checkpoint = session.open(&args.reference)?;
    let path = args.reference.display();
    if checkpoint.errors.is_empty() {
        let advice = "name a CANDIDATE to compare it with, or schemes to try with --type, such as --type q4_k_m,nf4-dq";
        let bqt = if checkpoint.format == Format::Bqt { " (it was written without --audit, which keeps the errors in the file)" } else { "" };
        return Err(Error::request(format!("{path}: nothing to compare with{bqt}; {advice}")));
    }
    if args.spectral || args.imatrix.is_some() || args.activations.is_some() {
        let problem = "--spectral, --imatrix and --activations measure, and a file that tells of itself has no weights to measure against";
        return Err(Error::request(format!("{problem}; name the model that it was made of: quant audit MODEL {path}")));
    }
    let mut report = empty(args, "as stored");
    report.reference = "the weights that it was made from".into();
    report.candidate = Some(args.reference.display().to_string());
    let told: Vec<build::Measured> = told(&checkpoint).into_iter().filter(|row| session.is_wanted(&row.name, row.role)).collect();
    if told.is_empty() {
        return Err(Error::request("--only matches no tensor that the file tells the errors of, and no role of one"));
    }
    report.schemes.push(build::scheme(super::file_name(&args.reference), told));
    let is_silent = |(t, stats): &(&Tensor, &Option<_>)| t.is_weight() && stats.is_none() && session.is_wanted(&t.name, t.role);
    let silent = checkpoint.tensors.iter().zip(&checkpoint.errors).filter(is_silent);
    report.skipped = silent
        .map(|(t, _)| Skipped { name: t.name.clone(), reason: "the file has no figures of it: kept as it was, or written without --audit".into() })
        .collect();
    report.notes.push(
        "these are the errors that the file was written with: sums only, so no quantiles, no errors of outputs, no statistics of weights".into(),
    );
    Ok(report)
}

fn told(checkpoint: &Checkpoint) -> Vec<build::Measured> {
    let of = |(t, stats): (&Tensor, &Option<quant_core::audit::ErrorStats>)| {
        let row = measured(t, t.stored_as(), t.stored_bytes(), stats.clone()?);
        Some(build::Measured { from: Scheme::Dense(t.dtype).to_string(), ..row })
    };
    checkpoint.tensors.iter().zip(&checkpoint.errors).filter_map(of).collect()
}
