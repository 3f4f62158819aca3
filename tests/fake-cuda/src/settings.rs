//! What the environment asks for. See the crate's documentation.

use std::env::var;
use std::fs::File;
use std::io::Write as _;

/// Bytes of device memory, unless the environment says otherwise.
const MEMORY: usize = 4 << 30;

/// The compute capability of the device, times 10.
pub(crate) const CAPABILITY: u32 = 75;

pub(crate) struct Settings {
    pub no_device: bool,
    pub bad_image: bool,
    /// Whether the device says that it is of compute capability 7.0.
    pub old_device: bool,
    /// The version of CUDA that the driver is of, times 1000.
    pub driver: i32,
    /// The newest PTX that it knows.
    pub newest_ptx: (u32, u32),
    /// The launch that fails, counted from 1.
    pub failing_launch: Option<u64>,
    /// The copy to the host that is wrong, counted from 1.
    pub wrong_download: Option<u64>,
    pub memory: usize,
    log: Option<File>,
}

impl Settings {
    pub fn read() -> Self {
        let number = |name: &str| var(name).ok().and_then(|value| count(name, &value));
        let mut settings = Self {
            no_device: false,
            bad_image: false,
            old_device: false,
            driver: 12_080,
            newest_ptx: (8, 7),
            failing_launch: None,
            wrong_download: number("FAKE_CUDA_WRONG"),
            memory: number("FAKE_CUDA_MEMORY").map_or(MEMORY, |bytes| bytes as usize),
            log: var("FAKE_CUDA_LOG").ok().and_then(|path| File::options().append(true).create(true).open(path).ok()),
        };
        for fault in var("FAKE_CUDA").unwrap_or_default().split(',').filter(|fault| !fault.is_empty()) {
            match fault.split_once(':').unwrap_or((fault, "1")) {
                ("no-device", _) => settings.no_device = true,
                ("old-device", _) => settings.old_device = true,
                ("bad-image", _) => settings.bad_image = true,
                ("old-driver", _) => (settings.driver, settings.newest_ptx) = (10_020, (6, 5)),
                ("launch-failure", number) => settings.failing_launch = count(fault, number),
                _ => eprintln!("fake-cuda: FAKE_CUDA asks for {fault}, which is not known"),
            }
        }
        settings
    }

    /// Adds a line to the log, in one piece: other processes may write to it, too.
    pub fn log(&mut self, line: &str) {
        if let Some(log) = &mut self.log
            && let Err(error) = log.write_all(format!("{line}\n").as_bytes())
        {
            eprintln!("fake-cuda: the log cannot be written: {error}");
        }
    }
}

/// The number that a variable has. A test with a wrong one would pass on nothing, so that is told.
fn count(name: &str, value: &str) -> Option<u64> {
    let count = value.parse().ok();
    if count.is_none() {
        eprintln!("fake-cuda: {name} asks for {value}, which is no number");
    }
    count
}
