//! Copying from a map with a guard against SIGBUS, which the system sends when a mapped file was cut or its disk fails.
//!
//! A thread that copies leaves a note of what it copies in its thread-local storage. The signal is handled by the thread that
//! caused it, so the handler finds that note, and needs neither a registry of maps nor a lock: a map cannot be dropped by a
//! thread that is reading it. Faults that no note accounts for go to whoever handled them before.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering, compiler_fence};

/// What this thread is copying from: whole pages, all within one map.
struct Note {
    start: usize,
    end: usize,
    faulted: *const AtomicBool,
}

thread_local! {
    // Const and without a destructor, so that access is a plain load, which a signal handler may do.
    static NOTE: Cell<*const Note> = const { Cell::new(ptr::null()) };
}

/// The handler that was there before, leaked; set before ours is installed.
static PREVIOUS: AtomicPtr<libc::sigaction> = AtomicPtr::new(ptr::null_mut());
static PAGE: AtomicUsize = AtomicUsize::new(4096);

/// Installs the handler, once for the process. False if the system refuses.
pub(super) fn install() -> bool {
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    *INSTALLED.get_or_init(|| {
        // SAFETY: sysconf only returns a number.
        if let Ok(page) = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }) {
            PAGE.store(page, Ordering::SeqCst);
        }
        let Some(previous) = current() else { return false };
        PREVIOUS.store(Box::into_raw(Box::new(previous)), Ordering::SeqCst);
        let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = on_sigbus;
        // SAFETY: all zeros is a valid sigaction: no flags, an empty mask.
        let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
        action.sa_sigaction = handler as libc::sighandler_t;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        set(&action)
    })
}

/// Copies `out.len()` bytes from `from`. If they cannot be had, sets `faulted`, and what is in `out` is of no use.
///
/// # Safety
/// The range lies in a live private or read-only map of a file, of which `faulted` is the flag; [`install`] has succeeded.
pub(super) unsafe fn copy(from: *const u8, out: &mut [u8], faulted: &AtomicBool) {
    let page = PAGE.load(Ordering::Relaxed);
    let start = from as usize & !(page - 1);
    let note = Note { start, end: (from as usize + out.len()).next_multiple_of(page), faulted };
    NOTE.set(&note);
    compiler_fence(Ordering::SeqCst); // The handler runs on this thread: only the compiler could reorder.
    // SAFETY: the caller vouches for `from`; `out` is exclusively ours and does not overlap a map that only this module
    // reads. The bytes may change while they are copied, which is why they are copied and not referred to.
    unsafe { ptr::copy_nonoverlapping(from, out.as_mut_ptr(), out.len()) };
    compiler_fence(Ordering::SeqCst);
    NOTE.set(ptr::null());
}

extern "C" fn on_sigbus(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the system passes a valid `info` to a handler installed with SA_SIGINFO, and it outlives the handler.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    // A code above 0 comes from the kernel; a signal sent by a process carries no address.
    if code > 0 && replace_by_zeros(address) {
        return;
    }
    pass_on(signal, code, info, context);
}

/// Puts zeros from the page at `address` to the end of what this thread is copying, if it lies in there.
fn replace_by_zeros(address: usize) -> bool {
    let Ok(note) = NOTE.try_with(Cell::get) else { return false };
    // SAFETY: a note is null, or was left by `copy` further up on this very stack, where it lives until it is taken away.
    let Some(note) = (unsafe { note.as_ref() }) else { return false };
    if !(note.start..note.end).contains(&address) {
        return false;
    }
    // First the flag, then the zeros: another thread that reads these zeros must find the flag afterwards.
    // SAFETY: the flag was borrowed by `copy`, which has not returned.
    unsafe { (*note.faulted).store(true, Ordering::SeqCst) };
    let from = address & !(PAGE.load(Ordering::Relaxed) - 1);
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    // SAFETY: errno is this thread's; the interrupted code must find it as it was.
    let errno = unsafe { *libc::__errno_location() };
    // SAFETY: whole pages of a map that `copy`'s caller owns and that nobody holds references into; munmap of the map
    // takes these pages along. mmap is a bare system call, safe in a signal handler.
    let zeros = unsafe { libc::mmap(from as *mut c_void, note.end - from, libc::PROT_READ, flags, -1, 0) };
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
    zeros != libc::MAP_FAILED
}

/// Leaves a fault that is not ours to the handler before us (std's reports stack overflows), or to the system.
fn pass_on(signal: c_int, code: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: set before the handler was installed, never freed, never written again.
    let Some(previous) = (unsafe { PREVIOUS.load(Ordering::SeqCst).as_ref() }) else { return };
    match previous.sa_sigaction {
        libc::SIG_IGN if code <= 0 => {}
        libc::SIG_DFL | libc::SIG_IGN => die(signal, code),
        handler if previous.sa_flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: SA_SIGINFO says that the handler is a function of these three arguments.
            let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = unsafe { std::mem::transmute(handler) };
            handler(signal, info, context);
        }
        handler => {
            // SAFETY: without SA_SIGINFO a handler takes the signal's number alone.
            let handler: extern "C" fn(c_int) = unsafe { std::mem::transmute(handler) };
            handler(signal);
        }
    }
}

/// Ends the process by this signal, as if nobody had handled it: a fault happens again on return, a sent signal is sent again.
fn die(signal: c_int, code: c_int) {
    // SAFETY: all zeros is a valid sigaction, with SIG_DFL as its handler.
    let default: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    set(&default);
    if code <= 0 {
        // SAFETY: raise is safe in a signal handler; the signal stays pending until it returns.
        unsafe { libc::raise(signal) };
    }
}

fn current() -> Option<libc::sigaction> {
    let mut action = MaybeUninit::uninit();
    // SAFETY: a null new action only asks; `action` is large enough to be written to.
    let status = unsafe { libc::sigaction(libc::SIGBUS, ptr::null(), action.as_mut_ptr()) };
    // SAFETY: the system filled it in, as it says by returning 0.
    (status == 0).then(|| unsafe { action.assume_init() })
}

fn set(action: &libc::sigaction) -> bool {
    // SAFETY: a valid action whose handler, if any, does only what is safe in a signal handler.
    unsafe { libc::sigaction(libc::SIGBUS, action, ptr::null_mut()) == 0 }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use super::*;

    const ROLE: &str = "QUANT_SIGBUS_TEST";

    /// Runs `test` of this module again in a process of its own, and gives the signal that ended it.
    fn signal_of(test: &str) -> Option<i32> {
        let name = format!("{}::{test}", module_path!().split_once("::").unwrap().1);
        let run = Command::new(std::env::current_exe().unwrap()).args([&name, "--exact", "--nocapture"]).env(ROLE, "1").output().unwrap();
        assert!(String::from_utf8_lossy(&run.stdout).contains("running 1 test"), "{name} is not a test");
        run.status.signal()
    }

    fn is_child() -> bool {
        std::env::var_os(ROLE).is_some()
    }

    #[test]
    fn a_foreign_fault_still_kills() {
        if !is_child() {
            return assert_eq!(signal_of("a_foreign_fault_still_kills"), Some(libc::SIGBUS));
        }
        assert!(install());
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        let foreign = memmap2::MmapOptions::new().len(1 << 20).map_raw_read_only(&file).unwrap();
        // SAFETY: it lies in the map; that the file does not reach there is what the test is about.
        let byte = unsafe { foreign.as_ptr().add(1 << 19).read_volatile() };
        panic!("read {byte} where there is nothing");
    }

    #[test]
    fn a_sent_signal_still_kills() {
        if !is_child() {
            return assert_eq!(signal_of("a_sent_signal_still_kills"), Some(libc::SIGBUS));
        }
        // SAFETY: all zeros is a valid sigaction. It takes the place of std's, which lets the first sent signal pass.
        let default: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
        assert!(set(&default) && install());
        // SAFETY: raising a signal is always allowed.
        unsafe { libc::raise(libc::SIGBUS) };
    }

    #[test]
    fn an_earlier_handler_is_called_for_foreign_signals() {
        static CALLED: AtomicBool = AtomicBool::new(false);
        extern "C" fn earlier(_: c_int) {
            CALLED.store(true, Ordering::SeqCst);
        }
        if !is_child() {
            return assert_eq!(signal_of("an_earlier_handler_is_called_for_foreign_signals"), Some(libc::SIGTERM));
        }
        let handler: extern "C" fn(c_int) = earlier;
        // SAFETY: all zeros is a valid sigaction.
        let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
        action.sa_sigaction = handler as libc::sighandler_t;
        assert!(set(&action) && install());
        // SAFETY: raising a signal is always allowed; SIGTERM tells the parent that the handler was called.
        unsafe { libc::raise(libc::SIGBUS) };
        if CALLED.load(Ordering::SeqCst) {
            // SAFETY: as above.
            unsafe { libc::raise(libc::SIGTERM) };
        }
    }
}
