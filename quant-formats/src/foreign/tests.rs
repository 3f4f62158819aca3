//! Every layout against the numbers of its own library; what is wrong with a checkpoint is said before anything is read.
//!
//! `tests/peers/quantized_hf.py` makes the checkpoints.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use quant_core::source::Source;
use safetensors::tensor::{Dtype as St, TensorView};

use super::*;
use crate::{Io, open};

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens/quantized_hf")
}

fn floats(source: &Checkpoint, name: &str) -> Option<Vec<f32>> {
    let index = source.tensors.iter().position(|t| t.name == name)?;
    let mut bytes = vec![0; source.tensors[index].n_bytes() as usize];
    source.read(index, 0, 0, &mut bytes).unwrap();
    Some(bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
}

fn fill(how: &How, source: &Checkpoint, at: u64, out: &mut [f32]) {
    match how {
        How::Numbers(numbers) => numbers.fill(source, at, out).unwrap(),
        How::Blocks(_, blocks) => blocks.numbers(source, at, out).unwrap(),
    }
}

fn assert_same(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let differs = found.iter().zip(expected).position(|(a, b)| a.to_bits() != b.to_bits());
    if let Some(i) = differs {
        panic!("{what}: element {i} is {:e}, needed {:e}", found[i], expected[i]);
    }
}

/// The whole tensor, and odd ranges of it.
fn check_numbers(tensor: &Unpacked, source: &Checkpoint, expected: &[f32], what: &str) {
    let cols = *tensor.shape.last().unwrap() as usize;
    for (start, end) in [(0, expected.len()), (1, cols - 1), (cols - 1, cols + 2), (3, 3 * cols + 5), (expected.len() - cols - 1, expected.len())] {
        let end = end.min(expected.len());
        let mut out = vec![f32::NAN; end - start];
        fill(&tensor.how, source, start as u64, &mut out);
        assert_same(&out, &expected[start..end], &format!("{what} {start}..{end}"));
    }
    for start in (0..expected.len()).step_by(7).take(60) {
        let mut out = [f32::NAN; 7];
        let n = out.len().min(expected.len() - start);
        fill(&tensor.how, source, start as u64, &mut out[..n]);
        assert_same(&out[..n], &expected[start..start + n], &format!("{what} {start}, 7"));
    }
}

fn check_blocks(tensor: &Unpacked, source: &Checkpoint, expected: &Checkpoint, what: &str) {
    let index = expected.tensors.iter().position(|t| t.name == format!("blocks:{}", tensor.name));
    let How::Blocks(ty, blocks) = &tensor.how else {
        assert_eq!(index, None, "{what}: needed blocks");
        return;
    };
    let mut bytes = vec![0; expected.tensors[index.unwrap()].n_bytes() as usize];
    expected.read(index.unwrap(), 0, 0, &mut bytes).unwrap();
    let mut out = vec![0xAA; bytes.len()];
    blocks.fill(source, 0, &mut out).unwrap();
    assert_eq!(out, bytes, "{what}");
    let size = ty.block_bytes() as usize;
    blocks.fill(source, 1, &mut out[..2 * size]).unwrap();
    assert_eq!(out[..2 * size], bytes[size..3 * size], "{what}");
    for (ending, value) in blocks.beside() {
        assert_eq!(floats(expected, &format!("beside:{}:{ending}", tensor.name)), Some(vec![*value]), "{what} {ending}");
    }
}

fn check_case(name: &str) -> Unpacking {
    let source = open(&goldens().join(name), Io::Auto).unwrap();
    let expected = open(&goldens().join(name).join("expected.safetensors"), Io::Auto).unwrap();
    let found = unpack(&source).unwrap().unwrap();
    let names: BTreeMap<&str, &Unpacked> = found.tensors.iter().map(|t| (t.name.as_str(), t)).collect();
    let needed: Vec<&str> = expected.tensors.iter().map(|t| t.name.as_str()).filter(|n| !n.contains(':')).collect();
    assert_eq!(
        names.keys().copied().collect::<Vec<_>>(),
        {
            let mut n = needed.clone();
            n.sort_unstable();
            n
        },
        "{name}"
    );
    for (&tensor_name, tensor) in &names {
        let shape = &expected.tensors.iter().find(|t| t.name == tensor_name).unwrap().shape;
        assert_eq!(&tensor.shape, shape, "{name} {tensor_name}");
        let what = format!("{name} {tensor_name} ({})", tensor.label);
        check_numbers(tensor, &source, &floats(&expected, tensor_name).unwrap(), &what);
        check_blocks(tensor, &source, &expected, &what);
    }
    found
}

#[test]
fn every_golden_gives_the_numbers_of_its_library() {
    let mut n = 0;
    for entry in std::fs::read_dir(goldens()).unwrap() {
        let entry = entry.unwrap();
        if entry.path().is_dir() {
            check_case(entry.file_name().to_str().unwrap());
            n += 1;
        }
    }
    assert_eq!(n, 24);
}

#[test]
fn what_no_weight_needs_is_dropped_and_the_rest_stays() {
    for (case, dropped, left) in [
        ("gptq", &[][..], &["a.bias", "norm.weight"][..]),
        ("modelopt", &["fp8.input_scale", "k_proj.k_scale"], &[]),
        ("fp8", &["a.input_scale"], &[]),
        ("gpt_oss", &[], &["experts.down_proj_bias"]),
        ("torchao", &[], &["norm.weight"]),
    ] {
        let source = open(&goldens().join(case), Io::Auto).unwrap();
        let found = unpack(&source).unwrap().unwrap();
        let name = |i: &usize| source.tensors[*i].name.as_str();
        let mut names: Vec<&str> = found.dropped.iter().map(name).collect();
        names.sort_unstable();
        assert_eq!(names, dropped, "{case}");
        let used = |i: &usize| found.dropped.contains(i) || found.tensors.iter().any(|t| t.used.contains(i));
        let mut rest: Vec<&str> = (0..source.tensors.len()).filter(|i| !used(i)).map(|i| name(&i)).collect();
        rest.sort_unstable();
        assert_eq!(rest, left, "{case}");
    }
}

#[test]
fn a_tensor_larger_than_a_piece_is_read_in_any_ranges() {
    let (outputs, inputs, size) = (640usize, 1024usize, 128usize);
    let word = |i: usize| (i as u32).wrapping_mul(2_654_435_761) ^ 0x5555;
    let words = |n: usize| -> Vec<u8> { (0..n).flat_map(|i| word(i).to_le_bytes()).collect() };
    let groups = inputs / size;
    let tensors = [
        ("m.qweight", St::I32, vec![inputs / 8, outputs], words(inputs / 8 * outputs)),
        ("m.qzeros", St::I32, vec![groups, outputs / 8], words(groups * outputs / 8)),
        ("m.scales", St::F32, vec![groups, outputs], (0..groups * outputs).flat_map(|i| (i as f32).to_le_bytes()).collect()),
    ];
    let folder = write(&tensors, &format!(r#"{{"quant_method": "gptq", "bits": 4, "group_size": {size}}}"#));
    let source = open(folder.path(), Io::Auto).unwrap();
    let found = unpack(&source).unwrap().unwrap();
    let expected = |at: usize| {
        let (n, k) = (at / inputs, at % inputs);
        let nibble = |word: u32, i: usize| (word >> (i % 8 * 4)) & 15;
        let q = nibble(word(k / 8 * outputs + n), k);
        let z = nibble(word(k / size * outputs / 8 + n / 8).wrapping_add(0x1111_1111), n);
        (q as f32 - z as f32) * (k / size * outputs + n) as f32
    };
    for (at, n) in [(0, outputs * inputs), (inputs * 5 + 17, 200_000), (outputs * inputs - 3, 3)] {
        let mut out = vec![f32::NAN; n];
        fill(&found.tensors[0].how, &source, at as u64, &mut out);
        let needed: Vec<f32> = (at..at + n).map(expected).collect();
        assert_same(&out, &needed, "large");
    }
}

type Raw = (&'static str, St, Vec<usize>, Vec<u8>);

fn write(tensors: &[Raw], config: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| (*name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    let bytes = safetensors::serialize(views, None).unwrap();
    std::fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
    std::fs::write(folder.path().join("config.json"), format!(r#"{{"quantization_config": {config}}}"#)).unwrap();
    folder
}

fn zeros(name: &'static str, dtype: St, shape: &[usize]) -> Raw {
    let bits: usize = dtype.bitsize();
    (name, dtype, shape.to_vec(), vec![0; shape.iter().product::<usize>() * bits / 8])
}

fn refusal(tensors: &[Raw], config: &str) -> String {
    let folder = write(tensors, config);
    let source = open(folder.path(), Io::Auto).unwrap();
    match unpack(&source) {
        Ok(found) => panic!("read: {found:?}"),
        Err(e) => e.to_string().replace(&folder.path().display().to_string(), "DIR"),
    }
}

const GPTQ: &str = r#"{"quant_method": "gptq", "bits": 4, "group_size": 32}"#;

fn gptq(g_idx: &[i32]) -> Vec<Raw> {
    let list = g_idx.iter().flat_map(|g| g.to_le_bytes()).collect();
    vec![
        zeros("m.qweight", St::I32, &[8, 16]),
        zeros("m.qzeros", St::I32, &[2, 2]),
        zeros("m.scales", St::F16, &[2, 16]),
        ("m.g_idx", St::I32, vec![g_idx.len()], list),
    ]
}

#[test]
fn bad_gptq_is_refused() {
    let at = "DIR/model.safetensors: tensor ";
    let with = |change: &dyn Fn(&mut Vec<Raw>)| {
        let mut tensors = gptq(&[1; 64]);
        change(&mut tensors);
        refusal(&tensors, GPTQ)
    };
    let missing = with(&|t| drop(t.remove(2)));
    assert_eq!(missing, format!("{at}'m.qweight': needs a tensor 'm.scales' beside it, which is missing; a shard may be lost"));
    let dtype = with(&|t| t[2] = zeros("m.scales", St::I32, &[2, 16]));
    assert_eq!(dtype, format!("{at}'m.scales': found the type I32, needed F16 or BF16 or F32"));
    let shape = with(&|t| t[2] = zeros("m.scales", St::F16, &[3, 16]));
    assert_eq!(shape, format!("{at}'m.scales': found the shape [3, 16], needed [2, 16] for these qweight and qzeros"));
    let bits = with(&|t| t[1] = zeros("m.qzeros", St::I32, &[2, 3]));
    assert!(bits.contains("found 3 words for 16 outputs, needed bits·outputs/32 with bits 4"), "{bits}");
    let group = refusal(
        &gptq(&{
            let mut g = [1; 64];
            g[7] = 2;
            g
        }),
        GPTQ,
    );
    assert_eq!(group, format!("{at}'m.g_idx': found the group 2 for input 7, needed 0 to 1"));
    let negative = refusal(&gptq(&[-1; 64]), GPTQ);
    assert_eq!(negative, format!("{at}'m.g_idx': found the group -1 for input 0, needed 0 to 1"));
    let count = with(&|t| {
        t.pop();
        t[1] = zeros("m.qzeros", St::I32, &[3, 2]);
        t[2] = zeros("m.scales", St::F16, &[3, 16]);
    });
    assert!(count.contains("found 3 groups, needed 2 of 32 for 64 inputs without a g_idx"), "{count}");
    let twice = with(&|t| t.push(zeros("m.weight", St::F16, &[16, 64])));
    assert!(twice.contains("is there twice"), "{twice}");
    let marlin = refusal(&gptq(&[0; 64]), r#"{"quant_method": "gptq", "bits": 4, "checkpoint_format": "marlin"}"#);
    assert_eq!(marlin, "DIR/config.json: found the checkpoint_format 'marlin', needed 'gptq' or 'gptq_v2'");
}

#[test]
fn bad_scales_are_refused() {
    let fp8 = r#"{"quant_method": "fp8", "weight_block_size": [128, 128]}"#;
    let grid = refusal(&[zeros("m.weight", St::F8_E4M3, &[200, 256]), zeros("m.weight_scale_inv", St::F32, &[4, 4])], fp8);
    assert!(grid.contains("found the shape [4, 4], which is no grid of scales for a weight of shape [200, 256] in blocks of [128, 128]"), "{grid}");
    let orphan = refusal(&[zeros("m.weight", St::F8_E4M3, &[200, 256])], fp8);
    assert!(orphan.contains("found F8_E4M3 without scales beside it"), "{orphan}");
    let lost = refusal(&[zeros("m.weight_scale_inv", St::F32, &[4, 4])], fp8);
    assert!(lost.contains("needs a tensor 'm.weight' beside it"), "{lost}");
    let plain = refusal(&[zeros("m.weight", St::BF16, &[128, 128]), zeros("m.weight_scale_inv", St::F32, &[1, 1])], fp8);
    assert!(plain.contains("found the type BF16, needed F8_E4M3 or F8_E5M2 or I8"), "{plain}");
    let ct = r#"{"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {"a": {"weights": {"num_bits": 4, "group_size": 32}}}}"#;
    let shape = |n: i64, k: i64| -> Raw { ("m.weight_shape", St::I64, vec![2], [n, k].iter().flat_map(|n| n.to_le_bytes()).collect()) };
    let packed = |shape: Raw| [zeros("m.weight_packed", St::I32, &[4, 8]), zeros("m.weight_scale", St::F16, &[4, 2]), shape];
    let width = refusal(&packed(shape(4, 70)), ct);
    assert!(width.contains("found rows of 8 words for 70 codes, which are of no width in [4]"), "{width}");
    for (n, k) in [(5, 64), (4, -1), (4, i64::MAX), (0, 64)] {
        let text = refusal(&packed(shape(n, k)), ct);
        assert!(text.contains("which does not fit codes packed in words of shape [4, 8]"), "{text}");
    }
    let global = refusal(&[zeros("m.weight_packed", St::U8, &[4, 8]), zeros("m.weight_scale", St::F8_E4M3, &[4, 1])], ct);
    assert!(global.contains("needs a tensor 'm.weight_global_scale' beside it"), "{global}");
}

#[test]
fn methods_that_are_not_read_are_named() {
    let refused = |config: &str| refusal(&[zeros("a", St::F32, &[1])], config);
    assert_eq!(
        refused(r#"{"quant_method": "aqlm"}"#),
        "DIR/config.json: the quantization method 'aqlm' (sums of codes of learned codebooks) is not read; start from the original checkpoint instead"
    );
    assert!(refused(r#"{"quant_method": "new"}"#).contains("the quantization method 'new' is not read"));
    assert!(refused(r#"{"bits": 4, "group_size": 64}"#).contains("'mlx'"));
    assert!(refused(r#"{"a": 4}"#).contains("without a 'quant_method'"));
    assert!(refused(r#"{"quant_method": "awq", "bits": 4, "version": "gemv"}"#).contains("found the AWQ version 'gemv'"));
    assert!(refused(r#"{"quant_method": "awq", "bits": 8}"#).contains("found AWQ of 8 bits"));
    assert!(refused(r#"{"quant_method": "compressed-tensors", "format": "marlin-24"}"#).contains("'marlin-24'"));
    assert!(refused(r#"{"quant_method": "torchao"}"#).contains("'tensor_names'"));
    assert!(refused("[1]").contains("key 'quantization_config'"));
    // A value of any length makes a short message.
    for long in [format!("{:?}", "x".repeat(100_000)), format!(r#"{{"quant_method": {:?}}}"#, "é".repeat(100_000))] {
        let refused = refused(&long);
        assert!(refused.starts_with("DIR/config.json: ") && refused.len() < 400, "{refused}");
    }
}

#[test]
fn plain_checkpoints_and_bitsandbytes_are_left_alone() {
    for config in [r#"{"quant_method": "bitsandbytes", "load_in_4bit": true}"#, r#"{"load_in_8bit": true}"#, "null"] {
        let folder = write(&[zeros("a", St::F32, &[1])], config);
        assert!(unpack(&open(folder.path(), Io::Auto).unwrap()).unwrap().is_none(), "{config}");
    }
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/tiny-llama");
    assert!(unpack(&open(&tiny, Io::Auto).unwrap()).unwrap().is_none());
}

/// A tensor of a golden, changed.
type Change = fn(&mut (St, Vec<usize>));

/// Nothing that a checkpoint's header can say makes more of it than an error.
#[test]
fn changed_headers_never_panic() {
    let changes: [Change; 8] = [
        |(_, shape)| shape.reverse(),
        |(_, shape)| *shape = vec![shape.iter().product()],
        |(_, shape)| shape.insert(0, 1),
        |(_, shape)| shape.push(1),
        |(_, shape)| *shape = vec![shape.iter().product(), 1],
        |(dtype, _)| *dtype = if dtype.bitsize() == 8 { St::I8 } else { St::BF16 },
        |(dtype, _)| *dtype = if dtype.bitsize() == 8 { St::U8 } else { St::I32 },
        |(dtype, _)| *dtype = St::F8_E4M3,
    ];
    let mut n_read = 0;
    for entry in std::fs::read_dir(goldens()).unwrap() {
        let folder = entry.unwrap().path();
        let Ok(config) = std::fs::read_to_string(folder.join("config.json")) else { continue };
        let bytes = std::fs::read(folder.join("model.safetensors")).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        for (i, (name, _)) in file.iter().enumerate() {
            for change in changes.iter().map(Some).chain([None]).skip(i % 3).step_by(3) {
                n_read += usize::from(read_changed(&file, name, change, &config));
            }
        }
    }
    assert!(n_read > 100, "{n_read}");
}

/// Whether the checkpoint can still be read with a tensor changed, or without it; all of it is read then.
fn read_changed(file: &safetensors::SafeTensors<'_>, changed: &str, change: Option<&Change>, config: &str) -> bool {
    let mut views = Vec::new();
    for (name, view) in file.iter().filter(|(name, _)| *name != changed || change.is_some()) {
        let mut header = (view.dtype(), view.shape().to_vec());
        if let Some(change) = change.filter(|_| name == changed) {
            change(&mut header);
        }
        let n_bits = view.data().len() * 8;
        if header.0.bitsize() * header.1.iter().product::<usize>() != n_bits {
            header = (header.0, vec![n_bits / header.0.bitsize()]);
        }
        let Ok(view) = TensorView::new(header.0, header.1, view.data()) else { return false };
        views.push((name, view));
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("model.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
    std::fs::write(folder.path().join("config.json"), config).unwrap();
    let source = open(folder.path(), Io::Auto).unwrap();
    let Ok(Some(found)) = unpack(&source) else { return false };
    for tensor in &found.tensors {
        let mut out = vec![0.0; tensor.shape.iter().product::<u64>() as usize];
        fill(&tensor.how, &source, 0, &mut out);
    }
    true
}
