//! The instructions of a kernel, with names replaced by rows of registers.

use super::Builder;
use super::scope::{Scope, Symbol};
use crate::decode;
use crate::kind::Space;
use crate::module::Kernel;
use crate::step::{Guard, Instruction, Step};
use crate::text::{Cursor, ParseError, number};

/// An operand of an instruction.
#[derive(Clone, Debug)]
pub(crate) enum Operand {
    /// A register, or what is like one: special registers and the addresses of variables.
    Row(usize),
    Predicate {
        index: usize,
        negated: bool,
    },
    Constant(u64),
    /// `[a+4]`. The space is known if `a` is the name of a variable.
    Address {
        row: usize,
        offset: i64,
        space: Option<Space>,
    },
    Vector(Vec<Operand>),
    /// `a|p`
    Pair(Box<Operand>, Box<Operand>),
    /// `_`, which drops a result.
    Sink,
    /// A label, or a register that is not known.
    Name(String),
}

/// An instruction, as it stands in the text.
pub(crate) struct Statement {
    pub line: u32,
    pub guard: Option<Guard>,
    pub opcode: String,
    pub operands: Vec<Operand>,
    /// The labels of `.branchtargets`, if the instruction names such a list.
    pub targets: Vec<String>,
}

/// `L1, L2;`
fn names(cursor: &mut Cursor<'_>) -> Result<Vec<String>, ParseError> {
    let mut names = vec![cursor.next().to_owned()];
    while cursor.eat(",") {
        names.push(cursor.next().to_owned());
    }
    cursor.expect(";")?;
    Ok(names)
}

/// Braces within braces.
const DEPTH_LIMIT: usize = 100;

impl Builder<'_> {
    /// Reads the kernel from its opening brace to the closing one.
    pub(super) fn body(mut self, cursor: &mut Cursor<'_>) -> Result<Kernel, ParseError> {
        let mut statements = Vec::new();
        let mut tables: Vec<(String, Vec<String>)> = Vec::new();
        cursor.expect("{")?;
        let outer = self.scopes.len();
        self.scopes.push(Scope::default());
        while self.scopes.len() > outer {
            match cursor.peek() {
                "" => return cursor.error("the kernel does not end"),
                "{" if self.scopes.len() > DEPTH_LIMIT => return cursor.error("too many braces"),
                "{" => {
                    cursor.next();
                    self.scopes.push(Scope::default());
                }
                "}" => {
                    cursor.next();
                    self.scopes.pop();
                }
                ".reg" => {
                    cursor.next();
                    self.registers(cursor)?;
                }
                ".shared" | ".local" => {
                    let space = if cursor.next() == ".shared" { Space::Shared } else { Space::Local };
                    self.variable(cursor, space)?;
                }
                ".loc" => cursor.skip_line(),
                ".pragma" => cursor.skip_behind(";"),
                name if cursor.ahead(1) == ":" => {
                    cursor.next();
                    cursor.next();
                    if cursor.eat(".branchtargets") {
                        tables.push((name.to_owned(), names(cursor)?));
                    } else if self.labels.insert(name.to_owned(), statements.len()).is_some() {
                        return cursor.error(format!("the label {name} stands twice"));
                    }
                }
                _ => statements.push(self.statement(cursor)?),
            }
        }
        for statement in &mut statements {
            if let Some(Operand::Name(name)) = statement.operands.last()
                && let Some((_, targets)) = tables.iter().find(|(table, _)| table == name)
            {
                statement.targets.clone_from(targets);
            }
        }
        self.decode(&statements, cursor.line());
        Ok(self.kernel)
    }

    fn decode(&mut self, statements: &[Statement], last_line: u32) {
        for statement in statements {
            let step = decode::step(self, statement).unwrap_or_else(|why| Step::Refused(format!("{}: {why}", statement.opcode)));
            let opcode = self.opcode(&statement.opcode);
            self.kernel.code.push(Instruction { guard: statement.guard, step, line: statement.line, opcode });
        }
        let ends = self.kernel.code.last().is_some_and(|last| last.guard.is_none() && matches!(last.step, Step::Exit));
        let end = self.kernel.code.len();
        if !ends || self.labels.values().any(|label| *label == end) {
            // What runs off the end, ends.
            let opcode = self.opcode("ret");
            self.kernel.code.push(Instruction { guard: None, step: Step::Exit, line: last_line, opcode });
        }
    }

    fn opcode(&mut self, name: &str) -> usize {
        let opcodes = &mut self.kernel.opcodes;
        opcodes.iter().position(|known| known == name).unwrap_or_else(|| {
            opcodes.push(name.to_owned());
            opcodes.len() - 1
        })
    }

    fn statement(&mut self, cursor: &mut Cursor<'_>) -> Result<Statement, ParseError> {
        let line = cursor.line();
        let guard = if cursor.eat("@") {
            match self.operand(cursor, 0)? {
                Operand::Predicate { index, negated } => Some(Guard { predicate: index, negated }),
                _ => return cursor.error("a guard that is no predicate"),
            }
        } else {
            None
        };
        let opcode = cursor.next().to_owned();
        if !opcode.starts_with(|first: char| first.is_ascii_lowercase()) {
            return cursor.error(format!("an instruction expected, found `{opcode}`"));
        }
        let mut operands = Vec::new();
        while !cursor.eat(";") {
            if !operands.is_empty() {
                cursor.expect(",")?;
            }
            operands.push(self.operand(cursor, 0)?);
        }
        Ok(Statement { line, guard, opcode, operands, targets: Vec::new() })
    }

    fn operand(&mut self, cursor: &mut Cursor<'_>, depth: usize) -> Result<Operand, ParseError> {
        if depth > 4 {
            return cursor.error("an operand in an operand in an operand");
        }
        let operand = match cursor.peek() {
            "[" => self.address(cursor)?,
            "{" => {
                cursor.next();
                let mut elements = vec![self.operand(cursor, depth + 1)?];
                while cursor.eat(",") {
                    elements.push(self.operand(cursor, depth + 1)?);
                }
                cursor.expect("}")?;
                Operand::Vector(elements)
            }
            "!" => {
                cursor.next();
                match self.operand(cursor, depth + 1)? {
                    Operand::Predicate { index, negated } => Operand::Predicate { index, negated: !negated },
                    _ => return cursor.error("`!` in front of what is no predicate"),
                }
            }
            "-" => {
                cursor.next();
                Operand::Constant(cursor.number()?.wrapping_neg())
            }
            "_" => {
                cursor.next();
                Operand::Sink
            }
            _ => self.name(cursor)?,
        };
        if cursor.eat("|") {
            return Ok(Operand::Pair(Box::new(operand), Box::new(self.operand(cursor, depth + 1)?)));
        }
        Ok(operand)
    }

    fn name(&mut self, cursor: &mut Cursor<'_>) -> Result<Operand, ParseError> {
        let name = cursor.peek();
        if let Some(value) = number(name) {
            cursor.next();
            return Ok(Operand::Constant(value));
        }
        if !name.starts_with(|first: char| first.is_ascii_alphabetic() || matches!(first, '_' | '$' | '%')) {
            return cursor.error(format!("an operand expected, found `{name}`"));
        }
        cursor.next();
        Ok(match self.find(name) {
            Some(Symbol::Register(row)) => Operand::Row(row),
            Some(Symbol::Predicate(index)) => Operand::Predicate { index, negated: false },
            Some(Symbol::Address(_, fill)) => Operand::Row(self.row(fill)),
            None if name == "WARP_SZ" => Operand::Constant(32),
            None => Operand::Name(name.to_owned()),
        })
    }

    /// `[register]`, `[variable+8]`, `[64]`
    fn address(&mut self, cursor: &mut Cursor<'_>) -> Result<Operand, ParseError> {
        cursor.expect("[")?;
        let name = cursor.peek();
        let (row, space) = match (number(name), self.find(name)) {
            (Some(value), _) => (self.constant(value), None),
            (_, Some(Symbol::Register(row))) => (row, None),
            (_, Some(Symbol::Address(space, fill))) => (self.row(fill), Some(space)),
            _ => return cursor.error(format!("`{name}` has no address")),
        };
        cursor.next();
        let mut offset = 0i64;
        if cursor.peek() == "+" || cursor.peek() == "-" {
            cursor.eat("+");
            let negative = cursor.eat("-");
            let value = cursor.number()? as i64;
            offset = if negative { value.wrapping_neg() } else { value };
        }
        cursor.expect("]")?;
        Ok(Operand::Address { row, offset, space })
    }
}
