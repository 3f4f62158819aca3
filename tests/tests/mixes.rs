//! llama.cpp's choices of types, `goldens/llama-mixes.txt`, against [`quant_core::mix`], tensor by tensor.

use std::collections::{BTreeMap, BTreeSet};

use quant_core::mix::{Ftype, Item, Model, Options, choose, order_key, recognise};
use quant_core::{Dtype, Scheme};
use quant_tests::here;

/// One model of the golden file.
#[derive(Default)]
struct Golden {
    name: String,
    model: Model,
    has_imatrix: bool,
    /// Names and shapes, in the order of visiting.
    tensors: Vec<(String, Vec<u64>)>,
    /// The schemes of all tensors, by file type.
    chosen: Vec<(Ftype, Vec<Scheme>)>,
}

const SOURCE: Scheme = Scheme::Dense(Dtype::F16);

impl Golden {
    fn load() -> Vec<Golden> {
        let text = std::fs::read_to_string(here("goldens/llama-mixes.txt")).unwrap();
        let mut letters = BTreeMap::new();
        let mut models: Vec<Golden> = Vec::new();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (word, rest) = line.split_once(' ').unwrap();
            match word {
                "types" => letters = rest.split(' ').map(|t| (t.as_bytes()[0] as char, t[2..].parse().unwrap())).collect(),
                "model" => models.push(Golden::named(rest)),
                "tensor" => models.last_mut().unwrap().add_tensors(rest),
                ftype => {
                    let schemes = rest.chars().filter(|c| *c != ' ').map(|c| letters[&c]).collect();
                    models.last_mut().unwrap().chosen.push((ftype.parse().unwrap(), schemes));
                }
            }
        }
        models.iter_mut().for_each(|golden| golden.tensors.sort_by(|a, b| order_key(&a.0).cmp(&order_key(&b.0))));
        models
    }

    fn named(line: &str) -> Golden {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |i: usize| words[i].parse().unwrap();
        let model = Model { arch: words[1].into(), n_layer: number(2), n_head: number(3), n_head_kv: number(4), n_expert: number(5) };
        Golden { name: words[0].into(), model, has_imatrix: words.get(6) == Some(&"matrix"), ..Golden::default() }
    }

    fn add_tensors(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let shape = match words[1].split_once('x') {
            Some((row, depth)) => vec![depth.parse().unwrap(), 2, row.parse().unwrap()],
            None => vec![2, words[1].parse().unwrap()],
        };
        let Some(layers) = words.get(2) else {
            return self.tensors.push((format!("{}.weight", words[0]), shape));
        };
        for range in layers.split(',') {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let layers = first.parse::<u32>().unwrap()..=last.parse().unwrap();
            self.tensors.extend(layers.map(|layer| (format!("blk.{layer}.{}.weight", words[0]), shape.clone())));
        }
    }

    fn items(&self) -> Vec<Item<'_>> {
        self.tensors.iter().map(|(name, shape)| Item { name, shape, from: SOURCE }).collect()
    }
}

#[test]
fn every_tensor_gets_the_type_that_llama_cpp_gives_it() {
    let (mut wrong, mut ftypes) = (Vec::new(), BTreeSet::new());
    let (mut models, mut mixes, mut decisions) = ([0; 2], [0; 2], [0; 2]);
    for golden in Golden::load() {
        let is_made_up = usize::from(golden.name.starts_with("run-"));
        models[is_made_up] += 1;
        for (ftype, expected) in &golden.chosen {
            mixes[is_made_up] += 1;
            ftypes.insert(*ftype);
            let options = Options { has_imatrix: golden.has_imatrix, ..Options::new(*ftype) };
            let found = choose(&options, &golden.model, &golden.items()).unwrap();
            assert_eq!(found.len(), expected.len(), "{} {ftype}", golden.name);
            for ((choice, expected), (tensor, _)) in found.iter().zip(expected).zip(&golden.tensors) {
                decisions[is_made_up] += 1;
                if choice.scheme.unwrap_or(SOURCE) != *expected {
                    wrong.push(format!("{} {ftype} {tensor}: {:?} instead of {expected}", golden.name, choice.scheme));
                }
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    // llama.cpp's snapshots, and runs of llama-quantize on made-up models.
    assert_eq!((models, mixes, decisions), ([12, 16], [396, 514], [164_934, 65_444]));
    assert_eq!(ftypes.into_iter().collect::<Vec<_>>(), Ftype::all().filter(|f| f.is_selectable()).collect::<Vec<_>>());
}

#[test]
fn mixes_are_recognised() {
    let (mut right, mut same) = (0, 0);
    for golden in Golden::load().iter().filter(|golden| !golden.has_imatrix) {
        for (ftype, chosen) in &golden.chosen {
            let stored: Vec<Item> = golden.items().iter().zip(chosen).map(|(item, from)| Item { from: *from, ..*item }).rev().collect();
            assert_eq!(recognise(&golden.model, &stored, Some(*ftype)), Some(*ftype), "{}", golden.name);
            let found = recognise(&golden.model, &stored, None).unwrap();
            right += usize::from(found == *ftype);
            if found != *ftype {
                let other = choose(&Options::new(found), &golden.model, &golden.items()).unwrap();
                assert!(other.iter().zip(chosen).all(|(a, b)| a.scheme.unwrap_or(SOURCE) == *b), "{} {ftype}: {found}", golden.name);
                same += 1;
            }
        }
    }
    // Rows that fit no block, and MXFP4_MOE without experts, leave mixes with the same types.
    assert_eq!((right, same), (608, 59));
}
