//! The errors that a BQT file tells of itself.

use quant_core::Result;
use quant_core::recipe::pattern;
use quant_core::{Error, source::Tensor};
use quant_formats::Checkpoint;

use super::args::AuditArgs;
use super::report::{Report, Skipped};
use super::{build, empty, measured};

/// The report of a BQT file about itself.
///
/// # Errors
/// If it is none, or says nothing.
pub fn report(args: &AuditArgs) -> Result<Report> {
    let checkpoint = quant_formats::open(&args.reference, quant_formats::Opening { io: args.io.into(), ..Default::default() })?;
    if checkpoint.errors.is_empty() {
        let advice = "name a CANDIDATE to compare it with, or schemes to try with --type, such as --type q4_k_m,nf4-dq";
        return Err(Error::request(format!("{}: nothing to compare with; {advice}", args.reference.display())));
    }
    if args.spectral || args.imatrix.is_some() || args.activations.is_some() {
        return Err(Error::request("--spectral, --imatrix and --activations measure; what a file tells of itself was measured before"));
    }
    let only = args.only.as_deref().map(pattern).transpose()?;
    let is_wanted = |name: &str| only.as_ref().is_none_or(|only| only.is_match(name));
    let mut report = empty(args, "as stored");
    report.reference = "the weights that it was made from".into();
    report.candidate = Some(args.reference.display().to_string());
    let told: Vec<build::Measured> = told(&checkpoint).into_iter().filter(|row| is_wanted(&row.name)).collect();
    if told.is_empty() {
        return Err(Error::request("--only matches no tensor that the file tells the errors of"));
    }
    report.schemes.push(build::scheme(super::file_name(&args.reference), told));
    let silent = checkpoint.tensors.iter().zip(&checkpoint.errors).filter(|(t, stats)| t.is_weight() && stats.is_none() && is_wanted(&t.name));
    report.skipped = silent
        .map(|(t, _)| Skipped { name: t.name.clone(), reason: "the file has no figures of it: kept as it was, or written without --audit".into() })
        .collect();
    report.notes.push(
        "these are the errors that the file was written with, of the tensors that it has figures of; without quantiles and statistics of weights"
            .into(),
    );
    Ok(report)
}

fn told(checkpoint: &Checkpoint) -> Vec<build::Measured> {
    let of = |(t, stats): (&Tensor, &Option<quant_core::audit::ErrorStats>)| {
        let row = measured(t, t.stored_as(), t.stored_bytes(), stats.clone()?);
        Some(build::Measured { from: t.dtype.to_string(), ..row })
    };
    checkpoint.tensors.iter().zip(&checkpoint.errors).filter_map(of).collect()
}
