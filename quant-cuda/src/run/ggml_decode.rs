//! Decoding of ggml's types.
pub fn decode(_: &mut dyn crate::queue::Queue, _: &super::Decode<'_>, _: &mut [f32]) -> Result<bool, crate::queue::DeviceError> {
    Ok(false)
}
