//! GPTQ, as AutoGPTQ and GPTQModel save it.
//!
//! | tensor | type | shape |
//! |---|---|---|
//! | `qweight` | I32 | `[in·b/32, out]` |
//! | `qzeros` | I32 | `[groups, out·b/32]`; the first version of the format stores zero points less 1 |
//! | `scales` | F16, BF16, F32 | `[groups, out]` |
//! | `g_idx` | I32 | `[in]`: the group of each input. Without it, groups follow each other |
//!
//! Difference from the reference: where a zero point is 0, which only asymmetric groups have, GPTQModel's subtraction of 1 from
//! whole words borrows from the next zero point, and its addition gives both back, as here. `dequant_gptq` of
//! convert_hf_to_gguf.py adds 1 to each field, so that it reads such a zero point as 2^b and its neighbour as one too small.
//!
//! Source: `dequant_gptq` of conversion/base.py, llama.cpp 0.5.0-dev; GPTQModel f4c327a.

use std::sync::Arc;

use quant_core::{Dtype, Result};

use super::columns::{Columns, Groups, Packing};
use super::fields::Fields;
use super::numbers::{FLOATS, Item, Numbers};
use super::panels::Panels;
use super::pieces::Extent;
use super::settings::Settings;
use super::siblings::Sibling;
use super::{Found, How};

/// The most inputs of a layer that lists their groups; the list is kept in memory.
pub(super) const MAX_LISTED: u64 = 1 << 20;

/// Adds the weights of a GPTQ checkpoint.
pub(super) fn find(settings: &Settings, found: &mut Found<'_>) -> Result<()> {
    let gptq = Gptq::new(settings)?;
    for stem in found.siblings.stems(".qweight") {
        gptq.add(stem, found)?;
    }
    Ok(())
}

/// What the configuration says for all layers.
struct Gptq {
    bits: Option<i64>,
    group_size: Option<u64>,
    less_one: bool,
    is_symmetric: bool,
    panels: Arc<Panels>,
}

/// The tensors of one layer.
struct Layer {
    qweight: Sibling,
    qzeros: Sibling,
    scales: Sibling,
    g_idx: Option<Sibling>,
    bits: u8,
    extent: Extent,
    n_groups: u64,
}

impl Gptq {
    fn new(settings: &Settings) -> Result<Gptq> {
        let format = settings.text("checkpoint_format").unwrap_or("gptq");
        if settings.is("is_marlin_format") {
            return Err(settings.refuse("marlin"));
        }
        let less_one = match format {
            "gptq" => true,
            "gptq_v2" => false,
            other => return Err(settings.error(format!("found the checkpoint_format '{other}', needed 'gptq' or 'gptq_v2'"))),
        };
        // Rules for single modules may give them another width.
        let has_rules = settings.get("dynamic").and_then(|v| v.as_object()).is_some_and(|rules| !rules.is_empty());
        let bits = settings.integer(&["bits"])?.filter(|_| !has_rules);
        let group_size = settings.integer(&["group_size"])?.filter(|_| !has_rules).and_then(|n| u64::try_from(n).ok()).filter(|&n| n > 0);
        Ok(Gptq { bits, group_size, less_one, is_symmetric: settings.is("sym"), panels: Arc::default() })
    }

    fn add(&self, stem: &str, found: &mut Found<'_>) -> Result<()> {
        let layer = self.layer(stem, found)?;
        if found.tensors.is_empty() {
            self.note_version(&layer, found)?;
        }
        let groups = self.groups(&layer, found)?;
        let size = match &groups {
            Groups::Of(size) if layer.n_groups == 1 => format!("whole rows of {size}"),
            Groups::Of(size) => format!("groups of {size}"),
            Groups::Listed(_) => format!("{} groups in any order", layer.n_groups),
        };
        let label = format!("gptq {}-bit, {size}", layer.bits);
        let Layer { qweight, qzeros, scales, g_idx, bits, extent, n_groups } = layer;
        let used: Vec<&Sibling> = [&qweight, &qzeros, &scales].into_iter().chain(&g_idx).collect();
        let columns = Columns {
            extent,
            packing: Packing::Gptq { bits, less_one: self.less_one },
            codes: qweight.clone(),
            scales: Numbers::new(&scales, Item::Float(scales.dtype)),
            zeros: Some(qzeros.clone()),
            groups,
            n_groups,
            panels: Arc::clone(&self.panels),
        };
        let how = How::Numbers(Arc::new(columns));
        found.add(format!("{stem}.weight"), vec![extent.rows, extent.cols], scales.dtype, label, &used, how);
        Ok(())
    }

    /// Finds and checks the tensors of a layer. The shapes alone tell the width.
    fn layer(&self, stem: &str, found: &Found<'_>) -> Result<Layer> {
        let siblings = &found.siblings;
        let name = format!("{stem}.qweight");
        let need = |part: &str| siblings.need(&name, &format!("{stem}.{part}"));
        let (qweight, qzeros, scales) = (need("qweight")?, need("qzeros")?, need("scales")?);
        siblings.check_dtype(&qweight, &[Dtype::I32])?;
        siblings.check_dtype(&qzeros, &[Dtype::I32])?;
        siblings.check_dtype(&scales, &FLOATS)?;
        let (n_words, outputs) = siblings.matrix(&qweight)?;
        let (n_groups, n_zero_words) = siblings.matrix(&qzeros)?;
        siblings.check_shape(&scales, &[n_groups, outputs], "for these qweight and qzeros")?;
        let bits = self.width(n_zero_words, outputs).ok_or_else(|| {
            let expected = self.bits.map_or("2, 3, 4 or 8".into(), |b| format!("{b} (2, 3, 4 or 8 are read)"));
            siblings.bad(&qzeros, format!("found {n_zero_words} words for {outputs} outputs, needed bits·outputs/32 with bits {expected}"))
        })?;
        let inputs = n_words * 32 / u64::from(bits);
        if !(n_words * 32).is_multiple_of(u64::from(bits)) {
            return Err(siblings.bad(&qweight, format!("found {n_words} rows of words, which hold no whole number of {bits}-bit codes")));
        }
        let g_idx = siblings.find(&format!("{stem}.g_idx"))?;
        if let Some(g_idx) = &g_idx {
            siblings.check_dtype(g_idx, &[Dtype::I32])?;
            siblings.check_shape(g_idx, &[inputs], "for this qweight, one group an input")?;
        }
        Ok(Layer { qweight, qzeros, scales, g_idx, bits, extent: Extent { rows: outputs, cols: inputs }, n_groups })
    }

    /// The width of codes of which `outputs` take `n_words` words.
    fn width(&self, n_words: u64, outputs: u64) -> Option<u8> {
        let widths = [2u8, 3, 4, 8].into_iter().filter(|&b| self.bits.is_none_or(|bits| bits == i64::from(b)));
        widths.into_iter().find(|&b| n_words * 32 == outputs * u64::from(b))
    }

    fn groups(&self, layer: &Layer, found: &mut Found<'_>) -> Result<Groups> {
        let inputs = layer.extent.cols;
        let Some(g_idx) = &layer.g_idx else {
            let size = self.group_size.unwrap_or(inputs.div_ceil(layer.n_groups));
            if inputs.div_ceil(size) != layer.n_groups {
                let problem =
                    format!("found {} groups, needed {} of {size} for {inputs} inputs without a g_idx", layer.n_groups, inputs.div_ceil(size));
                return Err(found.siblings.bad(&layer.scales, problem));
            }
            return Ok(Groups::Of(size));
        };
        let list = read_groups(found, g_idx, layer.n_groups)?;
        let first = list.iter().take_while(|&&g| g == 0).count().max(1);
        let in_order = list.iter().enumerate().all(|(k, &g)| k / first == g as usize);
        if in_order && first as u64 == inputs && layer.n_groups > 1 {
            let name = found.siblings.name(g_idx);
            found.notes.push(format!("'{name}' puts every input into the first of {} groups; it is read as it stands", layer.n_groups));
        }
        Ok(if in_order { Groups::Of(first as u64) } else { Groups::Listed(list.into()) })
    }

    /// A symmetric model has its zero points in the middle, which tells the version of the format; some files name the wrong one.
    fn note_version(&self, layer: &Layer, found: &mut Found<'_>) -> Result<()> {
        if !self.is_symmetric {
            return Ok(());
        }
        let n = layer.extent.rows.min(1024) as usize;
        let stored = layer.qzeros.n_bytes / layer.n_groups;
        let mut bytes = vec![0; stored.min(1024) as usize];
        layer.qzeros.read(found.siblings.checkpoint, 0, &mut bytes)?;
        let mut zeros = vec![0; n];
        Fields::dense(layer.bits).read(&bytes, 0, &mut zeros);
        let n_read = bytes.len() * 8 / usize::from(layer.bits);
        let middle = 1u8 << (layer.bits - 1);
        let other = if self.less_one { middle } else { middle - 1 };
        if zeros.iter().take(n_read).all(|&z| z == other) {
            let (named, real) = if self.less_one { ("gptq", "gptq_v2") } else { ("gptq_v2", "gptq") };
            let name = found.siblings.name(&layer.qzeros);
            found.notes.push(format!(
                "the checkpoint_format is '{named}', but the zero points of the symmetric '{name}' are all {other}, as in '{real}'; \
                 they were read as '{named}', which shifts every weight by one step if that is wrong"
            ));
        }
        Ok(())
    }
}

/// The group of each input, all of them checked.
///
/// # Errors
/// If there are too many inputs, or one names a group that there is not.
pub(super) fn read_groups(found: &Found<'_>, g_idx: &Sibling, n_groups: u64) -> Result<Vec<u32>> {
    let siblings = &found.siblings;
    let bytes = siblings.bytes(g_idx, MAX_LISTED * 4)?;
    let list: Vec<i32> = bytes.as_chunks::<4>().0.iter().map(|b| i32::from_le_bytes(*b)).collect();
    match list.iter().enumerate().find(|(_, g)| !u64::try_from(**g).is_ok_and(|g| g < n_groups)) {
        Some((input, g)) => Err(siblings.bad(g_idx, format!("found the group {g} for input {input}, needed 0 to {}", n_groups - 1))),
        None => Ok(list.into_iter().map(|g| g as u32).collect()),
    }
}
