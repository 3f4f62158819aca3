//! `tables.cuh`: the tables of quant-core in the language of the kernels.

use std::fmt::Write;

use quant_core::tables::{Items, all};

/// The text of the header.
pub fn header() -> String {
    let mut text = "// Written by `cargo xtask kernels` from quant_core::tables. Floats are bit patterns.\n#pragma once\n".to_owned();
    for table in all() {
        let (ty, digits, bits): (_, _, Vec<u32>) = match table.items {
            Items::U8(items) => ("unsigned char", 2, items.into_iter().map(u32::from).collect()),
            Items::U16(items) => ("unsigned short", 4, items.into_iter().map(u32::from).collect()),
            Items::F32(items) => ("unsigned int", 8, items),
        };
        // Lanes look at different items at once, which constant memory would serve one after the other.
        let _ = write!(text, "\n// {}\nstatic __device__ const {ty} {}[{}] = {{", table.about, table.name, bits.len());
        for (i, item) in bits.iter().enumerate() {
            let gap = if i % 12 == 0 { "\n    " } else { " " };
            let _ = write!(text, "{gap}0x{item:0digits$x},");
        }
        text += "\n};\n";
    }
    text
}
