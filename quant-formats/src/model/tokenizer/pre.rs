//! The name of the pre-tokenizer, which llama.cpp needs: found by what the tokenizer makes of one text.
//!
//! Source: `TextModel.get_vocab_base_pre` of conversion/base.py, llama.cpp 0.5.0-dev.

use quant_core::{Error, Result};
use sha2::{Digest, Sha256};

use super::fast::Fast;
use super::folder::Folder;
use super::pre_names::NAMES;

/// The text that tells pre-tokenizers apart.
const CHECK: &str = "\n \n\n \n\n\n \t \t\t \t\n  \n   \n    \n     \n🚀 (normal) 😶\u{200d}🌫\u{fe0f} (multiple emojis concatenated) ✅ 🦙🦙 3 33 333 3333 33333 \
    333333 3333333 33333333 3.3 3..3 3...3 កាន់តែពិសេសអាច😁 ?我想在apple工作1314151天～ ------======= нещо на Български \
    ''''''```````\"\"\"\"......!!!!!!?????? I've been 'told he's there, 'RE you sure? 'M not sure I'll make it, 'D you like some tea? We'Ve a'lL";

/// The name for a tokenizer; `given` overrides what is found.
///
/// # Errors
/// If the tokenizer is not known and nothing is given.
pub(super) fn name(folder: Folder<'_>, tokenizer: &Fast<'_>, given: Option<&str>, notes: &mut Vec<String>) -> Result<String> {
    let found = hash(&tokenizer.encode(CHECK, true)?);
    let known = NAMES.iter().rfind(|(hash, _)| *hash == found).map(|(_, name)| *name);
    match (given, known) {
        (Some(given), Some(known)) if given != known => {
            notes.push(format!("the pre-tokenizer is '{known}' by what the tokenizer does; '{given}' is written as asked for"));
            Ok(given.into())
        }
        (Some(given), _) => Ok(given.into()),
        (None, Some(known)) => Ok(known.into()),
        (None, None) => Err(unknown(folder, &found)),
    }
}

/// SHA-256 of a list of ids as Python prints it.
fn hash(ids: &[u32]) -> String {
    let list = ids.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    Sha256::digest(format!("[{list}]")).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unknown(folder: Folder<'_>, hash: &str) -> Error {
    folder.error(
        "tokenizer.json",
        format!(
            "its pre-tokenizer is none that llama.cpp is known to have (the check text's ids have the hash {hash}). If the model's vocabulary \
             was made from that of a known model, name that with --pre NAME, such as llama-bpe, qwen2, gpt-2 or deepseek-v3; the names are \
             those of tokenizer.ggml.pre in GGUF files of that model, and of get_vocab_base_pre in llama.cpp's conversion/base.py"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_hashed_as_python_prints_them() {
        let cases = [
            (&[][..], "4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945"),
            (&[1, 20, 300][..], "2b11dd99168b04b8c99d750ca151553f647ea839ae99d1c534f11efd7c4748a2"),
        ];
        for (ids, expected) in cases {
            assert_eq!(hash(ids), expected);
        }
    }

    #[test]
    fn the_check_text_and_the_table_are_whole() {
        assert_eq!(CHECK.chars().count(), 350);
        assert_eq!(format!("{:x}", Sha256::digest(CHECK)), "a36179c1e2b1cfcfbfad1dc779addad2ffc778201e4cf0d538bddeafa2c526da");
        assert_eq!(NAMES.len(), 97);
        let last = |hash: &str| NAMES.iter().rfind(|(h, _)| *h == hash).map(|(_, name)| *name);
        assert_eq!(last("0876d13b50744004aa9aeae05e7b0647eac9d801b5ba4668afc01e709c15e19f"), Some("jina-v2-en"));
        assert_eq!(last("b6dc8df998e1cfbdc4eac8243701a65afe638679230920b50d6f17d81c098166"), Some("olmo"));
    }
}
