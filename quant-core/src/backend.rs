//! [`Backend`]: **where** slabs are encoded.
//!
//! Contract: the same bytes as [`Cpu`], for every scheme, shape and slab. [`same_bytes`] is the suite that holds a backend to it.

use crate::codec::{Codec, Slab, Tally, Unfit};
use crate::ggml::Type;
use crate::{Result, Scheme};

/// Something that encodes slabs.
pub trait Backend: Send + Sync {
    /// The name shown to people.
    fn name(&self) -> &str;

    /// Encodes a slab as [`Codec::encode`] does.
    ///
    /// # Errors
    /// If an element cannot be expressed.
    fn encode(&self, codec: &dyn Codec, slab: &Slab<'_>, x: &mut [f32], out: &mut [Vec<u8>]) -> std::result::Result<Tally, Unfit>;
}

/// The processor: the scalar reference that every other backend is compared with.
pub struct Cpu;

impl Backend for Cpu {
    fn name(&self) -> &str {
        "cpu"
    }

    fn encode(&self, codec: &dyn Codec, slab: &Slab<'_>, x: &mut [f32], out: &mut [Vec<u8>]) -> std::result::Result<Tally, Unfit> {
        codec.encode(slab, x, out)
    }
}

/// One text for each kind of scheme, with the group lengths that take different paths.
pub const SCHEMES: [&str; 22] = [
    "f64",
    "f32",
    "f16",
    "bf16",
    "f8_e4m3",
    "f8_e5m2",
    "affine4",
    "affine3:16",
    "affine8:row",
    "affine5-zero:32",
    "affine2:tensor",
    "absmax8",
    "absmax7:row",
    "absmax2:4096",
    "int8",
    "int8-block:64",
    "int8-block@cpu",
    "nf4",
    "nf4:4096@cpu",
    "nf4-dq:32",
    "fp4",
    "fp4-dq@cpu",
];

/// Numbers that are unlike each other from row to row: ordinary, constant, zero, tiny, large, tied.
pub fn difficult(n: usize) -> Vec<f32> {
    let mut state = 0x9e37_79b9u32;
    let mut random = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 8_388_608.0 - 1.0
    };
    let value = |i: usize, r: f32| match i / 97 % 7 {
        0 => r,
        1 => 0.0,
        2 => 0.75,
        3 => r * 1e-30,
        4 => r * r * r * 12.0,
        5 => (r * 12.0).round() / 12.0,
        _ => r * 0.02,
    };
    (0..n).map(|i| value(i, random())).collect()
}

/// Checks that `backend` writes the bytes of [`Cpu`] for every scheme over difficult numbers. Says where it does not.
///
/// # Errors
/// If a scheme text or a shape is wrong, which would be an error of this suite.
pub fn same_bytes(backend: &dyn Backend) -> Result<Vec<String>> {
    let mut differences = Vec::new();
    let any = [vec![64, 96], vec![7, 9], vec![1, 5000], vec![3]];
    let blocks = [vec![3, 512], vec![2, 2, 256], vec![1, 4096]];
    let texts = SCHEMES.iter().map(|&text| (text, &any[..]));
    for (text, shapes) in texts.chain(Type::all().map(|ty| (ty.name(), &blocks[..]))) {
        let scheme: Scheme = text.parse().map_err(|e: crate::scheme::BadScheme| crate::Error::request(e.to_string()))?;
        for shape in shapes {
            let codec = scheme.codec(shape)?;
            let x = difficult(shape.iter().product::<u64>() as usize);
            let known = codec
                .scan(u64::MAX)
                .map(|mut scan| scan.measure(0, &mut x.clone()).map(|m| scan.fold(m)).map(|()| scan.finish().unwrap_or_default()));
            let known = known.transpose().unwrap_or_default().unwrap_or_default();
            let run = |backend: &dyn Backend| {
                let mut out = vec![Vec::new(); codec.parts().len()];
                let tally = backend.encode(&*codec, &Slab::new(&known, 0), &mut x.clone(), &mut out);
                (tally, out)
            };
            if run(backend) != run(&Cpu) {
                differences.push(format!("{text} of shape {shape:?}"));
            }
        }
    }
    Ok(differences)
}
