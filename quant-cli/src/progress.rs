//! Progress on a terminal, and signals.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use quant_core::sink::Observer;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};

/// The signal that asked to stop, or 0.
static SIGNAL: LazyLock<Arc<AtomicUsize>> = LazyLock::new(Arc::default);

/// From now on INT, TERM and HUP ask the work to stop; the file-size limit becomes an error of the write that meets it.
pub fn watch_signals() {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // Without a handler the signal ends the process, which leaves a temporary file behind and nothing else.
        let _ = signal_hook::flag::register_usize(signal, SIGNAL.clone(), signal as usize);
    }
    let _ = signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)));
}

/// The signal that asked to stop.
pub fn signal() -> u8 {
    SIGNAL.load(Ordering::Relaxed) as u8
}

/// Draws a bar on stderr if that is a terminal.
#[derive(Default)]
pub struct Progress {
    bar: Mutex<Option<ProgressBar>>,
}

const TEMPLATE: &str = "{msg} [{bar:16}] {percent:>3}%  {decimal_bytes}/{decimal_total_bytes}  {decimal_bytes_per_sec}  {eta} left";

impl Observer for Progress {
    fn begin(&self, pass: &'static str, n_bytes: u64) {
        let bar = ProgressBar::with_draw_target(Some(n_bytes), ProgressDrawTarget::stderr_with_hz(10));
        bar.set_style(ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
        bar.set_message(pass);
        if let Some(old) = self.lock().replace(bar) {
            old.finish_and_clear();
        }
    }

    fn advance(&self, n_bytes: u64) {
        if let Some(bar) = &*self.lock() {
            bar.inc(n_bytes);
        }
    }

    fn cancelled(&self) -> bool {
        signal() != 0
    }
}

impl Progress {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<ProgressBar>> {
        self.bar.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Removes the bar.
    pub fn finish(&self) {
        if let Some(bar) = self.lock().take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}
