//! [`Family`]: what one architecture calls its tensors and hyperparameters in the two worlds. One file a family under
//! `families/`; everything else is common.

use quant_core::{Dtype, Error, Result};

use super::hparams::Hparams;
use super::keys::{Keys, Meta};
use super::link::{Axis, Link};
use super::tokenizer::Vocab;

/// A family of models.
pub(crate) struct Family {
    /// `general.architecture`.
    pub(crate) arch: &'static str,
    /// The classes that config.json names under `architectures`; the first is written on the way back.
    pub(crate) classes: &'static [&'static str],
    /// `model_type` of config.json.
    pub(crate) model_type: &'static str,
    /// What tensor names begin with if the model has a head, such as `model.`. Rows of the tables are without it.
    pub(crate) prefix: &'static str,
    /// The tensors. A tensor of Hugging Face goes by all rows for it in the first table that has any; one of GGUF by the first
    /// row of all.
    pub(crate) tables: &'static [&'static [Row]],
    /// Says how a tensor of Hugging Face is called in the tables (with the prefix of the file, if it has one); none to leave it
    /// out, with a note.
    pub(crate) rename: fn(&Hparams, &str) -> Option<String>,
    /// Fills in what the configuration class of transformers would.
    pub(crate) prepare: fn(&mut Hparams) -> Result<()>,
    /// Tensors that GGUF has beyond those of the file.
    pub(crate) extra: fn(&Hparams) -> Result<Vec<Extra>>,
    /// Writes metadata that comes right after `general.architecture`.
    pub(crate) early: fn(&Hparams, &mut Keys) -> Result<()>,
    /// Writes the architecture's metadata, in the order of the reference, `general.file_type` included.
    pub(crate) keys: fn(&Hparams, &mut Keys) -> Result<()>,
    /// Writes config.json from metadata.
    pub(crate) config: fn(&Meta<'_>, &mut Hparams) -> Result<()>,
    /// Whether a GGUF file of this architecture is of this family, where several share one.
    pub(crate) is: fn(&Meta<'_>) -> bool,
    /// How its tokenizer is found.
    pub(crate) vocab: Vocab,
    /// Types that tensors of GGUF have whatever was asked for, by the end of their name, such as `("ffn_gate_inp.weight", F32)`.
    pub(crate) forced: &'static [(&'static str, Dtype)],
    /// Tensors that every layer has beside its projections; `ffn_gate` may also be a stack of experts.
    pub(crate) needed: &'static [&'static str],
}

/// What layers of most families have.
pub(crate) const USUAL: &[&str] = &["attn_norm", "ffn_norm", "ffn_gate"];

/// A tensor in both worlds.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    /// The name in files of Hugging Face: `{}` is the number of the layer, `{e}` that of the expert. `.weight` or `.bias`
    /// follows, unless it is exact. A leading `/` says that the prefix of the family never stands before it.
    pub(crate) hf: &'static str,
    /// The name in GGUF; the same ending follows.
    pub(crate) gguf: &'static str,
    /// Whether the names are complete.
    pub(crate) is_exact: bool,
    /// How the layouts differ.
    pub(crate) change: Change,
}

/// How the layout of a tensor differs between the two worlds.
#[derive(Clone, Copy)]
pub(crate) enum Change {
    /// Not at all.
    Same,
    /// The rows of each head are regrouped: the halves that rotate together stand side by side.
    Rope(Heads),
    /// A matrix is transposed; vectors are as they are.
    Transposed,
    /// GGUF has 1 added to each number.
    PlusOne,
    /// Experts, each a tensor in Hugging Face, are one stack in GGUF.
    Stacked,
    /// Anything else that a link can say.
    Other(Layout),
}

/// A shape in GGUF, and the link to it.
pub(crate) type Laid = (Vec<u64>, Link);

/// A layout of its own: shapes and links, from the shape on the other side. The second function gives the shape of the whole
/// tensor of Hugging Face from that of this row's tensor of GGUF.
#[derive(Clone, Copy)]
pub(crate) struct Layout {
    /// The shape in GGUF and the link, from the shape in Hugging Face.
    pub(crate) to_gguf: fn(&Hparams, &[u64]) -> Option<Laid>,
    /// The shape in Hugging Face, from that in GGUF.
    pub(crate) to_hf: fn(&Hparams, &[u64]) -> Option<Vec<u64>>,
}

/// The heads whose rows are regrouped.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heads {
    /// `num_attention_heads`.
    Query,
    /// `num_key_value_heads`.
    KeyValue,
}

/// A tensor of GGUF that is computed from the configuration.
pub(crate) struct Extra {
    /// Its name.
    pub(crate) name: &'static str,
    /// Its numbers.
    pub(crate) numbers: Vec<f32>,
}

/// A row for tensors with the same layout on both sides.
pub(crate) const fn row(hf: &'static str, gguf: &'static str) -> Row {
    changed(hf, gguf, Change::Same)
}

/// A row for tensors with different layouts.
pub(crate) const fn changed(hf: &'static str, gguf: &'static str, change: Change) -> Row {
    Row { hf, gguf, is_exact: false, change }
}

/// A row of complete names.
pub(crate) const fn exact(hf: &'static str, gguf: &'static str, change: Change) -> Row {
    Row { hf, gguf, is_exact: true, change }
}

/// The number of experts: the first of these keys that is there.
pub(crate) const EXPERTS: [&str; 3] = ["num_local_experts", "num_experts", "n_routed_experts"];

impl Change {
    /// The shape in GGUF and the link, for a tensor of Hugging Face of `shape` (of expert `expert` of a stack).
    ///
    /// # Errors
    /// If the shape does not fit the configuration: what is wrong.
    pub(crate) fn to_gguf(self, h: &Hparams, shape: &[u64], expert: u64) -> Result<(Vec<u64>, Link)> {
        let same = || (shape.to_vec(), Link::same(shape));
        match self {
            Change::Same => Ok(same()),
            Change::PlusOne => Ok((shape.to_vec(), Link { plus: 1.0, ..Link::same(shape) })),
            Change::Transposed => Ok(match *shape {
                [rows, columns] => (vec![columns, rows], transposed(rows, columns)),
                _ => same(),
            }),
            Change::Rope(heads) => {
                let n = heads.count(h)?;
                let rows = shape.first().copied().unwrap_or(0);
                let link = rope(n, rows, shape.get(1..).unwrap_or_default().iter().product());
                let needed = format!("found {rows} rows, needed a multiple of 2 × {n} heads");
                link.map(|link| (shape.to_vec(), link)).ok_or_else(|| Error::request(needed))
            }
            Change::Stacked => {
                let n = h.need(&EXPERTS)?.into();
                let mut stacked = vec![n];
                stacked.extend_from_slice(shape);
                let link = Link::same(shape);
                let gguf_at = expert.checked_mul(link.n_elements()).ok_or_else(|| Error::request("has more elements than 64-bit sizes allow"))?;
                Ok((stacked, Link { gguf_at, ..link }))
            }
            Change::Other(layout) => {
                (layout.to_gguf)(h, shape).ok_or_else(|| Error::request(format!("found the shape {shape:?}, which does not fit config.json")))
            }
        }
    }

    /// The shape in Hugging Face of a tensor that has `shape` in GGUF.
    pub(crate) fn to_hf(self, h: &Hparams, shape: &[u64]) -> Result<Vec<u64>> {
        match self {
            Change::Same | Change::PlusOne | Change::Rope(_) => Ok(shape.to_vec()),
            Change::Transposed => Ok(shape.iter().rev().copied().collect()),
            Change::Stacked => Ok(shape.get(1..).unwrap_or_default().to_vec()),
            Change::Other(layout) => {
                (layout.to_hf)(h, shape).ok_or_else(|| Error::request(format!("found the shape {shape:?}, which does not fit the metadata")))
            }
        }
    }
}

impl Heads {
    fn count(self, h: &Hparams) -> Result<u64> {
        let query = h.need(&["n_heads", "num_attention_heads"])?;
        let n = match self {
            Heads::Query => query,
            Heads::KeyValue => h.u32(&["n_kv_heads", "num_key_value_heads"])?.unwrap_or(query),
        };
        Ok(n.into())
    }
}

/// \[rows, columns\] in Hugging Face, \[columns, rows\] in GGUF.
fn transposed(rows: u64, columns: u64) -> Link {
    Link::of(vec![Axis { len: rows, hf: columns, gguf: 1 }, Axis { len: columns, hf: 1, gguf: rows }])
}

/// The regrouping of `rows` rows of `columns` numbers: Hugging Face has the first halves of a head, then the second ones; GGUF
/// has the two numbers that rotate together side by side.
fn rope(heads: u64, rows: u64, columns: u64) -> Option<Link> {
    let pairs = rows.checked_div(heads)? / 2;
    if pairs.checked_mul(2)?.checked_mul(heads)? != rows {
        return None;
    }
    let head = 2 * pairs * columns;
    Some(Link::of(vec![
        Axis { len: heads, hf: head, gguf: head },
        Axis { len: 2, hf: pairs * columns, gguf: columns },
        Axis { len: pairs, hf: columns, gguf: 2 * columns },
        Axis { len: columns, hf: 1, gguf: 1 },
    ]))
}

/// The number of a layer and of an expert in a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Numbers {
    /// What stands for `{}`.
    pub(crate) layer: Option<u64>,
    /// What stands for `{e}`.
    pub(crate) expert: Option<u64>,
}

/// Reads `name` by a pattern with `{}` and `{e}`: the numbers that stand there.
pub(crate) fn matches(pattern: &str, name: &str) -> Option<Numbers> {
    let mut numbers = Numbers::default();
    let (mut pattern, mut name) = (pattern, name);
    while let Some(at) = pattern.find('{') {
        name = name.strip_prefix(&pattern[..at])?;
        let digits = name.bytes().take_while(u8::is_ascii_digit).count();
        let number = name[..digits].parse().ok()?;
        let is_canonical = digits == 1 || !name.starts_with('0');
        match pattern[at..].strip_prefix("{}") {
            Some(rest) => (numbers.layer, pattern) = (Some(number), rest),
            None => (numbers.expert, pattern) = (Some(number), pattern[at..].strip_prefix("{e}")?),
        }
        if !is_canonical {
            return None;
        }
        name = &name[digits..];
    }
    (pattern == name).then_some(numbers)
}

/// The name that a pattern gives for numbers.
pub(crate) fn filled(pattern: &str, numbers: Numbers) -> String {
    let shown = |n: Option<u64>| n.unwrap_or_default().to_string();
    pattern.replace("{}", &shown(numbers.layer)).replace("{e}", &shown(numbers.expert))
}

impl Row {
    /// Reads a name of Hugging Face, without the family's prefix: the ending that follows, and the numbers.
    pub(crate) fn of_hf(&self, name: &str) -> Option<(&'static str, Numbers)> {
        self.ending(self.hf.trim_start_matches('/'), name)
    }

    /// Reads a name of GGUF.
    pub(crate) fn of_gguf(&self, name: &str) -> Option<(&'static str, Numbers)> {
        self.ending(self.gguf, name)
    }

    fn ending(&self, pattern: &str, name: &str) -> Option<(&'static str, Numbers)> {
        if self.is_exact {
            return matches(pattern, name).map(|n| ("", n));
        }
        [".weight", ".bias"].into_iter().find_map(|ending| Some((ending, matches(pattern, name.strip_suffix(ending)?)?)))
    }

    /// The name in Hugging Face, with the family's prefix.
    pub(crate) fn hf_name(&self, prefix: &str, ending: &str, numbers: Numbers) -> String {
        match self.hf.strip_prefix('/') {
            Some(top) => filled(top, numbers) + ending,
            None => prefix.to_owned() + &filled(self.hf, numbers) + ending,
        }
    }
}

impl Family {
    /// All rows.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &'static Row> {
        self.tables.iter().flat_map(|table| table.iter())
    }

    /// The rows for a tensor of Hugging Face, with the ending and the numbers of its name.
    pub(crate) fn rows_of_hf(&self, name: &str) -> Vec<(&'static Row, &'static str, Numbers)> {
        let bare = name.strip_prefix(self.prefix).unwrap_or(name);
        let found = |table: &&'static [Row]| {
            let rows = table.iter().filter_map(|row| {
                let name = if row.hf.starts_with('/') { name } else { bare };
                row.of_hf(name).map(|(ending, numbers)| (row, ending, numbers))
            });
            Some(rows.collect::<Vec<_>>()).filter(|rows| !rows.is_empty())
        };
        self.tables.iter().find_map(found).unwrap_or_default()
    }

    /// The row for a tensor of GGUF, with the ending and the numbers of its name.
    pub(crate) fn row_of_gguf(&self, name: &str) -> Option<(&'static Row, &'static str, Numbers)> {
        self.rows().find_map(|row| row.of_gguf(name).map(|(ending, n)| (row, ending, n)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written_by_patterns() {
        let numbers = Numbers { layer: Some(12), expert: Some(3) };
        assert_eq!(matches("layers.{}.mlp.experts.{e}.w1", "layers.12.mlp.experts.3.w1"), Some(numbers));
        assert_eq!(filled("layers.{}.mlp.experts.{e}.w1", numbers), "layers.12.mlp.experts.3.w1");
        for bad in ["layers..mlp.experts.3.w1", "layers.12.mlp.experts.3.w12", "layers.012.mlp.experts.3.w1", "layers.1x.mlp.experts.3.w1"] {
            assert_eq!(matches("layers.{}.mlp.experts.{e}.w1", bad), None, "{bad}");
        }
    }

    #[test]
    fn rope_puts_the_halves_of_a_head_side_by_side() {
        // Two heads of four rows of one number: 0 1 | 2 3 becomes 0 2 1 3.
        let link = rope(2, 8, 1).unwrap();
        assert_eq!(crate::model::link::order(&link), [0, 2, 1, 3, 4, 6, 5, 7]);
        assert_eq!(rope(3, 4, 1), None);
    }
}
