//! WordPiece vocabularies of BERT, turned into the form of llama.cpp: a word begins with `▁`, what goes on in a word does not.
//!
//! Source: `BertModel.set_vocab` of conversion/bert.py, llama.cpp 0.5.0-dev.

use quant_core::Result;

use super::Build;
use super::keys::Type;
use super::special::{Special, Wanted};

impl Build<'_> {
    /// A WordPiece vocabulary.
    pub(super) fn bert(&mut self) -> Result<()> {
        let (mut tokens, pre) = self.base()?;
        self.token_type_count()?;
        for (text, kind) in tokens.texts.iter_mut().zip(&tokens.types) {
            if *kind != Type::Control as i32 {
                *text = text.strip_prefix("##").map_or_else(|| format!("▁{text}"), str::to_owned);
            }
        }
        self.keys.vocabulary("bert", &pre, &tokens, false);
        let special = Special::load(self.folder, Wanted::below(tokens.len()))?;
        self.special(special);
        Ok(())
    }

    /// How many kinds of text the model tells apart.
    pub(super) fn token_type_count(&mut self) -> Result<()> {
        let n = self.hparams.u32(&["type_vocab_size"])?.unwrap_or(1);
        self.keys.u32("tokenizer.ggml.token_type_count", n);
        Ok(())
    }
}
