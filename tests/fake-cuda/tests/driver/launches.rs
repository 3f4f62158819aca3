//! Modules, kernels, launches.

use cudarc::driver::sys::CUresult;

use crate::support::{Module, Stream, alloc, described, driver_version, read, start, write};
use crate::{TWICE, bytes, error};

#[test]
fn texts_that_the_driver_takes_and_does_not() {
    let Some(ran) = fake_cuda::again("launches::texts_that_the_driver_takes_and_does_not", &[]) else {
        start().unwrap();
        let load = |text: &str| Module::load(text).map(drop);
        for version in ["6.3", "8.7"] {
            load(&TWICE.replace("7.0", version)).unwrap();
        }
        for version in ["8.8", "9.0", "10.1"] {
            assert_eq!(load(&TWICE.replace("7.0", version)), error(CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION));
        }
        assert_eq!(load(&TWICE.replace("sm_75", "sm_80")), error(CUresult::CUDA_ERROR_INVALID_PTX));
        assert_eq!(load(&TWICE.replace("[x]", "[y]")), error(CUresult::CUDA_ERROR_INVALID_PTX));
        for image in ["", "no PTX", "\x7fELF"] {
            assert_eq!(load(image), error(CUresult::CUDA_ERROR_INVALID_IMAGE));
        }
        let module = Module::load(TWICE).unwrap();
        assert_eq!(module.kernel("thrice").map(drop), error(CUresult::CUDA_ERROR_NOT_FOUND));
        module.unload().unwrap();
        assert_eq!(module.kernel("twice").map(drop), error(CUresult::CUDA_ERROR_INVALID_HANDLE));
        return;
    };
    assert!(ran.stderr.contains("fake-cuda: the device is of sm_75, the module of sm_80"), "{}", ran.stderr);
    assert!(ran.stderr.contains("fake-cuda: compiled code cannot run here, only PTX"), "{}", ran.stderr);
}

#[test]
fn old_drivers() {
    if fake_cuda::again("launches::old_drivers", &[("FAKE_CUDA", "old-driver")]).is_some() {
        return;
    }
    assert_eq!(driver_version(), 10_020);
    start().unwrap();
    assert_eq!(Module::load(TWICE).map(drop), error(CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION));
    let about = ["CUDA_ERROR_UNSUPPORTED_PTX_VERSION", "the provided PTX was compiled with an unsupported toolchain."];
    assert_eq!(described(CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION), about);
    Module::load(&TWICE.replace("7.0", "6.5")).unwrap();
}

#[test]
fn bad_images() {
    if fake_cuda::again("launches::bad_images", &[("FAKE_CUDA", "bad-image")]).is_some() {
        return;
    }
    start().unwrap();
    assert_eq!(Module::load(TWICE).map(drop), error(CUresult::CUDA_ERROR_INVALID_IMAGE));
}

#[test]
fn launches_that_a_gpu_takes_and_does_not() {
    let Some(ran) = fake_cuda::again("launches::launches_that_a_gpu_takes_and_does_not", &[]) else {
        start().unwrap();
        let kernel = Module::load(TWICE).unwrap().kernel("twice").unwrap();
        let memory = alloc(12).unwrap();
        write(memory, &bytes(&[1, 2, 3])).unwrap();
        let stream = Stream::NULL;
        for (grid, threads, params) in [(0, 1, [Some(memory)]), (1, 0, [Some(memory)]), (1, 257, [Some(memory)]), (1, 1, [None])] {
            assert_eq!(stream.launch(kernel, grid, threads, &params), error(CUresult::CUDA_ERROR_INVALID_VALUE));
        }
        // Nothing of that is a fault of the device.
        stream.launch(kernel, 1, 2, &[Some(memory + 4)]).unwrap();
        assert_eq!(read(memory, 12).unwrap(), bytes(&[1, 4, 6]));
        return;
    };
    assert!(ran.stderr.contains("fake-cuda: kernel twice: blocks of 257 threads, where 1 to 256 are possible"), "{}", ran.stderr);
    let done = ["upload 12 stream 0", "launch twice grid 1,1,1 threads 2,1,1 stream 0", "download 12 stream 0"];
    assert_eq!(ran.log[1..], done);
}
