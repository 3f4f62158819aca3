//! [`Backend`]: **where** slabs are encoded.
//!
//! Contract: the same bytes as [`Cpu`], for every scheme, shape and slab. [`same_bytes`] is the suite that holds a backend to it.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use crate::audit::DeviceSums;
use crate::codec::{Codec, Slab, Tally, Unfit};
use crate::convert::Budget;
use crate::ggml::Type;
use crate::{Dtype, Error, Result, Scheme};

/// The tensor that slabs belong to, and what becomes of it.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    /// Its number in the plan.
    pub tensor: usize,
    /// The scheme.
    pub scheme: Scheme,
    /// Its shape.
    pub shape: &'a [u64],
    /// The codec of both.
    pub codec: &'a dyn Codec,
}

/// Why a slab was not encoded or decoded.
#[derive(Clone, Debug, PartialEq)]
pub enum Failure {
    /// An element cannot be expressed.
    Unfit(Unfit),
    /// The device failed; a sentence.
    Device(String),
}

impl Failure {
    /// The same as an error of a tensor, which may have no name, under a scheme.
    pub fn error(self, tensor: &str, scheme: Scheme) -> Error {
        match self {
            Failure::Unfit(Unfit { index, value }) => Error::NonFinite { tensor: tensor.into(), index, value, scheme: scheme.to_string() },
            Failure::Device(message) if tensor.is_empty() => Error::request(message),
            Failure::Device(message) => Error::request(format!("tensor '{tensor}': {message}")),
        }
    }
}

impl From<Unfit> for Failure {
    fn from(unfit: Unfit) -> Failure {
        Failure::Unfit(unfit)
    }
}

/// What became of a slab.
pub type Encoded = std::result::Result<Tally, Failure>;

/// Something that encodes and decodes slabs.
pub trait Backend: Send + Sync {
    /// The name shown to people.
    fn name(&self) -> &str;

    /// Elements of a slab that suit it.
    fn slab(&self) -> u64 {
        Budget::SLAB
    }

    /// Whether it wants numbers as they are stored: f32, f16 or bf16, little-endian, for [`Backend::encode_stored`].
    fn takes_stored(&self) -> bool {
        false
    }

    /// Encodes a slab as [`Codec::encode`] does.
    ///
    /// # Errors
    /// If an element cannot be expressed, or the device fails.
    fn encode(&self, target: &Target<'_>, slab: &Slab<'_>, x: &mut [f32], out: &mut [Vec<u8>]) -> Encoded;

    /// The same from the bytes of numbers of type `dtype`.
    ///
    /// # Errors
    /// As [`Backend::encode`].
    fn encode_stored(&self, target: &Target<'_>, slab: &Slab<'_>, dtype: Dtype, x: &[u8], out: &mut [Vec<u8>]) -> Encoded {
        self.encode(target, slab, &mut numbers(dtype, x), out)
    }

    /// Decodes elements as [`Codec::decode`] does.
    ///
    /// # Errors
    /// If the device fails.
    fn decode(&self, target: &Target<'_>, at: u64, parts: &[&[u8]], out: &mut [f32]) -> std::result::Result<(), Failure> {
        target.codec.decode(at, parts, out);
        Ok(())
    }

    /// The sums over blocks of the errors ŵ − w, with the bits of the CPU's. None: it cannot, or a number is not finite.
    ///
    /// # Errors
    /// If the device fails; a sentence.
    fn measure(&self, _w: &[f32], _q: &[f32], _importance: Option<&[f32]>) -> std::result::Result<Option<DeviceSums>, String> {
        Ok(None)
    }

    /// What people should know when all is done, a sentence each.
    fn remarks(&self) -> Vec<String> {
        Vec::new()
    }
}

/// The numbers that are stored as `dtype`, a type of weights.
pub fn numbers(dtype: Dtype, x: &[u8]) -> Vec<f32> {
    let n = x.len() as u64 / dtype.n_bytes(1).unwrap_or(1).max(1);
    let mut numbers = vec![0.0; n as usize];
    if let Ok(codec) = Scheme::Dense(dtype).codec(&[n]) {
        codec.decode(0, &[x], &mut numbers);
    }
    numbers
}

impl std::fmt::Debug for dyn Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The processor: the scalar reference that every other backend is compared with.
pub struct Cpu;

impl Backend for Cpu {
    fn name(&self) -> &str {
        "cpu"
    }

    fn encode(&self, target: &Target<'_>, slab: &Slab<'_>, x: &mut [f32], out: &mut [Vec<u8>]) -> Encoded {
        Ok(target.codec.encode(slab, x, out)?)
    }
}

/// A backend whose work the CPU does again: one byte that differs is a failure.
pub struct Verified {
    inner: &'static dyn Backend,
    most: usize,
    /// The tensors that are looked at.
    chosen: Mutex<BTreeSet<usize>>,
}

impl Verified {
    /// The backend, looked at while it works on the first `tensors` tensors that come.
    pub fn new(inner: &'static dyn Backend, tensors: usize) -> Verified {
        Verified { inner, most: tensors, chosen: Mutex::default() }
    }

    /// Whether a tensor is looked at. Dense types are the CPU's own work.
    fn is_chosen(&self, target: &Target<'_>) -> bool {
        let mut chosen = self.chosen.lock().unwrap_or_else(PoisonError::into_inner);
        let is_work = target.scheme.is_quantized();
        is_work && (chosen.contains(&target.tensor) || chosen.len() < self.most && chosen.insert(target.tensor))
    }

    fn check(&self, target: &Target<'_>, slab: &Slab<'_>, mut x: Vec<f32>, tally: &Tally, out: &[Vec<u8>]) -> std::result::Result<(), Failure> {
        let mut wanted = vec![Vec::new(); out.len()];
        let wanted_tally = target.codec.encode(slab, &mut x, &mut wanted)?;
        let parts = target.codec.parts().iter().zip(out.iter().zip(&wanted));
        for (part, (found, wanted)) in parts {
            if let Some(at) = (0..found.len().max(wanted.len())).find(|&i| found.get(i) != wanted.get(i)) {
                let byte = |bytes: &[u8]| bytes.get(at).map_or("nothing".to_owned(), |byte| format!("{byte:#04x}"));
                let (found, wanted, name, first) = (byte(found), byte(wanted), part.name, slab.at);
                let place = format!("byte {at} of part '{name}' of the elements from {first} on");
                return Err(Failure::Device(format!("{} and the CPU do not agree: {place} is {found}, and should be {wanted}", self.inner.name())));
            }
        }
        if *tally != wanted_tally {
            return Err(Failure::Device(format!("{} and the CPU do not count the same", self.inner.name())));
        }
        Ok(())
    }
}

impl Backend for Verified {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn slab(&self) -> u64 {
        self.inner.slab()
    }

    fn takes_stored(&self) -> bool {
        self.inner.takes_stored()
    }

    fn encode(&self, target: &Target<'_>, slab: &Slab<'_>, x: &mut [f32], out: &mut [Vec<u8>]) -> Encoded {
        let original = self.is_chosen(target).then(|| x.to_vec());
        let tally = self.inner.encode(target, slab, x, out)?;
        original.map_or(Ok(()), |x| self.check(target, slab, x, &tally, out))?;
        Ok(tally)
    }

    fn encode_stored(&self, target: &Target<'_>, slab: &Slab<'_>, dtype: Dtype, x: &[u8], out: &mut [Vec<u8>]) -> Encoded {
        let tally = self.inner.encode_stored(target, slab, dtype, x, out)?;
        if self.is_chosen(target) {
            self.check(target, slab, numbers(dtype, x), &tally, out)?;
        }
        Ok(tally)
    }

    fn decode(&self, target: &Target<'_>, at: u64, parts: &[&[u8]], out: &mut [f32]) -> std::result::Result<(), Failure> {
        self.inner.decode(target, at, parts, out)?;
        if !self.is_chosen(target) {
            return Ok(());
        }
        let mut wanted = vec![0.0; out.len()];
        target.codec.decode(at, parts, &mut wanted);
        let differ = |(a, b): (&f32, &f32)| a.to_bits() != b.to_bits();
        match out.iter().zip(&wanted).position(differ) {
            None => Ok(()),
            Some(i) => {
                let (name, found, wanted) = (self.inner.name(), out[i], wanted[i]);
                Err(Failure::Device(format!("{name} and the CPU do not agree: element {} is {found:e}, and should be {wanted:e}", at + i as u64)))
            }
        }
    }

    fn measure(&self, w: &[f32], q: &[f32], importance: Option<&[f32]>) -> std::result::Result<Option<DeviceSums>, String> {
        self.inner.measure(w, q, importance)
    }

    fn remarks(&self) -> Vec<String> {
        let is_unused = self.chosen.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
        let verified =
            if is_unused { "it did nothing that could be verified" } else { "what was to be verified was done on the CPU too, and no byte differs" };
        self.inner.remarks().into_iter().chain([verified.into()]).collect()
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
            let target = Target { tensor: 0, scheme, shape, codec: &*codec };
            let x = difficult(shape.iter().product::<u64>() as usize);
            let known = codec
                .scan(u64::MAX)
                .map(|mut scan| scan.measure(0, &mut x.clone()).map(|m| scan.fold(m)).map(|()| scan.finish().unwrap_or_default()));
            let known = known.transpose().unwrap_or_default().unwrap_or_default();
            let run = |backend: &dyn Backend| {
                let mut out = vec![Vec::new(); codec.parts().len()];
                let tally = backend.encode(&target, &Slab::new(&known, 0), &mut x.clone(), &mut out);
                (tally, out)
            };
            if run(backend) != run(&Cpu) {
                differences.push(format!("{text} of shape {shape:?}"));
            }
        }
    }
    Ok(differences)
}
