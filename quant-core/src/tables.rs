//! The tables of numbers that kernels outside this crate need, each written once, here or where it is used.

use crate::codec::{dynamic8, four_bit, ggml_tables};
use crate::scheme::{Book, Profile};

/// The items of a table, as bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Items {
    /// Bytes.
    U8(Vec<u8>),
    /// 16-bit numbers.
    U16(Vec<u16>),
    /// Floats, as their bits: decimal literals would leave their rounding to compilers.
    F32(Vec<u32>),
}

/// A table with its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// The name, in capitals.
    pub name: String,
    /// One line about it.
    pub about: &'static str,
    /// The items.
    pub items: Items,
}

/// All tables, in a fixed order.
pub fn all() -> Vec<Table> {
    let table = |name: &str, about, items| Table { name: name.into(), about, items };
    let floats = |values: &[f32]| Items::F32(values.iter().map(|v| v.to_bits()).collect());
    let mut tables = Vec::new();
    for (book, name) in [(Book::Nf4, "NF4"), (Book::Fp4, "FP4")] {
        tables.push(table(name, "The values of the codes.", floats(&four_bit::book_values(book))));
        for (profile, suffix) in [(Profile::Cuda, "CUDA"), (Profile::Cpu, "CPU")] {
            let (thresholds, order) = four_bit::decisions(book, profile);
            tables.push(table(&format!("{name}_{suffix}"), "Ascending thresholds: v passes those below it.", floats(&thresholds)));
            tables.push(table(&format!("{name}_{suffix}_ORDER"), "The code for each number of thresholds passed.", Items::U8(order.to_vec())));
        }
    }
    tables.push(table("DYNAMIC8", "The dynamic map of 8 bits, ascending.", floats(&*dynamic8::MAP)));
    tables.push(table("DYNAMIC8_MIDPOINTS", "Between neighbours of the dynamic map.", floats(&*dynamic8::MIDPOINTS)));
    tables.push(table("IQ4_VALUES", "The values of the codes of IQ4_NL and IQ4_XS.", floats(&ggml_tables::IQ4_VALUES)));
    tables.push(table("IQ4_BOUNDS", "From bound i on, code i + 1 of IQ4_NL is nearer than code i.", floats(&ggml_tables::IQ4_BOUNDS)));
    for (name, about, grid) in ggml_tables::GRIDS {
        tables.push(table(name, about, Items::U16(grid.to_vec())));
    }
    tables
}
