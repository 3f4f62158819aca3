//! YAML as people write it above model cards, read as PyYAML reads it.
//!
//! The whole of YAML 1.1 but for tags other than `!!str`, `!!seq` and `!!map`, and directives. What PyYAML refuses is refused
//! here too, or read as it was meant. A reader of YAML 1.2 would not do: it refuses lists and quoted texts that go on at the
//! start of a line, which cards have and PyYAML takes, and reads other numbers and truth values.
//!
//! Values come as JSON. Of two equal keys the last counts; keys that are not text are dropped. Depth is limited, and what
//! aliases repeat is never more than a few times the text.
//!
//! Source: `safe_load` of PyYAML 6.0.

mod block;
mod flow;
mod scalar;

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::plain;

/// A value, or what is wrong and in which line.
type Found<T> = Result<T, String>;

/// How deep values may lie in each other. PyYAML gives up at some 490.
const MAX_DEPTH: u32 = 400;
/// How many bytes aliases may repeat for each byte of the text.
const MAX_REPEATED: usize = 16;

/// Reads one document.
///
/// # Errors
/// What is wrong, and in which line.
pub(super) fn read(text: &str) -> Found<Value> {
    let mut reader = Reader { text, at: 0, depth: 0, anchors: HashMap::new(), budget: text.len().saturating_mul(MAX_REPEATED) };
    if let Some(c) = text.chars().find(|&c| !is_printable(c)) {
        reader.at = text.find(c).unwrap_or(0);
        return Err(reader.problem(&format!("found the character {}, which YAML does not allow", c.escape_unicode())));
    }
    reader.document()
}

fn is_printable(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{fffd}' | '\u{10000}'..)
}

struct Reader<'a> {
    text: &'a str,
    /// Bytes that are read.
    at: usize,
    depth: u32,
    /// Anchored values with their weights.
    anchors: HashMap<&'a str, (Value, usize)>,
    /// Bytes that aliases may still repeat.
    budget: usize,
}

/// What stands before a value.
#[derive(Default)]
struct Properties<'a> {
    anchor: Option<&'a str>,
    is_text: bool,
}

impl<'a> Reader<'a> {
    fn document(&mut self) -> Found<Value> {
        self.skip();
        if self.rest().starts_with("---") && self.is_document_mark() {
            self.at += 3;
        }
        let value = self.block(-1, false)?;
        self.skip();
        if self.rest().starts_with("...") && self.is_document_mark() {
            self.at += 3;
            self.skip();
        }
        if self.is_end() { Ok(value) } else { Err(self.problem("found more after the end of the value")) }
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// The byte `n` bytes ahead; 0 after the end.
    fn peek(&self, n: usize) -> u8 {
        self.text.as_bytes().get(self.at + n).copied().unwrap_or(0)
    }

    fn is_end(&self) -> bool {
        self.at >= self.text.len()
    }

    fn is_blank(&self, n: usize) -> bool {
        matches!(self.peek(n), b' ' | b'\t' | b'\n' | 0)
    }

    /// Whether `mark` stands here on its own.
    fn is_indicator(&self, mark: u8) -> bool {
        self.peek(0) == mark && self.is_blank(1)
    }

    fn line_start(&self) -> usize {
        self.text.as_bytes()[..self.at].iter().rposition(|&b| b == b'\n').map_or(0, |i| i + 1)
    }

    /// Whether a line starts here. Unlike [`Reader::line_start`] it does not walk back over a long line.
    fn starts_line(&self) -> bool {
        self.at.checked_sub(1).is_none_or(|before| self.text.as_bytes().get(before) == Some(&b'\n'))
    }

    fn column(&self) -> i64 {
        (self.at - self.line_start()) as i64
    }

    /// Whether a line with `---` or `...` starts here.
    fn is_document_mark(&self) -> bool {
        (self.rest().starts_with("---") || self.rest().starts_with("...")) && self.is_blank(3) && self.starts_line()
    }

    fn problem(&self, what: &str) -> String {
        let line = 1 + self.text.as_bytes()[..self.at.min(self.text.len())].iter().filter(|&&b| b == b'\n').count();
        format!("line {line}: {what}")
    }

    fn spaces(&mut self) -> usize {
        let start = self.at;
        while self.peek(0) == b' ' {
            self.at += 1;
        }
        self.at - start
    }

    /// Goes on to the next token; tells whether that is on a new line.
    fn skip(&mut self) -> bool {
        let start = self.at;
        loop {
            self.spaces();
            if self.peek(0) == b'#' {
                self.at += self.rest().find('\n').unwrap_or(self.rest().len());
            }
            if self.peek(0) != b'\n' {
                return self.text.as_bytes()[start..self.at].contains(&b'\n');
            }
            self.at += 1;
        }
    }

    /// Runs `read` one level deeper.
    fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Found<T>) -> Found<T> {
        if self.depth == MAX_DEPTH {
            return Err(self.problem(&format!("values lie more than {MAX_DEPTH} deep in each other")));
        }
        self.depth += 1;
        let value = read(self);
        self.depth -= 1;
        value
    }

    /// An anchor or a tag, if one is here.
    fn property(&mut self, properties: &mut Properties<'a>) -> Found<bool> {
        match self.peek(0) {
            b'&' => properties.anchor = Some(self.anchor_name()?),
            b'!' => {
                let tag = self.rest().split([' ', '\n']).next().unwrap_or_default();
                match tag {
                    "!!str" => properties.is_text = true,
                    "!!seq" | "!!map" => (),
                    _ => return Err(self.problem("found a tag, only !!str, !!seq and !!map are read")),
                }
                self.at += tag.len();
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Refuses keys that Python cannot hash.
    fn check_key(&self, key: &Value) -> Found<()> {
        if key.is_array() || key.is_object() && !plain::is_untold(key) { Err(self.problem("found a list or mapping as a key")) } else { Ok(()) }
    }

    /// The name after `&` or `*`.
    fn anchor_name(&mut self) -> Found<&'a str> {
        let name = self.rest().get(1..).unwrap_or_default();
        let name = &name[..name.find(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_').unwrap_or(name.len())];
        self.at += 1 + name.len();
        let ends = self.is_blank(0) || matches!(self.peek(0), b'?' | b':' | b',' | b']' | b'}' | b'%' | b'@' | b'`');
        if name.is_empty() || !ends { Err(self.problem("found an anchor or alias without a name of letters and digits")) } else { Ok(name) }
    }

    fn alias(&mut self) -> Found<Value> {
        let name = self.anchor_name()?;
        let Some((value, weight)) = self.anchors.get(name) else {
            return Err(self.problem("found an alias of an anchor that does not come before"));
        };
        let value = value.clone();
        match self.budget.checked_sub(*weight) {
            Some(left) => self.budget = left,
            None => return Err(self.problem("aliases repeat too much")),
        }
        Ok(value)
    }

    /// Remembers a value that has an anchor. Copies count, as those of aliases do.
    fn anchored(&mut self, properties: &Properties<'a>, value: Value) -> Found<Value> {
        if let Some(name) = properties.anchor {
            let weight = weight(&value);
            self.budget = self.budget.checked_sub(weight).ok_or_else(|| self.problem("anchors hold too much"))?;
            self.anchors.insert(name, (value.clone(), weight));
        }
        Ok(value)
    }
}

/// About how many bytes of text a value stands for; an empty one stands for one.
fn weight(value: &Value) -> usize {
    1 + match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(weight).sum(),
        Value::Object(map) => map.iter().map(|(key, value)| key.len() + weight(value)).sum(),
        _ => 0,
    }
}

/// Adds an entry to a mapping; `<<` adds those of other mappings, where there are none yet, once all others are known.
fn insert(map: &mut Map<String, Value>, merged: &mut Vec<Value>, key: Option<Value>, value: Value) {
    match (key, value) {
        (Some(Value::String(key)), value) => drop(map.insert(key, value)),
        (Some(_), _) => (),
        (None, Value::Array(maps)) => merged.extend(maps),
        (None, value) => merged.push(value),
    }
}

fn finish(mut map: Map<String, Value>, merged: Vec<Value>) -> Value {
    for (key, value) in merged.into_iter().filter_map(|other| if let Value::Object(other) = other { Some(other) } else { None }).flatten() {
        map.entry(key).or_insert(value);
    }
    Value::Object(map)
}
