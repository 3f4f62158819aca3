//! `--device`, and `quant devices`.

use clap::{Args as ClapArgs, ValueEnum};
use quant_core::Result;
use quant_core::backend::{Backend, Verified};
use quant_cuda::{Choice, Info, LEAST_CAPABILITY, Settings};
use serde::Serialize;

use crate::report::{self, Outcome, note, table};
use crate::size::{bytes, parse as size};

/// Where numbers are encoded and decoded.
#[derive(ClapArgs)]
#[command(next_help_heading = "Device")]
pub struct DeviceArgs {
    /// Where numbers are encoded and decoded; the bytes are the same
    #[arg(long, value_enum, default_value_t)]
    pub device: Device,
    /// Most memory of the GPU that is used, and as much of the host's, pinned; a slab needs 16 MiB at most
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "64MiB")]
    pub device_memory: u64,
    /// Slabs that the GPU works on at a time
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=16), default_value_t = 2)]
    pub device_streams: u8,
    /// Do N of the tensors that the GPU works on, or all, on the CPU too; a byte that differs is an error
    #[arg(long, value_name = "N|all", value_parser = tensors)]
    pub verify_device: Option<usize>,
}

/// Where.
#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Device {
    /// On the CPU
    #[default]
    Cpu,
    /// On a GPU, or not at all
    Cuda,
    /// On a GPU if there is one, else on the CPU, which is said
    Auto,
}

fn tensors(text: &str) -> std::result::Result<usize, String> {
    match (text, text.parse()) {
        ("all", _) => Ok(usize::MAX),
        (_, Ok(0)) => Err("0 verifies nothing; leave the option out".into()),
        (_, Ok(n)) => Ok(n),
        _ => Err(format!("'{text}' is neither a number of tensors nor 'all'")),
    }
}

impl DeviceArgs {
    /// Opens what is asked for. Says on stderr if that is not the GPU that was to be tried.
    ///
    /// # Errors
    /// If only a GPU will do, and there is none that can be used.
    pub fn open(&self) -> Result<&'static dyn Backend> {
        let choice = match self.device {
            Device::Cpu => Choice::Cpu,
            Device::Cuda => Choice::Cuda,
            Device::Auto => Choice::Auto,
        };
        let memory = usize::try_from(self.device_memory).unwrap_or(usize::MAX);
        let opened = quant_cuda::open(choice, Settings { memory, streams: self.device_streams.into(), ..Settings::default() })?;
        if let Some(text) = &opened.note {
            note(&format!("--device auto: {text}"));
        }
        Ok(match self.verify_device {
            Some(_) if !opened.is_gpu() => {
                note("--verify-device: the CPU does the work, so there is nothing to verify");
                opened.backend
            }
            Some(tensors) => Box::leak(Box::new(Verified::new(opened.backend, tensors))),
            None => opened.backend,
        })
    }
}

const HELP: &str = "\
Examples:
  quant devices
  quant convert Llama Llama-nf4 --type nf4-dq --device cuda --verify-device 8

Exit codes: 0 a GPU can be used, 1 none can.";

/// Arguments of `devices`.
#[derive(ClapArgs)]
#[command(after_help = HELP)]
pub struct DevicesArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What was found.
#[derive(Serialize)]
struct Report {
    /// The newest CUDA that the driver knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    cuda: Option<String>,
    devices: Vec<Row>,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

#[derive(Serialize)]
struct Row {
    device: u32,
    name: String,
    compute_capability: String,
    memory: u64,
    multiprocessors: i32,
    usable: bool,
}

impl Row {
    fn new(info: &Info) -> Row {
        let (major, minor) = info.capability;
        Row {
            device: info.ordinal,
            name: info.name.clone(),
            compute_capability: format!("{major}.{minor}"),
            memory: info.memory,
            multiprocessors: info.multiprocessors,
            usable: info.capability >= LEAST_CAPABILITY,
        }
    }
}

/// Runs the command.
pub fn run(args: &DevicesArgs) -> Result<Outcome> {
    let report = match quant_cuda::devices() {
        Ok(devices) => {
            let (major, minor) = devices.cuda;
            let problem = devices.found.is_empty().then(|| "the driver has no device".to_owned());
            Report { cuda: Some(format!("{major}.{minor}")), devices: devices.found.iter().map(Row::new).collect(), problem }
        }
        Err(error) => Report { cuda: None, devices: Vec::new(), problem: Some(error.to_string()) },
    };
    let exit = u8::from(!report.devices.iter().any(|row| row.usable));
    let text = if args.json { report::json(&report)? } else { report.text() };
    Ok(Outcome { text, exit })
}

impl Report {
    fn text(&self) -> String {
        if let Some(problem) = &self.problem {
            return format!("No GPU: {problem}. Everything works on the CPU, with the same bytes.\n");
        }
        let usable = |row: &Row| if row.usable { "yes".into() } else { format!("no: {}.{} is needed", LEAST_CAPABILITY.0, LEAST_CAPABILITY.1) };
        let cells = |row: &Row| {
            let memory = bytes(row.memory);
            vec![row.device.to_string(), row.name.clone(), row.compute_capability.clone(), memory, row.multiprocessors.to_string(), usable(row)]
        };
        let cuda = self.cuda.as_deref().unwrap_or_default();
        format!(
            "{}\nThe driver is of CUDA {cuda}. Device 0 is the one that --device cuda uses.\n",
            table(&[">device", "name", ">compute", ">memory", ">multiprocessors", "usable"], self.devices.iter().map(cells))
        )
    }
}

/// Says what a backend has to say when all is done.
pub fn remarks(backend: &dyn Backend) -> impl Iterator<Item = String> {
    backend.remarks().into_iter().map(|text| format!("--device: {text}"))
}
