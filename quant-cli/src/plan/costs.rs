//! What types cost tensors: measured once for each pair, on a sample of rows or on all.

use std::collections::{BTreeMap, BTreeSet};

use quant_core::audit::{ErrorStats, Rows};
use quant_core::backend::Backend;
use quant_core::source::Source;
use quant_core::{Error, Result, Scheme};
use quant_formats::Checkpoint;
use quant_formats::audit::Beside;
use rayon::prelude::*;

/// Elements of a tensor's sample, and of a piece where all rows are measured.
pub const SAMPLE: u64 = 1 << 17;

/// The relative error of tensors under schemes: by importance, where it is known, else of the weights.
#[derive(Default)]
pub struct Costs {
    errors: BTreeMap<(usize, String), f64>,
    /// Weights that were looked at, of how many.
    pub sampled: (u64, u64),
}

impl Costs {
    /// Measures tensors of `checkpoint` under the schemes wanted of each. Types of ggml look at importance if `weighed`.
    ///
    /// # Errors
    /// If a tensor cannot be read, or holds a number that a scheme cannot.
    pub fn measure(
        checkpoint: &Checkpoint,
        wanted: &BTreeMap<usize, BTreeSet<String>>,
        beside: &Beside,
        weighed: bool,
        full: bool,
        backend: &dyn Backend,
        progress: &crate::progress::Progress,
    ) -> Result<Costs> {
        use quant_core::sink::Observer;
        let n_bytes = |index: usize| {
            let n = checkpoint.tensors[index].n_elements();
            4 * if full { n } else { n.min(SAMPLE) }
        };
        progress.begin("measuring", wanted.keys().map(|&index| n_bytes(index)).sum());
        let of = |(&index, schemes): (&usize, &BTreeSet<String>)| {
            if progress.cancelled() {
                return Err(Error::Cancelled);
            }
            let found = of_tensor(checkpoint, index, schemes, beside, weighed, full, backend)?;
            progress.advance(n_bytes(index));
            Ok(found)
        };
        let tensors: Vec<_> = wanted.par_iter().map(of).collect::<Result<_>>()?;
        let mut costs = Costs::default();
        for (errors, looked_at, all) in tensors {
            costs.errors.extend(errors);
            costs.sampled = (costs.sampled.0 + looked_at, costs.sampled.1 + all);
        }
        Ok(costs)
    }

    /// The relative error of a tensor under a scheme, if it was measured.
    pub fn of(&self, tensor: usize, scheme: Scheme) -> Option<f64> {
        self.errors.get(&(tensor, scheme.to_string())).copied()
    }
}

type Measured = (Vec<((usize, String), f64)>, u64, u64);

fn of_tensor(
    checkpoint: &Checkpoint,
    index: usize,
    schemes: &BTreeSet<String>,
    beside: &Beside,
    weighed: bool,
    full: bool,
    backend: &dyn Backend,
) -> Result<Measured> {
    let original = checkpoint.original.as_deref().map(|original| original as &dyn Source);
    let tensor = &checkpoint.tensors[index];
    let columns = tensor.shape.last().copied().unwrap_or(1).max(1);
    let n_rows = Rows::n_of(&tensor.shape);
    let importance = beside.importance(&tensor.name, &tensor.shape)?;
    let rows: Vec<u64> = if full { (0..n_rows).collect() } else { Rows::spread(n_rows, columns, SAMPLE) };
    let mut stats: BTreeMap<&String, ErrorStats> = schemes.iter().map(|scheme| (scheme, ErrorStats::default())).collect();
    let named = |e: Error| if let Error::NonFinite { index, value, .. } = e { unfit(checkpoint, tensor, index, value) } else { e };
    for piece in rows.chunks((SAMPLE / columns).max(1) as usize) {
        let read = Rows::read(checkpoint, original, index, piece, importance.as_deref(), backend)?;
        for (scheme, total) in &mut stats {
            let scheme: Scheme = scheme.parse().map_err(|e: quant_core::scheme::BadScheme| Error::request(e.to_string()))?;
            total.merge(&read.under(scheme, weighed && matches!(scheme, Scheme::Ggml(_)), backend).map_err(named)?);
        }
    }
    let error = |stats: &ErrorStats| stats.output_error().or(stats.relative()).filter(|error| error.is_finite()).unwrap_or(1.0);
    let errors = stats.into_iter().map(|(scheme, stats)| ((index, scheme.clone()), error(&stats))).collect();
    let all = tensor.n_elements();
    Ok((errors, rows.len() as u64 * columns, all))
}

fn unfit(checkpoint: &Checkpoint, tensor: &quant_core::source::Tensor, index: u64, value: f32) -> Error {
    Error::tensor(
        &checkpoint.path,
        &tensor.name,
        format!("a number of a sampled row (element {index} of the sample) is {value}, which cannot be quantized; --keep leaves the tensor out"),
    )
}
