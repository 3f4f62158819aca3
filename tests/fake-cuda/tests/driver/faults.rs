//! Kernels that fail: when that shows, and that it stays.

use cudarc::driver::sys::CUresult;

use crate::support::{Module, Pinned, Result, Stream, alloc, described, device_name, free, read, start, synchronize};
use crate::{TWICE, error};

/// All calls that use the device give the error.
fn is_lost(stream: Stream, memory: u64, code: CUresult) {
    let given: [Result<()>; 8] = [
        stream.synchronize(),
        stream.query(),
        synchronize(),
        alloc(1).map(drop),
        free(memory),
        read(memory, 1).map(drop),
        Module::load(TWICE).map(drop),
        Pinned::new(1).map(drop),
    ];
    assert_eq!(given, [error(code); 8]);
    // What is known of the device is still known.
    device_name().unwrap();
}

#[test]
fn what_kernels_do_wrong_shows_late_and_stays() {
    let Some(ran) = fake_cuda::again("faults::what_kernels_do_wrong_shows_late_and_stays", &[]) else {
        start().unwrap();
        let stream = Stream::new().unwrap();
        let kernel = Module::load(TWICE).unwrap().kernel("twice").unwrap();
        let memory = alloc(8).unwrap();
        let mut to = Pinned::new(8).unwrap();
        stream.launch(kernel, 1, 3, &[Some(memory)]).unwrap();
        // The program goes on, for a time.
        stream.download(to.bytes_mut(), memory).unwrap();
        alloc(1).unwrap();
        is_lost(stream, memory, CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
        // What comes behind the fault is never done.
        assert_eq!(to.bytes(), [0xa5; 8]);
        let about = ["CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"];
        assert_eq!(described(CUresult::CUDA_ERROR_ILLEGAL_ADDRESS), about);
        return;
    };
    let [.., launch, fault] = &ran.log[..] else { panic!("{:?}", ran.log) };
    assert_eq!(launch, "launch twice grid 1,1,1 threads 3,1,1 stream 1");
    assert!(fault.starts_with("fault kernel twice, block 0, thread 2, PTX line 14: "), "{fault}");
    assert!(ran.stderr.contains(fault.strip_prefix("fault ").unwrap()), "{}", ran.stderr);
}

#[test]
fn addresses_that_are_not_aligned() {
    if fake_cuda::again("faults::addresses_that_are_not_aligned", &[]).is_some() {
        return;
    }
    start().unwrap();
    let kernel = Module::load(TWICE).unwrap().kernel("twice").unwrap();
    let memory = alloc(8).unwrap();
    Stream::NULL.launch(kernel, 1, 1, &[Some(memory + 2)]).unwrap();
    assert_eq!(synchronize(), error(CUresult::CUDA_ERROR_MISALIGNED_ADDRESS));
}

#[test]
fn other_faults() {
    if fake_cuda::again("faults::other_faults", &[]).is_some() {
        return;
    }
    start().unwrap();
    let kernel = Module::load(&TWICE.replace("ret;", "trap;")).unwrap().kernel("twice").unwrap();
    let memory = alloc(8).unwrap();
    Stream::NULL.launch(kernel, 1, 1, &[Some(memory)]).unwrap();
    is_lost(Stream::NULL, memory, CUresult::CUDA_ERROR_LAUNCH_FAILED);
}

#[test]
fn the_second_launch_fails() {
    let Some(ran) = fake_cuda::again("faults::the_second_launch_fails", &[("FAKE_CUDA", "launch-failure:2")]) else {
        start().unwrap();
        let kernel = Module::load(TWICE).unwrap().kernel("twice").unwrap();
        let memory = alloc(8).unwrap();
        Stream::NULL.launch(kernel, 1, 1, &[Some(memory)]).unwrap();
        synchronize().unwrap();
        Stream::NULL.launch(kernel, 1, 1, &[Some(memory)]).unwrap();
        is_lost(Stream::NULL, memory, CUresult::CUDA_ERROR_LAUNCH_FAILED);
        assert_eq!(described(CUresult::CUDA_ERROR_LAUNCH_FAILED), ["CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"]);
        return;
    };
    let launch = "launch twice grid 1,1,1 threads 1,1,1 stream 0";
    assert_eq!(ran.log[1..], [launch, launch, "fault kernel twice: FAKE_CUDA asks for it"]);
}

#[test]
fn the_first_launch_fails() {
    if fake_cuda::again("faults::the_first_launch_fails", &[("FAKE_CUDA", "launch-failure")]).is_some() {
        return;
    }
    start().unwrap();
    let kernel = Module::load(TWICE).unwrap().kernel("twice").unwrap();
    let memory = alloc(8).unwrap();
    Stream::NULL.launch(kernel, 1, 1, &[Some(memory)]).unwrap();
    is_lost(Stream::NULL, memory, CUresult::CUDA_ERROR_LAUNCH_FAILED);
}
