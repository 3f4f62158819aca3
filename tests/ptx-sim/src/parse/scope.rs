//! Names of a kernel, and the rows of registers that stand for them.

use std::collections::HashMap;

use super::{Declaration, Globals, declaration};
use crate::kind::{Kind, Space};
use crate::module::{Fill, Kernel, Module, Special};
use crate::text::{Cursor, ParseError};

/// The most registers of a kernel.
const REGISTER_LIMIT: usize = 1 << 16;
/// The most bytes of shared or local memory.
const MEMORY_LIMIT: usize = 512 << 10;

/// What a name stands for.
#[derive(Clone, Copy)]
pub(super) enum Symbol {
    Register(usize),
    Predicate(usize),
    Address(Space, Fill),
}

/// Registers that are declared together, like `%r<45>`.
struct Range {
    prefix: String,
    count: usize,
    first: usize,
    predicates: bool,
}

/// The names between two braces.
#[derive(Default)]
pub(crate) struct Scope {
    names: HashMap<String, Symbol>,
    ranges: Vec<Range>,
}

impl Scope {
    pub(super) fn insert(&mut self, name: String, symbol: Symbol) {
        self.names.insert(name, symbol);
    }

    fn find(&self, name: &str) -> Option<Symbol> {
        self.names.get(name).copied().or_else(|| self.ranges.iter().find_map(|range| range.find(name)))
    }
}

impl Range {
    fn find(&self, name: &str) -> Option<Symbol> {
        let number = name.strip_prefix(self.prefix.as_str())?;
        let index = number.parse::<usize>().ok().filter(|index| *index < self.count && (number == "0" || !number.starts_with(['0', '+'])))?;
        Some(if self.predicates { Symbol::Predicate(self.first + index) } else { Symbol::Register(self.first + index) })
    }
}

/// A kernel that is being read.
pub(crate) struct Builder<'a> {
    pub kernel: Kernel,
    module: &'a Module,
    globals: &'a Globals,
    pub(super) scopes: Vec<Scope>,
    fills: HashMap<Fill, usize>,
    /// Where shared variables of the module lie in this kernel.
    shared: HashMap<String, Fill>,
    pub labels: HashMap<String, usize>,
}

impl<'a> Builder<'a> {
    pub(super) fn new(kernel: Kernel, module: &'a Module, globals: &'a Globals, scope: Scope) -> Self {
        Self { kernel, module, globals, scopes: vec![scope], fills: HashMap::new(), shared: HashMap::new(), labels: HashMap::new() }
    }

    /// `.reg .b32 %r<45>, %a;`
    pub(super) fn registers(&mut self, cursor: &mut Cursor<'_>) -> Result<(), ParseError> {
        let Some(kind) = cursor.next().strip_prefix('.').and_then(Kind::parse) else { return cursor.error("registers without a type") };
        loop {
            let prefix = cursor.next().to_owned();
            let count = if cursor.eat("<") {
                let count = cursor.count(REGISTER_LIMIT as u64)?;
                cursor.expect(">")?;
                Some(count)
            } else {
                None
            };
            let predicates = kind == Kind::Predicate;
            let all = if predicates { &mut self.kernel.predicates } else { &mut self.kernel.rows };
            let first = *all;
            *all += count.unwrap_or(1);
            if *all > REGISTER_LIMIT {
                return cursor.error("too many registers");
            }
            if let Some(scope) = self.scopes.last_mut() {
                match count {
                    Some(count) => scope.ranges.push(Range { prefix, count, first, predicates }),
                    None => scope.insert(prefix, if predicates { Symbol::Predicate(first) } else { Symbol::Register(first) }),
                }
            }
            if !cursor.eat(",") {
                return cursor.expect(";");
            }
        }
    }

    /// A `.shared` or `.local` variable.
    pub(super) fn variable(&mut self, cursor: &mut Cursor<'_>, space: Space) -> Result<(), ParseError> {
        let Declaration { name, bytes, align, .. } = declaration(cursor)?;
        let fill = self.place(space, bytes.len(), align);
        if self.kernel.shared_bytes.max(self.kernel.local_bytes) > MEMORY_LIMIT {
            return cursor.error("too much shared or local memory");
        }
        if let Some(scope) = self.scopes.last_mut() {
            scope.insert(name, Symbol::Address(space, fill));
        }
        Ok(())
    }

    fn place(&mut self, space: Space, bytes: usize, align: usize) -> Fill {
        let end = if space == Space::Shared { &mut self.kernel.shared_bytes } else { &mut self.kernel.local_bytes };
        let offset = end.next_multiple_of(align.max(1));
        *end = offset + bytes;
        Fill::Constant(offset as u64)
    }

    /// What a name stands for, from the innermost braces outwards.
    pub(super) fn find(&mut self, name: &str) -> Option<Symbol> {
        if let Some(symbol) = self.scopes.iter().rev().find_map(|scope| scope.find(name)) {
            return Some(symbol);
        }
        if let Some(special) = Special::parse(name) {
            return Some(Symbol::Register(self.row(Fill::Special(special))));
        }
        if let Some(index) = self.module.variables.iter().position(|variable| variable.name == name) {
            return Some(Symbol::Address(self.module.variables[index].space, Fill::Variable(index)));
        }
        if let Some(fill) = self.shared.get(name) {
            return Some(Symbol::Address(Space::Shared, *fill));
        }
        let variable = self.globals.shared.get(name)?;
        let fill = if variable.dynamic { Fill::DynamicShared } else { self.place(Space::Shared, variable.bytes, variable.align) };
        self.shared.insert(name.to_owned(), fill);
        Some(Symbol::Address(Space::Shared, fill))
    }

    /// The row that holds something all the time.
    pub fn row(&mut self, fill: Fill) -> usize {
        *self.fills.entry(fill).or_insert_with(|| {
            let row = self.kernel.rows;
            self.kernel.rows += 1;
            self.kernel.fills.push((row, fill));
            row
        })
    }

    pub fn constant(&mut self, value: u64) -> usize {
        self.row(Fill::Constant(value))
    }
}
