//! WordPiece, Unigram, what is no tokenizer, and tokenizer_config.json.

use super::{Rebuilt, key, keys};
use crate::gguf::{Entry, Kind};

fn bert(rest: Vec<Entry>) -> Rebuilt {
    let tokens =
        [("[PAD]", 3), ("[UNK]", 3), ("[CLS]", 3), ("[SEP]", 3), ("▁un", 1), ("able", 1), ("▁able", 1), ("▁,", 1), ("▁中", 1), ("▁[PAD9]", 5)];
    let ids = [("padding", 0), ("unknown", 1), ("bos", 2), ("eos", 3), ("seperator", 3)];
    let ids = ids.into_iter().map(|(name, id)| Entry::u32(key(&format!("{name}_token_id")), id));
    Rebuilt::of([keys("bert", &tokens), ids.collect(), rest].concat())
}

#[test]
fn words_and_their_pieces_change_roles_back() {
    let rebuilt = bert(vec![Entry::bool(key("normalizer.lowercase"), true)]);
    assert_eq!(rebuilt.ids("UNABLE, able 中é"), [2, 4, 5, 7, 6, 8, 1, 3]);
    assert_eq!(rebuilt.tokenizer().encode(("un", "able"), true).unwrap().get_ids(), [2, 4, 3, 6, 3]);
    assert_eq!(rebuilt.tokenizer().encode(("un", "able"), true).unwrap().get_type_ids(), [0, 0, 0, 1, 1]);
    assert_eq!(rebuilt.json("tokenizer.json")["model"]["vocab"]["##able"], 5);
    let config = rebuilt.json("tokenizer_config.json");
    assert_eq!((&config["cls_token"], &config["sep_token"], &config["pad_token"]), (&"[CLS]".into(), &"[SEP]".into(), &"[PAD]".into()));
    assert!(config.get("bos_token").is_none() && config.get("eos_token").is_none());
    assert_eq!(config["model_input_names"], serde_json::json!(["input_ids", "token_type_ids", "attention_mask"]));
}

#[test]
fn accents_go_with_capitals_unless_the_file_says_otherwise() {
    let normalizer = |rest| bert(rest).json("tokenizer.json")["normalizer"].clone();
    assert_eq!(normalizer(vec![])["lowercase"], true);
    let cased = normalizer(vec![Entry::bool(key("normalizer.lowercase"), false), Entry::bool(key("normalizer.strip_accents"), true)]);
    assert_eq!((&cased["lowercase"], &cased["strip_accents"]), (&false.into(), &true.into()));
}

fn unigram(rest: Vec<Entry>) -> Rebuilt {
    let tokens = [("<pad>", 3), ("</s>", 3), ("<unk>", 2), ("▁", 1), ("▁a", 1), ("a", 1), ("b", 1), ("▁ab", 1), ("[PAD8]", 5)];
    let scores = Entry::f32s(key("scores"), &[0.0, 0.0, 0.0, -2.0, -3.0, -3.5, -4.0, -5.5, -10000.0]);
    Rebuilt::of([keys("t5", &tokens), vec![scores], rest].concat())
}

#[test]
fn the_likeliest_pieces_are_taken() {
    let flags = || vec![Entry::bool(key("add_space_prefix"), true), Entry::bool(key("remove_extra_whitespaces"), true)];
    let rebuilt = unigram(flags());
    assert_eq!(rebuilt.ids("ab  aa\n x"), [7, 4, 5, 3, 2, 1]);
    assert_eq!(rebuilt.tokenizer().decode(&[7, 4, 5, 1], true).unwrap(), "ab aa");
    let t5 = unigram([flags(), vec![Entry::string("general.architecture", "t5")]].concat());
    assert_eq!(t5.ids("a<extra_id_99>"), [4, 8, 1]);
    let kept = unigram(vec![Entry::bool(key("add_space_prefix"), true), Entry::bool(key("add_eos_token"), false)]);
    assert_eq!(kept.ids("a  a"), [4, 3, 4]);
}

#[test]
fn a_table_of_characters_is_carried_in_base64() {
    let table = |bytes: &[u8]| {
        let value = [&Kind::U8.id().to_le_bytes()[..], &(bytes.len() as u64).to_le_bytes(), bytes].concat();
        Entry { items: Some((Kind::U8, bytes.len() as u64)), ..Entry::new(key("precompiled_charsmap"), Kind::Array, value) }
    };
    let rebuilt = unigram(vec![table(&[4, 0, 0, 0, 0, 0, 0, 0, 0])]);
    assert_eq!(rebuilt.json("tokenizer.json")["normalizer"]["precompiled_charsmap"], "BAAAAAAAAAAA");
    assert!(unigram(vec![table(&[])]).json("tokenizer.json")["normalizer"].is_null());
}

#[test]
fn what_is_no_tokenizer_gives_no_files() {
    for kv in [vec![], vec![Entry::string(key("model"), "none")]] {
        let rebuilt = Rebuilt::of(kv);
        assert!(rebuilt.files.is_empty() && rebuilt.notes.is_empty());
    }
    let rebuilt = Rebuilt::of(vec![Entry::string(key("model"), "rwkv")]);
    let note = "tokenizer: 'rwkv' (key 'tokenizer.ggml.model') cannot be written as a tokenizer.json; take the files of the original model";
    assert!(rebuilt.files.is_empty());
    assert_eq!(rebuilt.notes, [note]);
}

#[test]
fn chat_templates_go_where_transformers_looks() {
    let template = |text: &str| Entry::string("tokenizer.chat_template", text);
    let long = "x".repeat(10_000);
    let rebuilt = bert(vec![template(&long)]);
    assert_eq!(rebuilt.file("chat_template.jinja"), long.as_bytes());
    assert!(rebuilt.json("tokenizer_config.json").get("chat_template").is_none());
    // A text file would be read with its line ends changed.
    let rebuilt = bert(vec![template("a\r\nb")]);
    assert_eq!((rebuilt.files.len(), &rebuilt.json("tokenizer_config.json")["chat_template"]), (2, &"a\r\nb".into()));
    let names = Entry::strings("tokenizer.chat_templates", &["tool_use", "rag", "gone"]);
    let named = |name: &str| Entry::string(format!("tokenizer.chat_template.{name}"), &format!("as {name}"));
    let rebuilt = bert(vec![template("d"), names, named("rag"), named("tool_use")]);
    let all = [("default", "d"), ("rag", "as rag"), ("tool_use", "as tool_use")].map(|(n, t)| serde_json::json!({"name": n, "template": t}));
    assert_eq!((rebuilt.files.len(), &rebuilt.json("tokenizer_config.json")["chat_template"]), (2, &all.to_vec().into()));
}

#[test]
fn the_same_keys_give_the_same_bytes() {
    let (a, b) = (bert(vec![]), bert(vec![]));
    assert_eq!(a.files, b.files);
    assert!(
        a.file("tokenizer.json").starts_with(
            b"{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n  \"added_tokens\": [\n    {\n      \"id\": 0,"
        )
    );
    let config = "{\n  \"clean_up_tokenization_spaces\": false,\n  \"cls_token\": \"[CLS]\",\n  \"model_input_names\": [\n";
    assert!(a.file("tokenizer_config.json").starts_with(config.as_bytes()));
}
