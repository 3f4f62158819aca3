//! What kind of file system an opened file lies on.

use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;

/// The kinds that are read differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileSystem {
    /// Disks and memory, and whatever is not known to be something else.
    Local,
    /// Its bytes come from another machine or process, which may go away.
    Remote,
    /// Its files are made up by the kernel: they report a length of 0, or of 128 TiB.
    Kernel,
}

/// nfs, smb, cifs, smb2, fuse, 9p, lustre, ceph, afs, coda, gpfs, beegfs, panfs, vboxsf; statfs(2) and the systems' own headers.
const REMOTE: [u32; 14] = [
    0x6969,
    0x517b,
    0xff53_4d42,
    0xfe53_4d42,
    0x6573_5546,
    0x0102_1997,
    0x0bd0_0bd0,
    0x00c3_6400,
    0x5346_414f,
    0x7375_7245,
    0x4750_4653,
    0x1983_0326,
    0xaad7_aaea,
    0x786f_4256,
];
/// proc, sysfs, debugfs, tracefs, cgroup, cgroup2, bpf, securityfs; linux/magic.h.
const KERNEL: [u32; 8] = [0x9fa0, 0x6265_6572, 0x6462_6720, 0x7472_6163, 0x0027_e0eb, 0x6367_7270, 0xcafe_4a11, 0x7363_6673];

impl FileSystem {
    /// Where `file` lies; local if the system does not tell.
    pub(super) fn of(file: &File) -> FileSystem {
        match magic(file) {
            Some(magic) if REMOTE.contains(&magic) => FileSystem::Remote,
            Some(magic) if KERNEL.contains(&magic) => FileSystem::Kernel,
            _ => FileSystem::Local,
        }
    }
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
    fn proc_is_of_the_kernel_and_the_disk_is_local() {
        assert_eq!(FileSystem::of(&File::open("/proc/self/stat").unwrap()), FileSystem::Kernel);
        assert_eq!(FileSystem::of(&tempfile::tempfile().unwrap()), FileSystem::Local);
    }
}
