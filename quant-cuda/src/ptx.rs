//! The kernels: what `cargo xtask kernels` made of `kernels/*.cu`.

macro_rules! modules {
    ($($name:literal),* $(,)?) => {
        /// Each module's name, which is that of its `.cu` file, and its text.
        pub const MODULES: &[(&str, &str)] = &[$(($name, include_str!(concat!("../ptx/", $name, ".ptx")))),*];
    };
}

modules![
    "dynamic8",
    "error_stats",
    "four_bit",
    "ggml_decode_iq",
    "ggml_decode_k",
    "ggml_decode_legacy",
    "ggml_decode_small",
    "inference",
    "int8",
    "iq4",
    "k_quants",
    "legacy",
    "linear"
];

/// The text of a module.
pub fn text(module: &str) -> Option<&'static str> {
    MODULES.iter().find(|(name, _)| *name == module).map(|(_, text)| *text)
}
