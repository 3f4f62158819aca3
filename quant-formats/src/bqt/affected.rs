//! Which elements and rows of a tensor depend on which bytes of its parts.

use std::ops::Range;

use quant_core::Scheme;
use quant_core::codec::Fill;
use quant_core::source::Tensor;

/// The elements of `tensor` that are read with the bytes `bytes` of its part `part`; empty for a part that only the
/// container of origin needs.
pub(super) fn elements(tensor: &Tensor, part: usize, bytes: &Range<u64>) -> Range<u64> {
    if let (Scheme::Dense(dtype), 0) = (tensor.scheme, part) {
        return spread(bytes, |byte| byte * 8 / u128::from(dtype.bits()), |end| (end * 8).div_ceil(dtype.bits().into()), tensor);
    }
    let codec = tensor.scheme.codec(&tensor.shape).ok();
    match codec.and_then(|codec| codec.parts().get(part).map(|part| part.fill)) {
        Some(Fill::Stream { per, bytes: item, .. }) => {
            let (per, item) = (u128::from(per), u128::from(item.max(1)));
            spread(bytes, |byte| byte / item * per, |end| end.div_ceil(item) * per, tensor)
        }
        Some(Fill::Whole { .. }) => 0..tensor.n_elements(),
        None => 0..0,
    }
}

/// A range of bytes as elements, by the first element of a byte and the end of those before an end.
fn spread(bytes: &Range<u64>, first: impl Fn(u128) -> u128, end: impl Fn(u128) -> u128, tensor: &Tensor) -> Range<u64> {
    let n = tensor.n_elements();
    let clamp = |element: u128| u64::try_from(element).unwrap_or(u64::MAX).min(n);
    clamp(first(bytes.start.into()))..clamp(end(bytes.end.into()))
}

/// The rows, along the last dimension, that hold `elements`; none if the tensor has no rows or no element is among them.
pub(super) fn rows(tensor: &Tensor, elements: &Range<u64>) -> Option<Range<u64>> {
    let columns = tensor.shape.last().copied().filter(|&columns| columns > 0)?;
    (!elements.is_empty()).then(|| elements.start / columns..elements.end.div_ceil(columns))
}
