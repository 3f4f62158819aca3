//! [`Fast`]: the tokenizer that transformers would load from a folder.
//!
//! The crate `tokenizers` encodes and decodes. Which tokens are added in which order follows transformers, because their ids depend
//! on it.
//!
//! Source: `TokenizersBackend` and its subclasses, transformers 5.23.0.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use quant_core::{Error, Result};
use serde_json::{Value, json};
use tokenizers::{AddedToken, Decoder, Model, PostProcessorWrapper, Tokenizer};

use super::added::Added;
use super::class::{self, Class};
use super::folder::{Folder, Object, is_python_space};
use super::pipeline::{self, Flags, Pipeline};
use super::settings::{Mention, Settings, flag};

/// A loaded tokenizer.
pub(super) struct Fast<'a> {
    folder: Folder<'a>,
    tokenizer: Tokenizer,
    class: Class,
    settings: Settings,
    added: Added,
    /// `add_prefix_space` as the tokenizer tells it.
    pub(super) add_prefix_space: bool,
    is_bpe: bool,
    /// What a user should know.
    pub(super) notes: Vec<String>,
}

impl<'a> Fast<'a> {
    /// Loads the tokenizer of a folder.
    ///
    /// # Errors
    /// If there is none, or it cannot be read.
    pub(super) fn load(folder: Folder<'a>) -> Result<Fast<'a>> {
        let own = folder.object("tokenizer_config.json")?.unwrap_or_default();
        let config = folder.object("config.json")?.unwrap_or_default();
        let json = folder.object("tokenizer.json")?;
        let choice = class::choose(folder, &config, &own)?;
        let settings = Settings::load(folder, choice.class, &own, json.as_ref())?;
        let flags = flags(&own, &settings, json.as_ref())?;
        let text = match (pipeline::of(choice.class, &flags), &json) {
            (None, Some(json)) => without_added(json),
            (Some(pipeline), Some(json)) => rebuilt(&pipeline, json)?,
            (pipeline, None) => from_vocabulary(folder, choice.class, pipeline)?,
        };
        let tokenizer = guarded(folder, || Tokenizer::from_bytes(text))?.map_err(|e| unusable(folder, &e.to_string()))?;
        let is_bpe = matches!(tokenizer.get_model(), tokenizers::ModelWrapper::BPE(_));
        let add_prefix_space = flags.add_prefix_space.unwrap_or(choice.class == Class::XlmRoberta);
        let notes = choice.foreign.map(|name| format!("the tokenizer is read as tokenizer.json has it; transformers' {name} may build another"));
        let mut fast = Fast {
            folder,
            tokenizer,
            class: choice.class,
            settings,
            added: Added::default(),
            add_prefix_space,
            is_bpe,
            notes: notes.into_iter().collect(),
        };
        guarded(folder, || fast.add_all(json.as_ref()))??;
        Ok(fast)
    }

    /// All tokens with their ids.
    pub(super) fn vocab(&self) -> HashMap<String, u32> {
        let mut vocab = self.tokenizer.get_vocab(false);
        vocab.extend(self.added.ids().iter().map(|(text, id)| (text.clone(), *id)));
        vocab
    }

    /// How many tokens there are without the added ones.
    pub(super) fn n_base(&self) -> usize {
        self.tokenizer.get_vocab_size(false)
    }

    /// The added tokens by id.
    pub(super) fn added(&self) -> &BTreeMap<u32, AddedToken> {
        self.added.tokens()
    }

    /// The text of a token.
    pub(super) fn token(&self, id: u32) -> Option<String> {
        self.added.decoded(id).map(str::to_owned).or_else(|| self.tokenizer.get_model().id_to_token(id))
    }

    /// The texts of all special tokens.
    pub(super) fn specials(&self) -> Vec<&str> {
        self.settings.mentions().chain(self.settings.extra.iter().flatten()).map(Mention::text).collect()
    }

    /// The id of a token, or else that of the unknown one.
    pub(super) fn id(&self, text: &str) -> Option<u32> {
        self.tokenizer.token_to_id(text).or_else(|| self.settings.text("unk").and_then(|unk| self.tokenizer.token_to_id(unk)))
    }

    /// The ids of a text.
    ///
    /// # Errors
    /// If the tokenizer cannot do it.
    pub(super) fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>> {
        let encoding = guarded(self.folder, || self.tokenizer.encode(text, add_special_tokens))?;
        Ok(encoding.map_err(|e| unusable(self.folder, &e.to_string()))?.get_ids().to_vec())
    }

    /// The text of ids.
    ///
    /// # Errors
    /// If the tokenizer cannot do it.
    pub(super) fn decode(&self, ids: &[u32]) -> Result<String> {
        let tokens: Vec<String> = ids.iter().filter_map(|id| self.token(*id)).collect();
        let text = match self.tokenizer.get_decoder() {
            Some(decoder) => guarded(self.folder, || decoder.decode(tokens))?.map_err(|e| unusable(self.folder, &e.to_string()))?,
            None => tokens.join(" "),
        };
        Ok(if self.settings.clean_up && !self.is_bpe { cleaned_up(text) } else { text })
    }

    /// Adds what transformers adds after loading, and sets the post-processor.
    fn add_all(&mut self, json: Option<&Object>) -> Result<()> {
        let _ = self.tokenizer.with_truncation(None);
        self.tokenizer.with_padding(None);
        self.tokenizer.set_encode_special_tokens(self.settings.split_special_tokens);
        if let Some(json) = json.filter(|_| self.class == Class::Verbatim) {
            self.add(&listed(json)?)?;
        }
        self.add(&self.tokens_to_add())?;
        match self.class {
            Class::Qwen2 => {
                let specials: Vec<_> = self.specials().into_iter().map(|text| AddedToken::from(text, true)).collect();
                self.add(&specials)?;
            }
            Class::Cohere => {
                let specials: Vec<_> = self.settings.mentions().map(|mention| mention.token().special(true)).collect();
                self.add(&specials)?;
            }
            _ => (),
        }
        self.added.hand_over(&mut self.tokenizer);
        self.set_post_processor(json.is_some())
    }

    fn add(&mut self, tokens: &[AddedToken]) -> Result<()> {
        self.added.add(&self.tokenizer, tokens).map_err(|problem| unusable(self.folder, &problem))
    }

    /// The tokens that are listed, then the special ones that are not.
    fn tokens_to_add(&self) -> Vec<AddedToken> {
        let mut tokens: Vec<AddedToken> = self.settings.added.values().cloned().collect();
        let known: HashSet<&str> = self.added.tokens().values().chain(self.settings.added.values()).map(|token| token.content.as_str()).collect();
        let mut others: Vec<&Mention> = Vec::new();
        for mention in self.settings.mentions().chain(self.settings.extra.iter().flatten()) {
            if !known.contains(mention.text()) && !others.contains(&mention) {
                others.push(mention);
            }
        }
        tokens.extend(others.into_iter().map(Mention::token));
        for token in &mut tokens {
            token.special |= self.settings.mentions().any(|mention| mention.text() == token.content);
        }
        tokens
    }

    fn set_post_processor(&mut self, with_json: bool) -> Result<()> {
        let end = |name: &str| self.settings.text(name).map(|text| (text.to_owned(), None));
        // Where BERT has no such token, Python makes the text `None` of it, and the id is a fixed one.
        let bert = |name: &str, id| end(name).or_else(|| Some(("None".to_owned(), Some(id))));
        let wanted = |add: Option<bool>, name: &str| if add == Some(true) { end(name) } else { None };
        let (first, last) = match self.class {
            Class::Bert => (bert("cls", 2), bert("sep", 3)),
            Class::XlmRoberta => (end("bos"), end("eos")),
            Class::Roberta => (end("cls"), end("sep")),
            _ if with_json && self.class != Class::GptNeoX => return Ok(()),
            _ => (wanted(self.settings.add_bos, "bos"), wanted(self.settings.add_eos, "eos")),
        };
        self.surround(first, last)
    }

    /// Makes the tokenizer put a first and a last token around every text, each with its id if it is no token.
    fn surround(&mut self, first: Option<End>, last: Option<End>) -> Result<()> {
        let (mut single, mut specials) = (vec![json!({"Sequence": {"id": "A", "type_id": 0}})], serde_json::Map::new());
        for ((text, id), at_end) in first.map(|end| (end, false)).into_iter().chain(last.map(|end| (end, true))) {
            let id = id.or_else(|| self.id(&text)).ok_or_else(|| unusable(self.folder, &format!("special token '{text}' is no token")))?;
            single.insert(if at_end { single.len() } else { 0 }, json!({"SpecialToken": {"id": text, "type_id": 0}}));
            specials.insert(text.clone(), json!({"id": text, "ids": [id], "tokens": [text]}));
        }
        let processor: Option<PostProcessorWrapper> = if specials.is_empty() {
            None
        } else {
            let pair = [single.clone(), vec![json!({"Sequence": {"id": "B", "type_id": 1}})]].concat();
            let value = json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": specials});
            Some(serde_json::from_value(value).map_err(|e| unusable(self.folder, &e.to_string()))?)
        };
        self.tokenizer.with_post_processor(processor);
        Ok(())
    }
}

/// The text of a token at an end of every text, and its id if that is not the token's own.
type End = (String, Option<u32>);

fn flags(own: &Object, settings: &Settings, json: Option<&Object>) -> Result<Flags> {
    Ok(Flags {
        add_prefix_space: flag(own, "add_prefix_space")?,
        legacy: flag(own, "legacy")?.unwrap_or(false),
        do_lower_case: flag(own, "do_lower_case")?,
        tokenize_chinese_chars: flag(own, "tokenize_chinese_chars")?,
        strip_accents: flag(own, "strip_accents")?,
        unk_token: settings.text("unk").unwrap_or("None").into(),
        charsmap: json.map(|json| json.value("normalizer")).transpose()?.flatten().and_then(|normalizer| charsmap(&normalizer)),
    })
}

/// The character map of a normalizer or of the first of its parts that has one.
fn charsmap(normalizer: &Value) -> Option<String> {
    match normalizer.get("normalizers").and_then(Value::as_array) {
        Some(parts) => parts.iter().find_map(charsmap),
        None => normalizer.get("precompiled_charsmap")?.as_str().map(str::to_owned),
    }
}

/// A tokenizer.json without its added tokens, which are added one by one.
fn without_added(json: &Object) -> String {
    let fields = json.iter().filter(|(key, _)| *key != "added_tokens");
    let fields: Vec<String> = fields.map(|(key, value)| format!("{}:{value}", Value::from(key))).collect();
    format!("{{{}}}", fields.join(","))
}

/// The added tokens of a tokenizer.json, in the order of the file.
fn listed(json: &Object) -> Result<Vec<AddedToken>> {
    Ok(json.read("added_tokens")?.unwrap_or_default())
}

/// A tokenizer.json of vocabulary, merges and post-processor of another, and of what the class puts around them.
fn rebuilt(pipeline: &Pipeline, json: &Object) -> Result<String> {
    let model = json.object("model")?.ok_or_else(|| json.error("key 'model': found nothing, needed a model with a vocabulary"))?;
    let vocab = model.raw("vocab").ok_or_else(|| json.error("key 'model': found no vocabulary"))?;
    let post_processor = json.raw("post_processor").unwrap_or("null");
    Ok(assembled(pipeline, vocab, model.raw("merges"), post_processor))
}

fn assembled(pipeline: &Pipeline, vocab: &str, merges: Option<&str>, post_processor: &str) -> String {
    let Pipeline { normalizer, pre_tokenizer, decoder, model } = pipeline;
    let settings = model.to_string();
    let settings = settings.strip_suffix('}').unwrap_or(&settings);
    let merges =
        if model.get("type").and_then(Value::as_str) == Some("BPE") { format!(",\"merges\":{}", merges.unwrap_or("[]")) } else { String::new() };
    format!(
        "{{\"version\":\"1.0\",\"added_tokens\":[],\"normalizer\":{normalizer},\"pre_tokenizer\":{pre_tokenizer},\
         \"post_processor\":{post_processor},\"decoder\":{decoder},\"model\":{settings},\"vocab\":{vocab}{merges}}}}}"
    )
}

/// The same from the files that came before tokenizer.json: vocab.json with merges.txt, or vocab.txt.
fn from_vocabulary(folder: Folder<'_>, class: Class, pipeline: Option<Pipeline>) -> Result<String> {
    let none = |needed: &str| folder.error("tokenizer.json", format!("found no such file, and no {needed}; the model's folder needs its tokenizer"));
    match (class, pipeline) {
        (Class::Bert, Some(pipeline)) => {
            let text = folder.text("vocab.txt")?.ok_or_else(|| none("vocab.txt"))?;
            let lines = text.strip_suffix('\n').unwrap_or(&text).split('\n');
            let vocab: HashMap<&str, usize> = lines.enumerate().map(|(id, line)| (line.trim_end(), id)).collect();
            Ok(assembled(&pipeline, &json!(vocab).to_string(), None, "null"))
        }
        (Class::Gpt2 | Class::Qwen2 | Class::Roberta | Class::Cohere | Class::GptNeoX, Some(pipeline)) => {
            let needed = "vocab.json with merges.txt";
            let vocab = folder.text("vocab.json")?.ok_or_else(|| none(needed))?;
            let _: serde::de::IgnoredAny = serde_json::from_str(&vocab)
                .map_err(|e| folder.error("vocab.json", format!("cannot be read as JSON: {}", crate::json::problem(&e))))?;
            let merges = folder.text("merges.txt")?.ok_or_else(|| none(needed))?;
            let merges: Vec<[&str; 2]> = merges
                .lines()
                .filter(|line| !line.starts_with("#version"))
                .map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
                    [a, b] => Ok([a, b]),
                    _ => Err(folder.error("merges.txt", format!("found the line '{line}', needed two pieces with one space between"))),
                })
                .collect::<Result<_>>()?;
            Ok(assembled(&pipeline, &vocab, Some(&json!(merges).to_string()), "null"))
        }
        _ => Err(none("older files that this class of tokenizer is built from")),
    }
}

/// Runs code of the crate `tokenizers`, which panics on some inputs.
fn guarded<T>(folder: Folder<'_>, code: impl FnOnce() -> T) -> Result<T> {
    GUARDED.set(true);
    let done = catch_unwind(AssertUnwindSafe(code));
    GUARDED.set(false);
    done.map_err(|_| unusable(folder, "the tokenizers library fails on it"))
}

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread runs code whose panics become errors: a program's hook should not report them.
pub fn is_guarded() -> bool {
    GUARDED.get()
}

fn unusable(folder: Folder<'_>, problem: &str) -> Error {
    let name = if folder.has("tokenizer.json") { "tokenizer.json" } else { "tokenizer_config.json" };
    folder.error(name, format!("no tokenizer can be built from it: {problem}"))
}

/// Spaces that a WordPiece decoder leaves before punctuation are dropped.
fn cleaned_up(text: String) -> String {
    const PAIRS: [(&str, &str); 10] = [
        (" .", "."),
        (" ?", "?"),
        (" !", "!"),
        (" ,", ","),
        (" ' ", "'"),
        (" n't", "n't"),
        (" 'm", "'m"),
        (" 's", "'s"),
        (" 've", "'ve"),
        (" 're", "'re"),
    ];
    PAIRS.iter().fold(text, |text, (from, to)| text.replace(from, to))
}

/// Splits as Python's `str.split` does.
pub(super) fn python_words(line: &str) -> impl Iterator<Item = &str> {
    line.split(is_python_space).filter(|word| !word.is_empty())
}
