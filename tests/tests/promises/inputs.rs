//! The same bytes whatever the circumstances; inputs that change; numbers that no quantizing scheme holds.

use super::*;

#[test]
fn threads_and_ways_of_reading_do_not_change_a_byte() {
    let dir = dir();
    model(&dir.path().join("m"), false);
    for scheme in ["nf4-dq", "int8", "affine4:32"] {
        let mut sums: Vec<String> = Vec::new();
        for (i, option) in ["--threads=1", "--threads=2", "--threads=4", "--threads=8", "--io=read", "--memory=32MiB"].iter().enumerate() {
            let name = format!("{}-{i}.bqt", &scheme[..3]);
            assert!(run(dir.path(), &["convert", "m", &name, "--type", scheme, option]).status.success(), "{option}");
            sums.push(sha256(&dir.path().join(name)));
        }
        sums.dedup();
        assert_eq!(sums.len(), 1, "{scheme}");
    }
}

type Change = fn(&mut File);

/// What happens to a file of 16 MiB of weights.
const CHANGES: [(&str, Change); 5] = [
    ("cut to nothing", |f| f.set_len(0).expect("cut")),
    ("cut in the middle", |f| f.set_len(8 << 20).expect("cut")),
    ("cut by one byte", |f| f.set_len(f.metadata().expect("a length").len() - 1).expect("cut")),
    ("grown", |f| f.set_len(64 << 20).expect("grown")),
    ("rewritten", |f| {
        f.seek(SeekFrom::Start(12 << 20)).and_then(|_| f.write_all(&[0x3f; 1 << 20])).expect("rewritten");
    }),
];

#[test]
fn an_input_that_changes_is_an_error_or_was_read_before() {
    let dir = dir();
    let path = dir.path().join("m.safetensors");
    dense(&path, 8192);
    let original = fs::read(&path).unwrap();
    let begin = Instant::now();
    assert!(run(dir.path(), &["convert", "m.safetensors", "good.bqt", "--type", "nf4"]).status.success());
    let (usual, expected) = (begin.elapsed(), sha256(&dir.path().join("good.bqt")));
    let mut n_errors = 0;
    for i in 0..20 {
        fs::write(&path, &original).unwrap();
        let io = ["--io=mmap", "--io=read"][i as usize % 2];
        let child = quant_in(dir.path(), &["convert", "m.safetensors", "o.bqt", "--type", "nf4", io]).spawn().unwrap();
        std::thread::sleep(usual * i / 20);
        let (what, change) = CHANGES[i as usize % 5];
        change(&mut OpenOptions::new().write(true).open(&path).unwrap());
        let out = ended(child, LIMIT);
        let found = dir.path().join("o.bqt");
        match out.status.code() {
            Some(0) => assert_eq!(sha256(&found), expected, "{what}"),
            _ => {
                assert_refused(&out, &["m.safetensors"]);
                n_errors += 1;
            }
        }
        let _ = fs::remove_file(found);
        assert_eq!(listing(dir.path()), ["good.bqt", "m.safetensors"], "{what}");
    }
    assert!(n_errors > 0, "no change came in time");
}

const QUANTIZING: [&str; 9] = ["nf4", "nf4-dq", "fp4", "fp4-dq", "int8", "int8-block", "affine4", "absmax8:row", "affine8:tensor"];

/// A model with two linear layers; in the second one elements `at` hold `value`.
fn unfit(path: &Path, at: &[usize], value: f32) {
    let good: Vec<f32> = numbers(1 << 18).collect();
    let mut bad = good.clone();
    at.iter().for_each(|&i| bad[i] = value);
    let shape = [1 << 8, 1 << 10];
    made::write(path, &[Made::f32("m.0.up_proj.weight", &shape, &good), Made::f32("m.1.up_proj.weight", &shape, &bad)]);
}

#[test]
fn what_is_not_finite_is_refused_by_tensor_and_first_element() {
    let dir = dir();
    for (value, shown) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")] {
        unfit(&dir.path().join("m.safetensors"), &[260_000, 131_077, 200_001], value);
        for scheme in QUANTIZING {
            let out = run(dir.path(), &["convert", "m.safetensors", "o.bqt", "--type", scheme, "--slab=4096"]);
            assert_refused(&out, &["tensor 'm.1.up_proj.weight'", &format!("element 131077 is {shown}"), "--non-finite keep"]);
            assert_eq!(listing(dir.path()), ["m.safetensors"]);
        }
    }
}

#[test]
fn what_is_not_finite_is_kept_on_demand_and_that_is_said() {
    let dir = dir();
    let path = dir.path().join("m.safetensors");
    unfit(&path, &[77], f32::NAN);
    let bytes = fs::read(&path).unwrap();
    let weights = &bytes[bytes.len() - (4 << 18)..];
    for scheme in QUANTIZING {
        let args = ["convert", "m.safetensors", "o.bqt", "--type", scheme, "--non-finite=keep", "--force"];
        let out = run(dir.path(), &args);
        assert!(out.status.success(), "{}", message(&out));
        let text = String::from_utf8(out.stdout).unwrap();
        assert!(text.contains("element 77 is NaN") && text.contains("m.1.up_proj.weight"), "{text}");
        let schemes = schemes(dir.path(), "o.bqt");
        assert_ne!(schemes["m.0.up_proj.weight"], "f32");
        assert_eq!(schemes["m.1.up_proj.weight"], "f32");
        let found = fs::read(dir.path().join("o.bqt")).unwrap();
        assert!(found.windows(weights.len()).any(|w| w == weights), "{scheme}: the weights are not there as they were");
    }
}

/// The scheme of each tensor.
fn schemes(dir: &Path, name: &str) -> BTreeMap<String, String> {
    let shown: serde_json::Value = serde_json::from_slice(&run(dir, &["inspect", name, "--json"]).stdout).expect("JSON");
    let text = |v: &serde_json::Value| v.as_str().expect("text").to_owned();
    shown["tensors"].as_array().expect("a list").iter().map(|t| (text(&t["name"]), text(&t["scheme"]))).collect()
}
