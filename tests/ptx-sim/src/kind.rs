//! Types and address spaces of PTX.

/// The type in an instruction or a declaration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    B8,
    B16,
    B32,
    B64,
    U8,
    U16,
    U32,
    U64,
    S8,
    S16,
    S32,
    S64,
    F16,
    Bf16,
    F16x2,
    Bf16x2,
    F32,
    F64,
    Predicate,
}

impl Kind {
    /// From its name, without the dot.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "b8" => Self::B8,
            "b16" => Self::B16,
            "b32" => Self::B32,
            "b64" => Self::B64,
            "u8" => Self::U8,
            "u16" => Self::U16,
            "u32" => Self::U32,
            "u64" => Self::U64,
            "s8" => Self::S8,
            "s16" => Self::S16,
            "s32" => Self::S32,
            "s64" => Self::S64,
            "f16" => Self::F16,
            "bf16" => Self::Bf16,
            "f16x2" => Self::F16x2,
            "bf16x2" => Self::Bf16x2,
            "f32" => Self::F32,
            "f64" => Self::F64,
            "pred" => Self::Predicate,
            _ => return None,
        })
    }

    /// Bytes in memory.
    pub fn bytes(self) -> usize {
        match self {
            Self::Predicate => 0,
            Self::B8 | Self::U8 | Self::S8 => 1,
            Self::B16 | Self::U16 | Self::S16 | Self::F16 | Self::Bf16 => 2,
            Self::B32 | Self::U32 | Self::S32 | Self::F16x2 | Self::Bf16x2 | Self::F32 => 4,
            Self::B64 | Self::U64 | Self::S64 | Self::F64 => 8,
        }
    }

    /// Bits of a value.
    pub fn bits(self) -> u32 {
        self.bytes() as u32 * 8
    }

    /// An integer with a sign.
    pub fn is_signed(self) -> bool {
        matches!(self, Self::S8 | Self::S16 | Self::S32 | Self::S64)
    }

    /// Floats, the small and the packed ones too.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F16 | Self::Bf16 | Self::F16x2 | Self::Bf16x2 | Self::F32 | Self::F64)
    }
}

/// Where an address points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Space {
    /// Any of the others but parameters, told by the address.
    Generic,
    Global,
    Shared,
    Const,
    Local,
    Param,
}

impl Space {
    /// From its name, without the dot.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "global" => Self::Global,
            "shared" | "shared::cta" => Self::Shared,
            "const" => Self::Const,
            "local" => Self::Local,
            "param" | "param::entry" => Self::Param,
            _ => return None,
        })
    }

    /// What is added to an address of this space to make it generic. Global and constant addresses are generic as they are.
    pub fn window(self) -> u64 {
        match self {
            Self::Shared => 0x51 << 56,
            Self::Local => 0x52 << 56,
            _ => 0,
        }
    }

    /// The space of a generic address, and the address in it.
    pub fn of_generic(address: u64) -> (Self, u64) {
        match address >> 56 {
            0x51 => (Self::Shared, address - Self::Shared.window()),
            0x52 => (Self::Local, address - Self::Local.window()),
            _ => (Self::Generic, address),
        }
    }

    /// For messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Generic => "generic",
            Self::Global => "global",
            Self::Shared => "shared",
            Self::Const => "constant",
            Self::Local => "local",
            Self::Param => "parameter",
        }
    }
}
