//! Mappings and lists by indentation.

use serde_json::{Map, Value};

use super::{Found, Properties, Reader, finish, insert};

/// What stands before a value in a block.
#[derive(Default)]
struct Before<'a> {
    properties: Properties<'a>,
    /// Those of a mapping: the properties on the line of its first key are that key's, which reads them again.
    of_mapping: Properties<'a>,
    /// Where the line's properties, or else the value, start.
    start: usize,
    /// Whether a list or mapping may start here.
    may_nest: bool,
}

impl<'a> Reader<'a> {
    /// The value that stands in the block collection at column `parent`, after a key of it or after a dash.
    pub(super) fn block(&mut self, parent: i64, after_key: bool) -> Found<Value> {
        self.deeper(|reader| reader.block_value(parent, after_key))
    }

    fn block_value(&mut self, parent: i64, after_key: bool) -> Found<Value> {
        let mut before = Before { may_nest: !after_key, ..Before::default() };
        if !self.reaches_value(&mut before, parent, after_key)? {
            let nothing = if before.properties.is_text { "".into() } else { Value::Null };
            return self.anchored(&before.properties, nothing);
        }
        let value = match self.peek(0) {
            b'-' if self.is_blank(1) && before.may_nest => self.block_list()?,
            b'?' if self.is_blank(1) && before.may_nest => self.block_mapping()?,
            b'|' | b'>' => self.block_text(parent)?.into(),
            _ => match self.unless_key(&before, parent)? {
                Some(value) => value,
                None => {
                    self.at = before.start;
                    let mapping = self.block_mapping()?;
                    return self.anchored(&before.of_mapping, mapping);
                }
            },
        };
        self.anchored(&before.properties, value)
    }

    /// Goes on to a value, past its properties; tells whether there is one.
    fn reaches_value(&mut self, before: &mut Before<'a>, parent: i64, after_key: bool) -> Found<bool> {
        let mut has_properties = false;
        loop {
            let new_line = self.skip();
            if new_line || self.is_end() || self.starts_line() {
                before.may_nest = true;
                before.of_mapping.anchor = before.properties.anchor;
                has_properties = false;
                if self.is_outside(parent, after_key) {
                    return Ok(false);
                }
            }
            if !has_properties {
                before.start = self.at;
            }
            if !self.property(&mut before.properties)? {
                return Ok(true);
            }
            has_properties = true;
        }
    }

    /// A value on this line; None if it is the first key of a mapping.
    fn unless_key(&mut self, before: &Before<'_>, parent: i64) -> Found<Option<Value>> {
        // The key may be nothing but its anchor or tag.
        if before.may_nest && before.start < self.at && self.is_indicator(b':') {
            return Ok(None);
        }
        let value = self.inline(parent, false, before.properties.is_text)?;
        let on_one_line = !self.text.as_bytes()[before.start..self.at].contains(&b'\n');
        self.spaces();
        // A colon at the start of a line below is that of a key after '?'.
        if !self.is_indicator(b':') || !on_one_line && self.column() <= parent {
            return Ok(Some(value));
        }
        if before.may_nest && on_one_line {
            Ok(None)
        } else {
            Err(self.problem("found ': ' in a text without quotes, or a mapping where none may start"))
        }
    }

    /// Whether the token at the start of this line no longer belongs to a value in the collection at column `parent`.
    fn is_outside(&self, parent: i64, after_key: bool) -> bool {
        let column = self.column();
        let of_key = after_key && column == parent && (self.is_indicator(b'-') || matches!(self.peek(0), b'|' | b'>'));
        self.is_end() || self.is_document_mark() || column <= parent && !of_key
    }

    fn block_list(&mut self) -> Found<Value> {
        let column = self.column();
        let mut items = Vec::new();
        loop {
            self.at += 1;
            items.push(self.block(column, false)?);
            if !self.goes_on(column)? || !self.is_indicator(b'-') {
                return Ok(Value::Array(items));
            }
        }
    }

    fn block_mapping(&mut self) -> Found<Value> {
        let column = self.column();
        let (mut map, mut merged) = (Map::new(), Vec::new());
        loop {
            let (key, has_value) = if self.is_indicator(b'?') { self.explicit_key(column)? } else { (self.key(column)?, true) };
            let value = if has_value { self.block(column, true)? } else { Value::Null };
            insert(&mut map, &mut merged, key, value);
            if !self.goes_on(column)? {
                return Ok(finish(map, merged));
            }
        }
    }

    /// Whether another entry of the collection at `column` follows.
    fn goes_on(&mut self, column: i64) -> Found<bool> {
        self.skip();
        if self.is_end() || self.is_document_mark() {
            return Ok(false);
        }
        match self.column() {
            found if found > column => Err(self.problem("found neither an entry of the collection before nor the end of the line")),
            found => Ok(found == column),
        }
    }

    /// A key and its colon. None is `<<`.
    fn key(&mut self, column: i64) -> Found<Option<Value>> {
        let mut properties = Properties::default();
        let line = self.line_start();
        while self.property(&mut properties)? {
            self.spaces();
        }
        let is_merge = self.rest().starts_with("<<");
        let key = match self.is_indicator(b':') {
            true if properties.is_text => "".into(),
            true if properties.anchor.is_some() => Value::Null,
            _ => self.inline(column, false, properties.is_text)?,
        };
        self.spaces();
        if !self.is_indicator(b':') || self.line_start() != line {
            return Err(self.problem("found no ':' after a key"));
        }
        self.at += 1;
        let key = self.anchored(&properties, key)?;
        self.check_key(&key)?;
        Ok((!is_merge || key != "<<").then_some(key))
    }

    /// A key after `?`, and whether a value follows.
    fn explicit_key(&mut self, column: i64) -> Found<(Option<Value>, bool)> {
        self.at += 1;
        let key = self.block(column, false)?;
        self.check_key(&key)?;
        let has_value = self.goes_on(column)? && self.is_indicator(b':');
        self.at += usize::from(has_value);
        Ok((Some(key), has_value))
    }
}
