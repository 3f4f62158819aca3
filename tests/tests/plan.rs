//! `quant plan` as a whole program: budgets, sizes and types that must be those of the file that its recipe gives, and what is refused.

use std::path::Path;

use quant_tests::made::{Made, write};
use quant_tests::{convert, here, quant_ok, refused, tiny_llama};
use serde_json::Value;

#[test]
fn a_plan_is_repeatable_keeps_its_budget_and_is_obeyed() {
    let dir = tempfile::tempdir().unwrap();
    let plan = |name: &str, more: &[&str]| {
        let recipe = dir.path().join(name);
        let mut args = vec!["plan".to_owned(), here("data/tiny-llama.gguf").display().to_string(), recipe.display().to_string(), "--json".into()];
        args.extend(more.iter().map(|s| (*s).to_owned()));
        let report: Value = serde_json::from_str(&quant_ok(&args)).unwrap();
        (std::fs::read_to_string(&recipe).unwrap(), report, recipe)
    };
    let (first, report, recipe) = plan("a.toml", &["--target-bpw", "4.6", "--threads", "1"]);
    let (second, ..) = plan("b.toml", &["--target-bpw", "4.6", "--threads", "5"]);
    assert_eq!(first, second);
    let (bytes, budget) = (report["bytes"].as_u64().unwrap(), report["budget"].as_u64().unwrap());
    assert!(bytes <= budget && bytes as f64 > 0.99 * budget as f64, "{bytes} of {budget}");
    let out = dir.path().join("planned.gguf");
    let done: Value = serde_json::from_str(&convert(&here("data/tiny-llama.gguf"), &out, &["--recipe", recipe.to_str().unwrap(), "--json"])).unwrap();
    assert_eq!(done["tensor_bytes"].as_u64().unwrap(), bytes);
    let types = |report: &Value, key: &str| {
        let rows = report["tensors"].as_array().unwrap().iter();
        rows.map(|row| (row["name"].as_str().unwrap().to_owned(), row[key].as_str().unwrap().to_owned()))
            .collect::<std::collections::BTreeMap<_, _>>()
    };
    let written = types(&done, "to");
    assert!(types(&report, "scheme").iter().all(|(name, scheme)| written[name] == *scheme));
    // At the size of a mix the plan expects a smaller error than that of the mix.
    let mix = report["mixes"].as_array().unwrap().iter().find(|m| m["mix"] == "q4_k_m").unwrap().clone();
    let (_, same_size, _) = plan("c.toml", &["--target-bpw", &format!("{}", mix["bits_per_weight"].as_f64().unwrap() + 1e-6)]);
    let of = |report: &Value| (report["bytes"].as_u64().unwrap(), report["error"].as_f64().unwrap());
    let ((bytes, error), (mix_bytes, mix_error)) = (of(&same_size), of(&mix));
    assert!(bytes <= mix_bytes && error < mix_error && error > 0.0, "{same_size}");
    // The smallest file within an error.
    let (_, limited, _) = plan("d.toml", &["--max-error", "5%"]);
    assert!(limited["error"].as_f64().unwrap() <= 0.05 && limited["error"].as_f64().unwrap() > 0.045, "{limited}");
    // And a size of the file: with everything in it.
    let (_, _, recipe) = plan("e.toml", &["--target-size", "2.2MB", "--full"]);
    let out = dir.path().join("sized.gguf");
    convert(&here("data/tiny-llama.gguf"), &out, &["--recipe", recipe.to_str().unwrap()]);
    let size = std::fs::metadata(out).unwrap().len();
    assert!(size <= 2_200_000 && size > 2_150_000, "{size}");
    let small = ["plan".to_owned(), here("data/tiny-llama.gguf").display().to_string(), "--target-bpw".into(), "1.5".into()];
    assert!(refused(&small).contains("the target is too small"));
}

/// A recipe for other names or for another model would convert to something else than it says.
#[test]
fn recipes_for_something_else_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (model, recipe) = (tiny_llama().display().to_string(), path("gguf.toml"));
    quant_ok(&["plan", &model, &recipe, "--target-bpw", "5"]);
    let error = refused(&["convert", &model, &path("m.bqt"), "--recipe", &recipe]);
    assert!(error.contains("none of its rules matches a tensor") && error.contains("gguf.toml"), "{error}");
    let text = std::fs::read_to_string(&recipe).unwrap();
    let parameters = format!("parameters = {}", 3_672_320);
    assert!(text.contains(&parameters), "{text}");
    // Pruned it is the same model.
    quant_ok(&["convert", &model, &path("pruned.gguf"), "--recipe", &recipe, "--prune-layers", "1", "--dry-run"]);
    std::fs::write(path("other.toml"), text.replace(&parameters, "parameters = 134515008")).unwrap();
    let wanted = "was made for a model of 134515008 weights, found 3672320";
    assert!(refused(&["convert", &model, &path("m.gguf"), "--recipe", &path("other.toml")]).contains(wanted));
    assert!(refused(&["audit", &model, "--recipe", &path("other.toml")]).contains(wanted));
    std::fs::write(path("names.toml"), "type = \"nf4\"\n[[tensor]]\nmatch = \"blk\"\ntype = \"int8\"\n").unwrap();
    assert!(
        refused(&["audit", &model, "--recipe", &path("names.toml")]).contains("it has 'blk', and the tensors have names such as 'lm_head.weight'")
    );
    assert!(std::fs::read_dir(dir.path()).unwrap().all(|entry| entry.unwrap().path().extension().unwrap() == "toml"));
}

/// The command that a plan prints writes the file, with just the options that are needed.
#[test]
fn the_next_command_of_a_plan_works() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let matrix = here("data/tiny-llama.imatrix.gguf").display().to_string();
    convert(&tiny_llama(), Path::new(&path("a 'b'.gguf")), &["--type", "q8_0"]);
    convert(&tiny_llama(), Path::new(&path("nf4")), &["--type", "nf4-dq"]);
    convert(&tiny_llama(), Path::new(&path("int8.bqt")), &["--type", "int8"]);
    let (gguf, bqt) = (vec!["--target-bpw", "5", "--imatrix", &matrix], vec!["--target-bpw", "8", "--schemes", "affine4,affine8"]);
    let mut asking = Vec::new();
    for (i, model) in [tiny_llama().display().to_string(), path("a 'b'.gguf"), path("nf4"), path("int8.bqt")].iter().enumerate() {
        for (options, ending) in [(&gguf, "gguf"), (&bqt, "bqt")] {
            let recipe = path(&format!("{i} {ending}.toml"));
            let text = quant_ok(&[&["plan", model, &recipe], options.as_slice()].concat());
            let next = text.rsplit_once("Next: quant ").unwrap().1.trim();
            asking.push(next.contains("--allow-requantize"));
            let output = path(&format!("{i}.{ending}"));
            let command = next.replace(&format!("OUTPUT.{ending}"), &format!("'{output}'"));
            let done = |command: &str| {
                let shell = format!("\"$1\" {command}");
                std::process::Command::new("sh").args(["-c", &shell, "sh"]).arg(quant_tests::binary()).output().unwrap()
            };
            if next.contains("--allow-requantize") {
                assert_eq!(done(&command.replace("--allow-requantize", "")).status.code(), Some(2), "{command}");
            }
            let out = done(&command);
            assert!(out.status.success() && Path::new(&output).exists(), "{command}: {}", String::from_utf8_lossy(&out.stderr));
        }
    }
    assert_eq!(asking, [false, false, true, true, false, false, false, false]);
}

/// The fixed mixes beside a plan keep what the plan keeps, and sizes are those of files.
#[test]
fn mixes_keep_what_the_plan_keeps() {
    let dir = tempfile::tempdir().unwrap();
    let (recipe, out) = (dir.path().join("recipe.toml"), dir.path().join("m.gguf"));
    let keep = ["--keep", "ffn_down|output\\.weight"];
    let mut args = vec!["plan".into(), tiny_llama().into_os_string(), recipe.clone().into(), "--json".into(), "--target-bpw".into(), "8".into()];
    args.extend(keep.map(Into::into));
    let report: Value = serde_json::from_str(&quant_ok(&args)).unwrap();
    let names: Vec<&str> = report["kept"].as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap()).collect();
    assert_eq!(names.iter().filter(|name| name.contains("ffn_down") || **name == "output.weight").count(), 5, "{names:?}");
    let dry = |more: &[&str]| -> Value { serde_json::from_str(&convert(&tiny_llama(), &out, &[&["--dry-run", "--json"], more].concat())).unwrap() };
    let mixes = report["mixes"].as_array().unwrap();
    assert_eq!(mixes.len(), 12, "all but iq3_xs, which needs importance");
    for mix in mixes {
        let done = dry(&[&["--type", mix["mix"].as_str().unwrap()], keep.as_slice()].concat());
        assert_eq!(mix["bytes"], done["tensor_bytes"], "{mix}");
    }
    let done = dry(&["--recipe", recipe.to_str().unwrap()]);
    assert_eq!((&report["bytes"], &report["file_bytes"]), (&done["tensor_bytes"], &done["output_bytes"]));
}

/// What has a type of ggml already keeps it, though the mix would give another type where rules name the others.
#[test]
fn plans_of_partly_quantized_models_are_those_of_their_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let model = path("mixed.gguf");
    convert(&here("data/tiny-llama.gguf"), Path::new(&model), &["--type", "q5_k_m"]);
    let size = std::fs::metadata(&model).unwrap().len();
    for (i, target) in [["--target-bpw", "8"], ["--target-bpw", "4.6"], ["--target-size", "2.5MB"], ["--max-error", "4%"]].iter().enumerate() {
        let (recipe, out) = (path(&format!("{i}.toml")), path(&format!("{i}.gguf")));
        let report: Value = serde_json::from_str(&quant_ok(&["plan", &model, &recipe, "--json", target[0], target[1]])).unwrap();
        let done: Value =
            serde_json::from_str(&convert(Path::new(&model), Path::new(&out), &["--recipe", &recipe, "--allow-requantize", "--json"])).unwrap();
        let found = std::fs::metadata(&out).unwrap().len();
        assert_eq!((&report["bytes"], report["file_bytes"].as_u64()), (&done["tensor_bytes"], Some(found)));
        let scheme = |row: &Value, key: &str| (row["name"].as_str().unwrap().to_owned(), row[key].as_str().unwrap().to_owned());
        let rows = |report: &Value, list: &str, key: &str| report[list].as_array().unwrap().iter().map(|row| scheme(row, key)).collect::<Vec<_>>();
        let mut planned = [rows(&report, "tensors", "scheme"), rows(&report, "kept", "scheme")].concat();
        let mut written = rows(&done, "tensors", "to");
        planned.sort();
        written.sort();
        assert_eq!(planned, written);
        assert!(target[0] != "--target-size" || found <= 2_500_000);
        assert!(i > 0 || found < size + 30_000);
    }
    // Where nothing is quantized again nothing needs to be allowed.
    let q8 = path("q8.gguf");
    convert(&tiny_llama(), Path::new(&q8), &["--type", "q8_0"]);
    let text = quant_ok(&["plan", &q8, &path("q8.toml"), "--target-bpw", "20", "--schemes", "q6_k,q8_0"]);
    assert!(text.contains("Next: quant convert") && !text.contains("--allow-requantize"), "{text}");
    convert(Path::new(&q8), Path::new(&path("q8-again.gguf")), &["--recipe", &path("q8.toml")]);
}

/// Zeros between tensors depend on their types, and count.
#[test]
fn target_sizes_hold_whatever_lies_between_tensors() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let tensor = |i: u64| {
        let values: Vec<f32> = (0..(37 + 2 * i) * 256).map(|j| ((j * 7919 + i * 31) % 1000) as f32 - 500.0).collect();
        Made::f32(&format!("blk.{i}.ffn_up.weight"), &[37 + 2 * i, 256], &values)
    };
    write(&path("m.safetensors"), &(0..12).map(tensor).collect::<Vec<_>>());
    let (model, recipe, out) = (path("m.gguf"), path("recipe.toml"), path("out.gguf"));
    convert(&path("m.safetensors"), &model, &["--set", "general.architecture=str:llama"]);
    for target in [50_000, 60_000, 70_001, 90_000, 120_000] {
        let size = target.to_string();
        let args = ["plan", model.to_str().unwrap(), recipe.to_str().unwrap(), "--force", "--json", "--target-size", &size];
        let report: Value = serde_json::from_str(&quant_ok(&args)).unwrap();
        convert(&model, &out, &["--recipe", recipe.to_str().unwrap(), "--force"]);
        let found = std::fs::metadata(&out).unwrap().len();
        assert_eq!(report["file_bytes"].as_u64(), Some(found), "{target}");
        assert!(found <= target && found > target - 3000, "{found} of {target}");
    }
    // The smallest file is a target that can be reached, and no smaller one is.
    let plan = |target: [&str; 2]| {
        let all = ["plan", model.to_str().unwrap(), "--json", "--schemes", "q2_k"].into_iter().chain(target);
        all.map(str::to_owned).collect::<Vec<_>>()
    };
    let report: Value = serde_json::from_str(&quant_ok(&plan(["--target-bpw", "20"]))).unwrap();
    let least = report["file_bytes"].as_u64().unwrap();
    let reached: Value = serde_json::from_str(&quant_ok(&plan(["--target-size", &least.to_string()]))).unwrap();
    assert_eq!(reached["file_bytes"].as_u64(), Some(least));
    assert!(refused(&plan(["--target-size", &(least - 1).to_string()])).contains(&format!("need at least {least} bytes")));
    let error = refused(&[plan(["--target-bpw", "20"]), vec!["--weight=.*=1e6".to_owned(); 3]].concat());
    assert!(error.contains("the factors of --weight multiply to 1e18"), "{error}");
}

/// A type that needs importance is no choice for a tensor that the matrix does not know.
#[test]
fn importance_is_asked_for_tensor_by_tensor() {
    let dir = tempfile::tempdir().unwrap();
    let (model, recipe, out) = (here("data/tiny-llama.gguf"), dir.path().join("r.toml"), dir.path().join("m.gguf"));
    let matrix = here("data/tiny-llama.imatrix.gguf").display().to_string();
    let (m, r) = (model.to_str().unwrap(), recipe.to_str().unwrap());
    quant_ok(&["plan", m, r, "--target-bpw", "3.4", "--schemes", "iq2_xs,q8_0", "--imatrix", &matrix]);
    convert(&model, &out, &["--recipe", r, "--imatrix", &matrix]);
    let error = refused(&["plan", m, "--target-bpw", "3", "--schemes", "iq2_xs", "--imatrix", &matrix]);
    assert!(error.contains("the matrix has no entry of it"), "{error}");
}

/// A matrix that knows none of the tensors weighs nothing, and one of other sizes is named.
#[test]
fn importance_of_other_models_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("other.dat");
    let (model, matrix) = (tiny_llama().display().to_string(), here("data/tiny-llama.imatrix.gguf").display().to_string());
    let plan = |more: &[&str]| refused(&[&["plan", model.as_str(), "--target-bpw", "8"], more].concat());
    let error = plan(&["--schemes", "affine4,affine8", "--imatrix", &matrix]);
    assert!(error.contains("tiny-llama.imatrix.gguf: has entries for none of these tensors"), "{error}");
    let name = b"blk.0.attn_q.weight";
    let mut bytes: Vec<u8> = [1, name.len() as u32].iter().flat_map(|v| v.to_le_bytes()).collect();
    bytes.extend(name);
    bytes.extend([1_u32, 5].iter().flat_map(|v| v.to_le_bytes()));
    bytes.extend([1.0_f32; 5].iter().flat_map(|v| v.to_le_bytes()));
    std::fs::write(&file, bytes).unwrap();
    let other = file.to_str().unwrap();
    for error in [plan(&["--imatrix", other]), refused(&["audit", &model, "--type", "q4_k_m", "--imatrix", other])] {
        assert!(error.contains("blk.0.attn_q.weight") && error.contains("of another model: found 5 values, needed 256"), "{error}");
        assert!(error.matches("other.dat").count() == 1 && !error.contains("tiny-llama"), "{error}");
    }
}

/// A plan for BQT: the same whatever comes first in `--schemes`, as large as its file, with the errors that its recipe has, though it
/// cannot use the importance that weighs them.
#[test]
fn plans_for_bqt_are_those_of_their_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (gguf, matrix) = (here("data/tiny-llama.gguf").display().to_string(), here("data/tiny-llama.imatrix.gguf").display().to_string());
    let folder = tiny_llama().display().to_string();
    let plan = |model: &str, recipe: &str, more: &[&str]| -> Value {
        serde_json::from_str(&quant_ok(&[&["plan", model, &path(recipe), "--json"], more].concat())).unwrap()
    };
    // What is a choice, and what is chosen, does not depend on an order; a type that the model has is one.
    let of = |name: &str, schemes: &str| {
        let report = plan(&folder, name, &["--target-bpw", "9", "--schemes", schemes]);
        (report["tensors"].clone(), report["error"].clone(), std::fs::read_to_string(path(name)).unwrap())
    };
    for (i, schemes) in [["bf16,nf4", "nf4,bf16"], ["f16,nf4,int8", "nf4,int8,f16"]].iter().enumerate() {
        let [a, b] = [0, 1].map(|j| of(&format!("order{i}{j}.toml"), schemes[j]));
        assert_eq!(a, b);
        assert_eq!(a.0.as_array().unwrap().len(), 28, "linear layers");
        assert!(a.0.as_array().unwrap().iter().all(|t| t["scheme"] != "bf16" || t["error"] == 0.0));
    }
    assert_eq!(plan(&folder, "dense.toml", &["--target-bpw", "9", "--schemes", "f8_e4m3,f16"])["tensors"].as_array().unwrap().len(), 39);
    // With importance: errors of outputs under encoding without it, as convert does it.
    let schemes = ["--schemes", "affine4,affine8,q4_k,iq2_xs", "--imatrix", &matrix, "--full"];
    let report = plan(&gguf, "weighed.toml", &[&["--target-bpw", "7.2"], schemes.as_slice()].concat());
    let notes = report["notes"].to_string();
    assert!(notes.contains("iq2_xs: not tried, it needs importance, which a recipe for BQT cannot use"), "{notes}");
    let recipe = std::fs::read_to_string(path("weighed.toml")).unwrap();
    assert!(recipe.contains("Errors were weighed by the importance matrix") && !recipe.contains("imatrix = true"), "{recipe}");
    let done = convert(Path::new(&gguf), Path::new(&path("weighed.bqt")), &["--recipe", &path("weighed.toml"), "--json"]);
    let done: Value = serde_json::from_str(&done).unwrap();
    assert!(done["notes"].as_array().unwrap().is_empty(), "{}", done["notes"]);
    let audited: Value = serde_json::from_str(&quant_ok(&["audit", &gguf, &path("weighed.bqt"), "--imatrix", &matrix, "--json"])).unwrap();
    let found = audited["schemes"][0]["tensors"].as_array().unwrap();
    let planned = report["tensors"].as_array().unwrap();
    assert!(["affine8", "q4_k"].iter().all(|scheme| planned.iter().any(|t| t["scheme"] == **scheme)), "{planned:?}");
    for t in planned {
        let row = found.iter().find(|row| row["name"] == t["name"]).unwrap();
        let (a, b) = (t["error"].as_f64().unwrap(), row["metrics"]["output_error"].as_f64().unwrap());
        assert!((a - b).abs() <= 1e-9 * b, "{t} {b}");
    }
    // Sizes are those of files.
    for (i, target) in [["--target-bpw", "8"], ["--target-size", "3.6MB"], ["--target-size", "4MB"]].iter().enumerate() {
        let (recipe, out) = (format!("{i}.toml"), path(&format!("{i}.bqt")));
        let report = plan(&folder, &recipe, &[target[0], target[1], "--schemes", "affine4,affine8,absmax6"]);
        convert(Path::new(&folder), Path::new(&out), &["--recipe", &path(&recipe)]);
        let found = std::fs::metadata(&out).unwrap().len();
        assert_eq!(report["file_bytes"].as_u64(), Some(found));
        assert!(target[0] != "--target-size" || (found <= 4_000_000 && found > 3_500_000), "{found}");
        // With the figures of an audit it keeps the target, too.
        convert(Path::new(&folder), Path::new(&out), &["--recipe", &path(&recipe), "--audit", "--force"]);
        assert!(target[0] != "--target-size" || std::fs::metadata(&out).unwrap().len() <= 4_000_000);
    }
    assert!(std::fs::metadata(path("1.bqt")).unwrap().len() <= 3_600_000);
}

/// What has a type already keeps it without loss.
#[test]
fn what_stays_as_it_is_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("iq4.gguf");
    convert(&here("data/tiny-llama.gguf"), &model, &["--type", "iq4_xs"]);
    let report = quant_ok(&["plan", model.to_str().unwrap(), "--target-bpw", "4.6", "--schemes", "iq4_xs,q3_k,q4_k", "--json"]);
    let report: Value = serde_json::from_str(&report).unwrap();
    let same: Vec<&Value> = report["tensors"].as_array().unwrap().iter().filter(|t| t["scheme"] == "iq4_xs").collect();
    assert!(same.len() > 20 && same.iter().all(|t| t["error"] == 0.0), "{same:?}");
    // A folder in f32 is rounded on its way to GGUF; numbers below the least normal one of f16 lose digits then.
    let folder = dir.path().join("f32");
    convert(&tiny_llama(), &folder, &["--type", "f32"]);
    let report: Value =
        serde_json::from_str(&quant_ok(&["plan", folder.to_str().unwrap(), "--target-bpw", "16", "--schemes", "f16,q8_0", "--json"])).unwrap();
    let rounded = report["tensors"].as_array().unwrap().iter().filter(|t| t["scheme"] == "f16" && t["error"] != 0.0);
    assert!(rounded.count() > 20, "{report}");
}

/// Types that are no choice, targets that cannot be used up, patterns that match nothing: all are said.
#[test]
fn what_a_plan_leaves_out_is_said() {
    let model = here("data/tiny-llama.gguf").display().to_string();
    let notes = |more: &[&str]| {
        let report: Value = serde_json::from_str(&quant_ok(&[&["plan", model.as_str(), "--json"], more].concat())).unwrap();
        report["notes"].to_string()
    };
    let said = notes(&["--target-bpw", "16", "--schemes", "q4_k,iq1_s,iq2_xs", "--keep", "no.such"]);
    assert!(said.contains("iq1_s, iq2_xs: not tried, it needs an importance matrix (--imatrix)"), "{said}");
    assert!(said.contains("every tensor has the type with the least error, and"), "{said}");
    assert!(said.contains("the pattern 'no.such' matches no tensor; names are such as '"), "{said}");
    assert!(!notes(&["--target-bpw", "4.6"]).contains("of the target are left"));
    let matrix = here("data/tiny-llama.imatrix.gguf").display().to_string();
    for (command, more) in [("plan", vec!["--target-bpw", "4"]), ("audit", vec!["--type", "q8_0"]), ("estimate", vec![])] {
        let error = refused(&[&[command, matrix.as_str()], more.as_slice()].concat());
        assert!(error.contains("is an importance matrix, needed a model"), "{error}");
    }
}

/// The embeddings of a model without a head serve as none.
#[test]
fn embeddings_without_a_head_weigh_less() {
    let dir = tempfile::tempdir().unwrap();
    let tensor = |name: &str, rows: u64| {
        let values: Vec<f32> = (0..rows * 256).map(|j| ((j * 7919) % 1000) as f32 - 500.0).collect();
        Made::f32(name, &[rows, 256], &values)
    };
    write(&dir.path().join("m.safetensors"), &[tensor("token_embd.weight", 64), tensor("blk.0.ffn_up.weight", 64)]);
    let weight = |sets: &[&str]| {
        let model = dir.path().join("m.gguf");
        let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
        convert(&dir.path().join("m.safetensors"), &model, &[&["--force", "--set", "general.architecture=str:llama"], sets.as_slice()].concat());
        let text = quant_ok(&["plan", model.to_str().unwrap(), "--target-bpw", "4.6", "--schemes", "q4_k", "--json"]);
        let report: Value = serde_json::from_str(&text).unwrap();
        let of = |name: &str| {
            let t = report["tensors"].as_array().unwrap().iter().find(|t| t["name"] == name).unwrap();
            t["share"].as_f64().unwrap() / t["error"].as_f64().unwrap().powi(2)
        };
        of("token_embd.weight") / of("blk.0.ffn_up.weight")
    };
    let near = |found: f64, wanted: f64| assert!((found - wanted).abs() < 1e-9, "{found} {wanted}");
    near(weight(&[]), 1.5);
    near(weight(&["llama.attention.causal=bool:true"]), 1.5);
    near(weight(&["llama.attention.causal=bool:false"]), 0.6);
    near(weight(&["llama.pooling_type=u32:1"]), 0.6);
}

/// Errors of a plan in full are those of its recipe, of what is rounded on the way to GGUF, too; and nothing needs to be allowed that
/// `convert` does without being asked.
#[test]
fn full_plans_have_the_errors_of_their_recipes() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    convert(&tiny_llama(), Path::new(&path("int8")), &["--type", "int8"]);
    convert(&tiny_llama(), Path::new(&path("q8.gguf")), &["--type", "q8_0"]);
    for (i, (model, schemes)) in
        [(path("int8"), "q4_k,q8_0"), (path("q8.gguf"), "f16,affine4:32"), (path("int8"), "nf4,affine5:row")].iter().enumerate()
    {
        let recipe = path(&format!("{i}.toml"));
        let line = ["plan", model, &recipe, "--full", "--target-bpw", "20", "--schemes", schemes];
        assert!(!quant_ok(&line).contains("--allow-requantize"));
        let report: Value = serde_json::from_str(&quant_ok(&[line.as_slice(), &["--force", "--json"]].concat())).unwrap();
        let tried: Value = serde_json::from_str(&quant_ok(&["audit", model, "--recipe", &recipe, "--json"])).unwrap();
        let rows = tried["schemes"][0]["tensors"].as_array().unwrap();
        assert!(report["tensors"].as_array().unwrap().len() >= 28);
        for t in report["tensors"].as_array().unwrap() {
            let row = rows.iter().find(|row| row["name"] == t["name"]).unwrap();
            let (planned, found) = (t["error"].as_f64().unwrap(), row["metrics"]["relative_error"].as_f64().unwrap());
            assert!((planned - found).abs() <= 1e-9 * found, "{t} {found}");
        }
    }
}
