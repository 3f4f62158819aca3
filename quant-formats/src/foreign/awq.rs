//! AWQ, as AutoAWQ saves it for its `gemm` kernels.
//!
//! | tensor | type | shape |
//! |---|---|---|
//! | `qweight` | I32 | `[in, out/8]` |
//! | `qzeros` | I32 | `[groups, out/8]`; without zero points the middle of the range, 8, is subtracted |
//! | `scales` | F16, BF16, F32 | `[groups, out]` |
//!
//! Source: `dequantize_gemm` of AutoAWQ 88e4c76. convert_hf_to_gguf.py does not read it.

use std::sync::Arc;

use quant_core::{Dtype, Result};

use super::columns::{Columns, Groups, Packing};
use super::numbers::{FLOATS, Item, Numbers};
use super::panels::Panels;
use super::pieces::Extent;
use super::settings::Settings;
use super::{Found, How};

/// Adds the weights of an AWQ checkpoint.
pub(super) fn find(settings: &Settings, found: &mut Found<'_>) -> Result<()> {
    let version = settings.text("version").or_else(|| settings.text("format")).unwrap_or("gemm").to_ascii_lowercase();
    if version != "gemm" {
        return Err(settings.error(format!("found the AWQ version '{version}', needed 'gemm'; the others are orders for single kernels")));
    }
    let bits = settings.integer(&["bits", "w_bit"])?.unwrap_or(4);
    if bits != 4 {
        return Err(settings.error(format!("found AWQ of {bits} bits, needed 4")));
    }
    let size = settings.integer(&["group_size", "q_group_size"])?.and_then(|n| u64::try_from(n).ok()).filter(|&n| n > 0);
    let panels = Arc::default();
    found.siblings.stems(".qweight").into_iter().try_for_each(|stem| add(stem, size, &panels, found))
}

fn add(stem: &str, size: Option<u64>, panels: &Arc<Panels>, found: &mut Found<'_>) -> Result<()> {
    let siblings = &found.siblings;
    let name = format!("{stem}.qweight");
    let (qweight, scales) = (siblings.need(&name, &name)?, siblings.need(&name, &format!("{stem}.scales"))?);
    let qzeros = siblings.find(&format!("{stem}.qzeros"))?;
    siblings.check_dtype(&qweight, &[Dtype::I32])?;
    siblings.check_dtype(&scales, &FLOATS)?;
    let (inputs, n_words) = siblings.matrix(&qweight)?;
    let extent = Extent { rows: n_words * 8, cols: inputs };
    let size = size.unwrap_or(inputs);
    let n_groups = inputs.div_ceil(size);
    siblings.check_shape(&scales, &[n_groups, extent.rows], &format!("for {inputs} inputs in groups of {size}"))?;
    if let Some(qzeros) = &qzeros {
        siblings.check_dtype(qzeros, &[Dtype::I32])?;
        siblings.check_shape(qzeros, &[n_groups, n_words], "for these qweight and scales")?;
    }
    let columns = Columns {
        extent,
        packing: Packing::Awq,
        codes: qweight.clone(),
        scales: Numbers::new(&scales, Item::Float(scales.dtype)),
        zeros: qzeros.clone(),
        groups: Groups::Of(size),
        n_groups,
        panels: Arc::clone(panels),
    };
    let used: Vec<_> = [&qweight, &scales].into_iter().chain(&qzeros).collect();
    let label = format!("awq 4-bit, groups of {size}");
    found.add(format!("{stem}.weight"), vec![extent.rows, inputs], scales.dtype, label, &used, How::Numbers(Arc::new(columns)));
    Ok(())
}
