//! Values on a line or between brackets, where indentation does not count.

use serde_json::{Map, Value};

use super::{Found, Properties, Reader, finish, insert, plain};

impl Reader<'_> {
    /// An alias, a quoted or plain text, or a collection in brackets. `parent` is the column of the block collection around
    /// it, `in_flow` whether it stands between brackets, `is_text` whether a plain one is text whatever it looks like.
    pub(super) fn inline(&mut self, parent: i64, in_flow: bool, is_text: bool) -> Found<Value> {
        match self.peek(0) {
            b'*' => self.alias(),
            b'"' => self.double_quoted().map(Into::into),
            b'\'' => self.single_quoted().map(Into::into),
            b'[' => self.deeper(Self::flow_list),
            b'{' => self.deeper(Self::flow_mapping),
            _ => {
                let text = self.plain_text(parent, in_flow)?;
                Ok(if is_text { text.into() } else { plain::resolve(&text) })
            }
        }
    }

    fn flow_list(&mut self) -> Found<Value> {
        let mut items = Vec::new();
        while !self.closes(b']', items.is_empty())? {
            let (key, value) = self.flow_entry()?;
            items.push(match value {
                None => key.unwrap_or_else(|| "<<".into()),
                Some(value) => {
                    let (mut map, mut merged) = (Map::new(), Vec::new());
                    insert(&mut map, &mut merged, key, value);
                    finish(map, merged)
                }
            });
        }
        Ok(Value::Array(items))
    }

    fn flow_mapping(&mut self) -> Found<Value> {
        let (mut map, mut merged) = (Map::new(), Vec::new());
        let mut is_first = true;
        while !self.closes(b'}', is_first)? {
            is_first = false;
            let (key, value) = self.flow_entry()?;
            insert(&mut map, &mut merged, key, value.unwrap_or_default());
        }
        Ok(finish(map, merged))
    }

    /// Passes a bracket or comma; tells whether the collection ends.
    fn closes(&mut self, bracket: u8, is_first: bool) -> Found<bool> {
        if is_first {
            self.at += 1;
        }
        self.skip();
        if !is_first && self.peek(0) == b',' {
            self.at += 1;
            self.skip();
        } else if !is_first && self.peek(0) != bracket {
            return Err(self.problem(&format!("found neither ',' nor '{}' after an entry in brackets", char::from(bracket))));
        }
        let closes = self.peek(0) == bracket;
        self.at += usize::from(closes);
        Ok(closes)
    }

    /// A value, or a key with its value; as a key, None is `<<`.
    fn flow_entry(&mut self) -> Found<(Option<Value>, Option<Value>)> {
        let is_key = self.peek(0) == b'?';
        if is_key {
            self.at += 1;
            self.skip();
        }
        let is_merge = self.rest().starts_with("<<");
        let key = self.flow_value()?;
        self.skip();
        let value = match self.peek(0) {
            b':' => {
                self.check_key(&key)?;
                self.at += 1;
                self.skip();
                Some(self.flow_value()?)
            }
            _ => is_key.then_some(Value::Null),
        };
        Ok(((!is_merge || key != "<<").then_some(key), value))
    }

    fn flow_value(&mut self) -> Found<Value> {
        let mut properties = Properties::default();
        while self.property(&mut properties)? {
            self.skip();
        }
        let value = match self.peek(0) {
            b',' | b']' | b'}' | b':' if properties.is_text => "".into(),
            b',' | b']' | b'}' | b':' => Value::Null,
            _ => self.inline(-1, true, properties.is_text)?,
        };
        self.anchored(&properties, value)
    }
}
