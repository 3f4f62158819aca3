//! [`Numbers`]: arrays of numbers of any stored type, read as f32.

use std::sync::LazyLock;

use quant_core::{Dtype, Result, Scheme};

use super::siblings::{Sibling, Siblings};
use crate::Checkpoint;

/// What one stored item means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// A floating-point number.
    Float(Dtype),
    /// A signed byte.
    I8,
    /// E8M0: 2^(byte − 127), and 255 is NaN, as PyTorch reads `float8_e8m0fnu`.
    Power,
    /// The exponent of a power of two in a plain byte: 2^(byte − 127), and 255 is infinite, as the libraries compute it.
    Exponent,
}

/// An array of numbers.
#[derive(Clone, Debug)]
pub(super) struct Numbers {
    pub(super) sibling: Sibling,
    item: Item,
}

/// The types of scales.
pub(super) const FLOATS: [Dtype; 3] = [Dtype::F16, Dtype::BF16, Dtype::F32];

impl Numbers {
    pub(super) fn new(sibling: &Sibling, item: Item) -> Numbers {
        Numbers { sibling: sibling.clone(), item }
    }

    /// Numbers of a floating type, signed bytes, or E8M0.
    ///
    /// # Errors
    /// If the type is none of these.
    pub(super) fn plain(siblings: &Siblings<'_>, sibling: &Sibling) -> Result<Numbers> {
        siblings.check_dtype(sibling, &[Dtype::F32, Dtype::F16, Dtype::BF16, Dtype::F64, Dtype::F8E4M3, Dtype::F8E5M2, Dtype::F8E8M0, Dtype::I8])?;
        let item = match sibling.dtype {
            Dtype::F8E8M0 => Item::Power,
            Dtype::I8 => Item::I8,
            dtype => Item::Float(dtype),
        };
        Ok(Numbers::new(sibling, item))
    }

    /// The same, where bytes are exponents.
    pub(super) fn scales(siblings: &Siblings<'_>, sibling: &Sibling) -> Result<Numbers> {
        match sibling.dtype {
            Dtype::U8 => Ok(Numbers::new(sibling, Item::Exponent)),
            _ => Numbers::plain(siblings, sibling),
        }
    }

    /// Bytes of one.
    pub(super) fn item_bytes(&self) -> u64 {
        self.sibling.dtype.bits() / 8
    }

    /// `n` numbers from number `at` on.
    pub(super) fn read(&self, source: &Checkpoint, at: u64, n: usize) -> Result<Vec<f32>> {
        let mut bytes = vec![0; n * self.item_bytes() as usize];
        self.sibling.read(source, at * self.item_bytes(), &mut bytes)?;
        let mut out = vec![0.0; n];
        self.decode(&bytes, &mut out);
        Ok(out)
    }

    /// The only number of a tensor that must hold one.
    pub(super) fn only(&self, siblings: &Siblings<'_>) -> Result<f32> {
        if self.sibling.n_elements() != 1 {
            return Err(siblings.bad(&self.sibling, format!("found the shape {:?}, needed one number", self.sibling.shape)));
        }
        Ok(self.read(siblings.checkpoint, 0, 1)?.first().copied().unwrap_or_default())
    }

    /// Fills `out` with the numbers of `bytes`.
    pub(super) fn decode(&self, bytes: &[u8], out: &mut [f32]) {
        let each = |out: &mut [f32], value: fn(u8) -> f32| out.iter_mut().zip(bytes).for_each(|(v, &b)| *v = value(b));
        match self.item {
            Item::Float(Dtype::F8E4M3) => look_up(&E4M3, bytes, out),
            Item::Float(Dtype::F8E5M2) => look_up(&E5M2, bytes, out),
            Item::Float(dtype) => floats(dtype, bytes, out),
            Item::I8 => each(out, |b| f32::from(b as i8)),
            Item::Power => each(out, |b| if b == 255 { f32::NAN } else { power(b) }),
            Item::Exponent => each(out, power),
        }
    }
}

/// The values of the eight-bit floats, which are looked up: that is faster than computing them.
static E4M3: LazyLock<[f32; 256]> = LazyLock::new(|| values(Dtype::F8E4M3));
static E5M2: LazyLock<[f32; 256]> = LazyLock::new(|| values(Dtype::F8E5M2));

fn values(dtype: Dtype) -> [f32; 256] {
    let mut out = [0.0; 256];
    floats(dtype, &std::array::from_fn::<u8, 256, _>(|code| code as u8), &mut out);
    out
}

fn look_up(values: &[f32; 256], bytes: &[u8], out: &mut [f32]) {
    out.iter_mut().zip(bytes).for_each(|(v, &b)| *v = values[usize::from(b)]);
}

/// Numbers of a floating type, as its codec reads them.
fn floats(dtype: Dtype, bytes: &[u8], out: &mut [f32]) {
    if let Ok(codec) = Scheme::Dense(dtype).codec(&[out.len() as u64]) {
        codec.decode(0, &[bytes], out);
    }
}

/// 2^(e − 127); infinite for 255.
fn power(e: u8) -> f32 {
    f32::from_bits(if e == 0 { 0x0040_0000 } else { u32::from(e) << 23 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_of_two() {
        for e in 0..255 {
            assert_eq!(f64::from(power(e)), 2f64.powi(i32::from(e) - 127));
        }
        assert_eq!(power(255), f32::INFINITY);
    }
}
