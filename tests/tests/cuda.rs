//! `--device` as a whole program: on a stand-in for the driver, whose kernels run in an interpreter; and without one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Output};

use quant_tests::{command, convert, here, quant, quant_ok, sha256, tiny_llama};
use serde_json::Value;

/// A driver for the program, and what it did.
struct Driver {
    folder: tempfile::TempDir,
    variables: Vec<(&'static str, &'static str)>,
}

impl Driver {
    fn new(variables: &[(&'static str, &'static str)]) -> Driver {
        let folder = tempfile::tempdir().unwrap();
        fake_cuda::install(folder.path());
        Driver { folder, variables: variables.to_vec() }
    }

    /// Files by the driver's names that are no libraries: a driver of this machine is not found behind them.
    fn broken() -> Driver {
        let driver = Driver { folder: tempfile::tempdir().unwrap(), variables: Vec::new() };
        for name in ["libcuda.so", "libcuda.so.1"] {
            std::fs::write(driver.folder.path().join(name), b"no library").unwrap();
        }
        driver
    }

    fn command<S: AsRef<std::ffi::OsStr>>(&self, args: &[S]) -> Command {
        let mut command = command(args);
        command.env("LD_LIBRARY_PATH", self.folder.path()).env("FAKE_CUDA_LOG", self.folder.path().join("log")).envs(self.variables.iter().copied());
        command
    }

    fn run<S: AsRef<std::ffi::OsStr>>(&self, args: &[S]) -> Output {
        self.command(args).output().unwrap()
    }

    fn convert(&self, from: &Path, to: &Path, options: &[&str]) -> String {
        let mut args = vec!["convert", from.to_str().unwrap(), to.to_str().unwrap(), "--device", "cuda"];
        args.extend(options);
        let out = self.run(&args);
        assert!(out.status.success(), "{args:?}: {}", stderr(&out));
        String::from_utf8(out.stderr).unwrap()
    }

    fn log(&self) -> Vec<String> {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default().lines().map(str::to_owned).collect()
    }
}

fn stderr(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

/// The digests of a file, or of all files of a folder.
fn digests(path: &Path) -> BTreeMap<String, String> {
    if path.is_file() {
        return BTreeMap::from([(String::new(), sha256(path))]);
    }
    let entries = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| (entry.file_name().into_string().unwrap(), sha256(&entry.path()))).collect()
}

/// The word after `name` in each line that begins with `first`.
fn words(log: &[String], first: &str, name: &str) -> Vec<String> {
    let word = |line: &String| line.split(' ').skip_while(|word| *word != name).nth(1).map(str::to_owned);
    log.iter().filter(|line| line.starts_with(first)).filter_map(word).collect()
}

/// The files of the GPU are those of the CPU: with one stream and with two, in 8 MB of device memory.
#[test]
fn the_gpu_writes_the_files_of_the_cpu() {
    let dir = tempfile::tempdir().unwrap();
    for (scheme, ending, kernel) in [
        ("nf4-dq", "", "nf4_cuda_codes"),
        ("fp4", "", "fp4_cuda_codes"),
        ("int8", "", "int8_codes"),
        ("int8-block", ".bqt", "int8_block_cuda_codes"),
        ("affine3:row", ".bqt", "affine_codes"),
        ("absmax8", ".bqt", "absmax_codes"),
        ("q8_0", ".gguf", "q8_0_encode"),
        ("q4_k_m", ".gguf", "q4_k_encode"),
    ] {
        let name = |place: &str| dir.path().join(format!("{place}-{}{ending}", scheme.replace(':', "-")));
        convert(&tiny_llama(), &name("cpu"), &["--type", scheme]);
        let wanted = digests(&name("cpu"));
        // The search of K-quants takes the interpreter its time.
        let streams = if scheme == "q4_k_m" { &["2"][..] } else { &["1", "2"] };
        for &streams in streams {
            let driver = Driver::new(&[("FAKE_CUDA_MEMORY", "8000000")]);
            let said = driver.convert(&tiny_llama(), &name(streams), &["--type", scheme, "--device-streams", streams, "--threads", "2"]);
            assert_eq!(said, "", "{scheme}");
            assert_eq!(digests(&name(streams)), wanted, "{scheme} with {streams} streams");
            let log = driver.log();
            let launched = words(&log, "launch", "launch");
            assert!(launched.iter().any(|name| name == kernel), "{scheme}: {launched:?}");
            let used: BTreeSet<String> = words(&log, "launch", "stream").into_iter().collect();
            assert_eq!(used.len().to_string(), streams, "{used:?}");
            let peak = words(&log, "alloc", "peak").iter().map(|bytes| bytes.parse::<u64>().unwrap()).max().unwrap();
            assert!(peak > 1_000_000 && peak <= 8_000_000, "{peak}");
        }
    }
}

/// Audits and plans decode and encode there, too, and find the same.
#[test]
fn audits_and_plans_are_those_of_the_cpu() {
    let dir = tempfile::tempdir().unwrap();
    let nf4 = dir.path().join("nf4");
    convert(&tiny_llama(), &nf4, &["--type", "nf4-dq"]);
    let (model, nf4) = (tiny_llama().display().to_string(), nf4.display().to_string());
    for args in [
        vec!["audit", &model, &nf4, "--json"],
        vec!["audit", &model, "--type", "int8,affine4", "--json"],
        vec!["plan", &model, "--target-bpw", "7", "--schemes", "affine4,affine6", "--json"],
    ] {
        let driver = Driver::new(&[]);
        let on_gpu = driver.run(&[&args[..], &["--device", "cuda", "--verify-device", "3"]].concat());
        assert!(on_gpu.status.success(), "{args:?}: {}", stderr(&on_gpu));
        let read = |text: &[u8]| {
            let mut report: Value = serde_json::from_slice(text).unwrap();
            report.as_object_mut().unwrap().remove("seconds");
            report.as_object_mut().unwrap().remove("notes");
            report
        };
        assert!(String::from_utf8_lossy(&on_gpu.stdout).contains("done on the CPU too, and no byte differs"), "{args:?}");
        assert!(read(&on_gpu.stdout) == read(quant_ok(&args).as_bytes()), "{args:?}");
        assert!(!words(&driver.log(), "launch", "launch").is_empty(), "{args:?}");
    }
}

/// What can go wrong with a GPU is one clear error where only it will do, and a note where the CPU may do the rest.
#[test]
fn failures_are_told_once() {
    let dir = tempfile::tempdir().unwrap();
    let (gpu, cpu) = (dir.path().join("gpu"), dir.path().join("cpu"));
    convert(&tiny_llama(), &cpu, &["--type", "nf4"]);
    for (variables, problem) in [
        (("FAKE_CUDA", "no-device"), "no CUDA-capable device"),
        (("FAKE_CUDA", "old-driver"), "the CUDA driver is too old: it is of CUDA 10.2, and 11.0 is needed"),
        (("FAKE_CUDA", "old-device"), "the GPU is too old: ptx-sim, no GPU has compute capability 7.0, and 7.5 is needed"),
        (("FAKE_CUDA", "bad-image"), "cannot load the kernels of"),
        (("FAKE_CUDA_MEMORY", "100000"), "out of memory"),
        (("FAKE_CUDA", "launch-failure:3"), "unspecified launch failure"),
    ] {
        let driver = Driver::new(&[variables]);
        let args = |device: &str| {
            let mut args = ["convert", "--type", "nf4", "--device", device].map(str::to_owned).to_vec();
            args.extend([tiny_llama().display().to_string(), gpu.display().to_string()]);
            args
        };
        let failed = driver.run(&args("cuda"));
        let message = stderr(&failed);
        assert_eq!(failed.status.code(), Some(2), "{variables:?}: {message}");
        let lines: Vec<&str> = message.lines().filter(|line| line.starts_with("error:")).collect();
        assert!(lines.len() == 1 && lines[0].contains(problem) && lines[0].contains("--device cpu"), "{variables:?}: {message}");
        assert!(!gpu.exists() && !message.contains("panicked"), "{variables:?}: {message}");
        let rest: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(rest, ["cpu"], "nothing is left behind");

        let done = driver.run(&args("auto"));
        let message = stderr(&done);
        assert!(done.status.success(), "{variables:?}: {message}");
        assert!(message.lines().filter(|line| line.starts_with("note:") && line.contains(problem)).count() == 1, "{variables:?}: {message}");
        assert_eq!(digests(&gpu), digests(&cpu), "{variables:?}");
        std::fs::remove_dir_all(&gpu).unwrap();
    }
}

/// A device that computes something else is found out, in the tensors that are verified.
#[test]
fn one_wrong_bit_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let run = |wrong: &'static str, verify: &str| {
        let (model, out) = (tiny_llama().display().to_string(), out.display().to_string());
        let driver = Driver::new(&[("FAKE_CUDA_WRONG", wrong)]);
        let found =
            driver.run(&["convert", &model, &out, "--type", "nf4", "--device", "cuda", "--threads", "1", "--force", "--verify-device", verify]);
        let message = stderr(&found);
        assert_eq!(found.status.code() == Some(2), message.contains("and the CPU do not agree: byte"), "{message}");
        found.status.success()
    };
    // A tensor is one slab, so the first copy is of the first tensor and the ninth of the ninth.
    assert!(!run("9", "all") && !run("1", "1") && !out.exists());
    assert!(run("9", "8") && !run("9", "9"));
}

/// The memory of the device is what was allowed, and slabs that do not fit it are the CPU's.
#[test]
fn device_memory_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let (cpu, gpu) = (dir.path().join("cpu"), dir.path().join("gpu"));
    convert(&tiny_llama(), &cpu, &["--type", "nf4-dq:4096"]);
    let driver = Driver::new(&[]);
    let said = driver.convert(&tiny_llama(), &gpu, &["--type", "nf4-dq:4096", "--device-memory", "256KiB"]);
    assert_eq!(digests(&gpu), digests(&cpu));
    assert!(said.contains("slabs were left to the CPU: they are too large for the memory of a stream"), "{said}");
    let peaks = words(&driver.log(), "alloc", "peak");
    let peak = peaks.iter().map(|bytes| bytes.parse::<u64>().unwrap()).max().unwrap();
    assert!(peak > 1 << 17 && peak <= 1 << 18, "{peak}");
    let (model, out) = (tiny_llama().display().to_string(), dir.path().join("small").display().to_string());
    for device in ["cuda", "auto"] {
        let small = driver.run(&["convert", &model, &out, "--type", "nf4", "--device", device, "--device-memory", "100kB"]);
        assert_eq!(small.status.code(), Some(2));
        assert!(stderr(&small).contains("--device-memory is too small: 2 streams need 131072 bytes"), "{}", stderr(&small));
    }
    let nothing = driver.run(&["convert", &model, &out, "--type", "nf4", "--device", "cuda", "--verify-device", "0"]);
    assert!(nothing.status.code() == Some(2) && stderr(&nothing).contains("0 verifies nothing"), "{}", stderr(&nothing));
}

/// Types without a kernel are said to be the CPU's; dense numbers that are read are no slabs of the GPU.
#[test]
fn what_is_left_to_the_cpu_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let (cpu, gpu) = (dir.path().join("cpu.gguf"), dir.path().join("gpu.gguf"));
    let driver = Driver::new(&[]);
    convert(&tiny_llama(), &cpu, &["--type", "tq2_0", "--pure"]);
    let said = driver.convert(&tiny_llama(), &gpu, &["--type", "tq2_0", "--pure"]);
    assert_eq!(digests(&gpu), digests(&cpu));
    assert!(said.contains("slabs were left to the CPU: no kernel encodes their scheme"), "{said}");
    let said = driver.convert(&tiny_llama(), &dir.path().join("nf4"), &["--type", "nf4-dq", "--audit"]);
    assert_eq!(said, "");
}

/// Numbers that are NaN are decoded with what they say, as on the CPU.
#[test]
fn nan_is_decoded_by_the_cpu() {
    let dir = tempfile::tempdir().unwrap();
    let [from, cpu, gpu] = ["from", "cpu", "gpu"].map(|name| dir.path().join(format!("{name}.gguf")));
    convert(&tiny_llama(), &from, &["--type", "q8_0"]);
    let mut bytes = std::fs::read(&from).unwrap();
    let block = bytes.len() - 34 * 100;
    // Somewhere in the last tensors is the scale of a block; each of these becomes a NaN with a payload.
    (0..34).for_each(|i| bytes[block + i * 35..][..2].copy_from_slice(&[0x01, 0x7e]));
    std::fs::write(&from, bytes).unwrap();
    convert(&from, &cpu, &["--type", "f32"]);
    Driver::new(&[]).convert(&from, &gpu, &["--type", "f32", "--verify-device", "all"]);
    let floats = std::fs::read(&cpu).unwrap();
    assert!(floats.as_chunks::<4>().0.iter().any(|bytes| f32::from_le_bytes(*bytes).is_nan()));
    assert_eq!(digests(&gpu), digests(&cpu));
}

/// A library by the driver's name that is none is told, not trusted.
#[test]
fn what_is_no_driver_is_told() {
    let shown = Driver::broken().run(&["devices"]);
    assert_eq!(shown.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&shown.stdout).contains("there is no CUDA driver") && stderr(&shown).is_empty(), "{}", stderr(&shown));
}

#[test]
fn devices_are_listed() {
    let driver = Driver::new(&[]);
    let shown = driver.run(&["devices"]);
    assert!(shown.status.success(), "{}", stderr(&shown));
    insta::assert_snapshot!("devices", String::from_utf8_lossy(&shown.stdout));
    let report: Value = serde_json::from_slice(&driver.run(&["devices", "--json"]).stdout).unwrap();
    assert_eq!((report["devices"][0]["compute_capability"].as_str(), report["devices"][0]["usable"].as_bool()), (Some("7.5"), Some(true)));
    let none = Driver::new(&[("FAKE_CUDA", "no-device")]).run(&["devices"]);
    assert_eq!(none.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&none.stdout).contains("no CUDA-capable device"));
}

/// Without a driver `auto` converts on the CPU and says so, `cuda` is refused with the way out.
#[test]
fn without_a_driver_nothing_is_lost() {
    let driver = Driver::broken();
    nothing_is_lost(|args| driver.run(args));
    // As this machine is, unless it has a GPU: that it works then is what the other tests say.
    if !quant(&["devices"]).status.success() {
        nothing_is_lost(|args| quant(args));
    }
}

fn nothing_is_lost(run: impl Fn(&[&str]) -> Output) {
    let dir = tempfile::tempdir().unwrap();
    let [model, a, b] = [here("data/tiny-llama"), dir.path().join("a"), dir.path().join("b")].map(|path| path.display().to_string());
    let refused = run(&["convert", &model, &a, "--type", "nf4", "--device", "cuda"]);
    assert_eq!((refused.status.code(), stderr(&refused).lines().count()), (Some(2), 1), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("use --device auto or --device cpu"), "{}", stderr(&refused));
    assert!(!Path::new(&a).exists());
    let done = run(&["convert", &model, &a, "--type", "nf4", "--device", "auto"]);
    assert!(done.status.success());
    assert_eq!(stderr(&done).matches("the CPU does the work").count(), 1, "{}", stderr(&done));
    convert(Path::new(&model), Path::new(&b), &["--type", "nf4"]);
    assert_eq!(digests(Path::new(&a)), digests(Path::new(&b)));
}
