//! Outputs that exist, that have no room, that are inputs; permissions.

use super::*;

/// Arguments of a conversion of `m` to an output of each form.
const OUTPUTS: [&str; 3] = ["out.safetensors", "out.bqt", "out"];

/// What an earlier output may have left in a folder.
const OLD: &str = "model-00001-of-00002.safetensors";

/// Puts something in the way: a file, or for a folder a folder with a file in it.
fn put_in_the_way(dir: &Path, name: &str) {
    if name == "out" {
        fs::create_dir(dir.join(name)).expect("made");
        fs::write(dir.join(name).join(OLD), "old").expect("written");
    } else {
        fs::write(dir.join(name), "old").expect("written");
    }
}

#[test]
fn an_existing_output_is_kept_without_force_and_replaced_with_it() {
    let dir = dir();
    model(&dir.path().join("m"), false);
    for name in OUTPUTS {
        put_in_the_way(dir.path(), name);
        let before = state(dir.path());
        assert_refused(&run(dir.path(), &["convert", "m", name, "--type", "nf4"]), &[name, "exists; use --force"]);
        assert_eq!(state(dir.path()), before);
        assert!(run(dir.path(), &["convert", "m", name, "--type", "nf4", "--force"]).status.success());
        assert!(run(dir.path(), &["verify", name]).status.success(), "{name}");
        assert!(!dir.path().join(name).join(OLD).exists());
    }
    assert_eq!(listing(dir.path()), ["m", "out", "out.bqt", "out.safetensors"]);
}

/// A conversion with --force that fails keeps what was there: here a weight is NaN.
#[test]
fn a_failed_replacement_keeps_the_old_output() {
    let dir = dir();
    let mut values = vec![0.5; 4096];
    values[77] = f32::NAN;
    made::write(&dir.path().join("m.safetensors"), &[Made::f32("m.up_proj.weight", &[64, 64], &values)]);
    for name in OUTPUTS {
        put_in_the_way(dir.path(), name);
        let before = state(dir.path());
        assert_refused(&run(dir.path(), &["convert", "m.safetensors", name, "--type", "nf4", "--force"]), &["element 77 is NaN"]);
        assert_eq!(state(dir.path()), before);
    }
    assert_eq!(listing(dir.path()), ["m.safetensors", "out", "out.bqt", "out.safetensors"]);
}

/// The request is refused before the weights are looked at: of a sparse model of 4 TiB that would take hours.
#[test]
fn an_existing_output_is_refused_at_once() {
    let dir = dir();
    sparse(&dir.path().join("m.safetensors"), 2 << 30);
    fs::write(dir.path().join("out.bqt"), "old").unwrap();
    for scheme in ["nf4", "nf4-dq", "affine4:tensor"] {
        let child = quant_in(dir.path(), &["convert", "m.safetensors", "out.bqt", "--type", scheme]).spawn().unwrap();
        assert_refused(&ended(child, Duration::from_secs(30)), &["out.bqt", "exists; use --force"]);
    }
}

#[test]
fn a_full_disk_is_noticed_before_any_weight_is_read() {
    let dir = dir();
    sparse(&dir.path().join("m.safetensors"), 2 << 30);
    for (scheme, output) in [("f16", "out.bqt"), ("nf4", "out"), ("nf4", "out.safetensors"), ("nf4-dq", "out.bqt"), ("nf4-dq", "out")] {
        let child = quant_in(dir.path(), &["convert", "m.safetensors", output, "--type", scheme]).spawn().unwrap();
        assert_refused(&ended(child, Duration::from_secs(30)), &[output, "not enough space"]);
        assert_eq!(listing(dir.path()), ["m.safetensors"]);
    }
}

/// Input, output, and what the message says; `f` is a file, `s` a sharded folder, `b` a BQT file, the others are links.
const SAME: [(&str, &str, &str); 21] = [
    ("f/model.safetensors", "f/model.safetensors", "is an input"),
    ("f/model.safetensors", "f/./../f/model.safetensors", "is an input"),
    ("f/model.safetensors", "soft.safetensors", "is an input"),
    ("f/model.safetensors", "hard.safetensors", "is an input"),
    ("soft.safetensors", "f/model.safetensors", "is an input"),
    ("hard.safetensors", "soft.safetensors", "is an input"),
    ("f/model.safetensors", "f", "holds an input"),
    ("f", "f", "is an input"),
    ("f", "f/", "is an input"),
    ("f", "f/.", "is an input"),
    ("f", "f/model.safetensors", "is an input"),
    ("f", "f/config.json", "is an input"),
    ("f", "link", "is an input"),
    ("link", "f", "is an input"),
    ("s", "s", "is an input"),
    ("s", "s/model-00001-of-00002.safetensors", "is an input"),
    ("s", "s/model-00002-of-00002.safetensors", "is an input"),
    ("s", "s/model.safetensors.index.json", "is an input"),
    ("s/model.safetensors.index.json", "s/model-00002-of-00002.safetensors", "is an input"),
    ("b.bqt", "b.bqt", "is an input"),
    ("b.bqt", "soft.bqt", "is an input"),
];

#[test]
fn an_output_that_is_an_input_is_refused_and_the_input_stays() {
    let dir = dir();
    let at = |name: &str| dir.path().join(name);
    model(&at("f"), false);
    model(&at("s"), true);
    assert_eq!(listing(&at("s")).iter().filter(|n| n.starts_with("model-")).count(), 2);
    quant_ok(&["convert".as_ref(), at("f").as_os_str(), at("b.bqt").as_os_str()]);
    fs::hard_link(at("f/model.safetensors"), at("hard.safetensors")).unwrap();
    for (to, link) in [("f/model.safetensors", "soft.safetensors"), ("f", "link"), ("b.bqt", "soft.bqt")] {
        symlink(to, at(link)).unwrap();
    }
    let (before, names) = (state(dir.path()), listing(dir.path()));
    for (input, output, reason) in SAME {
        for force in [&[][..], &["--force"]] {
            let form: &[&str] = if output.ends_with(".json") { &["--to", "bqt"] } else { &[] };
            let args = [&["convert", input, output, "--type", "f16"], form, force].concat();
            let name = Path::new(output).file_name().expect("a name").to_string_lossy();
            assert_refused(&run(dir.path(), &args), &[&*name, reason]);
            assert_eq!((state(dir.path()), listing(dir.path())), (before.clone(), names.clone()), "{args:?}");
        }
    }
}

/// A link in place of the folder of an input is a name of its own: with --force the link goes, not what it leads to.
#[test]
fn inputs_are_never_changed() {
    let dir = dir();
    model(&dir.path().join("m"), true);
    let before = state(&dir.path().join("m"));
    for args in [
        &["inspect", "m"][..],
        &["verify", "m"],
        &["convert", "m", "a", "--type", "nf4-dq"],
        &["convert", "m", "b.bqt", "--io", "mmap"],
        &["convert", "m", "c.safetensors", "--type", "f16", "--io", "read"],
        &["convert", "m", "d", "--dry-run"],
    ] {
        assert!(run(dir.path(), args).status.success(), "{args:?}");
        assert_eq!(state(&dir.path().join("m")), before, "{args:?}");
    }
    assert_eq!(listing(dir.path()), ["a", "b.bqt", "c.safetensors", "m"]);
}

#[test]
fn the_umask_is_respected() {
    let dir = dir();
    model(&dir.path().join("m"), false);
    for (mask, file, folder) in [(0o022, 0o644, 0o755), (0o027, 0o640, 0o750), (0o077, 0o600, 0o700), (0o002, 0o664, 0o775)] {
        for output in OUTPUTS {
            let name = format!("{mask:o}-{output}");
            let out = run_after(quant_in(dir.path(), &["convert", "m", &name]), move || umask(mask));
            assert!(out.status.success(), "{}", message(&out));
            let path = dir.path().join(&name);
            let files = if path.is_dir() { listing(&path).iter().map(|n| path.join(n)).collect() } else { vec![path.clone()] };
            files.iter().for_each(|f| assert_eq!(mode(f), file, "{f:?} under {mask:o}"));
            assert!(!path.is_dir() || mode(&path) == folder, "{:o} under {mask:o}", mode(&path));
        }
    }
}

fn umask(mask: libc::mode_t) {
    // SAFETY: the call only changes the process's mask.
    unsafe { libc::umask(mask) };
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}
