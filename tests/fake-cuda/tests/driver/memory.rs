//! Device memory and its end, pinned memory.

use cudarc::driver::sys::CUresult;

use crate::error;
use crate::support::{Pinned, Stream, alloc, free, free_memory, read, start, total_memory, write};

#[test]
fn memory_has_an_end() {
    let Some(ran) = fake_cuda::again("memory::memory_has_an_end", &[("FAKE_CUDA_MEMORY", "2048")]) else {
        start().unwrap();
        assert_eq!(total_memory(), Ok(2048));
        let first = alloc(1000).unwrap();
        let second = alloc(1).unwrap();
        assert!(first.is_multiple_of(256) && second.is_multiple_of(256));
        assert_eq!(free_memory(), Ok((512, 2048)));
        assert_eq!(alloc(513), error(CUresult::CUDA_ERROR_OUT_OF_MEMORY));
        assert_eq!(alloc(usize::MAX), error(CUresult::CUDA_ERROR_OUT_OF_MEMORY));
        assert_eq!(alloc(0), error(CUresult::CUDA_ERROR_INVALID_VALUE));
        free(first).unwrap();
        assert_eq!(free_memory(), Ok((1536, 2048)));
        alloc(1536).unwrap();
        return;
    };
    assert_eq!(ran.log, ["alloc 1000 used 1024 peak 1024", "alloc 1 used 1536 peak 1536", "alloc 1536 used 2048 peak 2048"]);
}

#[test]
fn the_peak_stays() {
    let Some(ran) = fake_cuda::again("memory::the_peak_stays", &[]) else {
        start().unwrap();
        let first = alloc(4096).unwrap();
        free(first).unwrap();
        alloc(512).unwrap();
        return;
    };
    assert_eq!(ran.log, ["alloc 4096 used 4096 peak 4096", "alloc 512 used 512 peak 4096"]);
}

#[test]
fn bytes_come_back_and_nothing_else_is_touched() {
    let Some(ran) = fake_cuda::again("memory::bytes_come_back_and_nothing_else_is_touched", &[]) else {
        start().unwrap();
        let memory = alloc(6).unwrap();
        assert_eq!(read(memory, 6).unwrap(), [0xa5; 6]);
        write(memory + 1, &[1, 2, 3]).unwrap();
        assert_eq!(read(memory, 6).unwrap(), [0xa5, 1, 2, 3, 0xa5, 0xa5]);
        for (address, bytes) in [(memory + 4, 3), (memory + 7, 1), (memory - 1, 2), (7, 1)] {
            assert_eq!(read(address, bytes), error(CUresult::CUDA_ERROR_INVALID_VALUE));
            assert_eq!(write(address, &vec![0; bytes]), error(CUresult::CUDA_ERROR_INVALID_VALUE));
        }
        for address in [memory + 1, 7] {
            assert_eq!(free(address), error(CUresult::CUDA_ERROR_INVALID_VALUE));
        }
        free(memory).unwrap();
        assert_eq!(free(memory), error(CUresult::CUDA_ERROR_INVALID_VALUE));
        assert_eq!(read(memory, 1), error(CUresult::CUDA_ERROR_INVALID_VALUE));
        free(0).unwrap();
        return;
    };
    assert_eq!(ran.log, ["alloc 6 used 512 peak 512", "download 6 stream 0", "upload 3 stream 0", "download 6 stream 0"]);
}

#[test]
fn pinned_memory() {
    if fake_cuda::again("memory::pinned_memory", &[("FAKE_CUDA_MEMORY", "4096")]).is_some() {
        return;
    }
    start().unwrap();
    // It is the host's: the device's limit does not matter.
    let mut pinned = Pinned::new(100_000).unwrap();
    assert!(pinned.bytes().iter().all(|byte| *byte == 0xa5));
    pinned.bytes_mut()[99_999] = 1;
    assert_eq!(free_memory(), Ok((4096, 4096)));
    assert_eq!(Pinned::new(0).map(drop), error(CUresult::CUDA_ERROR_INVALID_VALUE));
}

#[test]
fn memory_in_the_order_of_a_stream() {
    if fake_cuda::again("memory::memory_in_the_order_of_a_stream", &[("FAKE_CUDA_MEMORY", "1024")]).is_some() {
        return;
    }
    start().unwrap();
    let stream = Stream::new().unwrap();
    let memory = stream.alloc(1024).unwrap();
    stream.fill(memory, 7, 1024).unwrap();
    let mut pinned = Pinned::new(4).unwrap();
    stream.download(pinned.bytes_mut(), memory).unwrap();
    stream.free(memory).unwrap();
    assert_eq!(stream.free(memory + 1), error(CUresult::CUDA_ERROR_INVALID_VALUE));
    // Who needs the room waits for it.
    stream.alloc(512).unwrap();
    assert_eq!(pinned.bytes(), [7; 4]);
}

#[test]
fn the_second_copy_to_the_host_has_one_wrong_bit() {
    if fake_cuda::again("memory::the_second_copy_to_the_host_has_one_wrong_bit", &[("FAKE_CUDA_WRONG", "2")]).is_some() {
        return;
    }
    start().unwrap();
    let memory = alloc(5).unwrap();
    write(memory, &[0; 5]).unwrap();
    let copies = [(); 3].map(|()| read(memory, 5).unwrap());
    assert_eq!(copies, [[0; 5], [0, 0, 1, 0, 0], [0; 5]]);
}
