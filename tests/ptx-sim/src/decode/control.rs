//! Branches, barriers, and what the lanes of a warp do together.

use super::memory::update;
use super::{Decoder, Operand, Result, predicate};
use crate::kind::Kind;
use crate::step::{Action, Collective, Shuffle, Step, Vote};

impl Decoder<'_, '_> {
    pub(super) fn control(&mut self) -> Result<Step> {
        match self.root {
            "bra" => {
                let uniform = self.take("uni");
                let Operand::Name(label) = self.operand(0)? else { return Err("the target is no label".into()) };
                Ok(Step::Branch { target: self.target(label)?, uniform })
            }
            "brx" => {
                self.take("idx");
                self.take("uni");
                if self.statement.targets.is_empty() {
                    return Err("the targets are not known".into());
                }
                let targets = self.statement.targets.iter().map(|label| self.target(label)).collect::<Result<_>>()?;
                let Operand::Row(index) = self.operand(0)? else { return Err("the index is no register".into()) };
                Ok(Step::Table { index: *index, targets })
            }
            "ret" | "exit" => {
                self.take("uni");
                Ok(Step::Exit)
            }
            "trap" => Ok(Step::Trap),
            "nanosleep" => {
                self.kind()?;
                Ok(Step::Nothing)
            }
            "activemask" => {
                self.kind()?;
                let to = self.to()?;
                Ok(Step::Lanes(Box::new(move |registers, mask| {
                    registers.map1(mask, to, to, |_: u64| mask);
                    Ok(())
                })))
            }
            "bar" | "barrier" if !self.modifiers.contains(&"warp") => self.barrier(),
            _ => self.collective(),
        }
    }

    fn target(&self, label: &str) -> Result<usize> {
        self.builder.labels.get(label).copied().ok_or_else(|| format!("there is no label {label}"))
    }

    /// Only barrier 0 of all threads.
    fn barrier(&mut self) -> Result<Step> {
        let aligned = self.take("aligned") || self.root == "bar";
        self.take("cta");
        if !self.take("sync") || !aligned {
            return self.unknown();
        }
        match self.statement.operands.as_slice() {
            [Operand::Constant(0)] => Ok(Step::Barrier),
            _ => Err("another barrier than number 0 of all threads".into()),
        }
    }

    fn collective(&mut self) -> Result<Step> {
        if !self.take("sync") {
            return Err("without .sync it is not defined".into());
        }
        let (member, action) = match self.root {
            "bar" => {
                self.take("warp");
                (0, Action::Sync)
            }
            "shfl" => self.shuffle()?,
            "vote" => self.vote()?,
            "match" => self.find_equal()?,
            "redux" => {
                let operation = self.take_some(|modifier| ["add", "min", "max", "and", "or", "xor"].into_iter().find(|name| *name == modifier));
                let kind = self.kind()?;
                let update = operation.filter(|_| kind.bits() == 32).and_then(|operation| update(operation, kind));
                let Some(update) = update else { return self.unknown() };
                (2, Action::Reduce { to: self.to()?, from: self.from(1)?, update })
            }
            _ => return self.unknown(),
        };
        Ok(Step::Collective(Collective { member: self.from(member)?, action }))
    }

    /// The result of `shfl` and `match`: a register, and perhaps a predicate.
    fn result(&self) -> Result<(usize, Option<usize>)> {
        match self.operand(0)? {
            Operand::Row(row) => Ok((*row, None)),
            Operand::Pair(first, second) => match (&**first, &**second) {
                (Operand::Row(row), Operand::Sink) => Ok((*row, None)),
                (Operand::Row(row), second) => Ok((*row, Some(predicate(second)?))),
                _ => Err("the result is no register".into()),
            },
            _ => Err("the result is no register".into()),
        }
    }

    fn shuffle(&mut self) -> Result<(usize, Action)> {
        let mode = self.take_some(|modifier| {
            Some(match modifier {
                "up" => Shuffle::Up,
                "down" => Shuffle::Down,
                "bfly" => Shuffle::Butterfly,
                "idx" => Shuffle::Index,
                _ => return None,
            })
        });
        let (Some(mode), Kind::B32) = (mode, self.kind()?) else { return self.unknown() };
        let (to, valid) = self.result()?;
        let [from, lane, clamp] = self.triple()?;
        Ok((4, Action::Shuffle { mode, to, valid, from, lane, clamp }))
    }

    fn vote(&mut self) -> Result<(usize, Action)> {
        let mode = self.take_some(|modifier| {
            Some(match modifier {
                "all" => Vote::All,
                "any" => Vote::Any,
                "uni" => Vote::Uniform,
                "ballot" => Vote::Ballot,
                _ => return None,
            })
        });
        let (Some(mode), kind) = (mode, self.kind()?) else { return self.unknown() };
        let to = match (mode, kind) {
            (Vote::Ballot, Kind::B32) => self.to()?,
            (Vote::All | Vote::Any | Vote::Uniform, Kind::Predicate) => predicate(self.operand(0)?)?,
            _ => return self.unknown(),
        };
        Ok((2, Action::Vote { mode, to, condition: self.condition(1)? }))
    }

    fn find_equal(&mut self) -> Result<(usize, Action)> {
        let (all, any) = (self.take("all"), self.take("any"));
        let wide = match self.kind()? {
            Kind::B32 => false,
            Kind::B64 => true,
            _ => return self.unknown(),
        };
        let (to, valid) = self.result()?;
        if all == any || any && valid.is_some() {
            return self.unknown();
        }
        Ok((2, Action::Match { all, wide, to, valid, from: self.from(1)? }))
    }
}
