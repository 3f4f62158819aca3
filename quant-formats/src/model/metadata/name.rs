//! What the name of a model says: `Qwen2.5-Coder-7B-Instruct` is basename, size label and finetune.
//!
//! Source: `Metadata.get_model_id_components` and `Metadata.id_to_title` of gguf-py/gguf/metadata.py, llama.cpp 0.5.0-dev,
//! with Python's idea of letters, spaces and titles.

use std::sync::LazyLock;

use regex::Regex;

/// What is known from a name. Empty text is something known; absent is not.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Components {
    /// The name without the organization.
    pub(super) name: Option<String>,
    pub(super) organization: Option<String>,
    pub(super) basename: Option<String>,
    pub(super) finetune: Option<String>,
    pub(super) version: Option<String>,
    pub(super) size_label: Option<String>,
}

/// One piece of a name between dashes, and what it may be.
struct Part {
    text: String,
    basename: bool,
    size_label: bool,
    finetune: bool,
    version: bool,
    /// A quantization type, or the word `lora` in an adapter: in none of the components.
    ignored: bool,
}

macro_rules! patterns {
    ($($(#[$doc:meta])* $name:ident = $pattern:literal;)*) => {
        $($(#[$doc])* static $name: LazyLock<Regex> = LazyLock::new(|| Regex::new($pattern).expect("the pattern is valid"));)*
    };
}

patterns! {
    VERSION = r"(?i)\A(v|iter)?\d+([.]\d+)*\z";
    QUANTIZATION = r"(?i)\A(i?q\d(_\w)*|b?fp?(16|32))\z";
    SIZE = r"(?i)\A((([A]|\d+[x])?\d+([._]\d+)?[KMBT][\d]?|small|mini|medium|large|x?xl))\z";
    FINETUNE = r"(?i)\A(chat|instruct|vision|lora)\z";
    /// Words that stay as they are in a title: versions, and what starts with a digit.
    UNTITLED = r"\A(v\d+(?:\.\d+)*|\d.*)\z";
    LETTER_FIRST = r"\A\p{L}";
    DIGIT = r"\p{Nd}";
    LETTERS_ONLY = r"\A\p{L}*\z";
    TITLE_CASE = r"\p{Lt}";
}

/// Takes the id of a model or data set apart. `total` is the number of parameters, negative for an adapter, 0 if unknown:
/// a size that is far from it is no size.
pub(super) fn components(id: &str, total: i64) -> Components {
    // A sentence, not an id.
    if id.contains(' ') {
        return Components { name: Some(id.into()), ..Components::default() };
    }
    let (organization, name) = id.split_once('/').map_or((None, id), |(org, name)| (Some(org), name));
    let mut parts: Vec<Part> = name.split('-').filter(|text| !text.is_empty()).enumerate().map(|(i, text)| classify(text, i > 0, total)).collect();
    drop_worded_sizes(&mut parts);
    find_basename(&mut parts);

    let finetune = joined(&parts, |p| p.finetune);
    let size_label = joined(&without_repeated_sizes(&parts), |p| p.size_label);
    let version = joined(&parts, |p| p.version && !p.basename);
    let told = size_label.is_some() || finetune.is_some() || version.is_some();
    Components {
        name: Some(name.into()),
        // `./model` and `../model` are paths.
        organization: organization.filter(|org| !org.starts_with('.')).map(Into::into),
        // A base name alone would be nothing but a guess.
        basename: joined(&parts, |p| p.basename).filter(|_| told),
        finetune,
        version,
        size_label,
    }
}

fn classify(text: &str, later: bool, total: i64) -> Part {
    let mut part = Part { text: text.into(), basename: false, size_label: false, finetune: false, version: false, ignored: false };
    if VERSION.is_match(text) {
        part.version = true;
    } else if QUANTIZATION.is_match(text) {
        part.ignored = true;
        part.text = text.to_uppercase();
    } else if later && SIZE.is_match(text) {
        (part.text, part.size_label) = size(text, total);
        part.finetune = !part.size_label;
    } else if later && FINETUNE.is_match(text) {
        part.ignored = total < 0 && text.to_lowercase() == "lora";
        part.finetune = !part.ignored;
    }
    part
}

/// A size in its usual form (`560m` is `560M`, `7b1` is `7.1B`), and whether it can be that of the model. A context length
/// such as `32k` is told from it by its distance.
fn size(text: &str, total: i64) -> (String, bool) {
    let mut chars: Vec<char> = text.replace('_', ".").chars().collect();
    if let [.., unit, digit] = chars[..]
        && is_digit(digit)
    {
        chars.truncate(chars.len() - 2);
        chars.extend(['.', digit, unit]);
    }
    if let [.., digit, unit] = &mut chars[..]
        && is_digit(*digit)
        && matches!(unit, 'k' | 'm' | 'b' | 't')
    {
        *unit = unit.to_ascii_uppercase();
    }
    let is_size = total == 0 || stated(&chars).is_none_or(|size| is_near(size, total));
    if !is_size && let Some(unit) = chars.pop() {
        chars.extend(unit.to_lowercase());
    }
    (chars.into_iter().collect(), is_size)
}

/// The number that a size states, if it states a plain one.
fn stated(size: &[char]) -> Option<f64> {
    let (unit, number) = size.split_last()?;
    let number: f64 = number.iter().collect::<String>().parse().ok()?;
    Some(
        number
            * match unit {
                'K' => 1e3,
                'M' => 1e6,
                'B' => 1e9,
                'T' => 1e12,
                // A letter that folds to one of these, such as the sign of kelvin.
                _ => 1e-3,
            },
    )
}

fn is_near(size: f64, total: i64) -> bool {
    if total < 0 {
        // An adapter may leave layers out, so the model may be larger.
        return size >= (total.unsigned_abs() / 8) as f64;
    }
    (size - total as f64).abs() <= (i128::from(total) * 7 / 8) as f64
}

/// Of `large` and `7B` only `7B` counts.
fn drop_worded_sizes(parts: &mut [Part]) {
    if parts.iter().any(|p| p.size_label && DIGIT.is_match(&p.text)) {
        parts.iter_mut().filter(|p| LETTERS_ONLY.is_match(&p.text)).for_each(|p| p.size_label = false);
    }
}

/// The basename is what comes before the first part that is known to be something else; versions at its end are not of it.
fn find_basename(parts: &mut [Part]) {
    let mut at_start = true;
    for part in parts.iter_mut() {
        let unknown = !(part.size_label || part.finetune || part.version || part.ignored);
        if at_start && (part.version || unknown && LETTER_FIRST.is_match(&part.text)) {
            part.basename = true;
        } else {
            at_start = false;
            part.finetune |= unknown;
        }
    }
    for part in parts.iter_mut().rev() {
        if !(part.basename && part.version) {
            break;
        }
        part.basename = false;
    }
}

/// The parts without those sizes that an earlier part states in the same letters.
fn without_repeated_sizes(parts: &[Part]) -> Vec<&Part> {
    let mut seen = std::collections::HashSet::new();
    parts.iter().filter(|p| p.size_label && seen.insert(p.text.as_str())).collect()
}

fn joined<P: std::borrow::Borrow<Part>>(parts: &[P], wanted: impl Fn(&Part) -> bool) -> Option<String> {
    let texts: Vec<&str> = parts.iter().map(|p| p.borrow()).filter(|p| wanted(p)).map(|p| p.text.as_str()).collect();
    (!texts.is_empty()).then(|| texts.join("-"))
}

fn is_digit(c: char) -> bool {
    DIGIT.is_match(c.encode_utf8(&mut [0; 4]))
}

/// An id as a title: dashes are spaces, words in small letters start with a capital.
pub(super) fn title(id: &str) -> String {
    let words = id.split(|c| c == '-' || is_space(c)).filter(|word| !word.is_empty());
    words.map(|word| if is_lower(word) && !UNTITLED.is_match(word) { titled(word) } else { word.into() }).collect::<Vec<_>>().join(" ")
}

/// White space of Python: Unicode's, and the four separators of ASCII.
fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\x1c'..='\x1f')
}

fn is_lower(word: &str) -> bool {
    word.chars().any(char::is_lowercase) && !word.chars().any(char::is_uppercase) && !TITLE_CASE.is_match(word)
}

/// Every letter that no letter precedes becomes a capital: `llama2chat` is `Llama2Chat`.
fn titled(word: &str) -> String {
    let mut out = String::with_capacity(word.len());
    let mut after_letter = false;
    for c in word.chars() {
        if after_letter {
            out.push(c)
        } else {
            push_title(&mut out, c)
        }
        after_letter = c.is_lowercase() || c.is_uppercase();
    }
    out
}

/// Unicode's title case of a small letter: of what is several letters in one, only the first becomes a capital.
fn push_title(out: &mut String, c: char) {
    match c {
        'ǆ' => out.push('ǅ'),
        'ǉ' => out.push('ǈ'),
        'ǌ' => out.push('ǋ'),
        'ǳ' => out.push('ǲ'),
        _ => {
            let mut has_capital = false;
            for upper in c.to_uppercase() {
                if has_capital {
                    out.extend(upper.to_lowercase())
                } else {
                    out.push(upper)
                }
                has_capital |= upper.is_uppercase();
            }
        }
    }
}
