//! What goes in comes out.

use sha2::{Digest as _, Sha256};

use super::*;
use crate::bqt::provenance;
use crate::checkpoint::OriginFormat;

fn part_bytes(checkpoint: &Checkpoint, tensor: usize, part: usize) -> Vec<u8> {
    let mut bytes = vec![0; checkpoint.tensors[tensor].parts[part].n_bytes as usize];
    checkpoint.read_at(&checkpoint.places[tensor][part], 0, &mut bytes).unwrap();
    bytes
}

fn all_schemes(shape: &[u64]) -> Checkpoint {
    checkpoint(schemes().map(|text| tensor(text, text, shape)).collect())
}

fn assert_same(a: &Checkpoint, b: &Checkpoint) {
    assert_eq!(a.tensors.len(), b.tensors.len());
    for (i, (x, y)) in a.tensors.iter().zip(&b.tensors).enumerate() {
        assert_eq!((&x.name, &x.shape, x.dtype, x.scheme, &x.parts), (&y.name, &y.shape, y.dtype, y.scheme, &y.parts));
        (0..x.parts.len()).for_each(|part| assert_eq!(part_bytes(a, i, part), part_bytes(b, i, part), "{} {part}", x.name));
    }
    assert_eq!(a.metadata, b.metadata);
    let files = |c: &Checkpoint| c.side_files.iter().map(|f| (f.name.clone(), c.side_file(f).unwrap())).collect::<Vec<_>>();
    assert_eq!(files(a), files(b));
}

#[test]
fn every_scheme_and_shape_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    for shape in [&[][..], &[0], &[3, 0], &[1], &[67], &[5, 129], &[2, 3, 200]] {
        let made = all_schemes(shape);
        let path = write(&made, &plan(&made, None), folder.path(), 1 << 20);
        let opened = open(input(&path)).unwrap();
        assert_same(&made, &opened);
        assert_eq!(verify(&input(&path), &()).unwrap().damages, []);
        let copy = folder.path().join("copy");
        std::fs::create_dir_all(&copy).unwrap();
        assert_same(&opened, &open(input(&write(&opened, &plan(&opened, None), &copy, 256))).unwrap());
    }
}

#[test]
fn a_conversion_through_the_sink_is_the_encoding() {
    let folder = tempfile::tempdir().unwrap();
    let made = checkpoint(vec![tensor("w", "f32", &[300, 1025])]);
    for text in schemes() {
        let plan = plan(&made, Some(scheme(text)));
        let path = write(&made, &plan, folder.path(), 4096);
        assert_eq!(verify(&input(&path), &()).unwrap().damages, [], "{text}");
        let opened = open(input(&path)).unwrap();
        let expected = encode(scheme(text), &[300, 1025], &numbers(300 * 1025)).unwrap();
        (0..expected.len()).for_each(|part| assert_eq!(part_bytes(&opened, 0, part), expected[part], "{text} {part}"));
    }
}

#[test]
fn the_size_is_known_before() {
    let folder = tempfile::tempdir().unwrap();
    let made = all_schemes(&[5, 129]);
    let plan = plan(&made, None);
    let size = Writer::size(&plan, &contents(&made)).unwrap();
    assert_eq!(size, std::fs::metadata(write(&made, &plan, folder.path(), 1 << 20)).unwrap().len());
}

#[test]
fn data_and_parts_of_the_container_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let data = |dtype: Dtype, shape: &[u64], n: usize| {
        let part = Stored { name: "data".into(), dtype, shape: shape.into(), n_bytes: n as u64 };
        let tensor = Tensor {
            name: dtype.to_string(),
            shape: shape.into(),
            dtype,
            scheme: Scheme::Dense(dtype),
            role: Role::Data,
            parts: vec![part],
            packed: None,
        };
        (tensor, vec![At::Bytes(vec![7; n])])
    };
    let mut quantized = tensor("q", "nf4", &[64]);
    quantized.0.parts.push(Stored { name: "quant_state".into(), dtype: Dtype::U8, shape: vec![5], n_bytes: 5 });
    quantized.1.push(At::Bytes(b"state".into()));
    let made =
        checkpoint(vec![data(Dtype::I64, &[3], 24), data(Dtype::F4, &[2, 3], 3), data(Dtype::F6E2M3, &[4], 3), data(Dtype::Bool, &[], 1), quantized]);
    let path = write(&made, &plan(&made, None), folder.path(), 256);
    assert_same(&made, &open(input(&path)).unwrap());
}

#[test]
fn the_origin_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut made = checkpoint(vec![tensor("a", "f32", &[3]), tensor("b", "bf16", &[0]), tensor("c", "nf4:32", &[40])]);
    let place = |file, offset| Some(Place { file, offset });
    let file = |name: &str, n_bytes, head: &[u8]| OriginFile { name: name.into(), n_bytes, head: side_file("", head), gaps: Vec::new() };
    made.origin = Some(Origin {
        format: OriginFormat::Safetensors,
        files: vec![file("one", 5 + 12, b"head1"), file("two", 3 + 20 + 8, b"hd2")],
        // The codebook of c is derived: it lies in neither file.
        places: vec![vec![place(0, 5)], vec![place(0, 17)], vec![place(1, 11), place(1, 3), None]],
        index: Some(side_file("model.safetensors.index.json", b"{\"weight_map\":{}}")),
    });
    let opened = open(input(&write(&made, &plan(&made, None), folder.path(), 256))).unwrap();
    let (was, is) = (made.origin.as_ref().unwrap(), opened.origin.as_ref().unwrap());
    assert_eq!(was.places, is.places);
    for (was, is) in was.files.iter().zip(&is.files) {
        assert_eq!((&was.name, was.n_bytes), (&is.name, is.n_bytes));
        assert_eq!(made.side_file(&was.head).unwrap(), opened.side_file(&is.head).unwrap());
    }
    assert_eq!(opened.side_file(is.index.as_ref().unwrap()).unwrap(), b"{\"weight_map\":{}}");

    made.origin.as_mut().unwrap().files[1].n_bytes += 1;
    let refused = Writer::size(&plan(&made, None), &contents(&made)).unwrap_err();
    assert!(refused.to_string().contains("origin: file 1 has 32 bytes, its head and parts 31"), "{refused}");
    let quantized = plan(&made, Some(scheme("int8-block")));
    assert!(open(input(&write(&made, &quantized, folder.path(), 256))).unwrap().origin.is_none());
}

#[test]
fn provenance_names_source_scheme_and_hash() {
    let folder = tempfile::tempdir().unwrap();
    let made = checkpoint(vec![tensor("w", "f32", &[700, 1000])]);
    let path = write(&made, &plan(&made, Some(scheme("nf4"))), folder.path(), 1 << 20);
    let found = provenance(&input(&path)).unwrap();
    let source = found.sources[0].as_ref().unwrap();
    assert_eq!((source.name.as_str(), source.scheme.as_str(), found.recipe.as_deref()), ("w", "f32", Some("* = nf4")));
    assert_eq!(source.sha256.0[..], Sha256::digest(part_bytes(&made, 0, 0))[..]);
}

#[test]
fn a_byte_that_comes_twice_or_never_is_an_error() {
    use quant_core::sink::Sink;
    let folder = tempfile::tempdir().unwrap();
    let made = checkpoint(vec![tensor("w", "f32", &[100])]);
    let plan = plan(&made, None);
    let create = || Writer::create(&folder.path().join("x"), &plan, &contents(&made), true, &[]).unwrap();
    let digests = [crate::bqt::Digest::default()];
    let writer = create();
    writer.write(0, 0, 0, &[0; 399]).unwrap();
    assert!(writer.write(0, 0, 398, &[0; 2]).unwrap_err().to_string().contains("part 'data' of tensor 'w' was given bytes 398..400 twice"));
    assert!(writer.write(0, 0, 399, &[0; 2]).is_err());
    assert!(writer.write(0, 1, 0, &[0]).is_err());
    assert!(writer.write(1, 0, 0, &[0]).is_err());
    assert!(writer.finish(&digests, &[]).unwrap_err().to_string().contains("was never given byte 399"));
    assert!(create().finish(&[], &[]).is_err());
    assert!(!folder.path().join("x").exists());
}

#[test]
fn the_bytes_do_not_depend_on_threads_or_slabs() {
    let folder = tempfile::tempdir().unwrap();
    let made = checkpoint(vec![tensor("w", "f32", &[300, 1025])]);
    let plan = plan(&made, Some(scheme("nf4-dq")));
    let mut files = Vec::new();
    for (threads, slab) in [(1, 1 << 20), (2, 1 << 14), (8, 1 << 16)] {
        let target = folder.path().join(threads.to_string());
        let writer = Writer::create(&target, &plan, &contents(&made), false, &[]).unwrap();
        let budget = Budget { threads, slab, ..Budget::default() };
        Pass::new(&made, &plan, &budget).unwrap().run(&plan, &writer, &()).unwrap();
        writer.finish(&hash_sources(&made, &plan, &()).unwrap(), &[]).unwrap();
        files.push(std::fs::read(target).unwrap());
    }
    assert!(files.windows(2).all(|pair| pair[0] == pair[1]));
}
