//! Whole files against llama-quantize of llama.cpp 0.5.0-dev: see `peers/llama_quantize.py`.

use std::path::Path;

use quant_tests::{command, here, json, sha256};
use serde_json::Value;

/// Conversions at once: each has threads of its own.
const AT_ONCE: usize = 2;

/// Makes one case into `out`. Returns whether it was refused.
///
/// The model and the matrix are named relative to `data`, as for the golden: the file keeps the path of the matrix as it was typed.
fn is_refused(name: &str, case: &Value, out: &Path) -> bool {
    let arguments = case["arguments"].as_array().unwrap().iter().map(|a| a.as_str().unwrap());
    let mut command = command(&["convert", "tiny-llama.gguf"]);
    command.current_dir(here("data")).arg(out).args(["--type", case["mix"].as_str().unwrap()]).args(arguments);
    let done = command.output().unwrap();
    let text = String::from_utf8(done.stderr).unwrap();
    let Some(expected) = case["sha256"].as_str() else {
        assert_eq!((done.status.code(), text.lines().count()), (Some(2), 1), "{name}: {text}");
        assert!(!out.exists(), "{name}");
        return true;
    };
    assert_eq!(done.status.code(), Some(0), "{name}: {text}");
    assert_eq!(sha256(out), expected, "{name}");
    std::fs::remove_file(out).unwrap();
    false
}

#[test]
fn every_mix_and_option_gives_the_file_of_llama_quantize() {
    let dir = tempfile::tempdir().unwrap();
    let golden = json(&here("goldens/llama_quantize.json"));
    let cases: Vec<(&String, &Value)> = golden.as_object().unwrap().iter().collect();
    let share = |first: usize| {
        let out = dir.path().join(format!("{first}.gguf"));
        cases.iter().skip(first).step_by(AT_ONCE).filter(|(name, case)| is_refused(name, case, &out)).count()
    };
    let refused: usize = std::thread::scope(|scope| {
        let running: Vec<_> = (0..AT_ONCE).map(|first| scope.spawn(move || share(first))).collect();
        running.into_iter().map(|thread| thread.join().expect("all cases of the thread are as they should be")).sum()
    });
    assert_eq!((cases.len(), refused), (147, 11));
}
