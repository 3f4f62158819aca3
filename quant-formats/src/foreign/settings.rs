//! [`Settings`]: what a checkpoint's configuration says of its quantization.
//!
//! | file | where | written by |
//! |---|---|---|
//! | config.json | `quantization_config`, or that of `text_config`; `compression_config` in early compressed-tensors | transformers |
//! | hf_quant_config.json | `producer.name` and `quantization` | ModelOpt |
//! | quantize_config.json | the whole file | AutoGPTQ before transformers knew it |
//! | quant_config.json | the whole file | AutoAWQ, likewise |

use std::path::PathBuf;

use quant_core::{Dtype, Error, Result};
use serde_json::{Map, Value};

use crate::hf::config::Config;
use crate::json::problem;
use crate::{Checkpoint, Format};

/// Methods that are known and not read, and what there is to know about them.
const REFUSED: &[(&str, &str)] = &[
    ("aqlm", "sums of codes of learned codebooks"),
    ("auto-round", "its packings differ in how zero points are stored; export it as auto_gptq or auto_awq"),
    ("bitblas", "a layout for one kind of GPU"),
    ("bitnet", "ternary weights, trained as such"),
    ("eetq", "int8 in an order for one kind of GPU"),
    ("exl2", "several widths in one matrix"),
    ("exl3", "a trellis code"),
    ("fouroversix", "NVFP4 with a choice of ranges"),
    ("fp_quant", "FP4 of rotated weights"),
    ("gemma", "made while loading; files are not quantized"),
    ("higgs", "vectors of a grid of rotated weights"),
    ("marlin", "an order for one kind of GPU; the same model is mostly also published as GPTQ"),
    ("metal", "an order for one kind of GPU"),
    ("mlx", "affine groups with biases, of MLX"),
    ("nvfp4", "made while loading; files are not quantized"),
    ("quark", "several layouts of AMD Quark"),
    ("sinq", "scales of rows and columns"),
    ("spqr", "sparse outliers beside groups with quantized scales"),
    ("vptq", "indices into learned vectors"),
];

/// The configuration of a quantization.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// `quant_method`, in lower case.
    pub(super) method: String,
    /// The type of the model's weights before they were quantized, if it is said.
    pub(super) dtype: Option<Dtype>,
    map: Map<String, Value>,
    path: PathBuf,
}

impl Settings {
    /// The settings of a checkpoint, if it is said to be quantized.
    ///
    /// # Errors
    /// If a configuration cannot be read, or does not name its method.
    pub(super) fn find(checkpoint: &Checkpoint) -> Result<Option<Settings>> {
        if checkpoint.format == Format::Gguf {
            return Ok(None);
        }
        let files = Files { checkpoint };
        let dtype = files.model_dtype()?;
        let found = match files.of_config()? {
            Some(found) => Some(found),
            None => files.of_others()?,
        };
        let Some((name, map)) = found else { return Ok(None) };
        let path = checkpoint.path.join(name);
        let method = match map.get("quant_method").and_then(Value::as_str) {
            Some(method) => method.to_ascii_lowercase().replace("compressed_tensors", "compressed-tensors"),
            None if map.contains_key("load_in_4bit") || map.contains_key("load_in_8bit") => "bitsandbytes".into(),
            None if map.contains_key("bits") && map.contains_key("group_size") => "mlx".into(),
            None => return Err(Error::file(&path, "the quantization is described without a 'quant_method'; needed its name, such as \"gptq\"")),
        };
        Ok(Some(Settings { method, dtype, map, path }))
    }

    /// The value of `key`; null counts as absent.
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|v| !v.is_null())
    }

    /// The text of `key`, if it is one.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_str()
    }

    /// Whether `key` is true.
    pub(super) fn is(&self, key: &str) -> bool {
        self.get(key) == Some(&Value::Bool(true))
    }

    /// The integer of the first of `keys` that is there.
    ///
    /// # Errors
    /// If it is no integer.
    pub(super) fn integer(&self, keys: &[&str]) -> Result<Option<i64>> {
        let Some((key, value)) = keys.iter().find_map(|key| Some((key, self.get(key)?))) else { return Ok(None) };
        value.as_i64().map(Some).ok_or_else(|| self.wrong(key, value, "an integer"))
    }

    /// The sizes that `key` lists.
    ///
    /// # Errors
    /// If it is anything but a list of one to three positive integers.
    pub(super) fn sizes(&self, key: &str) -> Result<Option<Vec<u64>>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        sizes(value).map(Some).ok_or_else(|| self.wrong(key, value, "a list of sizes of blocks"))
    }

    /// The error for a value that is not read.
    pub(super) fn wrong(&self, key: &str, found: &Value, needed: &str) -> Error {
        let found: String = found.to_string().chars().take(60).collect();
        self.error(format!("quantization key '{key}': found {found}, needed {needed}"))
    }

    /// The error for a method that is not read.
    pub(super) fn refuse(&self, method: &str) -> Error {
        let method: String = method.chars().take(60).collect();
        let known = REFUSED.iter().find(|(name, _)| *name == method).map(|(_, what)| format!(" ({what})"));
        let advice = "start from the original checkpoint instead";
        self.error(format!("the quantization method '{method}'{} is not read; {advice}", known.unwrap_or_default()))
    }

    /// An error of the configuration.
    pub(super) fn error(&self, problem: impl Into<String>) -> Error {
        Error::file(&self.path, problem)
    }
}

/// One to three positive integers.
pub(super) fn sizes(value: &Value) -> Option<Vec<u64>> {
    let list: Vec<u64> = value.as_array()?.iter().map(|v| v.as_u64().filter(|&n| n > 0)).collect::<Option<_>>()?;
    (1..=3).contains(&list.len()).then_some(list)
}

/// The files beside a checkpoint.
struct Files<'a> {
    checkpoint: &'a Checkpoint,
}

/// The name of a file and what it says of the quantization.
type Source = (&'static str, Map<String, Value>);

impl Files<'_> {
    /// The JSON object in the file `name`.
    fn object(&self, name: &str) -> Result<Option<Map<String, Value>>> {
        let Some(file) = self.checkpoint.side_files.iter().find(|f| f.name == name) else { return Ok(None) };
        let path = self.checkpoint.path.join(name);
        let bytes = self.checkpoint.side_file(file)?;
        serde_json::from_slice(&bytes).map(Some).map_err(|e| Error::file(&path, format!("cannot be read as a JSON object: {}", problem(&e))))
    }

    /// config.json. It may hold what JSON does not know, such as NaN, so only what is asked for is read as JSON.
    fn config(&self) -> Result<Option<Config>> {
        let path = || self.checkpoint.path.join("config.json");
        self.checkpoint.config()?.map(|bytes| Config::parse(&bytes).map_err(|e| Error::file(&path(), e))).transpose()
    }

    fn model_dtype(&self) -> Result<Option<Dtype>> {
        let Some(config) = self.config()? else { return Ok(None) };
        let of_text = || {
            let text: Map<String, Value> = serde_json::from_str(config.value("text_config")?).ok()?;
            let name = text.get("dtype").or_else(|| text.get("torch_dtype"))?.as_str()?;
            Dtype::from_torch_name(name)
        };
        Ok(config.dtype().or_else(of_text).filter(|d| matches!(d, Dtype::F32 | Dtype::F16 | Dtype::BF16)))
    }

    fn of_config(&self) -> Result<Option<Source>> {
        let Some(config) = self.config()? else { return Ok(None) };
        let path = self.checkpoint.path.join("config.json");
        let read = |key: &str, text: &str| {
            let map: serde_json::Result<Map<String, Value>> = serde_json::from_str(text);
            map.map_err(|e| Error::file(&path, format!("key '{key}': cannot be read as a JSON object: {}", problem(&e))))
        };
        for key in ["quantization_config", "compression_config"] {
            if let Some(text) = config.value(key).filter(|v| *v != "null") {
                return Ok(Some(("config.json", self.with_producer(read(key, text)?)?)));
            }
        }
        let Some(text) = config.value("text_config").filter(|v| *v != "null") else { return Ok(None) };
        match read("text_config", text)?.remove("quantization_config") {
            Some(Value::Object(map)) => Ok(Some(("config.json", map))),
            _ => Ok(None),
        }
    }

    /// A description that does not name its method takes it from the file of ModelOpt.
    fn with_producer(&self, mut map: Map<String, Value>) -> Result<Map<String, Value>> {
        if map.get("quant_method").is_none_or(Value::is_null)
            && let Some((_, other)) = self.of_modelopt()?
        {
            map.extend(other);
        }
        Ok(map)
    }

    fn of_modelopt(&self) -> Result<Option<Source>> {
        let Some(mut file) = self.object("hf_quant_config.json")? else { return Ok(None) };
        let producer = file.get("producer").and_then(|p| p.get("name")).and_then(Value::as_str).unwrap_or("modelopt").to_ascii_lowercase();
        let Some(Value::Object(mut map)) = file.remove("quantization") else { return Ok(None) };
        if map.get("quant_algo").is_none_or(Value::is_null) && !map.contains_key("quant_method") {
            return Ok(None);
        }
        map.entry("quant_method").or_insert(Value::String(producer));
        Ok(Some(("hf_quant_config.json", map)))
    }

    fn of_others(&self) -> Result<Option<Source>> {
        if let Some(found) = self.of_modelopt()? {
            return Ok(Some(found));
        }
        for (name, key, method) in [("quantize_config.json", "bits", "gptq"), ("quant_config.json", "w_bit", "awq")] {
            if let Some(mut map) = self.object(name)?.filter(|map| map.contains_key(key)) {
                map.entry("quant_method").or_insert(Value::String(method.into()));
                return Ok(Some((name, map)));
            }
        }
        Ok(None)
    }
}
