//! The first 32 bytes: magic, version, checksum, and the two lengths that everything else is held against.
//!
//! The checksum covers all that follows it up to the end of the index. Magic and version are compared, the file length is
//! held against the file: so no bit of a header can change unnoticed.

use quant_core::{Error, Result};

use super::ALIGN;
use crate::input::Input;

/// How every BQT file begins: a byte with the high bit set, the name, and line ends that a text-mode transfer damages.
pub const MAGIC: [u8; 8] = [0x89, b'B', b'Q', b'T', b'\r', b'\n', 0x1a, b'\n'];

/// The version that this reader knows.
const VERSION: u32 = 1;

/// Bytes of a header.
pub(super) const HEADER: u64 = 32;

/// Where the bytes under the header's checksum begin; they end with the index.
pub(super) const SUMMED: u64 = 16;

/// The longest index, in bytes.
pub(super) const INDEX_LIMIT: u64 = 1 << 30;

/// What a header says beyond magic and version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// CRC-32 of the bytes from [`SUMMED`] to the end of the index.
    pub(super) crc32: u32,
    /// Bytes of the index, its padding included.
    pub(super) index_len: u64,
    /// Bytes of the file.
    pub(super) file_len: u64,
}

impl Header {
    /// Where the data begins.
    pub(super) fn data_start(&self) -> u64 {
        HEADER + self.index_len
    }

    /// The bytes of the file.
    pub(super) fn bytes(&self) -> [u8; HEADER as usize] {
        let mut bytes = [0; HEADER as usize];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.crc32.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.index_len.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.file_len.to_le_bytes());
        bytes
    }

    /// Reads the header of `input`; its lengths are then known to fit the file. The checksum is not yet compared.
    ///
    /// # Errors
    /// Naming the byte offset of what does not fit.
    pub(super) fn read(input: &Input) -> Result<Header> {
        let bad = |offset, problem: String| Err(Error::file(input.path(), problem).at(offset));
        if input.len() < HEADER {
            return bad(0, format!("a BQT file begins with a header of {HEADER} bytes, found {} bytes", input.len()));
        }
        let mut bytes = [0; HEADER as usize];
        input.read_at(0, &mut bytes)?;
        if bytes[..8] != MAGIC {
            return bad(0, not_magic(&bytes[..8]));
        }
        let version = u32_at(&bytes, 8);
        if version != VERSION {
            return bad(8, format!("BQT version {version} is not known, this program reads version {VERSION}"));
        }
        let header = Header { crc32: u32_at(&bytes, 12), index_len: u64_at(&bytes, 16), file_len: u64_at(&bytes, 24) };
        if header.file_len != input.len() {
            return bad(24, format!("the header says {} bytes, the file has {}: cut off, or still being copied", header.file_len, input.len()));
        }
        if header.index_len > INDEX_LIMIT || header.index_len > header.file_len - HEADER {
            return bad(16, format!("an index of {} bytes does not fit a file of {} (and {INDEX_LIMIT})", header.index_len, header.file_len));
        }
        if !header.data_start().is_multiple_of(ALIGN) {
            return bad(16, format!("an index of {} bytes does not end at a multiple of {ALIGN}", header.index_len));
        }
        Ok(header)
    }
}

fn not_magic(found: &[u8]) -> String {
    let text_mode = found.starts_with(b"\x89BQT") || found.starts_with(b"\x09BQT");
    let cause = if text_mode { "; it looks as if it had been transferred as text" } else { "" };
    format!("not a BQT file: it begins with {found:02x?} instead of {MAGIC:02x?}{cause}")
}

fn u32_at(bytes: &[u8; HEADER as usize], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8; HEADER as usize], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
