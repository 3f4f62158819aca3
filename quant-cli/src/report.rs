//! What people and programs are shown. Results go to stdout, everything else to stderr; a broken pipe is success.

use std::io::{ErrorKind, Write};
use std::path::Path;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use quant_core::error::{Printable, is_unsafe_to_print};
use quant_core::{Error, Result};
use serde::Serialize;

/// The exit code when something was refused or failed.
pub const FAILED: u8 = 2;
/// The exit code when damage was found.
pub const DAMAGED: u8 = 1;

/// What a command has to say, and its exit code.
pub struct Outcome {
    /// The text for stdout.
    pub text: String,
    /// The exit code.
    pub exit: u8,
}

impl Outcome {
    /// Success.
    pub fn ok(text: String) -> Outcome {
        Outcome { text, exit: 0 }
    }
}

/// Writes a result to stdout.
///
/// # Errors
/// If stdout cannot be written, except that nobody is reading.
pub fn print(text: &str) -> Result<()> {
    let mut out = anstream::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(Error::io("write the result to", Path::new("stdout"), e)),
        _ => Ok(()),
    }
}

/// Says on stderr why the command failed.
pub fn complain(error: &Error) {
    let red = anstyle::AnsiColor::Red.on_default().bold();
    let text = Printable(&shortened(error.to_string())).to_string();
    let _ = writeln!(anstream::stderr(), "{red}error{red:#}: {text}");
}

/// Says on stderr why the command failed, as a JSON object on one line.
pub fn complain_in_json(error: &Error) {
    let text = serde_json::json!({ "error": shortened(error.to_string()) }).to_string();
    let _ = writeln!(anstream::stderr(), "{}", without_tricks(&text));
}

/// A message that stays readable whatever names a file contains: the middle of a very long one is left out.
fn shortened(text: String) -> String {
    const MOST: usize = 2000;
    if text.len() <= MOST {
        return text;
    }
    let (head, tail) = (text.floor_char_boundary(MOST / 2), text.ceil_char_boundary(text.len() - MOST / 2));
    format!("{} … {} bytes … {}", &text[..head], tail - head, &text[tail..])
}

/// A note on stderr: something that the user should know and that stops nothing.
pub fn note(text: &str) {
    let yellow = anstyle::AnsiColor::Yellow.on_default().bold();
    // As one text: stderr has no buffer, and a form that writes by the character would call the system for each.
    let text = Printable(&shortened(text.to_owned())).to_string();
    let _ = writeln!(anstream::stderr(), "{yellow}note{yellow:#}: {text}");
}

/// ` and 3 more`; nothing of none.
pub fn and_more(n: usize) -> String {
    if n == 0 { String::new() } else { format!(" and {n} more") }
}

/// The first of names and how many more there are; none of none.
pub fn first_and_more<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let mut names = names.into_iter();
    names.next().map(|first| format!("{first}{}", and_more(names.count())))
}

/// Names by what is said of them, in the order of what is said first.
pub fn by_reason<'a>(tensors: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<(&'a str, Vec<&'a str>)> {
    let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
    for (name, reason) in tensors {
        match reasons.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, names)) => names.push(name),
            None => reasons.push((reason, vec![name])),
        }
    }
    reasons
}

/// `1 tensor`, `2 tensors`.
pub fn counted(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// Text in bold, on a terminal.
pub fn bold(text: &str) -> String {
    let bold = anstyle::Style::new().bold();
    format!("{bold}{text}{bold:#}")
}

/// A value as JSON; characters that could play tricks on a terminal are escaped.
///
/// # Errors
/// If a value has no JSON form, which none of the reports has.
pub fn json<T: Serialize>(value: &T) -> Result<String> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::request(format!("cannot write JSON: {e}")))?;
    Ok(without_tricks(&text) + "\n")
}

/// JSON whose texts have characters that could play tricks on a terminal escaped.
fn without_tricks(json: &str) -> String {
    let escaped = |c: char| if c != '\n' && is_unsafe_to_print(c) { format!("\\u{:04x}", c as u32) } else { c.to_string() };
    json.chars().map(escaped).collect()
}

/// A table without lines. Columns whose heading starts with `>` are aligned to the right.
pub fn table(headings: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(headings.iter().map(|h| h.trim_start_matches('>')));
    for row in rows {
        table.add_row(row.iter().map(|cell| Printable(cell).to_string()));
    }
    for (i, heading) in headings.iter().enumerate() {
        if let Some(column) = table.column_mut(i).filter(|_| heading.starts_with('>')) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().map(|line| format!(" {}\n", line.trim_end())).collect()
}
