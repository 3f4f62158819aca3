//! The memory of a device: buffers at addresses that belong to nothing else.

use std::collections::HashMap;

use crate::Module;
use crate::kind::Space;

/// The address of the first buffer.
const FIRST: u64 = 1 << 32;
/// Nothing lies between a buffer and the next one for at least so many bytes: accesses behind an end hit nothing.
const GAP: u64 = 1 << 30;
/// What every buffer is aligned to, as by the driver.
const ALIGN: u64 = 256;

struct Buffer {
    base: u64,
    bytes: Vec<u8>,
    /// For messages.
    name: String,
    /// Constants can be read only, and only as such.
    constant: bool,
}

/// Buffers that kernels read and write.
pub struct Memory {
    /// By rising address.
    buffers: Vec<Buffer>,
    next: u64,
    /// Where the variables of modules lie.
    variables: HashMap<u64, Vec<u64>>,
}

impl Default for Memory {
    fn default() -> Self {
        Self { buffers: Vec::new(), next: FIRST, variables: HashMap::new() }
    }
}

impl Memory {
    /// Memory without buffers.
    pub fn new() -> Self {
        Self::default()
    }

    /// A buffer with these bytes: its address.
    pub fn alloc(&mut self, bytes: impl Into<Vec<u8>>) -> u64 {
        self.add(bytes.into(), String::new(), false)
    }

    /// A buffer that messages call by a name.
    pub fn alloc_named(&mut self, name: &str, bytes: impl Into<Vec<u8>>) -> u64 {
        self.add(bytes.into(), name.to_owned(), false)
    }

    fn add(&mut self, bytes: Vec<u8>, name: String, constant: bool) -> u64 {
        let base = self.next;
        self.next = (base + bytes.len() as u64).next_multiple_of(ALIGN) + GAP;
        self.buffers.push(Buffer { base, bytes, name, constant });
        base
    }

    /// Frees a buffer: whether one was there.
    pub fn free(&mut self, address: u64) -> bool {
        let found = self.buffers.binary_search_by_key(&address, |buffer| buffer.base);
        found.map(|index| self.buffers.remove(index)).is_ok()
    }

    /// The first address and the length of the buffer that an address lies in.
    pub fn buffer(&self, address: u64) -> Option<(u64, usize)> {
        let buffer = &self.buffers[self.index(address)?];
        (address - buffer.base <= buffer.bytes.len() as u64).then_some((buffer.base, buffer.bytes.len()))
    }

    /// Bytes at an address, if a buffer has them all.
    pub fn get(&self, address: u64, len: usize) -> Option<&[u8]> {
        let buffer = &self.buffers[self.index(address)?];
        let start = usize::try_from(address - buffer.base).ok()?;
        buffer.bytes.get(start..start.checked_add(len)?)
    }

    /// Bytes at an address, if a buffer has them all.
    pub fn get_mut(&mut self, address: u64, len: usize) -> Option<&mut [u8]> {
        let index = self.index(address)?;
        let buffer = &mut self.buffers[index];
        let start = usize::try_from(address - buffer.base).ok()?;
        buffer.bytes.get_mut(start..start.checked_add(len)?)
    }

    /// Bytes at an address.
    ///
    /// # Panics
    /// If no buffer has them all.
    pub fn bytes(&self, address: u64, len: usize) -> &[u8] {
        self.get(address, len).unwrap_or_else(|| panic!("{len} bytes at {}", self.describe(address)))
    }

    /// Writes bytes to an address.
    ///
    /// # Panics
    /// If no buffer has room for them all.
    pub fn write(&mut self, address: u64, bytes: &[u8]) {
        let place = self.describe(address);
        self.get_mut(address, bytes.len()).unwrap_or_else(|| panic!("{} bytes at {place}", bytes.len())).copy_from_slice(bytes);
    }

    /// The last buffer that does not begin behind the address.
    fn index(&self, address: u64) -> Option<usize> {
        self.buffers.partition_point(|buffer| buffer.base <= address).checked_sub(1)
    }

    /// Where in a buffer an access of a kernel begins. `hint` is the buffer that the instruction found last, and then this one.
    #[inline]
    pub(crate) fn place(&self, address: u64, len: usize, space: Space, write: bool, hint: &mut usize) -> Option<usize> {
        let inside = |buffer: &Buffer| {
            let start = address.wrapping_sub(buffer.base);
            start < buffer.bytes.len() as u64 && buffer.bytes.len() as u64 - start >= len as u64
        };
        if !self.buffers.get(*hint).is_some_and(inside) {
            *hint = self.index(address).filter(|index| inside(&self.buffers[*index]))?;
        }
        let buffer = &self.buffers[*hint];
        let allowed = match space {
            Space::Const => buffer.constant,
            Space::Global => !buffer.constant,
            _ => !(write && buffer.constant),
        };
        allowed.then_some((address - buffer.base) as usize)
    }

    /// Bytes at a place in a buffer.
    #[inline]
    pub(crate) fn at(&mut self, buffer: usize, start: usize, len: usize) -> &mut [u8] {
        &mut self.buffers[buffer].bytes[start..start + len]
    }

    /// An address by the buffer that is nearest to it.
    pub(crate) fn describe(&self, address: u64) -> String {
        let end = |buffer: &Buffer| buffer.base + buffer.bytes.len() as u64;
        let far = |buffer: &&Buffer| if address < buffer.base { buffer.base - address } else { address.saturating_sub(end(buffer)) };
        let Some(nearest) = self.buffers.iter().min_by_key(far) else { return format!("{address:#x}, where no buffer is") };
        let offset = address.wrapping_sub(nearest.base) as i64;
        let kind = if nearest.constant { "the constant" } else { "the buffer" };
        let name = if nearest.name.is_empty() { format!("at {:#x}", nearest.base) } else { nearest.name.clone() };
        format!("{address:#x}, offset {offset} of {kind} {name} of {} bytes, the nearest one", nearest.bytes.len())
    }

    /// The addresses of a module's variables, which are put into memory when the module is first used.
    pub(crate) fn variables(&mut self, module: &Module) -> Vec<u64> {
        if let Some(addresses) = self.variables.get(&module.id) {
            return addresses.clone();
        }
        let all = module.variables.iter();
        let addresses: Vec<u64> = all.map(|v| self.add(v.bytes.clone(), v.name.clone(), v.space == Space::Const)).collect();
        self.variables.insert(module.id, addresses.clone());
        addresses
    }
}
