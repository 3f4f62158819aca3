//! Whether an opened file is a stored one.

use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;

/// proc, sysfs, debugfs, tracefs, cgroup, cgroup2, bpf, securityfs; linux/magic.h.
const KERNEL: [u32; 8] = [0x9fa0, 0x6265_6572, 0x6462_6720, 0x7472_6163, 0x0027_e0eb, 0x6367_7270, 0xcafe_4a11, 0x7363_6673];

/// Whether the kernel makes up the bytes of `file` as they are read; such files report a length of 0, or of 128 TiB.
pub(super) fn is_made_up(file: &File) -> bool {
    magic(file).is_some_and(|magic| KERNEL.contains(&magic))
}

fn magic(file: &File) -> Option<u32> {
    let mut found = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: the descriptor is open as long as `file` is borrowed, and `found` is large enough to be written to.
    let status = unsafe { libc::fstatfs(file.as_raw_fd(), found.as_mut_ptr()) };
    // SAFETY: the system filled it in, as it says by returning 0. Magic numbers have 32 bits whatever the field's type.
    (status == 0).then(|| unsafe { found.assume_init() }.f_type as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_made_up_and_the_disk_is_not() {
        assert!(is_made_up(&File::open("/proc/self/stat").unwrap()));
        assert!(!is_made_up(&tempfile::tempfile().unwrap()));
    }
}
