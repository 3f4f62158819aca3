//! What the lanes of a mask do together.

use super::warp::{Group, Waiting, Warp};
use super::{Halt, Machine};
use crate::registers::{Row, lanes};
use crate::step::{Action, Collective, Shuffle, Vote, mask_of};

/// What a lane gets that reads one which does not take part.
const POISON: u64 = 0xdead_beef;

impl Warp {
    /// Lanes arrive at a collective: whether `group` goes on with the next instruction. If not, its lanes wait, or are ready.
    pub(super) fn join(&mut self, machine: &Machine<'_>, collective: &Collective, group: Group, active: u32) -> Result<bool, Halt> {
        let masks = self.registers.rows[collective.member];
        let member = masks[active.trailing_zeros() as usize] as u32;
        if active == group.lanes && active == member && lanes(active).all(|lane| masks[lane] as u32 == member) {
            self.act(&collective.action, member);
            return Ok(true);
        }
        if active != group.lanes {
            self.ready.push(Group { pc: group.pc + 1, lanes: group.lanes & !active });
        }
        // Lanes with different masks have nothing to do with each other, unless one names the other.
        let mut rest = active;
        while rest != 0 {
            let member = masks[rest.trailing_zeros() as usize] as u32;
            let same = lanes(rest).filter(|lane| masks[*lane] as u32 == member).fold(0, |same, lane| same | 1 << lane);
            rest &= !same;
            if let Some(lane) = lanes(same & !member | active & !same & member).next() {
                let (its, message) = (masks[lane] as u32, "lanes must be in their masks, and agree with all others in it");
                return Err(machine.halt(group.pc, self.first_thread + lane, format!("masks {its:#010x} and {member:#010x}: {message}")));
            }
            if member & !self.live != 0 {
                let message = format!("the mask {member:#010x} names lanes that have exited: {:#010x}", member & !self.live);
                return Err(machine.halt(group.pc, self.thread(same), message));
            }
            self.wait(machine, collective, Group { lanes: same, ..group }, member)?;
        }
        Ok(false)
    }

    fn wait(&mut self, machine: &Machine<'_>, collective: &Collective, group: Group, member: u32) -> Result<(), Halt> {
        let sync = matches!(collective.action, Action::Sync);
        let other_mask = |waiting: &&Waiting| waiting.group.pc == group.pc && waiting.member != member && waiting.member & member != 0;
        if let Some(other) = self.waiting.iter().find(other_mask) {
            let message = format!("the lane names the mask {member:#010x}, waiting ones {:#010x}", other.member);
            return Err(machine.halt(group.pc, self.thread(group.lanes), message));
        }
        self.waiting.push(Waiting { group, member, sync });
        let here = |waiting: &Waiting| waiting.member == member && if sync { waiting.sync } else { waiting.group.pc == group.pc };
        let arrived = self.waiting.iter().filter(|waiting| here(waiting)).fold(0, |arrived, waiting| arrived | waiting.group.lanes);
        if arrived == member {
            let ready = self.waiting.extract_if(.., |waiting| here(waiting));
            self.ready.extend(ready.map(|waiting| Group { pc: waiting.group.pc + 1, ..waiting.group }));
            self.act(&collective.action, member);
        }
        Ok(())
    }

    fn act(&mut self, action: &Action, member: u32) {
        let registers = &mut self.registers;
        match *action {
            Action::Sync => self.order.sync(member),
            Action::Shuffle { mode, to, valid, from, lane, clamp } => {
                let [values, by, clamps] = [from, lane, clamp].map(|row| registers.rows[row]);
                let mut in_range = 0;
                for lane in lanes(member) {
                    let (source, inside) = source(mode, lane as u32, by[lane] as u32, clamps[lane] as u32);
                    in_range |= u32::from(inside) << lane;
                    registers.rows[to][lane] = if member >> source & 1 != 0 { values[source as usize] } else { POISON };
                }
                if let Some(to) = valid {
                    registers.set_predicate(member, to, in_range);
                }
            }
            Action::Vote { mode, to, condition } => {
                let yes = condition.read(registers) & member;
                let value = match mode {
                    Vote::Ballot => {
                        registers.map1(member, to, to, |_: u64| yes);
                        return;
                    }
                    Vote::All => yes == member,
                    Vote::Any => yes != 0,
                    Vote::Uniform => yes == 0 || yes == member,
                };
                registers.set_predicate(member, to, mask_of(value));
            }
            Action::Match { all, wide, to, valid, from } => {
                let values = registers.rows[from].map(|value| if wide { value } else { u64::from(value as u32) });
                let equal: Row =
                    std::array::from_fn(|lane| lanes(member).fold(0, |equal, other| equal | u64::from(values[other] == values[lane]) << other));
                let every = lanes(member).all(|lane| equal[lane] as u32 == member);
                for lane in lanes(member) {
                    registers.rows[to][lane] = if all && !every { 0 } else { equal[lane] };
                }
                if let Some(to) = valid {
                    registers.set_predicate(member, to, mask_of(every));
                }
            }
            Action::Reduce { to, from, update } => {
                let values = registers.rows[from];
                if let Some(result) = lanes(member).map(|lane| values[lane]).reduce(|a, b| update(a, b, 0)) {
                    registers.map1(member, to, to, |_: u64| result);
                }
            }
        }
    }
}

/// The lane that a shuffle reads, and whether it lies in the segment. (Names as in the PTX manual.)
fn source(mode: Shuffle, lane: u32, b: u32, c: u32) -> (u32, bool) {
    let (b, clamp, segment) = (b & 31, c & 31, c >> 8 & 31);
    let most = lane & segment | clamp & !segment;
    let least = lane & segment;
    let (source, inside) = match mode {
        Shuffle::Up => (lane.wrapping_sub(b), lane as i32 - b as i32 >= most as i32),
        Shuffle::Down => (lane + b, lane + b <= most),
        Shuffle::Butterfly => (lane ^ b, lane ^ b <= most),
        Shuffle::Index => (least | b & !segment, least | b & !segment <= most),
    };
    if inside { (source, true) } else { (lane, false) }
}
