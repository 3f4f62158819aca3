//! [`Link`]: which elements of a tensor of Hugging Face are which elements of a tensor of GGUF.
//!
//! Every difference in layout between the two worlds is a common set of axes with a step on either side: rows of rotary heads
//! that are regrouped, transposed matrices, experts in one stack, halves of fused tensors, every other row. A link is
//! symmetric, so one table serves both directions; nothing is computed until elements are read.

use quant_core::dtype::n_elements;

/// An axis that both sides have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Axis {
    /// Its length.
    pub(crate) len: u64,
    /// Elements from one position to the next in the tensor of Hugging Face.
    pub(crate) hf: u64,
    /// Elements from one position to the next in the tensor of GGUF.
    pub(crate) gguf: u64,
}

/// A set of elements that both sides have.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Link {
    /// The first element in the tensor of Hugging Face.
    pub(crate) hf_at: u64,
    /// The first element in the tensor of GGUF.
    pub(crate) gguf_at: u64,
    /// The axes, in any order.
    pub(crate) axes: Vec<Axis>,
    /// What the numbers of GGUF have more than those of Hugging Face.
    pub(crate) plus: f32,
    /// How many elements of Hugging Face, the first ones, GGUF does not have: on the way back they are 0.
    pub(crate) lacking: u64,
}

/// The elements of a link as one side, the output, sees them.
#[derive(Clone, Debug)]
pub(crate) struct Strided {
    /// The first element of the output.
    pub(crate) out_at: u64,
    /// The element after the last.
    pub(crate) out_end: u64,
    /// The first element of the source.
    at: u64,
    /// The axes: length, step in the output, step in the source; the longest step in the output first.
    axes: Vec<(u64, u64, u64)>,
}

/// How the elements from some place on lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Run {
    /// So many elements follow each other on both sides, from this one of the source on.
    Straight {
        /// The element of the source.
        at: u64,
        /// How many.
        n: u64,
    },
    /// A block of columns: see [`Strip`].
    Strip(Strip),
}

/// A part of the output that is dense, in which `columns` lie `inner` elements apart and follow each other in the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Strip {
    /// The first element of the output.
    pub(crate) out_at: u64,
    /// The element of the source that is first.
    pub(crate) at: u64,
    /// How many columns there are.
    pub(crate) columns: u64,
    /// How many elements each column has in the output before the next begins.
    pub(crate) inner: u64,
}

impl Link {
    /// All elements, in the same order.
    pub(crate) fn same(shape: &[u64]) -> Link {
        Link::of(vec![Axis { len: n_elements(shape).unwrap_or(0), hf: 1, gguf: 1 }])
    }

    /// These axes, from the first element on.
    pub(crate) fn of(axes: Vec<Axis>) -> Link {
        Link { hf_at: 0, gguf_at: 0, axes, plus: 0.0, lacking: 0 }
    }

    /// The number of elements.
    pub(crate) fn n_elements(&self) -> u64 {
        self.axes.iter().map(|a| a.len).product()
    }

    /// As the tensor of GGUF sees it.
    pub(crate) fn to_gguf(&self) -> Strided {
        Strided::new(self.gguf_at, self.hf_at, self.axes.iter().map(|a| (a.len, a.gguf, a.hf)).collect())
    }

    /// As the tensor of Hugging Face sees it.
    pub(crate) fn to_hf(&self) -> Strided {
        Strided::new(self.hf_at, self.gguf_at, self.axes.iter().map(|a| (a.len, a.hf, a.gguf)).collect())
    }
}

impl Strided {
    fn new(out_at: u64, at: u64, mut axes: Vec<(u64, u64, u64)>) -> Strided {
        axes.retain(|a| a.0 != 1);
        axes.sort_by_key(|a| std::cmp::Reverse(a.1));
        let mut merged: Vec<(u64, u64, u64)> = Vec::new();
        for (len, out, source) in axes {
            match merged.last_mut() {
                Some(last) if last.1 == len.saturating_mul(out) && last.2 == len.saturating_mul(source) => {
                    *last = (last.0.saturating_mul(len), out, source);
                }
                _ => merged.push((len, out, source)),
            }
        }
        let span: u64 = merged.iter().map(|&(len, out, _)| len.saturating_sub(1).saturating_mul(out)).fold(0, u64::saturating_add);
        let is_empty = merged.iter().any(|a| a.0 == 0);
        let out_end = if is_empty { out_at } else { out_at.saturating_add(span).saturating_add(1) };
        Strided { out_at, out_end, at, axes: merged }
    }

    /// The last element of the source that is used, and of the output.
    pub(crate) fn ends(&self) -> (u64, u64) {
        let span: u64 = self.axes.iter().map(|&(len, _, source)| len.saturating_sub(1).saturating_mul(source)).fold(0, u64::saturating_add);
        (self.at.saturating_add(span), self.out_end.saturating_sub(1))
    }

    /// The number of elements.
    pub(crate) fn n_elements(&self) -> u64 {
        self.axes.iter().map(|a| a.0).fold(1, u64::saturating_mul)
    }

    /// Whether all runs are straight and, on both sides, begin and end at multiples of `block`.
    pub(crate) fn has_blocks(&self, block: u64) -> bool {
        let whole = |n: u64| n.is_multiple_of(block);
        match self.axes.split_last() {
            None => block == 1,
            Some((last, outer)) => {
                let steps = outer.iter().all(|a| whole(a.1) && whole(a.2));
                whole(self.out_at) && whole(self.at) && last.1 == 1 && last.2 == 1 && whole(last.0) && steps
            }
        }
    }

    /// How the elements from `x` of the output on lie; none if `x` is not among them.
    pub(crate) fn run(&self, x: u64) -> Option<Run> {
        let mut rest = x.checked_sub(self.out_at)?;
        let (mut at, mut n) = (self.at, 1);
        let is_straight = self.axes.last().is_some_and(|a| a.1 == 1 && a.2 == 1);
        for (i, &(len, out, source)) in self.axes.iter().enumerate() {
            let digit = rest / out;
            if digit >= len {
                return None;
            }
            if !is_straight && source == 1 && self.is_dense_from(i) {
                return Some(Run::Strip(Strip { out_at: x - rest, at, columns: len, inner: out }));
            }
            rest %= out;
            at += digit * source;
            n = if is_straight { len - digit } else { 1 };
        }
        (rest == 0).then_some(Run::Straight { at, n })
    }

    /// Whether the output is without holes from axis `i` on.
    fn is_dense_from(&self, i: usize) -> bool {
        let mut step = 1;
        self.axes[i..].iter().rev().all(|&(len, out, _)| {
            let fits = out == step;
            step = step.saturating_mul(len);
            fits
        })
    }

    /// The offset in the source, from the element of its strip, of position `j` of a column; see [`Strip::inner`].
    pub(crate) fn inner_offset(&self, strip: &Strip, mut j: u64) -> u64 {
        let inner = self.axes.iter().filter(|a| a.1 < strip.inner);
        let mut offset = 0;
        for &(_, out, source) in inner {
            offset += j / out * source;
            j %= out;
        }
        offset
    }
}

/// Elements of Hugging Face by their place in GGUF, which must have all of its own: the definition of a link.
#[cfg(test)]
pub(crate) fn order(link: &Link) -> Vec<u64> {
    let mut pairs = vec![(link.gguf_at, link.hf_at)];
    for axis in &link.axes {
        pairs = pairs.iter().flat_map(|&(gguf, hf)| (0..axis.len).map(move |i| (gguf + i * axis.gguf, hf + i * axis.hf))).collect();
    }
    pairs.sort_unstable();
    assert!(pairs.iter().enumerate().all(|(i, (gguf, _))| *gguf == i as u64));
    pairs.into_iter().map(|(_, hf)| hf).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(len: u64, hf: u64, gguf: u64) -> Axis {
        Axis { len, hf, gguf }
    }

    /// Where the element `x` of the output comes from, by the run or strip that has it.
    fn source(side: &Strided, x: u64) -> u64 {
        match side.run(x).unwrap() {
            Run::Straight { at, .. } => at,
            Run::Strip(strip) => {
                let place = x - strip.out_at;
                assert!(place / strip.inner < strip.columns);
                strip.at + side.inner_offset(&strip, place % strip.inner) + place / strip.inner
            }
        }
    }

    #[test]
    fn runs_and_strips_lead_where_the_axes_say() {
        let links = [
            Link::of(vec![axis(24, 1, 1)]),
            // Transposed; halves of heads side by side, as numbers and as rows; the second of two rows.
            Link::of(vec![axis(4, 6, 1), axis(6, 1, 4)]),
            Link::of(vec![axis(3, 8, 8), axis(2, 4, 1), axis(4, 1, 2)]),
            Link::of(vec![axis(2, 12, 12), axis(2, 6, 3), axis(2, 3, 6), axis(3, 1, 1)]),
            Link { hf_at: 5, ..Link::of(vec![axis(4, 10, 5), axis(5, 1, 1)]) },
            // Every other column, of which none follows another.
            Link { hf_at: 1, ..Link::of(vec![axis(3, 8, 4), axis(4, 2, 1)]) },
        ];
        for link in links {
            let side = link.to_gguf();
            let found: Vec<u64> = (0..side.out_end).map(|x| source(&side, x)).collect();
            assert_eq!(found, order(&link), "{link:?}");
            assert_eq!(side.run(side.out_end), None, "{link:?}");
            // And back: what GGUF has at a place came from there.
            let back = link.to_hf();
            for (gguf, hf) in (0..).zip(order(&link)) {
                assert_eq!(source(&back, hf), gguf, "{link:?}");
            }
        }
    }

    #[test]
    fn straight_runs_end_where_the_order_changes() {
        let side = Link::of(vec![axis(2, 6, 3), axis(2, 3, 6), axis(3, 1, 1)]).to_gguf();
        for (x, at, n) in [(0, 0, 3), (1, 1, 2), (3, 6, 3), (8, 5, 1)] {
            assert_eq!(side.run(x), Some(Run::Straight { at, n }), "{x}");
        }
        assert!(side.has_blocks(3) && !side.has_blocks(2));
    }
}
