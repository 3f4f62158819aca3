//! ggml's blocks on the device, whatever their bytes, have the numbers that quant-core gives them.

mod common;

use common::Sim;
use quant_core::Scheme;
use quant_core::backend::difficult;
use quant_core::codec::{Known, Slab};
use quant_core::ggml::Type;
use quant_cuda::run::Decode;
use quant_cuda::run::ggml_decode::decode;

/// f16: zeros, denormals, the greatest numbers, infinities, NaNs of both kinds.
const SCALES: [u16; 14] = [0, 0x8000, 1, 0x8001, 0x3ff, 0x83ff, 0x400, 0x3c00, 0x7bff, 0xfbff, 0x7c00, 0xfc00, 0x7c01, 0xfe00];

/// Bytes without a pattern.
struct Random(u64);

impl Random {
    fn byte(&mut self) -> u8 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 56) as u8
    }

    fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.byte()).collect()
    }
}

/// Blocks of a type, as one row.
struct Blocks<'a> {
    ty: Type,
    bytes: &'a [u8],
}

impl Blocks<'_> {
    fn n_elements(&self) -> u64 {
        self.bytes.len() as u64 / self.ty.block_bytes() * self.ty.block_len()
    }

    /// Decodes `n` elements from `at` on here and there.
    fn check(&self, sim: &mut Sim, at: u64, n: u64) {
        let (ty, scheme, shape) = (self.ty, Scheme::Ggml(self.ty), [self.n_elements()]);
        let codec = scheme.codec(&shape).unwrap();
        let range = codec.parts()[0].decoded(at..at + n);
        let parts = [&self.bytes[range.start as usize..range.end as usize]];
        let (mut found, mut expected) = (vec![7.0; n as usize], vec![8.0; n as usize]);
        codec.decode(at, &parts, &mut expected);
        let job = Decode { scheme, shape: &shape, codec: &*codec, at, parts: &parts };
        assert_eq!(decode(sim, &job, &mut found), Ok(true), "{ty}");
        for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let same = found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan();
            assert!(same, "{ty}, {n} elements from {at} on, element {i}: {found:e}, on the CPU {expected:e}");
        }
    }

    fn check_all(&self) {
        for reversed in [false, true] {
            let mut sim = Sim::new();
            sim.reversed = reversed;
            self.check(&mut sim, 0, self.n_elements());
        }
    }
}

/// One type after the other.
fn each(mut check: impl FnMut(Type)) {
    assert_eq!(Type::all().map(&mut check).count(), 25);
}

#[test]
fn any_bytes_decode_alike() {
    let mut random = Random(1);
    each(|ty| {
        let len = ty.block_bytes() as usize;
        let mut bytes = random.bytes(64 * len);
        for first in 0..=255 {
            bytes.extend(vec![first; len]);
            bytes.push(first);
            bytes.extend(random.bytes(len - 1));
        }
        // Wherever a type has its scales, it is one of these places.
        for at in [0, 2, len - 4, len - 2] {
            for scale in SCALES {
                let mut block = random.bytes(len);
                block[at..at + 2].copy_from_slice(&scale.to_le_bytes());
                bytes.extend(block);
            }
        }
        Blocks { ty, bytes: &bytes }.check_all();
    });
}

#[test]
fn every_scale_of_16_bits_decodes_alike() {
    let mut random = Random(2);
    let blocks = (0..=u16::MAX).flat_map(|scale| scale.to_le_bytes().into_iter().chain(random.bytes(16)).collect::<Vec<u8>>());
    Blocks { ty: Type::Q4_0, bytes: &blocks.collect::<Vec<u8>>() }.check_all();
}

#[test]
fn encoded_blocks_decode_alike() {
    each(|ty| {
        let shape = [5, 512];
        let mut x = difficult(5 * 512);
        let importance = vec![1.0; x.len()];
        for importance in [None, Some(&importance[..])] {
            let codec = Scheme::Ggml(ty).codec_of(&shape, importance.is_some()).unwrap();
            let mut out = vec![Vec::new()];
            let slab = Slab { importance, ..Slab::new(&Known::Nothing, 0) };
            codec.encode(&slab, &mut x, &mut out).unwrap();
            Blocks { ty, bytes: &out[0] }.check_all();
        }
    });
}

#[test]
fn slabs_start_and_end_within_blocks() {
    let mut random = Random(3);
    each(|ty| {
        let len = ty.block_len();
        let bytes = random.bytes(3 * ty.block_bytes() as usize);
        let blocks = Blocks { ty, bytes: &bytes };
        let mut sim = Sim::new();
        let mut check = |at: u64, n: u64| {
            blocks.check(&mut sim, at, n);
            quant_cuda::queue::Queue::reset(&mut sim);
        };
        for n in 0..=2 * len {
            check(0, n);
            check(len - 8, n);
        }
        for at in (0..2 * len).step_by(8) {
            for end in [at + 1, at + 8, len + 3, 2 * len, 2 * len + 5, 3 * len] {
                if end > at {
                    check(at, end - at);
                }
            }
        }
    });
}

#[test]
fn golden_blocks_decode_as_in_ggml() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/goldens/ggml.safetensors");
    let file = std::fs::read(path).unwrap();
    let golden = safetensors::SafeTensors::deserialize(&file).unwrap();
    each(|ty| {
        let plain = golden.tensor(ty.name());
        let weighted = golden.tensor(&format!("{ty}.imatrix"));
        // Types that need an importance have no other blocks.
        let blocks = plain.or(weighted).unwrap();
        let expected = golden.tensor(&format!("{ty}.dequantized")).unwrap();
        let shape = [32, 512];
        let codec = Scheme::Ggml(ty).codec(&shape).unwrap();
        let job = Decode { scheme: Scheme::Ggml(ty), shape: &shape, codec: &*codec, at: 0, parts: &[blocks.data()] };
        let mut numbers = vec![0.0; 32 * 512];
        assert_eq!(decode(&mut Sim::new(), &job, &mut numbers), Ok(true));
        let found: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        assert!(found == expected.data(), "{ty}");
    });
}

#[test]
fn other_schemes_and_short_parts_are_left_to_the_cpu() {
    let (scheme, shape) = ("nf4".parse().unwrap(), [64]);
    let codec = Scheme::codec(scheme, &shape).unwrap();
    let mut out = [0.0; 64];
    let job = Decode { scheme, shape: &shape, codec: &*codec, at: 0, parts: &[&[0; 32]] };
    assert_eq!(decode(&mut Sim::new(), &job, &mut out), Ok(false));
    let job = Decode { scheme: Scheme::Ggml(Type::Q4_0), parts: &[&[0; 35]], ..job };
    assert_eq!(decode(&mut Sim::new(), &job, &mut out), Ok(false));
}
