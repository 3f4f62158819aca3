//! [`Object`]: a JSON object kept as text, so that an edit changes one key and nothing else.
//!
//! It is read as Python's `json` reads it, `NaN` and `Infinity` included, but for three things that are refused: a key that stands
//! twice, nesting deeper than [`MAX_DEPTH`], and anything but an object. Values stay the text they are until asked for.
//!
//! Source: CPython 3.11, `json`.

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::python::json_string;

/// The deepest nesting that is read.
pub const MAX_DEPTH: usize = 128;

/// A JSON object and the text it was read from.
#[derive(Clone, Debug)]
pub struct Object {
    source: String,
    entries: Vec<Entry>,
}

/// One key and its value: the name, and where both stand in the source.
#[derive(Clone, Debug)]
struct Entry {
    name: String,
    key: Range<usize>,
    value: Range<usize>,
}

impl Object {
    /// Reads an object.
    ///
    /// # Errors
    /// If the bytes are no JSON object in UTF-8, a key stands twice, or nesting is too deep: the reason and the position.
    pub fn parse(bytes: &[u8]) -> Result<Object, String> {
        let source = std::str::from_utf8(bytes).map_err(|e| format!("not UTF-8 at byte {}", e.valid_up_to()))?;
        let strict = strict_json(source)?;
        let Pairs(pairs) = serde_json::from_str(&strict).map_err(|e| format!("not a JSON object: {}", crate::json::problem(&e)))?;
        let entries = pairs.iter().map(|(key, value)| Entry::new(&strict, key, value)).collect::<Result<Vec<_>, _>>()?;
        let mut seen = HashSet::new();
        match entries.iter().find(|e| !seen.insert(&e.name)) {
            Some(twice) => Err(format!("key {} stands twice, again at byte {}", json_string(&twice.name), twice.key.start)),
            None => Ok(Object { source: source.into(), entries }),
        }
    }

    /// The text as it was read.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|e| e.name.as_str())
    }

    /// The value of `key` as it stands in the text.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.entries.iter().find(|e| e.name == key).map(|e| &self.source[e.value.clone()])
    }

    /// The text with `key` set to `json`, which is put in as it is; nothing else changes.
    ///
    /// A new key goes to its place if the keys are sorted, as transformers sorts them, and to the end if they are not.
    pub fn with(&self, key: &str, json: &str) -> Vec<u8> {
        if let Some(entry) = self.entries.iter().find(|e| e.name == key) {
            return self.replaced(entry.value.clone(), json);
        }
        let pair = format!("{}: {json}", json_string(key));
        let Some(last) = self.entries.last() else {
            let brace = self.source.find('{').map_or(0, |at| at + 1);
            return self.replaced(brace..brace + self.blanks_at(brace), &format!("\n  {pair}\n"));
        };
        let gap = self.blanks_before(last.key.start);
        match self.entries.iter().find(|e| e.name.as_str() > key) {
            Some(next) if self.entries.is_sorted_by(|a, b| a.name < b.name) => {
                self.replaced(next.key.start..next.key.start, &format!("{pair},{gap}"))
            }
            _ => self.replaced(last.value.end..last.value.end, &format!(",{gap}{pair}")),
        }
    }

    /// The text without `key`; nothing else changes.
    pub fn without(&self, key: &str) -> Vec<u8> {
        let Some(at) = self.entries.iter().position(|e| e.name == key) else {
            return self.source.clone().into_bytes();
        };
        let entry = &self.entries[at];
        let range = match (at.checked_sub(1).and_then(|i| self.entries.get(i)), self.entries.get(at + 1)) {
            (Some(before), _) => before.value.end..entry.value.end,
            (None, Some(after)) => entry.key.start..after.key.start,
            (None, None) => {
                let start = entry.key.start - self.blanks_before(entry.key.start).len();
                start..entry.value.end + self.blanks_at(entry.value.end)
            }
        };
        self.replaced(range, "")
    }

    fn replaced(&self, range: Range<usize>, text: &str) -> Vec<u8> {
        let mut out = self.source.clone();
        out.replace_range(range, text);
        out.into_bytes()
    }

    fn blanks_before(&self, at: usize) -> &str {
        let text = &self.source[..at];
        &text[text.trim_end_matches(BLANKS).len()..]
    }

    fn blanks_at(&self, at: usize) -> usize {
        let text = &self.source[at..];
        text.len() - text.trim_start_matches(BLANKS).len()
    }
}

const BLANKS: [char; 4] = [' ', '\t', '\n', '\r'];

impl Entry {
    fn new(text: &str, key: &RawValue, value: &RawValue) -> Result<Entry, String> {
        let place = |raw: &RawValue| {
            let start = raw.get().as_ptr() as usize - text.as_ptr() as usize;
            start..start + raw.get().len()
        };
        let name = serde_json::from_str(key.get()).map_err(|e| format!("key at byte {}: {e}", place(key).start))?;
        Ok(Entry { name, key: place(key), value: place(value) })
    }
}

/// The pairs of an object, in order, as they stand.
struct Pairs<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl<'de> Deserialize<'de> for Pairs<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PairsVisitor)
    }
}

struct PairsVisitor;

impl<'de> Visitor<'de> for PairsVisitor {
    type Value = Pairs<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = map.next_entry()? {
            pairs.push(pair);
        }
        Ok(Pairs(pairs))
    }
}

/// The same text, with the numbers that only Python knows replaced by others of the same length, and its depth checked.
fn strict_json(source: &str) -> Result<String, String> {
    let mut out = String::with_capacity(source.len());
    let mut depth = 0usize;
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let token = &rest[..token_len(rest, first)];
        match first {
            '{' | '[' => depth += 1,
            '}' | ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err(format!("nested deeper than {MAX_DEPTH} at byte {}", source.len() - rest.len()));
        }
        match token {
            "NaN" | "Infinity" | "-Infinity" => out.push_str(&token.replace(|c: char| c != '-', "1")),
            _ => out.push_str(token),
        }
        rest = &rest[token.len()..];
    }
    Ok(out)
}

/// The length of what stands at the start of `text`: a string, a word, or one other character.
fn token_len(text: &str, first: char) -> usize {
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.' | '_');
    match first {
        '"' => string_len(text),
        c if is_word(c) => text.find(|c| !is_word(c)).unwrap_or(text.len()),
        c => c.len_utf8(),
    }
}

/// The length of the string at the start of `text`, to its closing quote or to the end.
fn string_len(text: &str) -> usize {
    let mut escaped = true; // passes over the opening quote
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(text: &str, key: &str, json: &str) -> String {
        String::from_utf8(Object::parse(text.as_bytes()).unwrap().with(key, json)).unwrap()
    }

    fn without(text: &str, key: &str) -> String {
        String::from_utf8(Object::parse(text.as_bytes()).unwrap().without(key)).unwrap()
    }

    /// Lines as Python's `json.dumps(indent=2, sort_keys=True)` writes them.
    const SORTED: &str = "{\n  \"a\": 1,\n  \"c\": [\n    2\n  ],\n  \"e\": 1e-05\n}\n";

    #[test]
    fn a_new_key_goes_to_its_sorted_place() {
        assert_eq!(with(SORTED, "b", "{}"), SORTED.replace("  \"c\"", "  \"b\": {},\n  \"c\""));
        assert_eq!(with(SORTED, "A", "0"), SORTED.replace("  \"a\"", "  \"A\": 0,\n  \"a\""));
        assert_eq!(with(SORTED, "f", "0"), SORTED.replace("1e-05", "1e-05,\n  \"f\": 0"));
    }

    #[test]
    fn unsorted_and_compact_sources_stay_readable() {
        assert_eq!(with("{\n  \"b\": 1,\n  \"a\": 2\n}", "aa", "3"), "{\n  \"b\": 1,\n  \"a\": 2,\n  \"aa\": 3\n}");
        assert_eq!(with(r#"{"a": 1, "c": 2}"#, "b", "3"), r#"{"a": 1, "b": 3, "c": 2}"#);
        assert_eq!(with(r#"{"a":1,"c":2}"#, "d", "3"), r#"{"a":1,"c":2,"d": 3}"#);
        assert_eq!(with(" {\t} ", "é", "3"), " {\n  \"\\u00e9\": 3\n} ");
    }

    #[test]
    fn a_known_key_gets_another_value() {
        assert_eq!(with(SORTED, "c", "null"), SORTED.replace("[\n    2\n  ]", "null"));
        assert_eq!(with(r#"{"\u0061" : 1 }"#, "a", "2"), r#"{"\u0061" : 2 }"#);
    }

    #[test]
    fn a_key_is_taken_out() {
        assert_eq!(without(SORTED, "a"), SORTED.replace("\"a\": 1,\n  ", ""));
        assert_eq!(without(SORTED, "e"), SORTED.replace(",\n  \"e\": 1e-05", ""));
        assert_eq!(without(SORTED, "x"), SORTED);
        assert_eq!(without("{ \"a\" : [1] }\n", "a"), "{}\n");
        assert_eq!(without(r#"{"a":1 ,"b":"}"}"#, "b"), r#"{"a":1}"#);
    }

    #[test]
    fn adding_and_taking_out_gives_the_source_back() {
        for key in ["A", "b", "d", "z"] {
            assert_eq!(without(&with(SORTED, key, "{\n    \"x\": 1\n  }"), key), SORTED);
        }
    }

    #[test]
    fn values_stay_as_they_are_written() {
        let o = Object::parse(br#"{"a": [NaN, -Infinity , 1.0e+5, "NaN\\"], "b":Infinity, "c":"\"}NaN", "d":{"a":1}}"#).unwrap();
        assert_eq!(o.value("a"), Some(r#"[NaN, -Infinity , 1.0e+5, "NaN\\"]"#));
        assert_eq!((o.value("b"), o.value("c"), o.value("d"), o.value("x")), (Some("Infinity"), Some(r#""\"}NaN""#), Some(r#"{"a":1}"#), None));
        assert_eq!(o.keys().collect::<Vec<_>>(), ["a", "b", "c", "d"]);
    }

    #[test]
    fn what_is_not_an_object_is_refused_with_its_place() {
        for (text, problem) in [
            (&b""[..], "line 1 column 0"),
            (b"[1]", "invalid type: sequence, expected an object"),
            (b"{\"a\": 1,}", "line 1 column 9"),
            (b"{\"a\": 1} x", "trailing characters at line 1 column 10"),
            (b"{\"a\": 1NaN}", "line 1 column 8"),
            (b"{\"a\": nan}", "line 1 column"),
            (b"{\"a\": +Infinity}", "line 1 column"),
            (b"{\"a\": \"x", "EOF while parsing a string"),
            (b"{\"a\": 1, \"b\": 2, \"\\u0061\": 3}", "key \"a\" stands twice, again at byte 17"),
            (b"{\"\xff\": 1}", "not UTF-8 at byte 2"),
            (b"{\"\\ud800\": 1}", "key at byte 1: "),
            (b"\xef\xbb\xbf{}", "line 1 column 1"),
        ] {
            let found = Object::parse(text).unwrap_err();
            assert!(found.contains(problem), "{found} does not contain {problem}");
        }
    }

    #[test]
    fn depth_is_limited() {
        let nested = |n: usize| format!("{{\"a\": {}{}}}", "[".repeat(n), "]".repeat(n));
        assert!(Object::parse(nested(MAX_DEPTH - 1).as_bytes()).is_ok());
        assert_eq!(Object::parse(nested(MAX_DEPTH).as_bytes()).unwrap_err(), "nested deeper than 128 at byte 133");
        assert!(Object::parse(nested(1_000_000).as_bytes()).is_err());
        assert!(Object::parse(format!("{{\"a\": \"{}\"}}", "[".repeat(1000)).as_bytes()).is_ok());
    }
}
