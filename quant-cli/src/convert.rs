//! `quant convert`.

use std::collections::BTreeMap;
use std::time::Instant;

use quant_core::codec::Tally;
use quant_core::convert::Budget;
use quant_core::error::Printable;
use quant_core::plan::{Plan, Planned};
use quant_core::recipe::{NOT_ASKED, Recipe, Rule, pattern};
use quant_core::scheme::Profile;
use quant_core::source::Tensor;
use quant_core::{Dtype, Error, Result, Scheme};
use quant_formats::Checkpoint;
use quant_formats::convert::{self, Request, Target};
use quant_formats::gguf::{self, find_entry};
use quant_formats::input::Identity;
use serde::Serialize;

use crate::args::{BnbProfile, ConvertArgs, Form, NonFinite};
use crate::audit::report::SchemeReport;
use crate::audit::tried::converted;
use crate::inspect::shape;
use crate::progress::Progress;
use crate::recipe::{RecipeFile, unmatched};
use crate::report::{self, Outcome, bold, first_and_more, note, table};
use crate::size::{bytes, count, duration};
use crate::{audit, device, mix, model};

/// How the reasons of fallbacks begin.
const FALLBACK: &str = "fallback";

/// What a conversion does or did.
#[derive(Serialize)]
struct Report {
    input: String,
    output: String,
    target: &'static str,
    dry_run: bool,
    parameters: u64,
    input_bytes: u64,
    output_bytes: u64,
    tensor_bytes: u64,
    bits_per_weight: f64,
    seconds: Option<f64>,
    tensors: Vec<Row>,
    notes: Vec<String>,
    /// What it cost, with --audit.
    #[serde(skip_serializing_if = "Option::is_none")]
    audit: Option<SchemeReport>,
}

#[derive(Serialize)]
struct Row {
    name: String,
    shape: Vec<u64>,
    from: String,
    to: String,
    changed: bool,
    reason: String,
    role: &'static str,
    bytes: u64,
    overflows: u64,
    outlier_columns: Option<u64>,
}

/// Tensors that did not get the type of their mix, out of names and reasons.
pub fn fallbacks<'a>(tensors: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<String> {
    by_reason(tensors.filter(|(_, reason)| reason.starts_with(FALLBACK)))
}

/// A line for each reason, with the first name and how many there are.
fn by_reason<'a>(tensors: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<String> {
    let line = |(reason, names): (&str, Vec<&str>)| format!("{reason} ({})", Printable(&first_and_more(names).unwrap_or_default()));
    let mut lines: Vec<String> = report::by_reason(tensors).into_iter().map(line).collect();
    lines.sort();
    lines
}

/// Runs the command.
pub fn run(args: &ConvertArgs) -> Result<Outcome> {
    let begin = Instant::now();
    let file = args.recipe.as_deref().map(RecipeFile::read).transpose()?;
    let (mut request, asked) = request(args, file.as_ref())?;
    let opening = quant_formats::Opening { io: args.io.into(), unknown_types: args.gguf.unknown_types, vocab_only: args.model.vocab_only };
    let checkpoint = quant_formats::open(&args.input, opening)?;
    refuse_unclear_name(args, &request, &checkpoint)?;
    // A set comes back as a set.
    let n_files = checkpoint.origin.as_ref().map_or(0, |origin| origin.files.len());
    if args.to == Some(Form::Gguf) && n_files > 1 && Target::of(&args.output).ok() != Some(Target::Gguf) {
        request.target = Target::GgufSet;
    }
    let checkpoint = model::mapped(args, &mut request, checkpoint)?;
    let mut plan = convert::plan(&checkpoint, &request).map_err(|e| e.of(&args.input))?;
    if let Some(file) = &file {
        file.refuse_other(&request, &checkpoint, &plan)?;
    }
    let mut outcome = convert::Outcome::default();
    if !args.dry_run {
        let progress = Progress::default();
        let done = convert::run(&checkpoint, &mut plan, &request, &args.output, &progress);
        outcome = done.map_err(|e| if let Error::NonFinite { .. } = e { e.of(&args.input) } else { e })?;
        progress.finish();
    }
    let mut report = Report::new(args, &request, &checkpoint, &plan, &outcome.tallies);
    if args.audit && !args.dry_run {
        let name = args.scheme.as_ref().map(|text| text.to_ascii_lowercase());
        report.audit = Some(converted(name, &checkpoint, &plan, outcome.errors, &request.budget)?);
    }
    report.input_bytes = checkpoint.opened().tensors.iter().map(Tensor::n_bytes).sum();
    report.output_bytes = convert::size(&checkpoint, &plan, &request)?;
    report.notes = checkpoint.notes.clone();
    report.notes.extend(asked);
    report.notes.extend(notes(&checkpoint, &plan, &request));
    report.notes.extend(device::remarks(request.backend));
    if args.dry_run
        && let Err(error) = convert::check(&checkpoint, &plan, &request, &args.output)
    {
        report.notes.push(format!("the conversion would be refused: {error}"));
    }
    report.seconds = (!args.dry_run).then(|| begin.elapsed().as_secs_f64());
    if args.json {
        return Ok(Outcome::ok(report::json(&report)?));
    }
    report.notes.iter().for_each(|text| note(text));
    Ok(Outcome::ok(report.text()))
}

/// Refuses names that most likely mean something else: a folder for a file, no ending for GGUF.
fn refuse_unclear_name(args: &ConvertArgs, request: &Request, checkpoint: &Checkpoint) -> Result<()> {
    let name = args.output.display();
    if !request.target.is_folder() && args.output.as_os_str().as_encoded_bytes().ends_with(b"/") {
        return Err(Error::request(format!("{name}: the result is a file, its name cannot end in '/'")));
    }
    for input in args.recipe.iter().chain(&args.gguf.tensor_type_file) {
        if Identity::of(input).ok().is_some_and(|read| Identity::of(&args.output).is_ok_and(|there| there == read)) {
            return Err(Error::request(format!("{name}: is an input; the output needs another name")));
        }
    }
    if args.to.is_none() && request.target == Target::Hf && !checkpoint.kv.is_empty() {
        let problem = "has no ending that says what it should be";
        let advice = "say --to hf for a folder that transformers loads, --to gguf for one of shards, or end the name in .gguf, .safetensors or .bqt";
        return Err(Error::request(format!("{name}: {problem}; {advice}")));
    }
    Ok(())
}

/// What a user should know about this request.
fn notes(checkpoint: &Checkpoint, plan: &Plan, request: &Request) -> Vec<String> {
    let mut notes: Vec<String> = unmatched(&request.recipe.unmatched(&checkpoint.tensors), checkpoint).into_iter().collect();
    notes.extend(request.mix.as_ref().map(|m| mix::notes(m, checkpoint, plan)).unwrap_or_default());
    let has_config = checkpoint.side_files.iter().any(|f| f.name == "config.json");
    if request.target == Target::Hf && !has_config && plan.tensors.iter().any(|t| t.scheme.is_quantized()) {
        notes.push("there is no config.json to describe the quantization in; transformers cannot load the result without one".into());
    }
    if request.target == Target::Hf && plan.tensors.iter().any(|t| !t.copied && matches!(t.scheme, Scheme::Dense(Dtype::F8E4M3 | Dtype::F8E5M2))) {
        notes.push("transformers 5.23 does not load plain 8-bit floats".into());
    }
    let is_file_of_tensors = matches!(request.target, Target::Safetensors | Target::Gguf | Target::GgufSet);
    if is_file_of_tensors && !checkpoint.side_files.is_empty() {
        let names: Vec<&str> = checkpoint.side_files.iter().map(|f| f.name.as_str()).collect();
        notes.push(format!("the result holds tensors only; left behind: {}", names.join(", ")));
    }
    notes.extend(gguf_notes(checkpoint, plan, request));
    notes
}

/// What a user should know about metadata and names on the way from or to GGUF.
fn gguf_notes(checkpoint: &Checkpoint, plan: &Plan, request: &Request) -> Vec<String> {
    let mut notes: Vec<String> = Vec::new();
    let is_gguf = matches!(request.target, Target::Gguf | Target::GgufSet);
    let n = checkpoint.kv.len();
    if is_gguf && n == 0 {
        notes.push("the source has neither metadata of GGUF nor, without --generic, a config.json; its tensors keep their names, and llama.cpp does not load the result as a model".into());
    }
    if matches!(request.target, Target::Safetensors | Target::Hf) && n > 0 {
        notes.push(format!("safetensors cannot hold the {n} metadata values of GGUF; they are left behind (a .bqt file keeps them)"));
    }
    if request.target == Target::Hf && n > 0 && !checkpoint.side_files.iter().any(|f| f.name == "config.json") {
        notes.push("the names are those of GGUF and there is no config.json: transformers does not load the result as a model".into());
    }
    let said = find_entry(&checkpoint.kv, "general.file_type").and_then(gguf::Entry::unsigned);
    if let Some(said) = said.filter(|_| is_gguf && request.schemes.is_empty() && request.mix.is_none() && plan.tensors.iter().any(|t| !t.copied)) {
        notes.push(format!("general.file_type still says {said}; --set general.file_type=u32:N changes it"));
    }
    if is_gguf && checkpoint.metadata.iter().any(|(key, _)| key != "format") {
        notes.push(format!("left behind: {} texts of metadata", checkpoint.metadata.len()));
    }
    notes
}

/// What is asked for, with what a user should know about that.
fn request(args: &ConvertArgs, file: Option<&RecipeFile>) -> Result<(Request, Vec<String>)> {
    let target = match args.to {
        None => Target::of(&args.output)?,
        Some(Form::Hf) => Target::Hf,
        Some(Form::Safetensors) => Target::Safetensors,
        Some(Form::Bqt) => Target::Bqt,
        Some(Form::Gguf) if mix::is_set(args) => Target::GgufSet,
        Some(Form::Gguf) => Target::Gguf,
    };
    let mix = mix::of(args, target, file.map(|file| &file.text))?;
    let notes = file.and_then(|file| file.lacks(args.gguf.imatrix.is_some())).into_iter().collect();
    let (recipe, recipe_text) = recipe(args, file, mix.is_some())?;
    let edits = mix::edits(args)?;
    let threads = args.threads.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from);
    let backend = args.device.open()?;
    let budget = Budget { memory: args.memory, threads, slab: args.slab.unwrap_or(backend.slab()) };
    let keep_unfit = args.non_finite == NonFinite::Keep;
    let request = Request {
        recipe,
        recipe_text,
        mix,
        allow_requantize: args.gguf.allow_requantize,
        edits,
        max_shard: args.max_shard_size,
        max_shard_tensors: args.gguf.max_shard_tensors,
        keep_split: args.gguf.keep_split,
        force: args.force,
        keep_unfit,
        audit: args.audit,
        budget,
        backend,
        ..Request::new(target)
    };
    Ok((request, notes))
}

/// The recipe of the options, or of the file, with its text for the record. A mix leaves it only what is kept.
fn recipe(args: &ConvertArgs, file: Option<&RecipeFile>, is_mix: bool) -> Result<(Recipe, Option<String>)> {
    let (mut recipe, text) = match file {
        Some(file) => (file.recipe()?, Some(file.raw.clone())),
        None => {
            let rules = if is_mix { Vec::new() } else { mix::tensor_types(args)?.iter().map(|text| rule(text)).collect::<Result<Vec<_>>>()? };
            let default = if is_mix { None } else { args.scheme.as_deref().map(scheme).transpose()? };
            let text = option_text(args, is_mix);
            (Recipe { default, keep: Vec::new(), rules }, text)
        }
    };
    for text in args.keep.iter().rev() {
        recipe.keep.insert(0, pattern(text).map_err(|e| Error::request(format!("--keep: {e}")))?);
    }
    if let Some(profile) = args.bnb_profile {
        let profile = if profile == BnbProfile::Cpu { Profile::Cpu } else { Profile::Cuda };
        recipe.default = recipe.default.map(|s| s.with_profile(profile));
        recipe.rules.iter_mut().for_each(|r| r.scheme = r.scheme.with_profile(profile));
    }
    Ok((recipe, text))
}

fn rule(text: &str) -> Result<Rule> {
    let (pattern, scheme) = text.rsplit_once('=').ok_or_else(|| Error::request(format!("--tensor-type '{text}': needs REGEX=SCHEME")))?;
    Rule::new(pattern, scheme).map_err(|e| Error::request(format!("--tensor-type: {e}")))
}

fn scheme(text: &str) -> Result<Scheme> {
    let unknown = |e: quant_core::scheme::BadScheme| Error::request(format!("--type: {e}; or a mix of llama-quantize such as q4_k_m, iq3_xs"));
    let scheme = text.parse().map_err(unknown)?;
    match scheme {
        Scheme::Ggml(_) => Err(Error::request(format!(
            "--type {text}: is the type of a tensor, not a mix; --type q8_0 --pure --tensor-type '.*={text}' gives it to all matrices"
        ))),
        _ => Ok(scheme),
    }
}

/// The rules of the command line in the words of a recipe file.
fn option_text(args: &ConvertArgs, is_mix: bool) -> Option<String> {
    let key = if is_mix { "mix" } else { "type" };
    let mut lines: Vec<String> = args.scheme.iter().map(|s| format!("{key} = \"{}\"", s.to_ascii_lowercase())).collect();
    lines.extend(args.gguf.pure.then(|| "pure = true".to_owned()));
    lines.extend(args.gguf.imatrix.iter().map(|path| format!("imatrix = {:?}", path.to_string_lossy())));
    if !args.keep.is_empty() {
        lines.push(format!("keep = {:?}", args.keep));
    }
    for text in mix::tensor_types(args).ok()? {
        let (pattern, scheme) = if is_mix { text.split_once('=')? } else { text.rsplit_once('=')? };
        lines.push(format!("[[tensor]]\nmatch = {pattern:?}\ntype = {scheme:?}"));
    }
    (!lines.is_empty()).then(|| lines.join("\n") + "\n")
}

impl Report {
    fn new(args: &ConvertArgs, request: &Request, checkpoint: &Checkpoint, plan: &Plan, tallies: &[Tally]) -> Report {
        let mut rows: Vec<Row> = plan.tensors.iter().enumerate().map(|(i, t)| Row::new(t, &checkpoint.tensors[t.source], tallies.get(i))).collect();
        rows.sort_by_cached_key(|row| quant_formats::safetensors::order::key(&row.name));
        let weights = || plan.tensors.iter().filter(|t| !matches!(t.scheme, Scheme::Dense(d) if !d.is_weight()));
        let (parameters, weight_bytes) = (weights().map(Planned::n_elements).sum::<u64>(), weights().map(Planned::n_bytes).sum::<u64>());
        let target = match request.target {
            Target::Hf => "Hugging Face folder",
            Target::Safetensors => "safetensors",
            Target::Bqt => "BQT",
            Target::Gguf => "GGUF",
            Target::GgufSet => "GGUF shards",
        };
        Report {
            input: args.input.display().to_string(),
            output: args.output.display().to_string(),
            target,
            dry_run: args.dry_run,
            parameters,
            input_bytes: 0,
            output_bytes: 0,
            tensor_bytes: plan.n_bytes(),
            bits_per_weight: if parameters == 0 { 0.0 } else { weight_bytes as f64 * 8.0 / parameters as f64 },
            seconds: None,
            tensors: rows,
            notes: Vec::new(),
            audit: None,
        }
    }

    fn text(&self) -> String {
        let verb = if self.dry_run { "Would write" } else { "Wrote" };
        let mut text = format!("{} {} ({})\n", bold(verb), Printable(&self.output), self.target);
        if self.dry_run {
            let cells = |r: &Row| vec![r.name.clone(), shape(&r.shape), r.from.clone(), r.to.clone(), bytes(r.bytes), r.reason.clone()];
            text += &table(&["tensor", "shape", "from", "to", ">size", "why"], self.tensors.iter().map(cells));
            text.push('\n');
        }
        text += &table(&["from", "to", ">tensors", ">parameters", ">size", ">bits a weight"], self.groups());
        text += &self.reasons();
        text += &self.totals();
        text + &self.audit.as_ref().map_or(String::new(), audit::table::cost)
    }

    /// One row for each pair of schemes.
    fn groups(&self) -> Vec<Vec<String>> {
        let mut groups: BTreeMap<(bool, &str, &str), (u64, u64, u64)> = BTreeMap::new();
        for r in &self.tensors {
            let group = groups.entry((!r.changed, &r.from, &r.to)).or_default();
            *group = (group.0 + 1, group.1 + r.shape.iter().product::<u64>(), group.2 + r.bytes);
        }
        let row = |((kept, from, to), (n, elements, size)): ((bool, &str, &str), (u64, u64, u64))| {
            let to = if kept { "kept".to_owned() } else { to.to_owned() };
            let bits = if elements == 0 { 0.0 } else { size as f64 * 8.0 / elements as f64 };
            vec![from.to_owned(), to, n.to_string(), count(elements), bytes(size), format!("{bits:.3}")]
        };
        groups.into_iter().map(row).collect()
    }

    /// Why tensors were kept, and which did not get the type of their mix.
    fn reasons(&self) -> String {
        let reasons = |changed: bool| self.tensors.iter().filter(move |r| r.changed == changed).map(|r| (r.name.as_str(), r.reason.as_str()));
        let kept = by_reason(reasons(false).filter(|(_, reason)| *reason != NOT_ASKED));
        let kept = kept.into_iter().map(|line| format!(" kept: {line}\n"));
        kept.chain(fallbacks(reasons(true)).into_iter().map(|line| format!(" {line}\n"))).collect()
    }

    fn totals(&self) -> String {
        let n = self.parameters;
        let ratio = |reference: u64| if self.tensor_bytes == 0 { 0.0 } else { reference as f64 / self.tensor_bytes as f64 };
        let (size, before, bits) = (bytes(self.tensor_bytes), bytes(self.input_bytes), self.bits_per_weight);
        let mut text = format!(" tensors: {size} from {before}, {} parameters, {bits:.2} bits a weight\n", count(n));
        text += &format!(" against f32 {:.2} × smaller, against f16 {:.2} ×\n", ratio(n * 4), ratio(n * 2));
        text += &self.losses();
        text += &format!(" with header and files beside: {}", bytes(self.output_bytes));
        if let Some(seconds) = self.seconds {
            let rate = if seconds > 0.0 { self.input_bytes as f64 / seconds } else { 0.0 };
            text += &format!(", in {} ({}/s)", duration(seconds), bytes(rate as u64));
        }
        text + "\n"
    }

    /// Overflows and outliers, which nobody should have to look for.
    fn losses(&self) -> String {
        let mut text = String::new();
        for r in self.tensors.iter().filter(|r| r.overflows > 0) {
            text += &format!(" overflow: {} numbers of {} do not fit {}\n", r.overflows, Printable(&r.name), r.to);
        }
        let outliers: u64 = self.tensors.iter().filter_map(|r| r.outlier_columns).sum();
        if self.tensors.iter().any(|r| r.outlier_columns.is_some()) {
            text += &format!(" outlier columns (a weight of magnitude 6 or more): {outliers}\n");
        }
        text
    }
}

impl Row {
    fn new(t: &Planned, source: &Tensor, tally: Option<&Tally>) -> Row {
        let counted = t.scheme == Scheme::Int8 && !t.copied;
        let is_unpacked = source.packed.is_some() && source.stored_as() != t.scheme.to_string();
        Row {
            name: t.name.clone(),
            shape: t.shape.clone(),
            from: source.stored_as(),
            to: t.scheme.to_string(),
            changed: !t.copied || is_unpacked,
            reason: if is_unpacked && t.copied { format!("decoded from {}", source.stored_as()) } else { t.reason.clone() },
            role: t.role.name(),
            bytes: t.n_bytes(),
            overflows: tally.map_or(0, |t| t.overflows),
            outlier_columns: tally.filter(|_| counted).map(|t| t.outlier_columns.count()),
        }
    }
}
