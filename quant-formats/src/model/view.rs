//! Tensors that are made of others while they are read: [`Linked`].

use std::sync::Arc;

use quant_core::codec::{Codec, Known, Slab};
use quant_core::source::Source;
use quant_core::{Dtype, Error, Result, Scheme, ggml};

use super::link::{Link, Run, Strided, Strip};
use crate::checkpoint::{Checkpoint, Make};

/// One side of a link, and the tensor that it reads.
pub(crate) struct Piece {
    /// Index of the tensor in the checkpoint that is read.
    pub(crate) tensor: usize,
    /// Where its elements go.
    pub(crate) strided: Strided,
    /// What is added to its numbers.
    pub(crate) plus: f32,
    /// How many elements of the output, the first ones, have no source and are 0.
    pub(crate) lacking: u64,
}

/// A tensor whose elements are those of others, in another order. Its bytes are made as they are read.
pub(crate) struct Linked {
    base: Arc<Checkpoint>,
    /// By their first element in the output.
    pieces: Vec<Piece>,
    /// The codec of the tensors that are read; all have the same scheme.
    codecs: Vec<Box<dyn Codec>>,
    out: Out,
    /// How many elements come before the first that has a source. They are 0.
    lacking: u64,
}

/// What the bytes of the output are.
enum Out {
    /// Whole blocks, or elements, of the source: so many elements of so many bytes.
    Moved { elements: u64, bytes: u64 },
    /// Numbers of this type.
    Numbers(Dtype),
}

impl std::fmt::Debug for Linked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Linked").field("pieces", &self.pieces.len()).finish()
    }
}

/// Which side of links is made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// The tensors of GGUF, from those of Hugging Face.
    Gguf,
    /// The reverse.
    Hf,
}

impl Piece {
    /// The piece that `link` is on the side that is made.
    pub(crate) fn new(tensor: usize, link: &Link, side: Side) -> Piece {
        match side {
            Side::Gguf => Piece { tensor, strided: link.to_gguf(), plus: link.plus, lacking: 0 },
            Side::Hf => Piece { tensor, strided: link.to_hf(), plus: -link.plus, lacking: link.lacking },
        }
    }
}

impl Linked {
    /// The scheme under which pieces can be read: that of their tensors if blocks only move, else numbers of type `wanted`,
    /// or of the type of the first tensor.
    pub(crate) fn scheme(base: &Checkpoint, pieces: &[Piece], wanted: Option<Dtype>) -> Scheme {
        let Some(first) = pieces.first().map(|p| &base.tensors[p.tensor]) else { return Scheme::Dense(Dtype::F32) };
        let moves = |block: u64| pieces.iter().all(|p| p.plus == 0.0 && base.tensors[p.tensor].scheme == first.scheme && p.strided.has_blocks(block));
        match (first.scheme, wanted) {
            (Scheme::Ggml(ty), None) if moves(ty.block_len()) => first.scheme,
            (Scheme::Dense(Dtype::F16), None) => first.scheme,
            // What is added may need more digits than narrower types have.
            (Scheme::Dense(dtype), None) if dtype.is_weight() && pieces.iter().all(|p| p.plus == 0.0) => first.scheme,
            (_, Some(dtype)) => Scheme::Dense(dtype),
            (_, None) => Scheme::Dense(Dtype::F32),
        }
    }

    /// Pieces that cover `n_elements` elements, read under a scheme of [`Linked::scheme`].
    ///
    /// # Errors
    /// If the pieces do not cover the output exactly, or a tensor is too small for its piece: what is wrong.
    pub(crate) fn new(base: Arc<Checkpoint>, mut pieces: Vec<Piece>, scheme: Scheme, n_elements: u64) -> std::result::Result<Linked, String> {
        pieces.sort_by_key(|p| p.strided.out_at);
        let lacking = pieces.iter().map(|p| p.lacking).max().unwrap_or(0);
        let covered = pieces.iter().map(|p| p.strided.n_elements()).fold(lacking, u64::saturating_add);
        if covered != n_elements {
            return Err(format!("has {n_elements} elements, of which {covered} are found"));
        }
        for p in pieces.iter().filter(|p| p.strided.n_elements() > 0) {
            let (source, out) = p.strided.ends();
            let found = base.tensors[p.tensor].n_elements();
            if source >= found || out >= n_elements {
                return Err(format!("needs element {source} of '{}', which has {found}", base.tensors[p.tensor].name));
            }
        }
        let codec = |p: &Piece| base.tensors[p.tensor].scheme.codec(&base.tensors[p.tensor].shape);
        let codecs = pieces.iter().map(codec).collect::<Result<Vec<_>>>().map_err(|e| e.to_string())?;
        let same = pieces.iter().all(|p| p.plus == 0.0 && base.tensors[p.tensor].scheme == scheme);
        let out = match scheme {
            Scheme::Ggml(ty) => Out::Moved { elements: ty.block_len(), bytes: ty.block_bytes() },
            Scheme::Dense(dtype) if same && pieces.iter().all(|p| p.strided.has_blocks(1)) => Out::Moved { elements: 1, bytes: dtype.bits() / 8 },
            Scheme::Dense(dtype) => Out::Numbers(dtype),
            _ => return Err(format!("cannot be read as {scheme}")),
        };
        Ok(Linked { base, pieces, codecs, out, lacking })
    }

    /// The piece that has element `x`, and how its elements lie from there on.
    fn find(&self, x: u64) -> Result<(usize, Run)> {
        let after = self.pieces.partition_point(|p| p.strided.out_at <= x);
        let found = (0..after).rev().find_map(|i| self.pieces[i].strided.run(x).map(|run| (i, run)));
        found.ok_or_else(|| Error::request(format!("element {x} of a mapped tensor belongs to no source")))
    }

    /// Moves the blocks that make `out`, from byte `offset` on.
    fn moved(&self, offset: u64, out: &mut [u8], (elements, bytes): (u64, u64)) -> Result<()> {
        let mut done = 0;
        while done < out.len() {
            let byte = offset + done as u64;
            let zeros = self.lacking / elements * bytes;
            if byte < zeros {
                let end = out.len().min(done + (zeros - byte) as usize);
                out[done..end].fill(0);
                done = end;
                continue;
            }
            let (block, within) = (byte / bytes, byte % bytes);
            let (piece, run) = self.find(block * elements)?;
            let Run::Straight { at, n } = run else { return Err(Error::request("the blocks of a mapped tensor do not follow each other")) };
            let len = (n / elements * bytes - within).min((out.len() - done) as u64) as usize;
            self.base.read(self.pieces[piece].tensor, 0, at / elements * bytes + within, &mut out[done..done + len])?;
            done += len;
        }
        Ok(())
    }

    /// Fills `out` with the numbers from element `x` on.
    fn numbers(&self, x: u64, out: &mut [f32]) -> Result<()> {
        let mut buffers = Vec::new();
        let mut done = 0;
        if x < self.lacking {
            done = out.len().min((self.lacking - x) as usize);
            out[..done].fill(0.0);
        }
        while done < out.len() {
            let (i, run) = self.find(x + done as u64)?;
            let rest = &mut out[done..];
            let n = match run {
                Run::Straight { at, n } => {
                    let n = n.min(rest.len() as u64) as usize;
                    self.decode(i, at, &mut rest[..n], &mut buffers)?;
                    n
                }
                Run::Strip(strip) => self.strip(i, &strip, x + done as u64, rest, &mut buffers)?,
            };
            self.shift(i, &mut rest[..n]);
            done += n;
        }
        Ok(())
    }

    /// Adds the constant of a piece, in the arithmetic of f16 where the source is f16, as numpy does.
    fn shift(&self, piece: usize, numbers: &mut [f32]) {
        let Piece { tensor, plus, .. } = &self.pieces[piece];
        if *plus == 0.0 {
            return;
        }
        let is_half = self.base.tensors[*tensor].scheme == Scheme::Dense(Dtype::F16);
        let round = |v: f32| if is_half { half::f16::from_f32(v).to_f32() } else { v };
        numbers.iter_mut().for_each(|v| *v = round(*v + plus));
    }

    /// Fills the part of `out` that lies in a strip. Returns how many elements that are.
    fn strip(&self, piece: usize, strip: &Strip, x: u64, out: &mut [f32], buffers: &mut Vec<Vec<u8>>) -> Result<usize> {
        let end = (strip.out_at + strip.columns * strip.inner).min(x + out.len() as u64);
        let (first, last) = ((x - strip.out_at) / strip.inner, (end - 1 - strip.out_at) / strip.inner);
        let mut run = vec![0.0; (last - first + 1) as usize];
        for j in 0..strip.inner {
            let at = strip.at + self.pieces[piece].strided.inner_offset(strip, j) + first;
            self.decode(piece, at, &mut run, buffers)?;
            for (column, &value) in (first..).zip(&run) {
                let element = strip.out_at + column * strip.inner + j;
                if (x..end).contains(&element) {
                    out[(element - x) as usize] = value;
                }
            }
        }
        Ok((end - x) as usize)
    }

    /// Decodes consecutive elements of a source tensor, wherever they start.
    fn decode(&self, piece: usize, at: u64, out: &mut [f32], buffers: &mut Vec<Vec<u8>>) -> Result<()> {
        let codec = &*self.codecs[piece];
        let before = (at % 8) as usize;
        if before != 0 {
            let mut whole = vec![0.0; before + out.len()];
            self.decode(piece, at - before as u64, &mut whole, buffers)?;
            out.copy_from_slice(&whole[before..]);
            return Ok(());
        }
        buffers.resize_with(codec.parts().len().max(buffers.len()), Vec::new);
        for (i, (part, buffer)) in codec.parts().iter().zip(&mut *buffers).enumerate() {
            let bytes = part.decoded(at..at + out.len() as u64);
            buffer.resize((bytes.end - bytes.start) as usize, 0);
            self.base.read(self.pieces[piece].tensor, i, bytes.start, buffer)?;
        }
        let slices: Vec<&[u8]> = buffers[..codec.parts().len()].iter().map(Vec::as_slice).collect();
        codec.decode(at, &slices, out);
        Ok(())
    }
}

impl Make for Linked {
    fn read(&self, _from: &Checkpoint, offset: u64, out: &mut [u8]) -> Result<()> {
        match self.out {
            Out::Moved { elements, bytes } => self.moved(offset, out, (elements, bytes)),
            Out::Numbers(dtype) => read_numbers(dtype, offset, out, |at, numbers| self.numbers(at, numbers)),
        }
    }
}

/// Makes the bytes from `offset` on of a dense tensor whose numbers `fill` gives.
pub(crate) fn read_numbers(dtype: Dtype, offset: u64, out: &mut [u8], fill: impl Fn(u64, &mut [f32]) -> Result<()>) -> Result<()> {
    let width = dtype.bits() / 8;
    let (first, end) = (offset / width, (offset + out.len() as u64).div_ceil(width));
    let mut numbers = vec![0.0; (end - first) as usize];
    fill(first, &mut numbers)?;
    let codec = Scheme::Dense(dtype).codec(&[end - first])?;
    let mut bytes = vec![Vec::new()];
    let encoded = codec.encode(&Slab::new(&Known::Nothing, 0), &mut numbers, &mut bytes);
    encoded.map_err(|unfit| Error::request(format!("element {} is {}", first + unfit.index, unfit.value)))?;
    let skip = (offset - first * width) as usize;
    match bytes[0].get(skip..skip + out.len()) {
        Some(made) => out.copy_from_slice(made),
        None => return Err(Error::request("a mapped tensor is shorter than its size")),
    }
    Ok(())
}

/// Makes the bytes from `offset` on of a tensor of ggml blocks that `fill` gives by their number.
pub(crate) fn read_blocks(ty: ggml::Type, offset: u64, out: &mut [u8], fill: impl Fn(u64, &mut [u8]) -> Result<()>) -> Result<()> {
    let size = ty.block_bytes();
    let (first, end) = (offset / size, (offset + out.len() as u64).div_ceil(size));
    if offset.is_multiple_of(size) && (out.len() as u64).is_multiple_of(size) {
        return fill(first, out);
    }
    let mut blocks = vec![0; ((end - first) * size) as usize];
    fill(first, &mut blocks)?;
    let skip = (offset - first * size) as usize;
    out.copy_from_slice(&blocks[skip..skip + out.len()]);
    Ok(())
}
