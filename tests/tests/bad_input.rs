//! Bad and odd input through the real binary: refused with exit code 2 and one line that says which file and why, or read.
//!
//! The inputs are the tables under `tests/hostile`; each test also says how many there must be.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use quant_formats::Io;
use quant_tests::command;
use serde_json::Value;

#[path = "../hostile/mod.rs"]
mod hostile;

use hostile::run::{Ran, run};
use hostile::{Refused, accepted, bnb, bombs, bqt, folders, requests, safetensors};

/// What opening may cost, whatever a file says about itself.
const MEMORY: u64 = 100_000_000;
const LIMIT: Duration = Duration::from_secs(120);

/// A folder with a sub-folder for inputs and one for outputs.
struct Room(tempfile::TempDir);

impl Room {
    fn new() -> Room {
        let room = Room(tempfile::tempdir().expect("a folder"));
        std::fs::create_dir(room.inputs()).expect("made");
        std::fs::create_dir(room.outputs()).expect("made");
        room
    }

    fn inputs(&self) -> PathBuf {
        self.0.path().join("in")
    }

    fn outputs(&self) -> PathBuf {
        self.0.path().join("out")
    }

    fn run(&self, args: &[&std::ffi::OsStr]) -> Ran {
        run(command(args).current_dir(self.0.path()), LIMIT)
    }

    fn inspect(&self, path: &Path, option: &str) -> Ran {
        self.run(&["inspect".as_ref(), path.as_os_str(), option.as_ref()])
    }

    /// Converts to a BQT file in the folder for outputs.
    fn convert(&self, path: &Path) -> Ran {
        self.run(&["convert".as_ref(), path.as_os_str(), self.outputs().join("o.bqt").as_os_str()])
    }

    fn left_over(&self) -> Vec<std::ffi::OsString> {
        std::fs::read_dir(self.outputs()).expect("listed").map(|e| e.expect("an entry").file_name()).collect()
    }
}

/// Collects what is wrong, so that one run shows all of it.
#[derive(Default)]
struct Verdict {
    seen: HashSet<String>,
    wrong: Vec<String>,
}

impl Verdict {
    fn add(&mut self, name: &str, step: &str, ran: &Ran, mut flaws: Vec<String>) {
        if ran.peak >= MEMORY {
            flaws.push(format!("took {} bytes of memory", ran.peak));
        }
        self.seen.insert(name.to_owned());
        if !flaws.is_empty() {
            self.wrong.push(format!("{name} ({step}): {}\n    {}", flaws.join("; "), shortened(&ran.stderr)));
        }
    }

    /// Exactly `n` cases of different names were tried, and none was wrong.
    fn assert(self, n: usize) {
        assert!(self.wrong.is_empty(), "{} wrong:\n{}", self.wrong.len(), self.wrong.join("\n"));
        assert_eq!(self.seen.len(), n);
    }
}

fn shortened(text: &str) -> String {
    text.trim_end().chars().take(400).collect()
}

fn assert_refused(cases: &[Refused], n: usize) {
    let mut verdict = Verdict::default();
    for case in cases {
        let room = Room::new();
        let path = (case.make)(&room.inputs());
        let steps = [("inspect", room.inspect(&path, "--all")), ("convert", room.convert(&path))];
        for (step, ran) in steps {
            verdict.add(case.name, step, &ran, flaws(&ran, &room, &[case.file, case.reason]));
        }
    }
    verdict.assert(n);
}

fn flaws(ran: &Ran, room: &Room, parts: &[&str]) -> Vec<String> {
    let mut flaws = ran.flaws(parts);
    let left = room.left_over();
    if !left.is_empty() {
        flaws.push(format!("left {left:?}"));
    }
    flaws
}

#[test]
fn safetensors_files_with_a_defect_are_refused() {
    assert_refused(&safetensors::cases(), 142);
}

#[test]
fn folders_with_a_defect_are_refused() {
    assert_refused(&folders::cases(), 93);
}

#[test]
fn bitsandbytes_checkpoints_with_a_defect_are_refused() {
    assert_refused(&bnb::cases(), 84);
    assert_refused(&bnb::int8_cases(), 18);
}

#[test]
fn bqt_files_with_a_defect_are_refused() {
    assert_refused(&bqt::cases(), 20);
}

#[test]
fn requests_that_cannot_be_met_are_refused() {
    let mut verdict = Verdict::default();
    let room = Room::new();
    requests::make(room.0.path());
    for (name, args, names, reason) in requests::CASES {
        let args: Vec<&std::ffi::OsStr> = args.iter().map(std::ffi::OsStr::new).collect();
        let ran = room.run(&args);
        verdict.add(name, "request", &ran, flaws(&ran, &room, &[names, reason]));
    }
    verdict.assert(46);
}

/// Every beginning of a small file is refused, by every way of reading; the whole file is not.
#[test]
fn every_truncation_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let files = [("x.safetensors", safetensors::file(safetensors::TWO.as_bytes(), 12)), ("x.bqt", bqt::SOUND.clone())];
    let mut tried = 0;
    for (name, bytes) in &files {
        let path = dir.path().join(name);
        for n in 0..=bytes.len() {
            std::fs::write(&path, &bytes[..n]).unwrap();
            for io in [Io::Mmap, Io::Read] {
                match quant_formats::open(&path, io) {
                    Ok(checkpoint) => assert_eq!((n, checkpoint.tensors.len()), (bytes.len(), 2), "{name}"),
                    Err(e) => assert!(n < bytes.len() && e.to_string().contains(name), "{n} bytes: {e}"),
                }
                tried += 1;
            }
        }
    }
    assert_eq!(tried, 2 * (8 + safetensors::TWO.len() + 12 + 1) + 2 * (bqt::SOUND.len() + 1));
}

/// The same where the file is a shard, and through the binary at the boundaries.
#[test]
fn truncations_at_boundaries_are_refused_by_the_binary() {
    let bytes = safetensors::file(safetensors::TWO.as_bytes(), 12);
    let data = bytes.len() - 12;
    let mut verdict = Verdict::default();
    for n in [0, 1, 7, 8, 9, data - 1, data, data + 1, data + 7, data + 8, data + 9, data + 11] {
        let room = Room::new();
        let path = room.inputs().join("x.safetensors");
        std::fs::write(&path, &bytes[..n]).unwrap();
        let ran = room.convert(&path);
        verdict.add(&format!("{n} bytes"), "convert", &ran, flaws(&ran, &room, &["x.safetensors", ": "]));
    }
    verdict.assert(12);
}

#[test]
fn odd_but_legal_inputs_are_read_and_come_back() {
    let mut verdict = Verdict::default();
    for (name, make, n_tensors, n_bytes, note) in accepted::CASES {
        let room = Room::new();
        let path = make(&room.inputs());
        let inspected = room.inspect(&path, "--json");
        verdict.add(name, "inspect", &inspected, inspected_flaws(&inspected, n_tensors, n_bytes, note));
        let converted = room.convert(&path);
        verdict.add(name, "convert", &converted, succeeded(&converted));
        let verified = room.run(&["verify".as_ref(), room.outputs().join("o.bqt").as_os_str()]);
        verdict.add(name, "verify", &verified, succeeded(&verified));
        if !path.is_dir() && path.extension().is_none_or(|e| e != "json") {
            let back = room.outputs().join("back.safetensors");
            let ran = room.run(&["convert".as_ref(), room.outputs().join("o.bqt").as_os_str(), back.as_os_str()]);
            let same = std::fs::read(&back).ok() == std::fs::read(&path).ok();
            let mut flaws = succeeded(&ran);
            flaws.extend((!same).then(|| "the file did not come back byte for byte".to_owned()));
            verdict.add(name, "back", &ran, flaws);
        }
    }
    verdict.assert(55);
}

fn succeeded(ran: &Ran) -> Vec<String> {
    if ran.code() == Some(0) { Vec::new() } else { vec![format!("ended with {}", ran.status)] }
}

fn inspected_flaws(ran: &Ran, n_tensors: usize, n_bytes: u64, note: &str) -> Vec<String> {
    let mut flaws = succeeded(ran);
    let found: Value = serde_json::from_str(&ran.stdout).unwrap_or_default();
    if found["tensors"].as_array().map(Vec::len) != Some(n_tensors) || found["bytes"].as_u64() != Some(n_bytes) {
        flaws.push(format!("found {} bytes, needed {n_tensors} tensors and {n_bytes} bytes", found["bytes"]));
    }
    let notes: Vec<&str> = found["notes"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !note.is_empty() && !notes.iter().any(|n| n.contains(note)) {
        flaws.push(format!("no note says '{note}', only {notes:?}"));
    }
    flaws
}

/// Header bombs are refused, with the reason, in little memory and time.
#[test]
fn bombs_are_refused_in_little_memory() {
    let mut verdict = Verdict::default();
    for (name, make, reason) in bombs::CASES {
        let room = Room::new();
        let path = room.inputs().join("x.safetensors");
        make(&path);
        for option in ["--io=mmap", "--io=read"] {
            let ran = room.inspect(&path, option);
            verdict.add(name, option, &ran, flaws(&ran, &room, &["x.safetensors", reason]));
        }
    }
    verdict.assert(11);
}

/// Characters that move the cursor, hide text or change its direction: C0 and C1 controls, DEL, and Unicode's `Bidi_Control`,
/// line and paragraph separators, and byte order mark.
const TRICKS: [char; 28] = [
    '\0', '\u{7}', '\u{8}', '\t', '\n', '\u{b}', '\r', '\u{1b}', '\u{7f}', '\u{85}', '\u{9b}', '\u{9d}', '\u{61c}', '\u{200e}', '\u{200f}',
    '\u{2028}', '\u{2029}', '\u{202a}', '\u{202b}', '\u{202c}', '\u{202d}', '\u{202e}', '\u{2066}', '\u{2067}', '\u{2068}', '\u{2069}', '\u{200b}',
    '\u{feff}',
];

fn raw_tricks(text: &str) -> Vec<char> {
    text.chars().filter(|c| *c != '\n' && TRICKS.contains(c)).collect()
}

/// A name for each trick, and the file that has a tensor, a metadata key and a metadata value of each.
fn tricky(path: &Path) -> Vec<String> {
    let names: Vec<String> = TRICKS.iter().enumerate().map(|(i, c)| format!("{i}<{c}>end")).collect();
    let quoted = |name: &String| Value::from(name.as_str()).to_string();
    let pairs: Vec<String> = names.iter().map(|n| format!("{}:{}", quoted(n), quoted(n))).collect();
    let entry = |(i, name): (usize, &String)| format!("{}:{{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[{i},{}]}}", quoted(name), i + 1);
    let entries: Vec<String> = names.iter().enumerate().map(entry).collect();
    let header = format!("{{\"__metadata__\":{{{}}},{}}}", pairs.join(","), entries.join(","));
    std::fs::write(path, safetensors::file(header.as_bytes(), names.len())).expect("written");
    names
}

#[test]
fn hostile_names_are_escaped_in_text() {
    let room = Room::new();
    let path = room.inputs().join("x.safetensors");
    tricky(&path);
    let (bqt, folder) = (room.outputs().join("o.bqt"), room.outputs().join("o"));
    let dry: [&std::ffi::OsStr; 4] = ["convert".as_ref(), path.as_os_str(), folder.as_os_str(), "--dry-run".as_ref()];
    let runs = [room.inspect(&path, "--all"), room.run(&dry), room.convert(&path), room.inspect(&bqt, "--all")];
    let escaped = |c: &char| format!("<{}>end", c.escape_unicode());
    for (i, ran) in runs.iter().enumerate() {
        assert_eq!(ran.code(), Some(0), "{}", ran.stderr);
        assert_eq!(raw_tricks(&ran.stdout), [], "run {i}");
        let missing: Vec<char> = TRICKS.into_iter().filter(|c| i != 2 && !ran.stdout.contains(&escaped(c))).collect();
        assert_eq!(missing, [], "run {i}");
    }
}

#[test]
fn hostile_names_are_escaped_in_json_and_read_back() {
    let room = Room::new();
    let path = room.inputs().join("x.safetensors");
    let names = tricky(&path);
    let out = room.outputs().join("o");
    let dry: [&std::ffi::OsStr; 5] = ["convert".as_ref(), path.as_os_str(), out.as_os_str(), "--dry-run".as_ref(), "--json".as_ref()];
    for ran in [room.inspect(&path, "--json"), room.run(&dry)] {
        assert_eq!(ran.code(), Some(0), "{}", ran.stderr);
        assert_eq!(raw_tricks(&ran.stdout), []);
        let found: Value = serde_json::from_str(&ran.stdout).unwrap();
        let found: HashSet<&str> = found["tensors"].as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap()).collect();
        assert_eq!(found, names.iter().map(String::as_str).collect());
    }
}

/// The message that is one of text without `--json`, as an object on one line, with the same exit code.
#[test]
fn with_json_errors_are_json() {
    let room = Room::new();
    let header = r#"{"a\u001b\"\\\u202eé":<1,4>}"#;
    folders::shard(&room.inputs(), "a.safetensors", header, 4);
    let model = room.inputs().join("a.safetensors");
    let model = model.to_str().expect("a path of text");
    let requests: [&[&str]; 6] = [
        &["inspect", model],
        &["verify", model],
        &["convert", model, "out.bqt"],
        &["verify", "no\nwhere"],
        &["inspect", "--no-such-option"],
        &["convert"],
    ];
    for request in requests {
        let args = |more: &[&'static str]| request.iter().chain(more).map(|a| std::ffi::OsStr::new(*a)).collect::<Vec<_>>();
        let (plain, json) = (room.run(&args(&[])), room.run(&args(&["--json"])));
        assert_eq!((plain.code(), json.code(), json.stdout.as_str(), json.stderr.lines().count()), (Some(2), Some(2), "", 1), "{}", json.stderr);
        assert!(raw_tricks(&json.stderr).is_empty(), "{:?}", json.stderr);
        let object: Value = serde_json::from_str(&json.stderr).expect("one JSON object");
        assert_eq!(object.as_object().map(|o| o.keys().collect::<Vec<_>>()), Some(vec![&"error".to_owned()]));
        let text = object["error"].as_str().expect("a text");
        assert_eq!(plain.stderr, format!("error: {}\n", quant_core::error::Printable(text)));
    }
    // After `--` it is the name of a file.
    assert!(room.run(&["inspect".as_ref(), "--".as_ref(), "--json".as_ref()]).stderr.starts_with("error: "));
}

/// Where a message quotes a name: a tensor, a dtype, a key, a shard, a path, a pattern, a file beside the weights.
#[test]
fn hostile_names_are_escaped_in_messages() {
    let mut verdict = Verdict::default();
    for (i, trick) in TRICKS.into_iter().enumerate() {
        let room = Room::new();
        for (place, ran) in messages(&room, trick) {
            let mut flaws: Vec<String> = raw_tricks(&ran.stderr).iter().map(|c| format!("a raw {c:?}")).collect();
            flaws.extend((ran.code() != Some(2) || ran.stderr.lines().count() != 1).then(|| format!("{} and {:?}", ran.status, ran.stderr)));
            verdict.add(&format!("{place} {i}"), "refused", &ran, flaws);
        }
    }
    verdict.assert(TRICKS.len() * 5);
}

fn messages(room: &Room, trick: char) -> [(&'static str, Ran); 5] {
    let quoted = Value::from(format!("n{trick}n")).to_string();
    let file = |name: &str, header: &str| {
        folders::shard(&room.inputs(), name, header, 4);
        room.inputs().join(name)
    };
    let tensor = file("1.safetensors", &format!("{{{quoted}:<1,4>}}"));
    let dtype = file("2.safetensors", &format!("{{\"a\":{{\"dtype\":{quoted}}}}}"));
    let key = file("3.safetensors", &format!("{{\"__metadata__\":{{{quoted}:\"\",{quoted}:\"\"}}}}"));
    // A path cannot hold NUL; any other one does.
    let path = file(&format!("n{}n", if trick == '\0' { '\u{1}' } else { trick }), "{}x");
    let model = room.inputs().join("model");
    folders::sound(&model);
    std::fs::write(model.join(folders::INDEX), format!("{{\"weight_map\":{{\"a\":{}}}}}", quoted.replace("n\"", "/..\""))).expect("written");
    [("tensor", tensor), ("dtype", dtype), ("key", key), ("path", path), ("shard", model)].map(|(place, path)| (place, room.inspect(&path, "--all")))
}

#[test]
fn hostile_names_are_escaped_in_notes() {
    let room = Room::new();
    let model = room.inputs().join("m");
    requests::model(&model, r#"{"architectures": ["A\u001b[2J\u202e"], "quantization_config": {"quant_method": "q\u001b\u061c"}}"#);
    for trick in TRICKS.into_iter().filter(|&c| c != '\0') {
        std::fs::write(model.join(format!("n{trick}n.bin")), "").unwrap();
        std::fs::write(model.join(format!("n{trick}n.json")), "{}").unwrap();
    }
    let out = room.outputs().join("o");
    let shown = room.inspect(&model, "--all");
    for trick in TRICKS.into_iter().filter(|&c| c != '\0') {
        let name = format!("n{}n", trick.escape_unicode());
        assert!(shown.stdout.contains(&format!("{name}.bin")) && shown.stdout.contains(&format!("{name}.json")), "{name}");
    }
    assert!(shown.stdout.contains(r"A\u{1b}[2J\u{202e}") && shown.stdout.contains(r"'q\u{1b}\u{61c}'"), "{}", shown.stdout);
    for ran in [shown, room.inspect(&model, "--json"), room.run(&["convert".as_ref(), model.as_os_str(), out.as_os_str()])] {
        assert_eq!(ran.code(), Some(0), "{}", ran.stderr);
        assert_eq!((raw_tricks(&ran.stdout), raw_tricks(&ran.stderr)), (vec![], vec![]));
    }
}
