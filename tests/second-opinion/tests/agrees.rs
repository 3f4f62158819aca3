//! See the crate.

use std::io::BufReader;
use std::path::{Path, PathBuf};

use gguf_rs::{ByteOrder, GGUFContainer};
use quant_core::ggml;
use quant_core::mix::{Ftype, Options};
use quant_formats::checkpoint::At;
use quant_formats::convert::{self, Request, Target};
use quant_formats::gguf::Mix;

fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/tiny-llama.gguf")
}

/// Name, type number, dimensions (fastest first) and offset in the file of every tensor.
type Tensors = Vec<(String, u32, Vec<u64>, u64)>;

fn theirs(path: &Path) -> Tensors {
    use std::io::Read;
    let mut reader = BufReader::new(std::fs::File::open(path).unwrap());
    reader.read_exact(&mut [0; 4]).unwrap();
    let decoded = GGUFContainer::new(ByteOrder::LE, Box::new(reader), u64::MAX).decode().unwrap();
    let dims = |shape: &[u64], n: u32| shape[..n as usize].to_vec();
    let row = |t: &gguf_rs::Tensor| (t.name.clone(), t.kind, dims(&t.shape, t.n_dimensions), decoded.data_offset() + t.offset);
    decoded.tensors().iter().map(row).collect()
}

fn ours(path: &Path) -> Tensors {
    let checkpoint = quant_formats::open(path, quant_formats::Io::Auto).unwrap();
    let offset = |at: &At| if let At::File { offset, .. } = at { *offset } else { panic!("tensors lie in the file") };
    let row = |(t, places): (&quant_core::source::Tensor, &Vec<At>)| {
        let dims = t.shape.iter().rev().copied().collect();
        (t.name.clone(), ggml::id_of(t.scheme).unwrap(), dims, offset(&places[0]))
    };
    checkpoint.tensors.iter().zip(&checkpoint.places).map(row).collect()
}

#[test]
fn the_fixture_is_read_alike() {
    assert_eq!(ours(&model()), theirs(&model()));
}

#[test]
fn what_is_written_is_read_alike() {
    let folder = tempfile::tempdir().unwrap();
    let model = quant_formats::open(&model(), quant_formats::Io::Auto).unwrap();
    for name in ["F16", "Q4_0", "Q5_1", "Q8_0", "Q2_K", "Q4_K_M", "IQ4_XS", "TQ2_0", "MXFP4_MOE"] {
        let ftype: Ftype = name.parse().unwrap();
        let options = Options { ftype, pure: false, has_imatrix: false, leave_output: false, output_type: None, embedding_type: None, rules: Vec::new(), no_fallback: false };
        let mix = Mix { options, copy: false, importance: None, prune_layers: Vec::new(), overrides: Vec::new(), keep_split: false };
        let request = Request { mix: Some(mix), ..Request::new(Target::Gguf) };
        let out = folder.path().join(format!("{name}.gguf"));
        let mut plan = convert::plan(&model, &request).unwrap();
        convert::run(&model, &mut plan, &request, &out, &()).unwrap();
        let found = ours(&out);
        assert_eq!(found.len(), 39, "{name}");
        assert_eq!(found, theirs(&out), "{name}");
    }
}
