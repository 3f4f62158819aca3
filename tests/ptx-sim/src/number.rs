//! Numbers of other formats, and operations of floats that Rust does not have.

/// The smaller number. NaN loses, and -0 is less than 0.
pub(crate) fn min(a: f32, b: f32) -> f32 {
    if a == b {
        f32::from_bits(a.to_bits() | b.to_bits())
    } else if a < b || b.is_nan() {
        a
    } else {
        b
    }
}

/// The larger number. NaN loses, and -0 is less than 0.
pub(crate) fn max(a: f32, b: f32) -> f32 {
    if a == b {
        f32::from_bits(a.to_bits() & b.to_bits())
    } else if a > b || b.is_nan() {
        a
    } else {
        b
    }
}

/// [`min`] of doubles.
pub(crate) fn min_double(a: f64, b: f64) -> f64 {
    if a == b {
        f64::from_bits(a.to_bits() | b.to_bits())
    } else if a < b || b.is_nan() {
        a
    } else {
        b
    }
}

/// [`max`] of doubles.
pub(crate) fn max_double(a: f64, b: f64) -> f64 {
    if a == b {
        f64::from_bits(a.to_bits() & b.to_bits())
    } else if a > b || b.is_nan() {
        a
    } else {
        b
    }
}

/// `product + c`, rounded once, to the next `f32` toward zero. Both must be floats or products of two floats.
pub(crate) fn add_toward_zero(product: f64, c: f64) -> f32 {
    let sum = product + c;
    if !sum.is_finite() || sum == 0.0 {
        return sum as f32;
    }
    // What the sum lost. (Knuth's sum of two: exact.)
    let part = sum - product;
    let lost = (product - (sum - part)) + (c - part);
    let float = sum as f32;
    let beyond = f64::from(float).abs() > sum.abs() || f64::from(float) == sum && lost != 0.0 && (lost < 0.0) == (sum > 0.0);
    if beyond { f32::from_bits(float.to_bits() - 1) } else { float }
}

/// A small float: the bits of its exponent and of its fraction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Format {
    exponent: u32,
    fraction: u32,
}

/// IEEE's binary16.
pub(crate) const F16: Format = Format { exponent: 5, fraction: 10 };
/// bfloat16.
pub(crate) const BF16: Format = Format { exponent: 8, fraction: 7 };

impl Format {
    fn bias(self) -> i32 {
        (1 << (self.exponent - 1)) - 1
    }

    /// The bits of the nearest number, ties to even. What is too large is infinite. NaN is 0x7fff.
    pub fn narrow(self, x: f64) -> u16 {
        if x.is_nan() {
            return 0x7fff;
        }
        let sign = if x.is_sign_negative() { 0x8000 } else { 0 };
        let infinity = ((1u64 << self.exponent) - 1) << self.fraction;
        let smallest = 1 - self.bias();
        let exponent = ((x.abs().to_bits() >> 52) as i32 - 1023).max(smallest);
        // In units of the last place of x. The division is exact.
        let units = (x.abs() / power(exponent - self.fraction as i32)).round_ties_even() as u64;
        let code = (((exponent - smallest) as u64) << self.fraction).saturating_add(units);
        sign | code.min(infinity) as u16
    }

    /// The number that the bits stand for.
    pub fn widen(self, bits: u16) -> f32 {
        let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
        let exponent = i32::from(bits & 0x7fff) >> self.fraction;
        let fraction = i32::from(bits) & ((1 << self.fraction) - 1);
        if exponent == (1 << self.exponent) - 1 {
            return if fraction == 0 { sign * f32::INFINITY } else { f32::NAN };
        }
        let units = if exponent == 0 { fraction } else { fraction + (1 << self.fraction) };
        let last_place = exponent.max(1) - self.bias() - self.fraction as i32;
        (f64::from(sign) * f64::from(units) * power(last_place)) as f32
    }
}

/// 2 to the power of `n`, which must be a normal number.
fn power(n: i32) -> f64 {
    f64::from_bits(((1023 + n) as u64) << 52)
}
