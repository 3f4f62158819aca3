//! The order in which transformers 5.23 fills shards.
//!
//! A model that was loaded and is saved again has its tensors sorted by name: the components between dots one by one,
//! numbers by value and before words, words with a number at their end by the word first.

/// A component of a name: numbers first, then words, those without a number at their end first.
pub type Component = (bool, String, Option<u64>);

/// The key to sort a tensor's name by.
pub fn key(name: &str) -> Vec<Component> {
    name.split('.').map(component).collect()
}

fn component(text: &str) -> Component {
    let word = text.trim_end_matches(|c: char| c.is_ascii_digit());
    match text[word.len()..].parse() {
        Ok(number) => (!word.is_empty(), word.into(), Some(number)),
        Err(_) => (true, text.into(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::key;

    #[test]
    fn numbers_sort_by_value() {
        let names = [
            "h.2.attn.weight",
            "h.10.attn.weight",
            "h.10.attn.weight.absmax",
            "h.10.w.0",
            "h.10.w.weight",
            "h.10.w2.weight",
            "h.10.w10.weight",
            "lm_head.weight",
            "wte.weight",
        ];
        let mut sorted = names;
        sorted.reverse();
        sorted.sort_by_cached_key(|name| key(name));
        assert_eq!(sorted, names);
    }
}
