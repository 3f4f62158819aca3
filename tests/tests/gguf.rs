//! GGUF through the real binary: copies, other formats, odd requests, every type, and the files of llama.cpp's other tools.

#[path = "gguf/copies.rs"]
mod copies;
#[path = "gguf/dense.rs"]
mod dense;
#[path = "gguf/made.rs"]
mod made;
#[path = "gguf/requests.rs"]
mod requests;
#[path = "gguf/tools.rs"]
mod tools;
#[path = "gguf/types.rs"]
mod types;
