//! `quant audit` as a whole program: figures that must be equal whichever way they are measured, exit codes, and what
//! is refused. The figures themselves are compared with numpy by `peers/audit.py`.

use std::path::{Path, PathBuf};

use quant_tests::made::{Made, write};
use quant_tests::{command, convert, here, peak, quant, quant_ok, refused, sha256, tiny_llama};
use serde_json::Value;

/// `quant audit … --json`, which must succeed.
fn audit<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> Value {
    let mut all: Vec<&std::ffi::OsStr> = vec!["audit".as_ref()];
    all.extend(args.iter().map(AsRef::as_ref));
    all.push("--json".as_ref());
    serde_json::from_str(&quant_ok(&all)).unwrap()
}

fn tensors(report: &Value) -> &Vec<Value> {
    report["schemes"][0]["tensors"].as_array().unwrap()
}

fn folder(name: &str) -> PathBuf {
    if name == "tiny-llama" { tiny_llama() } else { here("data/models").join(name) }
}

/// A model is the same in every format, whatever names and layouts they give its tensors.
#[test]
fn a_model_and_its_f32_gguf_do_not_differ() {
    let dir = tempfile::tempdir().unwrap();
    for (name, n) in [("tiny-llama", 39), ("mixtral", 23), ("gemma2", 24), ("phi3", 17)] {
        let gguf = dir.path().join(format!("{name}.gguf"));
        convert(&folder(name), &gguf, &["--outtype", "f32"]);
        for (a, b) in [(&folder(name), &gguf), (&gguf, &folder(name)), (&folder(name), &folder(name)), (&gguf, &gguf)] {
            let report = audit(&[a, b]);
            let rows = tensors(&report);
            assert!(rows.iter().all(|row| row["metrics"]["exact"] == true && row["metrics"]["rmse"] == 0.0), "{name}");
            assert_eq!(report["schemes"][0]["model"]["relative_error"], 0.0);
            assert!(["missing", "extra", "problems"].iter().all(|key| report[key].as_array().unwrap().is_empty()), "{name}: {report}");
            assert!(!rows.is_empty() && (a == b || rows.len() == n), "{name}: {} tensors", rows.len());
        }
    }
}

/// Removes what tells of sizes.
fn without_sizes(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|key, _| !["bytes", "bits_per_weight", "compression"].contains(&key.as_str()));
            map.values_mut().for_each(without_sizes);
        }
        Value::Array(items) => items.iter_mut().for_each(without_sizes),
        _ => {}
    }
}

/// What a scheme would do is what it does.
#[test]
fn tried_and_written_have_the_same_figures() {
    let dir = tempfile::tempdir().unwrap();
    for (name, scheme, ending) in [
        ("tiny-llama", "q8_0", ".gguf"),
        ("mixtral", "q8_0", ".gguf"),
        ("gemma2", "q8_0", ".gguf"),
        ("phi3", "q8_0", ".gguf"),
        ("tiny-llama", "q4_k_m", ".gguf"),
        ("tiny-llama", "nf4-dq", ""),
        ("tiny-llama", "int8", ""),
        ("tiny-llama", "affine4:row", ".bqt"),
        ("tiny-llama", "absmax3:tensor", ".bqt"),
        ("tiny-llama", "affine5:32", ".bqt"),
    ] {
        let out = dir.path().join(format!("{name}-{}{ending}", scheme.replace(':', "-")));
        convert(&folder(name), &out, &["--type", scheme]);
        let written = audit(&[folder(name).as_os_str(), out.as_os_str()]);
        let tried = audit(&[folder(name).as_os_str(), "--type".as_ref(), scheme.as_ref()]);
        assert!(tensors(&written).iter().any(|row| row["metrics"]["exact"] == false), "{name} {scheme}");
        let [mut written, mut tried] = [written, tried].map(|report| report["schemes"][0].clone());
        if ending.is_empty() {
            // Only the folder has the descriptions of bitsandbytes beside the parts of tensors.
            [&mut written, &mut tried].into_iter().for_each(without_sizes);
        }
        for key in ["tensors", "layers", "roles", "model"] {
            assert!(!written[key].is_null(), "{key}");
            assert!(written[key] == tried[key], "{name} {scheme} {key}");
        }
    }
}

/// A recipe would do what it does, and what it lacks is said.
#[test]
fn tried_recipes_have_the_figures_of_their_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (model, matrix) = (tiny_llama().display().to_string(), here("data/tiny-llama.imatrix.gguf").display().to_string());
    for (name, ending, options) in [
        ("mix.toml", ".gguf", vec!["--target-bpw", "5", "--imatrix", &matrix]),
        ("schemes.toml", ".bqt", vec!["--target-bpw", "7.5", "--schemes", "affine4,affine6"]),
    ] {
        let (recipe, out) = (path(name), path(&format!("out{ending}")));
        let mut plan = vec!["plan", &model, &recipe, "--json", "--keep", "attn_k|self_attn.k_proj", "--keep", "no.such", "--weight", "nor.this=2"];
        plan.extend(&options);
        let report: Value = serde_json::from_str(&quant_ok(&plan)).unwrap();
        assert!(report["notes"].to_string().contains("the patterns 'nor.this', 'no.such' match no tensor"), "{report}");
        let importance: &[&str] = if ending == ".gguf" { &["--imatrix", &matrix] } else { &[] };
        convert(&tiny_llama(), Path::new(&out), &[&["--recipe", &recipe], importance].concat());
        let written = audit(&[&[model.as_str(), &out], importance].concat());
        let tried = audit(&[&[model.as_str(), "--recipe", &recipe], importance].concat());
        assert_eq!(tried["schemes"][0]["scheme"], name);
        for key in ["tensors", "layers", "roles", "model"] {
            assert!(written["schemes"][0][key] == tried["schemes"][0][key], "{name} {key}");
        }
        let is_exact = |row: &&Value| row["role"] == "attn_k" && row["metrics"]["exact"] == true;
        assert_eq!(tensors(&tried).iter().filter(is_exact).count(), 4);
        // The recipe that was made with importance, without.
        let said = quant(&["convert", &model, &path(&format!("other{ending}")), "--recipe", &recipe, "--dry-run"]);
        let expects = "was made with an importance matrix; without --imatrix errors are greater than it expects";
        assert_eq!(String::from_utf8(said.stderr).unwrap().contains(expects), ending == ".gguf", "{name}");
        assert_eq!(audit(&[&model, "--recipe", &recipe])["notes"].to_string().contains(expects), ending == ".gguf", "{name}");
    }
    std::fs::write(path("both.toml"), "mix = \"q4_k_m\"\ntype = \"nf4\"\n").unwrap();
    assert!(refused(&["audit", &model, "--recipe", &path("both.toml")]).contains("has both a mix and a type"));
    assert!(refused(&["audit", &model, "--recipe", &path("absent.toml")]).contains("absent.toml"));
}

/// What a conversion says of types that do not fit, trying it says, too.
#[test]
fn fallbacks_of_what_is_tried_are_said() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("model.safetensors");
    let name = "model.layers.0.mlp.up_proj.weight";
    write(&file, &[Made { name: name.into(), dtype: "F32", shape: vec![64, 96], bytes: vec![0; 64 * 96 * 4] }]);
    let report = audit(&[file.as_os_str(), "--type".as_ref(), "q4_k_m".as_ref()]);
    let wanted = format!("q4_k_m: fallback: rows of 96 are no multiple of 256, q4_k became q5_0 ({name})");
    assert!(report["notes"].as_array().unwrap().iter().any(|note| *note == wanted), "{}", report["notes"]);
}

#[test]
fn figures_do_not_depend_on_threads_or_memory() {
    let args = |more: &'static [&'static str]| {
        let model = tiny_llama().into_os_string();
        let mut args = vec![model];
        args.extend(["--type", "q4_k_m,nf4-dq"].iter().chain(more).map(std::ffi::OsString::from));
        audit(&args)["schemes"].clone()
    };
    let usual = args(&["--threads", "2"]);
    assert_eq!(usual.as_array().unwrap().len(), 2);
    assert_eq!(args(&["--threads", "1", "--memory", "8MiB"]), usual);
    assert_eq!(args(&["--threads", "7", "--io", "mmap"]), usual);
}

/// What was measured while a BQT file was written is in it, and is what a comparison finds.
#[test]
fn a_bqt_file_keeps_what_was_measured() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("m.bqt");
    let text = convert(&tiny_llama(), &out, &["--type", "nf4-dq", "--audit", "--json"]);
    let told: Value = serde_json::from_str(&text).unwrap();
    let compared = audit(&[tiny_llama().as_os_str(), out.as_os_str()]);
    let kept = audit(&[&out]);
    assert_eq!(told["audit"]["tensors"].as_array().unwrap().len(), 39);
    for (t, c) in told["audit"]["tensors"].as_array().unwrap().iter().zip(tensors(&compared)) {
        assert_eq!((&t["name"], &t["metrics"], &t["weights"]), (&c["name"], &c["metrics"], &c["weights"]));
    }
    let differing: Vec<&Value> = tensors(&compared).iter().filter(|row| row["metrics"]["exact"] == false).collect();
    assert_eq!((differing.len(), tensors(&kept).len()), (28, 28));
    for (row, c) in tensors(&kept).iter().zip(&differing) {
        assert_eq!(row["name"], c["name"]);
        for key in ["n", "rmse", "relative_error", "sqnr_db", "max_abs_error", "max_abs_index", "mean_error", "cosine"] {
            assert!(!row["metrics"][key].is_null(), "{} {key}", c["name"]);
            assert_eq!(row["metrics"][key], c["metrics"][key], "{} {key}", c["name"]);
        }
    }
    // What was not measured is null, empty in CSV, and no figure of a condition.
    let row = &tensors(&kept)[0];
    assert_eq!(row["from"], "bf16");
    let measured: Vec<&str> = row["weights"].as_object().unwrap().iter().filter(|(_, v)| !v.is_null()).map(|(key, _)| key.as_str()).collect();
    assert_eq!(measured, ["non_finite"]);
    let csv = quant_ok(&["audit", out.to_str().unwrap(), "--csv"]);
    assert!(csv.lines().skip(1).all(|line| line.ends_with(&format!("{}0", ",".repeat(18)))), "{csv}");
    for metric in ["outliers>0", "kurtosis>9", "error_p99>0", "noise_ratio>2", "output_error>5%"] {
        let error = refused(&["audit", out.to_str().unwrap(), "--fail-if", metric]);
        assert!(error.contains("a file that tells of itself has no") && error.contains("quant audit MODEL "), "{error}");
    }
    assert_eq!(quant(&["audit", out.to_str().unwrap(), "--fail-if", "relative_error>5%"]).status.code(), Some(1));
    // A copy of the file keeps them too, and the tensors are those of a conversion without --audit.
    let copy = dir.path().join("copy.bqt");
    convert(&out, &copy, &[]);
    assert_eq!(audit(&[&copy])["schemes"][0]["tensors"], kept["schemes"][0]["tensors"]);
    let silent = dir.path().join("silent.bqt");
    convert(&tiny_llama(), &silent, &["--type", "nf4-dq"]);
    assert!(audit(&[&out, &silent])["schemes"][0]["model"]["exact"] == true);
    assert!(refused(&["audit".as_ref(), silent.as_os_str()]).contains("nothing to compare with (it was written without --audit"));
    quant_ok(&["verify".as_ref(), out.as_os_str()]);
}

#[test]
fn conditions_decide_the_exit_code() {
    let run = |conditions: &[&str]| {
        let mut args = vec!["audit".to_owned(), tiny_llama().display().to_string(), "--type".into(), "q4_k_m".into(), "--json".into()];
        args.extend(conditions.iter().flat_map(|c| ["--fail-if".to_owned(), (*c).to_owned()]));
        let out = quant(&args);
        let report: Value = serde_json::from_slice(&out.stdout).unwrap_or_default();
        (out.status.code().unwrap(), report["failed"].as_array().map_or(0, Vec::len), report)
    };
    assert_eq!(run(&["sqnr_db<20", "model:relative_error>0.1"]).0, 0);
    let (code, n, report) = run(&["ffn_down:sqnr_db<23"]);
    let below = tensors(&report).iter().filter(|row| row["metrics"]["sqnr_db"].as_f64().is_some_and(|v| v < 23.0));
    assert_eq!((code, n), (1, below.filter(|row| row["name"].as_str().unwrap().contains("ffn_down")).count()));
    assert!(n > 0);
    assert_eq!(run(&["model:relative_error>0.01"]).0, 1);
    // Infinite figures: no condition holds that asks for less than everything, and all hold that ask for more.
    let exact = |condition: &str| {
        let model = tiny_llama().display().to_string();
        quant(&["audit", &model, &model, "--fail-if", condition]).status.code().unwrap()
    };
    assert_eq!(["sqnr_db<1000", "sqnr_db>1000", "rmse>0", "relative_error>=0"].map(exact), [0, 1, 0, 1]);
    // Errors of weights, of outputs and of steps that are all 0 are infinite.
    let dir = tempfile::tempdir().unwrap();
    let (a, b, x) = (dir.path().join("a.safetensors"), dir.path().join("b.safetensors"), dir.path().join("x.safetensors"));
    let model = |w: [f32; 32]| [Made::f32("x.weight", &[1, 32], &w), Made::f32("y.weight", &[1, 32], &[1.0; 32])];
    write(&a, &model([0.0; 32]));
    write(&b, &model([9.0; 32]));
    write(&x, &["x", "y"].map(|name| Made::f32(name, &[2, 32], &[1.0; 64])));
    let [a, b, x] = [a, b, x].map(|path| path.display().to_string());
    let gated = quant(&["audit", &a, &b, "--activations", &x, "--csv", "--fail-if", "activation_error>0.05"]);
    assert_eq!(gated.status.code(), Some(1));
    // CSV has no place for conditions.
    assert!(String::from_utf8(gated.stderr).unwrap().contains("x.weight (b.safetensors): activation_error is infinite (activation_error>0.05)"));
    write(Path::new(&a), &["up", "down"].map(|name| Made::f32(&format!("model.layers.0.mlp.{name}_proj.weight"), &[2, 32], &[1e-12; 64])));
    assert_eq!(quant(&["audit", &a, "--type", "q8_0", "--pure", "--fail-if", "noise_ratio>2"]).status.code(), Some(1));
    // Names differ from scheme to scheme; roles do not, and a scheme that a condition does not reach is named.
    let both = |condition: &str, imatrix: &[&str]| {
        let model = tiny_llama().display().to_string();
        let out = quant(&[&["audit", &model, "--type", "q4_k_m,nf4-dq", "--json", "--fail-if", condition], imatrix].concat());
        let report: Value = serde_json::from_slice(&out.stdout).unwrap();
        let failed: std::collections::BTreeSet<String> =
            report["failed"].as_array().unwrap().iter().map(|row| row["scheme"].as_str().unwrap().to_owned()).collect();
        (out.status.code().unwrap(), failed.into_iter().collect::<Vec<_>>().join(","), report)
    };
    assert_eq!(both("ffn_down:relative_error>0.08", &[]).0, 1);
    assert_eq!(both("ffn_down:relative_error>0.08", &[]).1, "nf4-dq");
    assert_eq!(both("model:relative_error>0.01", &[]).1, "nf4-dq,q4_k_m");
    let (code, failed, report) = both("ffn_down.weight:relative_error>0.01", &[]);
    assert_eq!((code, failed.as_str()), (2, "q4_k_m"));
    assert_eq!(report["problems"].as_array().unwrap().len(), 1);
    assert!(report["problems"][0].as_str().unwrap().contains("of nf4-dq"), "{}", report["problems"]);
    let matrix = here("data/tiny-llama.imatrix.gguf").display().to_string();
    let (code, failed, report) = both("model:output_error>0.01", &["--imatrix", &matrix]);
    assert_eq!((code, failed.as_str()), (2, "q4_k_m"));
    assert!(report["notes"].to_string().contains("--imatrix: it has entries for none of the tensors of nf4-dq"), "{}", report["notes"]);
    assert_eq!(run(&["output_error>0.1"]).0, 2);
    assert_eq!(run(&["nonsense>0.1"]).0, 2);
    let csv = quant(&["audit", &a, "--type", "q8_0", "--pure", "--csv"]);
    let csv = String::from_utf8(csv.stdout).unwrap();
    assert!(csv.lines().count() == 3 && !csv.contains("inf"), "{csv}");
    // Shares in percent; a limit that most likely was meant so; tensors that a condition says nothing of.
    assert_eq!((run(&["model:relative_error>6%"]).0, run(&["model:relative_error>5%"]).0), (0, 1));
    let (code, _, report) = run(&["model:relative_error>5"]);
    assert!(code == 0 && report["notes"].to_string().contains("relative_error is a share of 1, so 5 means 500 %"), "{}", report["notes"]);
    let model = tiny_llama().display().to_string();
    for condition in ["output_error>20%", "model:output_error>20%"] {
        let out = quant(&["audit", &model, "--type", "q4_k_m", "--imatrix", &matrix, "--json", "--fail-if", condition]);
        let report: Value = serde_json::from_slice(&out.stdout).unwrap();
        let said = report["notes"].to_string();
        assert_eq!(out.status.code(), Some(0));
        let wanted = format!("--fail-if '{condition}': says nothing of output.weight and 1 more: no output_error is known there");
        assert!(said.contains(&wanted), "{said}");
    }
}

/// `--only` knows roles, is asked of each scheme, and what it leaves nothing of is no success.
#[test]
fn only_is_asked_of_every_scheme() {
    let model = tiny_llama().display().to_string();
    let run = |only: &str| {
        let out = quant(&["audit", &model, "--type", "q4_k_m,nf4-dq", "--json", "--only", only]);
        let report: Value = serde_json::from_slice(&out.stdout).unwrap_or_default();
        let compared = |i: usize| report["schemes"][i]["compared"].as_u64();
        (out.status.code().unwrap(), compared(0), compared(1), report)
    };
    let (code, a, b, _) = run("ffn_down|^head$");
    assert_eq!((code, a, b), (0, Some(5), Some(5)));
    let (code, a, b, report) = run("blk.0");
    assert_eq!((code, a, b), (2, Some(9), Some(0)));
    assert_eq!(report["problems"], serde_json::json!(["--only 'blk.0' matches no tensor and no role of nf4-dq"]));
    let nothing = &report["schemes"][1]["model"];
    assert_eq!((&nothing["n"], &nothing["exact"], &nothing["rmse"], &nothing["cosine"]), (&0.into(), &false.into(), &Value::Null, &Value::Null));
    assert!(refused(&["audit", &model, "--type", "q4_k_m,nf4-dq", "--only", "zzz"]).contains("--only 'zzz' matches no tensor and no role"));
    let report = audit(&[model.as_str(), &model, "--only", "ffn_down"]);
    assert_eq!(report["schemes"][0]["compared"], 4);
    // Two recipes of the same name are told apart; the same one twice is a slip.
    let dir = tempfile::tempdir().unwrap();
    let [a, b] = ["a", "b"].map(|name| dir.path().join(name).join("r.toml").display().to_string());
    for (path, scheme) in [(&a, "nf4"), (&b, "int8")] {
        std::fs::create_dir(Path::new(path).parent().unwrap()).unwrap();
        std::fs::write(path, format!("type = \"{scheme}\"\n")).unwrap();
    }
    let report = audit(&[model.as_str(), "--recipe", &a, "--recipe", &b]);
    assert_eq!((&report["schemes"][0]["scheme"], &report["schemes"][1]["scheme"]), (&a.clone().into(), &b.into()));
    assert!(refused(&["audit", &model, "--recipe", &a, "--recipe", &a]).contains("r.toml' is asked for twice"));
    assert!(refused(&["audit", &model, "--type", "nf4,NF4"]).contains("'nf4' is asked for twice"));
}

/// The JSON has the form that is published.
#[test]
fn the_json_follows_its_schema() {
    let dir = tempfile::tempdir().unwrap();
    let schema: Value = serde_json::from_slice(&std::fs::read(here("../docs/audit.schema.json")).unwrap()).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    let (model, bqt) = (tiny_llama().display().to_string(), dir.path().join("m.bqt"));
    let matrix = here("data/tiny-llama.imatrix.gguf").display().to_string();
    convert(&tiny_llama(), &bqt, &["--type", "nf4", "--audit"]);
    let (a, b) = pair(dir.path(), &[Made::f32("x.weight", &[4, 6], &[f32::NAN; 24]), Made::f32("z.weight", &[1], &[0.0])]);
    let (a, b, bqt) = (a.display().to_string(), b.display().to_string(), bqt.display().to_string());
    let lines: [&[&str]; 6] = [
        &[&model, &model],
        &[&model, "--type", "q4_k_m,int8", "--imatrix", &matrix, "--spectral", "--fail-if", "rmse>0", "--fail-if", "blk.0:rmse>0"],
        &[&model, &bqt],
        &[&bqt],
        &[&a, &b],
        &[&model, "--type", "nf4", "--only", "layers.0"],
    ];
    for line in lines {
        let out = quant(&[&["audit", "--json"], line].concat());
        let mut report: Value = serde_json::from_slice(&out.stdout).unwrap();
        let errors: Vec<String> = schema.iter_errors(&report).take(4).map(|e| format!("{}: {e}", e.instance_path())).collect();
        assert!(errors.is_empty(), "{line:?} {errors:?}");
        report["schemes"][0]["model"]["rmse"] = "none".into();
        report["more"] = 1.into();
        assert_eq!(schema.iter_errors(&report).count(), 2);
    }
}

/// Made models, so that exactly one thing is wrong.
fn pair(dir: &Path, candidate: &[Made]) -> (PathBuf, PathBuf) {
    let (a, b) = (dir.join("a.safetensors"), dir.join("b.safetensors"));
    let w: Vec<f32> = (0..24).map(|i| i as f32 - 12.0).collect();
    write(&a, &[Made::f32("x.weight", &[4, 6], &w), Made::f32("y.weight", &[24], &w), Made::raw("ids", "I64", &[1], vec![0; 8])]);
    write(&b, candidate);
    (a, b)
}

#[test]
fn what_cannot_be_compared_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let w: Vec<f32> = (0..24).map(|i| i as f32 - 12.0).collect();
    let mut bad = w.clone();
    (bad[7], bad[9]) = (f32::NAN, f32::INFINITY);
    let good = || Made::f32("y.weight", &[24], &w);
    for (candidate, word, list) in [
        (vec![good()], "'x.weight' is missing", "missing"),
        (vec![good(), Made::f32("x.weight", &[4, 6], &w), Made::f32("z", &[1], &w[..1])], "'z' is only in the candidate", "extra"),
        (vec![good(), Made::f32("x.weight", &[6, 4], &w)], "it is transposed", "problems"),
        (vec![good(), Made::f32("x.weight", &[4, 5], &w[..20])], "[4, 5] in the candidate", "problems"),
        (vec![good(), Made::f32("x.weight", &[4, 6], &bad)], "2 pairs with a NaN or an infinity", "problems"),
    ] {
        let (a, b) = pair(dir.path(), &candidate);
        let out = quant(&["audit".as_ref(), a.as_os_str(), b.as_os_str(), "--json".as_ref()]);
        let (report, error): (Value, Value) = (serde_json::from_slice(&out.stdout).unwrap(), serde_json::from_slice(&out.stderr).unwrap());
        assert_eq!(out.status.code(), Some(2), "{word}");
        assert!(error["error"].as_str().unwrap().contains(word), "{error}");
        assert_eq!(report[list].as_array().unwrap().len(), 1, "{word}");
        assert_eq!(report["skipped"][0]["name"], "ids");
        let partial = quant(&["audit".as_ref(), a.as_os_str(), b.as_os_str(), "--partial".as_ref()]);
        assert_eq!(partial.status.code(), Some(if list == "problems" { 2 } else { 0 }), "{word}");
    }
    let (a, b) = pair(dir.path(), &[Made::f32("other", &[1], &w[..1])]);
    assert!(refused(&["audit".as_ref(), a.as_os_str(), b.as_os_str()]).contains("is another model"));
    // Nothing to compare in a tensor: no figures, and no success.
    let (a, b) = [0, 1].map(|i| dir.path().join(format!("nothing{i}.safetensors"))).into();
    for (shape, values) in [(&[0, 32][..], &[][..]), (&[1, 2][..], &[f32::NAN; 2][..])] {
        [&a, &b].into_iter().for_each(|path| write(path, &[Made::f32("x.weight", shape, values)]));
        let out = quant(&["audit".as_ref(), a.as_os_str(), b.as_os_str(), "--json".as_ref()]);
        let report: Value = serde_json::from_slice(&out.stdout).unwrap();
        let metrics = &tensors(&report)[0]["metrics"];
        assert_eq!((out.status.code(), &metrics["n"], &metrics["exact"]), (Some(2), &0.into(), &false.into()));
        assert!(["rmse", "cosine", "relative_error", "error_p50"].iter().all(|key| metrics[key].is_null()), "{metrics}");
        assert_eq!(report["problems"].as_array().unwrap().len(), 1, "{report}");
    }
    // A tied head is a head, whichever side has it.
    let table = || Made::f32("model.embed_tokens.weight", &[4, 6], &w);
    write(&a, &[table()]);
    write(&b, &[table(), Made::f32("lm_head.weight", &[4, 6], &w)]);
    for pair in [[&a, &b], [&b, &a]] {
        let report = audit(&pair.map(|path| path.as_os_str()).into_iter().chain(["--only".as_ref(), "^head$".as_ref()]).collect::<Vec<_>>());
        assert_eq!((tensors(&report).len(), &tensors(&report)[0]["name"]), (1, &"lm_head.weight".into()));
    }
    let (a, b) = pair(dir.path(), &[Made::f32("x.weight", &[4, 5], &w[..20])]);
    let error = refused(&["audit".as_ref(), a.as_os_str(), b.as_os_str()]);
    assert!(error.contains("is another model") && error.contains("[4, 5] in the candidate"), "{error}");
}

#[test]
fn all_zero_weights_are_defined() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a.safetensors"), dir.path().join("b.safetensors"));
    write(&a, &[Made::f32("x.weight", &[2, 4], &[0.0; 8]), Made::f32("y.weight", &[2, 4], &[0.0; 8])]);
    write(&b, &[Made::f32("x.weight", &[2, 4], &[0.0; 8]), Made::f32("y.weight", &[2, 4], &[0.5; 8])]);
    let report = audit(&[&a, &b]);
    let (same, other) = (&tensors(&report)[0]["metrics"], &tensors(&report)[1]["metrics"]);
    assert_eq!((&same["relative_error"], &same["cosine"], &same["sqnr_db"]), (&0.0.into(), &1.0.into(), &Value::Null));
    assert_eq!((&other["relative_error"], &other["cosine"], &other["rmse"]), (&Value::Null, &0.0.into(), &0.5.into()));
}

/// Known matrices, so that the figures can be checked by hand.
#[test]
fn activations_and_the_spectral_norm_are_those_of_known_matrices() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b, x] = ["a", "b", "x"].map(|name| dir.path().join(format!("{name}.safetensors")));
    // E = [[3, 0], [0, −5]]; X = [[1, 0], [1, 1]]: XEᵀ = [[3, 0], [3, −5]], XWᵀ = [[1, 0], [1, 2]].
    write(&a, &[Made::f32("l.weight", &[2, 2], &[1.0, 0.0, 0.0, 2.0])]);
    write(&b, &[Made::f32("l.weight", &[2, 2], &[4.0, 0.0, 0.0, -3.0])]);
    write(&x, &[Made::f32("l", &[2, 2], &[1.0, 0.0, 1.0, 1.0])]);
    let report = audit(&[a.as_os_str(), b.as_os_str(), "--activations".as_ref(), x.as_os_str(), "--spectral".as_ref()]);
    let metrics = &tensors(&report)[0]["metrics"];
    assert!((metrics["activation_error"].as_f64().unwrap() - (43.0f64 / 6.0).sqrt()).abs() < 1e-12, "{metrics}");
    assert!((metrics["spectral_norm"].as_f64().unwrap() - 5.0).abs() < 1e-4, "{metrics}");
}

#[test]
fn the_page_is_one_file_and_replaces_nothing_unasked() {
    let dir = tempfile::tempdir().unwrap();
    let page = dir.path().join("report.html");
    let args = |more: &[&str]| {
        let mut args: Vec<String> = vec!["audit".into(), tiny_llama().display().to_string(), "--type".into(), "q4_k_m,int8".into(), "--html".into()];
        args.push(page.display().to_string());
        args.extend(more.iter().map(|s| (*s).to_owned()));
        args
    };
    quant_ok(&args(&[]));
    let text = std::fs::read_to_string(&page).unwrap();
    assert!(text.starts_with("<!DOCTYPE html>") && text.contains("blk.3.ffn_down.weight") && !text.contains("http://") && !text.contains("https://"));
    assert!(refused(&args(&[])).contains("report.html"));
    quant_ok(&args(&["--force"]));
    // No file that is read is replaced, whatever is asked for.
    let copied = dir.path().join("copied");
    convert(&tiny_llama(), &copied, &[]);
    let weights = copied.join("model.safetensors").display().to_string();
    let before = sha256(Path::new(&weights));
    refused(&["audit", &copied.display().to_string(), "--type", "int8", "--html", &weights, "--force"]);
    refused(&["plan", &copied.display().to_string(), &weights, "--target-bpw", "5", "--force"]);
    assert_eq!(sha256(Path::new(&weights)), before);
}

/// f32 matrices of 256 MiB each, all but a few numbers holes, and one of 16 MiB for what reads a model many times.
#[test]
fn a_large_model_is_measured_in_little_memory() {
    let dir = tempfile::tempdir().unwrap();
    let model = |name: &str, value: f32, rows: u64| {
        let path = dir.path().join(name);
        let columns = 1u64 << 13;
        let header = format!("{{\"x.weight\":{{\"dtype\":\"F32\",\"shape\":[{rows},{columns}],\"data_offsets\":[0,{}]}}}}", rows * columns * 4);
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(value.to_le_bytes());
        std::fs::write(&path, &bytes).unwrap();
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_len(bytes.len() as u64 - 4 + rows * columns * 4).unwrap();
        path
    };
    let [a, b] = [("a", 1.0), ("b", 1.5)].map(|(name, value)| model(&format!("{name}.safetensors"), value, 1 << 13));
    let [c, d] = [("c", 1.0), ("d", 1.5)].map(|(name, value)| model(&format!("{name}.safetensors"), value, 1 << 9));
    let out = dir.path().join("out.bqt");
    let [a, b, c, d, out] = [&a, &b, &c, &d, &out].map(|path| path.to_str().unwrap());
    for args in [
        &["audit", a, b][..],
        &["audit", a, "--type", "affine4:row"],
        &["audit", c, d, "--spectral"],
        &["convert", a, out, "--type", "absmax8", "--audit"],
        &["plan", a, "--target-bpw", "5", "--schemes", "affine4,affine6"],
    ] {
        let peak = peak(command(args));
        assert!(peak < 100 << 20, "{args:?}: {} MiB resident at most", peak >> 20);
    }
}
