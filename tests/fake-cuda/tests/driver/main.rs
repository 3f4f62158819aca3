//! Programs that call the driver through cudarc find the stand-in, and what its documentation promises.
#![cfg(target_os = "linux")]

mod faults;
mod launches;
mod memory;
mod safe;
mod started;
mod support;
mod time;

use cudarc::driver::sys::CUresult;

/// A kernel with one thread for each number of `x`, which is doubled.
const TWICE: &str = "
.version 7.0
.target sm_75
.address_size 64
.visible .entry twice(.param .u64 x)
.maxntid 256, 1, 1
{
    .reg .b32 %r<3>;
    .reg .b64 %rd<3>;
    ld.param.u64 %rd0, [x];
    mov.u32 %r0, %tid.x;
    mul.wide.u32 %rd1, %r0, 4;
    add.s64 %rd2, %rd0, %rd1;
    ld.global.u32 %r1, [%rd2];
    add.s32 %r2, %r1, %r1;
    st.global.u32 [%rd2], %r2;
    ret;
}
";

fn bytes(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// A result that is an error, for comparisons.
fn error<T>(code: CUresult) -> Result<T, CUresult> {
    Err(code)
}
