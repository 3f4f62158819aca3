//! PTX text to a [`Module`]: directives here, kernels in [`body`], names and registers in [`scope`].

mod body;
mod scope;

use std::collections::HashMap;

use crate::kind::{Kind, Space};
use crate::module::{Fill, Kernel, Module, Param, Variable};
use crate::text::{Cursor, ParseError};

pub(crate) use body::{Operand, Statement};
pub(crate) use scope::Builder;
use scope::{Scope, Symbol};

/// The most bytes of constants that a module has, as on GPUs.
const CONST_LIMIT: usize = 64 << 10;
/// The most bytes of an array, so that a wrong number does not eat the machine's memory.
const ARRAY_LIMIT: u64 = 64 << 20;

/// Shared memory that is declared outside of kernels. It gets its place in each kernel that names it.
struct SharedVariable {
    bytes: usize,
    align: usize,
    /// The launch decides its length.
    dynamic: bool,
}

/// What kernels can name besides their own.
#[derive(Default)]
struct Globals {
    shared: HashMap<String, SharedVariable>,
}

/// A variable, as it is declared.
struct Declaration {
    name: String,
    bytes: Vec<u8>,
    align: usize,
    /// `[]`, without a length.
    open: bool,
}

/// Fills a module from its text.
pub(crate) fn parse(text: &str, module: &mut Module) -> Result<(), ParseError> {
    let mut cursor = Cursor::new(text)?;
    let mut globals = Globals::default();
    while !cursor.at_end() {
        match cursor.peek() {
            ".version" => module.version = version(&mut cursor)?,
            ".target" => {
                cursor.next();
                module.target = cursor.next().into();
                while cursor.eat(",") {
                    cursor.next();
                }
            }
            ".address_size" => {
                cursor.next();
                if cursor.number()? != 64 {
                    return cursor.error("addresses of another size than 64 bits");
                }
            }
            ".file" => cursor.skip_line(),
            ".section" => cursor.skip_behind("}"),
            _ => item(&mut cursor, module, &mut globals)?,
        }
    }
    Ok(())
}

fn version(cursor: &mut Cursor<'_>) -> Result<(u32, u32), ParseError> {
    cursor.next();
    let parts = cursor.peek().split_once('.').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    let Some(version) = parts else { return cursor.error("a version like 7.0 expected") };
    cursor.next();
    Ok(version)
}

/// A kernel or a variable.
fn item(cursor: &mut Cursor<'_>, module: &mut Module, globals: &mut Globals) -> Result<(), ParseError> {
    let mut external = false;
    while let linkage @ (".visible" | ".extern" | ".weak" | ".common") = cursor.peek() {
        external |= linkage == ".extern";
        cursor.next();
    }
    match cursor.peek() {
        ".entry" => {
            let kernel = kernel(cursor, module, globals)?;
            module.kernels.push(kernel);
        }
        ".const" | ".global" => {
            let space = if cursor.next() == ".const" { Space::Const } else { Space::Global };
            let Declaration { name, bytes, .. } = declaration(cursor)?;
            module.variables.push(Variable { name, space, bytes });
            let constants: usize = module.variables.iter().filter(|v| v.space == Space::Const).map(|v| v.bytes.len()).sum();
            if constants > CONST_LIMIT {
                return cursor.error("more than 64 KiB of constants");
            }
        }
        ".shared" => {
            cursor.next();
            let Declaration { name, bytes, align, open } = declaration(cursor)?;
            globals.shared.insert(name, SharedVariable { bytes: bytes.len(), align, dynamic: open || external });
        }
        ".func" => return cursor.error("functions that are not inlined (.func)"),
        other => return cursor.error(format!("`{other}` is not known here")),
    }
    Ok(())
}

/// What follows the space: `.align 4 .b8 name[8] = {1, 2};`
fn declaration(cursor: &mut Cursor<'_>) -> Result<Declaration, ParseError> {
    let (mut align, mut kind, mut elements) = (1, None, 1);
    while cursor.peek().starts_with('.') {
        match cursor.next() {
            ".align" => align = cursor.count(1 << 16)?,
            ".v2" => elements = 2,
            ".v4" => elements = 4,
            other => match Kind::parse(&other[1..]) {
                Some(found) if found != Kind::Predicate => kind = Some(found),
                _ => return cursor.error(format!("a variable with `{other}`")),
            },
        }
    }
    let Some(kind) = kind else { return cursor.error("a variable without a type") };
    let name = cursor.next().to_owned();
    let (mut open, mut count) = (false, elements as u64);
    while cursor.eat("[") {
        if cursor.eat("]") {
            open = true;
            count = 0;
        } else {
            count = count.saturating_mul(cursor.count(ARRAY_LIMIT)? as u64);
            cursor.expect("]")?;
        }
    }
    let len = count.saturating_mul(kind.bytes() as u64);
    if len > ARRAY_LIMIT {
        return cursor.error("a variable of more than 64 MiB");
    }
    let mut bytes = vec![0; len as usize];
    if cursor.eat("=") {
        initialiser(cursor, kind, &mut bytes)?;
    }
    cursor.expect(";")?;
    Ok(Declaration { name, bytes, align: (align * elements.min(1)).max(kind.bytes() * elements), open })
}

/// The values of a variable. Those that are left out are zero.
fn initialiser(cursor: &mut Cursor<'_>, kind: Kind, bytes: &mut [u8]) -> Result<(), ParseError> {
    let mut elements = bytes.chunks_exact_mut(kind.bytes());
    let mut open = 0;
    loop {
        if cursor.eat("{") {
            open += 1;
        } else if cursor.eat("}") {
            open -= 1;
        } else if !cursor.eat(",") {
            let negative = cursor.eat("-");
            let value = cursor.number()?;
            let value = if negative { value.wrapping_neg() } else { value };
            match elements.next() {
                Some(element) => element.copy_from_slice(&value.to_le_bytes()[..kind.bytes()]),
                None => return cursor.error("more values than the variable has elements"),
            }
        }
        if open <= 0 {
            return Ok(());
        }
    }
}

fn kernel(cursor: &mut Cursor<'_>, module: &Module, globals: &Globals) -> Result<Kernel, ParseError> {
    cursor.next();
    let name = cursor.next().to_owned();
    let (params, scope) = params(cursor)?;
    let mut max_threads = 1024;
    while cursor.peek() != "{" {
        match cursor.next() {
            ".maxntid" | ".reqntid" => {
                let mut threads = cursor.count(1024)?;
                while cursor.eat(",") {
                    threads *= cursor.count(1024)?;
                }
                max_threads = max_threads.min(threads);
            }
            ".minnctapersm" | ".maxnreg" => {
                cursor.number()?;
            }
            other => return cursor.error(format!("a kernel with `{other}`")),
        }
    }
    let kernel = Kernel {
        name,
        params,
        shared_bytes: 0,
        local_bytes: 0,
        max_threads,
        code: Vec::new(),
        opcodes: Vec::new(),
        rows: 0,
        predicates: 0,
        fills: Vec::new(),
    };
    Builder::new(kernel, module, globals, scope).body(cursor)
}

/// The parameters of a kernel, each at the next offset that its type allows.
fn params(cursor: &mut Cursor<'_>) -> Result<(Vec<Param>, Scope), ParseError> {
    let (mut params, mut scope, mut end) = (Vec::new(), Scope::default(), 0usize);
    if !cursor.eat("(") {
        return Ok((params, scope));
    }
    while !cursor.eat(")") {
        let (mut kind, mut align) = (None, 1);
        while cursor.peek().starts_with('.') {
            match cursor.next() {
                ".param" | ".ptr" | ".global" => {}
                ".align" => align = cursor.count(256)?.max(1),
                other => kind = Kind::parse(&other[1..]).filter(|kind| *kind != Kind::Predicate),
            }
        }
        let Some(kind) = kind else { return cursor.error("a parameter without a type") };
        let name = cursor.next().to_owned();
        let mut bytes = kind.bytes();
        if cursor.eat("[") {
            bytes *= cursor.count(4096)?;
            cursor.expect("]")?;
        } else {
            align = kind.bytes();
        }
        let offset = end.next_multiple_of(align);
        end = offset + bytes;
        if end > 4096 {
            return cursor.error("more than 4096 bytes of parameters");
        }
        scope.insert(name, Symbol::Address(Space::Param, Fill::Constant(offset as u64)));
        params.push(Param { offset, bytes });
        if cursor.peek() != ")" {
            cursor.expect(",")?;
        }
    }
    Ok((params, scope))
}
