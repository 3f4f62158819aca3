//! [`Model`]: what is used of a SentencePiece model, read from its protobuf.
//!
//! Invariant: nothing is allocated but copies of pieces and of the character map, all of them parts of the input.
//!
//! Source: sentencepiece_model.proto of SentencePiece 0.2; the protobuf encoding.

use super::keys::Type;

/// A SentencePiece model.
#[derive(Debug, PartialEq)]
pub(super) struct Model {
    pub(super) pieces: Vec<Piece>,
    pub(super) kind: ModelKind,
    /// Whether a space is put before the text.
    pub(super) add_dummy_prefix: bool,
    /// Whether spaces at the ends and doubled ones are dropped.
    pub(super) remove_extra_whitespaces: bool,
    /// The compiled table of the normalizer.
    pub(super) charsmap: Vec<u8>,
}

/// The algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ModelKind {
    Unigram,
    Other,
}

/// One token.
#[derive(Debug, PartialEq)]
pub(super) struct Piece {
    pub(super) text: String,
    pub(super) score: f32,
    /// User-defined pieces count as normal, as in the reference.
    pub(super) kind: Type,
}

impl Model {
    /// Reads a model.
    ///
    /// # Errors
    /// What is wrong and at which byte.
    pub(super) fn parse(bytes: &[u8]) -> Result<Model, String> {
        let mut model =
            Model { pieces: Vec::new(), kind: ModelKind::Unigram, add_dummy_prefix: true, remove_extra_whitespaces: true, charsmap: Vec::new() };
        let mut walk = Walk { bytes, offset: 0 };
        while let Some((field, value)) = walk.field()? {
            match (field, value) {
                (1, Field::Bytes(piece, at)) => model.pieces.push(Piece::parse(piece, at)?),
                (2, Field::Bytes(trainer, at)) => model.trainer(trainer, at)?,
                (3, Field::Bytes(normalizer, at)) => model.normalizer(normalizer, at)?,
                _ => (),
            }
        }
        if model.pieces.is_empty() { Err("found no pieces: it is no SentencePiece model".into()) } else { Ok(model) }
    }

    fn trainer(&mut self, bytes: &[u8], start: usize) -> Result<(), String> {
        let mut walk = Walk { bytes, offset: 0 };
        while let Some((field, value)) = walk.field().map_err(|e| within(e, "trainer_spec", start))? {
            if let (3, Field::Varint(kind)) = (field, value) {
                self.kind = if kind == 1 { ModelKind::Unigram } else { ModelKind::Other };
            }
        }
        Ok(())
    }

    fn normalizer(&mut self, bytes: &[u8], start: usize) -> Result<(), String> {
        let mut walk = Walk { bytes, offset: 0 };
        while let Some((field, value)) = walk.field().map_err(|e| within(e, "normalizer_spec", start))? {
            match (field, value) {
                (2, Field::Bytes(map, _)) => self.charsmap = map.to_vec(),
                (3, Field::Varint(flag)) => self.add_dummy_prefix = flag != 0,
                (4, Field::Varint(flag)) => self.remove_extra_whitespaces = flag != 0,
                _ => (),
            }
        }
        Ok(())
    }
}

impl Piece {
    fn parse(bytes: &[u8], start: usize) -> Result<Piece, String> {
        let mut piece = Piece { text: String::new(), score: 0.0, kind: Type::Normal };
        let mut walk = Walk { bytes, offset: 0 };
        while let Some((field, value)) = walk.field().map_err(|e| within(e, "a piece", start))? {
            match (field, value) {
                (1, Field::Bytes(text, _)) => {
                    piece.text = std::str::from_utf8(text).map_err(|_| within("not UTF-8".into(), "a piece", start))?.into();
                }
                (2, Field::Fixed32(bits)) => piece.score = f32::from_bits(bits),
                (3, Field::Varint(kind)) => piece.kind = piece_type(kind).unwrap_or(piece.kind),
                _ => (),
            }
        }
        Ok(piece)
    }
}

/// The type of a piece in the words of GGUF; none for a number that the format does not know, which protobuf then ignores.
fn piece_type(kind: u64) -> Option<Type> {
    match kind {
        1 | 4 => Some(Type::Normal),
        2 => Some(Type::Unknown),
        3 => Some(Type::Control),
        5 => Some(Type::Unused),
        6 => Some(Type::Byte),
        _ => None,
    }
}

fn within(problem: String, part: &str, start: usize) -> String {
    format!("{part} from byte {start} on: {problem}")
}

/// One field of a message.
enum Field<'a> {
    Varint(u64),
    Fixed32(u32),
    Fixed64,
    /// With their offset in the message.
    Bytes(&'a [u8], usize),
}

/// A walk over the fields of one message.
struct Walk<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Walk<'a> {
    /// The next field with its number.
    fn field(&mut self) -> Result<Option<(u64, Field<'a>)>, String> {
        if self.offset == self.bytes.len() {
            return Ok(None);
        }
        let at = self.offset;
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Field::Varint(self.varint()?),
            1 => self.take(8).map(|_| Field::Fixed64)?,
            2 => {
                let n = self.varint()?;
                let n = usize::try_from(n).map_err(|_| self.truncated())?;
                let bytes = self.take(n)?;
                Field::Bytes(bytes, self.offset - n)
            }
            5 => Field::Fixed32(self.take(4)?.iter().rev().fold(0, |word, &byte| word << 8 | u32::from(byte))),
            other => return Err(format!("found wire type {other} at byte {at}, needed 0, 1, 2 or 5: it is damaged, or no SentencePiece model")),
        };
        Ok(Some((tag >> 3, value)))
    }

    fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?.first().copied().unwrap_or(0);
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(format!("found a number of more than 64 bits before byte {}", self.offset))
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], String> {
        let end = self.offset.checked_add(n).ok_or_else(|| self.truncated())?;
        let bytes = self.bytes.get(self.offset..end).ok_or_else(|| self.truncated())?;
        self.offset = end;
        Ok(bytes)
    }

    fn truncated(&self) -> String {
        format!("ends too early: a field that starts before byte {} goes beyond byte {}", self.offset, self.bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `<unk>` and `▁a` with a score of -1.5, a BPE model without dummy prefix.
    const SMALL: &[u8] = b"\x0a\x09\x0a\x05<unk>\x18\x02\x0a\x0b\x0a\x04\xe2\x96\x81a\x15\x00\x00\xc0\xbf\x12\x02\x18\x02\x1a\x05\x12\x01x\x18\x00";

    #[test]
    fn pieces_and_settings_are_read() {
        let model = Model::parse(SMALL).unwrap();
        let pieces: Vec<_> = model.pieces.iter().map(|p| (p.text.as_str(), p.score, p.kind)).collect();
        assert_eq!(pieces, [("<unk>", 0.0, Type::Unknown), ("▁a", -1.5, Type::Normal)]);
        assert_eq!((model.kind, model.add_dummy_prefix, model.remove_extra_whitespaces), (ModelKind::Other, false, true));
        assert_eq!(model.charsmap, b"x");
    }

    #[test]
    fn damage_is_named() {
        let problems = [
            (&b""[..], "found no pieces"),
            (&SMALL[..SMALL.len() - 1], "ends too early"),
            (&b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"[..], "ends too early"),
            (&b"\x0a\x80"[..], "ends too early"),
            (&b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"[..], "more than 64 bits"),
            (&b"{\"a\": 1}"[..], "wire type"),
            (&b"\x0a\x03\x0a\x01\xff"[..], "not UTF-8"),
        ];
        for (bytes, problem) in problems {
            let found = Model::parse(bytes).unwrap_err();
            assert!(found.contains(problem), "{found}");
        }
    }

    #[test]
    fn every_cut_is_an_error_or_a_model() {
        for end in 0..SMALL.len() {
            let _ = Model::parse(&SMALL[..end]);
        }
    }
}
