//! Loads, stores and atomics.

use super::shared::Use;
use super::warp::Warp;
use super::{Halt, Machine};
use crate::kind::Space;
use crate::registers::Registers;
use crate::step::{Access, What};

impl Warp {
    pub(super) fn access(&mut self, machine: &mut Machine<'_>, access: &Access, pc: usize, active: u32) -> Result<(), Halt> {
        let mut order = active;
        while order != 0 {
            let lane = if machine.reversed { 31 - order.leading_zeros() } else { order.trailing_zeros() } as usize;
            order &= !(1 << lane);
            self.access_lane(machine, access, pc, lane).map_err(|why| {
                let what = match access.what {
                    What::Load => "load",
                    What::Store => "store",
                    What::Atomic { .. } => "atomic",
                };
                let message = format!("{what} of {} bytes: {why}", access.width * access.rows.len());
                machine.halt(pc, self.first_thread + lane, message)
            })?;
        }
        Ok(())
    }

    fn access_lane(&mut self, machine: &mut Machine<'_>, access: &Access, pc: usize, lane: usize) -> Result<(), String> {
        let address = self.registers.rows[access.base][lane].wrapping_add(access.offset as u64);
        let len = access.width * access.rows.len();
        let thread = self.first_thread + lane;
        let (space, address) = if access.space == Space::Generic { Space::of_generic(address) } else { (access.space, address) };
        // Lengths are powers of two.
        if address & (len as u64 - 1) != 0 {
            return Err(format!("misaligned: {} address {address:#x}", space.name()));
        }
        let how = match access.what {
            What::Load => Use::Read,
            What::Store => Use::Write,
            What::Atomic { .. } => Use::Atomic,
        };
        let bytes = match space {
            Space::Shared => machine.shared.access(address, len, how, thread, &self.order)?,
            Space::Param => within(&mut machine.params, address, len, space)?,
            Space::Local => {
                let size = machine.kernel.local_bytes;
                within(&mut machine.local[thread * size..][..size], address, len, space)?
            }
            Space::Global | Space::Const | Space::Generic => {
                machine.stats.bytes_read += if how == Use::Write || space == Space::Const { 0 } else { len as u64 };
                machine.stats.bytes_written += if how == Use::Read { 0 } else { len as u64 };
                let memory = &mut *machine.memory;
                match memory.place(address, len, space, how != Use::Read, &mut machine.hints[pc]) {
                    Some(start) => memory.at(machine.hints[pc], start, len),
                    None => return Err(format!("out of bounds: {} address {}", space.name(), memory.describe(address))),
                }
            }
        };
        transfer(access, bytes, &mut self.registers, lane);
        Ok(())
    }
}

fn within(bytes: &mut [u8], address: u64, len: usize, space: Space) -> Result<&mut [u8], String> {
    let all = bytes.len();
    let range = usize::try_from(address).ok().and_then(|start| Some(start..start.checked_add(len)?));
    let found = range.and_then(|range| bytes.get_mut(range));
    found.ok_or_else(|| format!("out of bounds: {} address {address:#x} of {all} bytes", space.name()))
}

/// Moves values between memory and the registers of a lane.
fn transfer(access: &Access, bytes: &mut [u8], registers: &mut Registers, lane: usize) {
    match access.what {
        What::Load => {
            for (index, row) in access.rows.iter().enumerate() {
                if let Some(row) = *row {
                    let value = load(&bytes[index * access.width..][..access.width]);
                    let rest = 64 - 8 * access.width as u32;
                    registers.rows[row][lane] = if access.signed { ((value << rest) as i64 >> rest) as u64 } else { value };
                }
            }
        }
        What::Store => {
            for (index, row) in access.rows.iter().enumerate() {
                if let Some(row) = *row {
                    store(&mut bytes[index * access.width..][..access.width], registers.rows[row][lane]);
                }
            }
        }
        What::Atomic { operands: [a, b], update } => {
            let old = load(bytes);
            store(bytes, update(old, registers.rows[a][lane], registers.rows[b][lane]));
            if let Some(row) = access.rows[0] {
                registers.rows[row][lane] = old;
            }
        }
    }
}

/// Reads 1, 2, 4 or 8 bytes.
#[inline]
fn load(bytes: &[u8]) -> u64 {
    match *bytes {
        [a] => a.into(),
        [a, b] => u16::from_le_bytes([a, b]).into(),
        [a, b, c, d] => u32::from_le_bytes([a, b, c, d]).into(),
        _ => bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)),
    }
}

#[inline]
fn store(bytes: &mut [u8], value: u64) {
    match bytes.len() {
        4 => bytes.copy_from_slice(&(value as u32).to_le_bytes()),
        len => bytes.copy_from_slice(&value.to_le_bytes()[..len]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_are_little_endian() {
        for len in [1, 2, 4, 8] {
            let mut bytes = vec![0; len];
            store(&mut bytes, 0x0807_0605_0403_0201);
            assert_eq!(load(&bytes), 0x0807_0605_0403_0201 & (u64::MAX >> (64 - 8 * len)));
        }
    }
}
