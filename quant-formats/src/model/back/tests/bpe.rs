//! BPE, of bytes and in the manner of SentencePiece.

use super::super::pre::{self, Letters};
use super::{Rebuilt, key, keys};
use crate::gguf::Entry;

/// Names that the converter gives to byte-level tokenizers, and those that only llama.cpp knows.
const NAMES: &str = "chatglm-bpe glm4 minerva-7b hunyuan hunyuan-dense hy_v4 falcon-h1 kimi-k2 qwen2 qwen35 grok-2 jina-v2-de gpt-2 lfm2 gemma4 \
    spark2_5 llama-bpe deepseek-llm deepseek-coder falcon falcon3 mpt starcoder stablelm2 refact command-r tiny_aya cohere2moe olmo dbrx jina-v1-en \
    jina-v2-es jina-v5-nano smaug-bpe poro-chat jina-v2-code viking jais jais-2 codeshell tekken smollm bloom gpt3-finnish exaone phi-2 chameleon \
    roberta-bpe gigachat megrez deepseek-v3 deepseek-r1-qwen gpt-4o superbpe trillion bailingmoe llama4 pixtral seed-coder a.x-4.0 midm-2.0 exaone4 \
    mellum modern-bert afmoe bailingmoe2 granite-docling minimax-m2 kormo youtu solar-open exaone-moe joyai-llm kanana2 f2llmv2 sarvam-moe talkie \
    minicpm5 granite-embed-multi-97m granite-embed-multi-311m mellum2 laguna ufakzeka \
    default llama3 llama-v3 jina-es jina-de glm5 llada-moe";

/// The character that stands for a byte.
fn letter(byte: u8) -> char {
    let is_itself = |b: u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if is_itself(byte) {
        return byte.into();
    }
    let n = (0..byte).filter(|&b| !is_itself(b)).count() as u32;
    char::from_u32(256 + n).unwrap()
}

/// All bytes, each a token, and then these.
fn bytes_and<'a>(pre: &str, letters: &'a [String], more: &[(&'a str, i32)]) -> Vec<Entry> {
    let tokens: Vec<(&str, i32)> = letters.iter().map(|l| (l.as_str(), 1)).chain(more.iter().copied()).collect();
    [keys("gpt2", &tokens), vec![Entry::string(key("pre"), pre)]].concat()
}

fn letters() -> Vec<String> {
    (0..=255).map(|b| letter(b).to_string()).collect()
}

fn merges(pairs: &[&str]) -> Entry {
    Entry::strings(key("merges"), pairs)
}

#[test]
fn every_name_gives_a_tokenizer_that_loses_nothing() {
    let letters = letters();
    let text = "I'VE 1234567 x  \n\n\ty don't 中文、かな 한국어 ㄅ!?… <sentinel:12> camelCase ² e\u{301} ";
    for name in NAMES.split_whitespace() {
        let pre = pre::of(name).unwrap_or_else(|| panic!("{name}"));
        if pre.letters == Letters::Utf8 {
            continue;
        }
        let rebuilt = Rebuilt::of([bytes_and(name, &letters, &[]), vec![merges(&[])]].concat());
        assert!(rebuilt.notes.is_empty(), "{name}: {:?}", rebuilt.notes);
        let tokenizer = rebuilt.tokenizer();
        let ids = tokenizer.encode(text, true).unwrap();
        let expected = if pre.nfc { text.replace("e\u{301}", "é") } else { text.into() };
        assert_eq!(tokenizer.decode(ids.get_ids(), false).unwrap(), expected, "{name}");
        assert_eq!(ids.len(), expected.len(), "{name}");
    }
}

#[test]
fn names_cut_differently() {
    let letters = letters();
    let at = |first: u32| letters.len() as u32 + first;
    let more = [("12", 1), ("Ġ1", 1), ("Ġ12", 1), ("x1", 1)];
    let merges = || merges(&["1 2", "Ġ 1", "Ġ1 2", "x 1"]);
    for (name, expected) in [
        ("gpt-2", vec![120, at(0), 32, at(0)]),
        ("smollm", vec![120, 49, 50, 32, 49, 50]),
        ("llama-bpe", vec![120, at(0), 32, at(0)]),
        ("qwen2", vec![120, 49, 50, 32, 49, 50]),
        ("bloom", vec![120, at(0), 32, at(0)]),
    ] {
        let rebuilt = Rebuilt::of([bytes_and(name, &letters, &more), vec![merges()]].concat());
        assert_eq!(rebuilt.ids("x12 12"), expected, "{name}");
    }
}

#[test]
fn added_tokens_keep_their_ids_across_holes() {
    let letters = letters();
    let more = [("[PAD256]", 5), ("<|end|>", 3), ("<tool> ", 4), ("[PAD259]", 5), ("hi", 1), ("[PAD261]", 1)];
    let rest = vec![merges(&["h i"]), Entry::u32(key("eos_token_id"), 257), Entry::u32(key("bos_token_id"), 300)];
    let rebuilt = Rebuilt::of([bytes_and("gpt-2", &letters, &more), rest].concat());
    assert_eq!(rebuilt.ids("hi<|end|><tool> hi"), [260, 257, 258, 260]);
    assert_eq!(rebuilt.notes, ["tokenizer: key 'tokenizer.ggml.bos_token_id' is 300, which is no token; it does not count"]);
    let json = rebuilt.json("tokenizer.json");
    assert_eq!(json["model"]["vocab"]["[PAD261]"], 261);
    assert!(json["model"]["vocab"].get("[PAD256]").is_none());
    let added: Vec<_> = json["added_tokens"].as_array().unwrap().iter().map(|t| (t["id"].as_u64().unwrap(), t["special"] == true)).collect();
    assert_eq!(added, [(257, true), (258, false)]);
    assert_eq!(rebuilt.json("tokenizer_config.json")["eos_token"], "<|end|>");
}

#[test]
fn added_tokens_at_the_end_are_not_part_of_the_model() {
    let letters = letters();
    let more = [("ab", 1), ("<s>", 3), ("<x>", 4), ("[PAD259]", 5)];
    let rest = || vec![merges(&["a b"]), Entry::u32(key("bos_token_id"), 257), Entry::bool(key("add_bos_token"), true)];
    let rebuilt = Rebuilt::of([bytes_and("gpt-2", &letters, &more), rest()].concat());
    assert_eq!(rebuilt.json("tokenizer.json")["model"]["vocab"].as_object().unwrap().len(), 257);
    assert_eq!(rebuilt.ids("ab<x>"), [257, 256, 258]);
    // One that a merge makes is.
    let more = [("ab", 3), ("<s>", 3)];
    let rebuilt = Rebuilt::of([bytes_and("gpt-2", &letters, &more), rest()].concat());
    assert_eq!(rebuilt.json("tokenizer.json")["model"]["vocab"].as_object().unwrap().len(), 257);
}

#[test]
fn tokens_are_put_around_a_text() {
    let letters = letters();
    let more = [("<s>", 3), ("</s>", 3)];
    let ids = |flags: &[(&str, bool)], pre: &str| {
        let flags = flags.iter().map(|(name, value)| Entry::bool(key(&format!("add_{name}_token")), *value));
        let rest = [merges(&[]), Entry::u32(key("bos_token_id"), 256), Entry::u32(key("eos_token_id"), 257)];
        let rebuilt = Rebuilt::of(bytes_and(pre, &letters, &more).into_iter().chain(rest).chain(flags).collect());
        let tokenizer = rebuilt.tokenizer();
        let pair = tokenizer.encode(("a", "b"), true).unwrap().get_ids().to_vec();
        (tokenizer.encode("a", true).unwrap().get_ids().to_vec(), pair)
    };
    assert_eq!(ids(&[], "gpt-2"), (vec![97], vec![97, 98]));
    assert_eq!(ids(&[], "llama-bpe"), (vec![256, 97], vec![256, 97, 256, 98]));
    assert_eq!(ids(&[("bos", false), ("eos", false)], "llama-bpe"), (vec![97], vec![97, 98]));
    assert_eq!(ids(&[("bos", true), ("eos", true)], "gpt-2"), (vec![256, 97, 257], vec![256, 97, 257, 256, 98, 257]));
    assert_eq!(ids(&[("bos", true), ("eos", true), ("sep", true)], "roberta-bpe").1, [256, 97, 257, 257, 98, 257]);
}

#[test]
fn without_merges_the_ids_say_what_is_merged() {
    let letters = letters();
    let more = [("ab", 1), ("bc", 1), ("abc", 1)];
    let rebuilt = Rebuilt::of(bytes_and("kimi-k2", &letters, &more));
    assert_eq!(rebuilt.notes, ["tokenizer: there are no merges; tokens are merged in the order of their ids"]);
    assert_eq!(rebuilt.json("tokenizer.json")["model"]["merges"], serde_json::json!([["a", "b"], ["b", "c"], ["a", "bc"], ["ab", "c"]]));
    assert_eq!(rebuilt.ids("abc bc"), [258, 32, 257]);
}

#[test]
fn merges_and_tokens_that_make_no_sense_are_left_out() {
    let letters = letters();
    let more = [("ab", 1), ("ab", 3), ("Ġ Ġ", 1)];
    let rest = vec![merges(&["a b", "a c", "ab", "", " ", "b  "])];
    let rebuilt = Rebuilt::of([bytes_and("gpt-2", &letters, &more), rest].concat());
    assert_eq!(
        rebuilt.notes,
        [
            "tokenizer: token 257 has the same text as a token before it (256) and is left out",
            "tokenizer: 5 merges are of texts that are no tokens and are left out; the first is 'a c'",
        ]
    );
    assert_eq!(rebuilt.ids("ab"), [256]);
}

#[test]
fn an_unknown_name_is_told() {
    let letters = letters();
    let rebuilt = Rebuilt::of([bytes_and("b\u{1b}x", &letters, &[]), vec![merges(&[])]].concat());
    let note = "tokenizer: key 'tokenizer.ggml.pre' is 'b\\u{1b}x', which is not known; texts are cut as GPT-2 does: compare before you rely on it";
    assert_eq!(rebuilt.notes, [note]);
    assert_eq!(rebuilt.ids("a b"), [97, 32, 98]);
}

/// `<unk>`, `<s>`, `</s>`, the bytes, and then these with their scores.
fn spm(more: &[(&str, i32, f32)], rest: Vec<Entry>) -> Rebuilt {
    let bytes: Vec<String> = (0..=255).map(|b| format!("<0x{b:02X}>")).collect();
    let first = [("<unk>", 2), ("<s>", 3), ("</s>", 3)].into_iter().chain(bytes.iter().map(|b| (b.as_str(), 6)));
    let tokens: Vec<(&str, i32)> = first.chain(more.iter().map(|&(text, kind, _)| (text, kind))).collect();
    let scores: Vec<f32> = vec![0.0; 259].into_iter().chain(more.iter().map(|&(_, _, score)| score)).collect();
    Rebuilt::of([keys("llama", &tokens), vec![Entry::f32s(key("scores"), &scores)], rest].concat())
}

#[test]
fn scores_say_what_is_merged() {
    let pieces =
        [("▁", 1, -9.0), ("a", 1, -8.0), ("b", 1, -7.0), ("c", 1, -6.0), ("ab", 1, -2.0), ("bc", 1, -1.0), ("▁a", 1, -3.0), ("abc", 1, -4.0)];
    let rebuilt = spm(&pieces, Vec::new());
    assert!(rebuilt.notes.is_empty());
    let merges = serde_json::json!([["b", "c"], ["a", "b"], ["▁", "a"], ["ab", "c"], ["a", "bc"]]);
    assert_eq!(rebuilt.json("tokenizer.json")["model"]["merges"], merges);
    assert_eq!(rebuilt.ids("abc"), [1, 265, 264]);
    assert_eq!(rebuilt.ids("b ab"), [1, 259, 261, 259, 263]);
    assert_eq!(rebuilt.ids(" é\n"), [1, 259, 259, 3 + 0xc3, 3 + 0xa9, 3 + 10]);
    assert_eq!(rebuilt.tokenizer().decode(&[1, 265, 3 + 0xc3, 3 + 0xa9, 259, 264], true).unwrap(), "aé bc");
    // A stretch after an added token gets a space, too.
    assert_eq!(rebuilt.ids("a</s>a"), [1, 265, 2, 265]);
}

#[test]
fn no_space_is_put_before_a_text_if_the_file_says_so() {
    let pieces = [("▁", 1, -9.0), ("a", 1, -8.0), ("▁a", 1, -3.0)];
    let rebuilt = spm(&pieces, vec![Entry::bool(key("add_space_prefix"), false), Entry::bool(key("add_bos_token"), false)]);
    assert_eq!(rebuilt.ids("a a"), [260, 261]);
    assert_eq!(rebuilt.tokenizer().decode(&[261, 260], true).unwrap(), " aa");
}

#[test]
fn runs_of_spaces_are_merged_before_all_else() {
    let pieces = [("▁", 1, -9.0), ("a", 1, -8.0), ("▁a", 1, -3.0), ("  ", 4, -1000.0), ("   ", 4, -1000.0), ("\n\n", 4, -1000.0)];
    let rebuilt = spm(&pieces, vec![Entry::bool(key("add_space_prefix"), false)]);
    assert_eq!(rebuilt.ids("  a"), [1, 262, 260]);
    assert_eq!(rebuilt.ids("   a\n\n a"), [1, 263, 260, 264, 261]);
    assert_eq!(rebuilt.ids("    "), [1, 262, 262]);
}

#[test]
fn scores_that_say_nothing_are_told() {
    let pieces = [("a", 1, -1000.0), ("b", 1, -1000.0), ("ba", 1, -1000.0), ("ab", 1, -1000.0)];
    let rebuilt = spm(&pieces, vec![Entry::bool(key("add_space_prefix"), false)]);
    assert_eq!(rebuilt.notes, ["tokenizer: all scores are the same; tokens are merged in the order of their ids"]);
    assert_eq!(rebuilt.ids("aba"), [1, 259, 261]);
}

#[test]
fn phi_3_takes_white_space_along() {
    let rest = vec![Entry::string("general.name", "Phi-3 mini"), Entry::bool(key("add_space_prefix"), false)];
    let rebuilt = spm(&[("a", 1, -1.0), ("<|end|>", 3, -1000.0)], rest);
    assert_eq!(rebuilt.ids("a<|end|> \n a<s>a"), [1, 259, 260, 259, 1, 259]);
}

#[test]
fn gemma_4_has_merges_of_its_own() {
    let tokens = [("<bos>", 3), ("▁", 1), ("a", 1), ("\n", 1), ("▁a", 1), ("\n\n", 1), ("<0x41>", 6)];
    let rest = vec![merges(&["▁ a", "\n \n"]), Entry::u32(key("bos_token_id"), 0), Entry::bool(key("add_bos_token"), true)];
    let rebuilt = Rebuilt::of([keys("gemma4", &tokens), rest].concat());
    assert_eq!(rebuilt.ids("a a\n\na"), [2, 4, 5, 2]);
}
