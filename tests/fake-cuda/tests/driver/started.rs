//! What programs ask first: the driver, the device.

use cudarc::driver::result;
use cudarc::driver::sys::{self, CUdevice_attribute as Attribute, CUresult};

use crate::error;
use crate::support::{alloc, attribute, described, device_name, driver_version, free_memory, start, synchronize, total_memory};

#[test]
fn a_device_of_compute_capability_7_5() {
    let Some(ran) = fake_cuda::again("started::a_device_of_compute_capability_7_5", &[]) else {
        assert_eq!(driver_version(), 12_080);
        start().unwrap();
        assert_eq!(result::device::get_count().unwrap(), 1);
        assert_eq!(result::device::get(1).map_err(|error| error.0), error(CUresult::CUDA_ERROR_INVALID_DEVICE));
        assert_eq!(device_name().unwrap(), "ptx-sim, no GPU");
        assert_eq!(total_memory().unwrap(), 4 << 30);
        assert_eq!(free_memory().unwrap(), (4 << 30, 4 << 30));
        for (asked, value) in [
            (Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 7),
            (Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, 5),
            (Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 4),
            (Attribute::CU_DEVICE_ATTRIBUTE_WARP_SIZE, 32),
            (Attribute::CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK, 1024),
            (Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK, 48 << 10),
            (Attribute::CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X, i32::MAX),
            (Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED, 1),
        ] {
            assert_eq!(attribute(asked).unwrap(), value, "{asked:?}");
        }
        return;
    };
    assert!(ran.log.is_empty(), "{:?}", ran.log);
}

#[test]
fn who_starts_nothing_gets_nothing() {
    if fake_cuda::again("started::who_starts_nothing_gets_nothing", &[]).is_some() {
        return;
    }
    assert_eq!(device_name(), error(CUresult::CUDA_ERROR_NOT_INITIALIZED));
    assert_eq!(alloc(1), error(CUresult::CUDA_ERROR_NOT_INITIALIZED));
    result::init().unwrap();
    device_name().unwrap();
    // A context belongs to a thread.
    assert_eq!(alloc(1), error(CUresult::CUDA_ERROR_INVALID_CONTEXT));
    start().unwrap();
    alloc(1).unwrap();
    std::thread::spawn(|| {
        assert_eq!(synchronize(), error(CUresult::CUDA_ERROR_INVALID_CONTEXT));
        start().unwrap();
        synchronize().unwrap();
    })
    .join()
    .unwrap();
}

#[test]
fn no_device() {
    if fake_cuda::again("started::no_device", &[("FAKE_CUDA", "no-device")]).is_some() {
        return;
    }
    // The driver is there all the same.
    // SAFETY: it only tries to load the library.
    assert!(unsafe { sys::is_culib_present() });
    assert_eq!(driver_version(), 12_080);
    assert_eq!(start(), error(CUresult::CUDA_ERROR_NO_DEVICE));
    assert_eq!(described(CUresult::CUDA_ERROR_NO_DEVICE), ["CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"]);
}

#[test]
fn faults_that_are_not_known_are_told() {
    let variables = [("FAKE_CUDA", "no-devise,old-driver"), ("FAKE_CUDA_MEMORY", "much")];
    let Some(ran) = fake_cuda::again("started::faults_that_are_not_known_are_told", &variables) else {
        assert_eq!(driver_version(), 10_020);
        return;
    };
    assert!(ran.stderr.contains("fake-cuda: FAKE_CUDA asks for no-devise, which is not known"), "{}", ran.stderr);
    assert!(ran.stderr.contains("fake-cuda: FAKE_CUDA_MEMORY asks for much, which is no number"), "{}", ran.stderr);
}

#[test]
fn every_error_of_the_stand_in_has_a_name() {
    if fake_cuda::again("started::every_error_of_the_stand_in_has_a_name", &[]).is_some() {
        return;
    }
    for code in [0, 1, 2, 3, 100, 101, 200, 201, 218, 222, 301, 400, 500, 600, 700, 716, 719, 801] {
        let mut name = std::ptr::null();
        // SAFETY: cudarc's type has all of these numbers.
        let code: CUresult = unsafe { std::mem::transmute::<u32, CUresult>(code) };
        // SAFETY: the driver writes a pointer to where it is told.
        assert_eq!(unsafe { sys::cuGetErrorName(code, &raw mut name) }, CUresult::CUDA_SUCCESS);
        // cudarc's names are those of the driver's header.
        assert_eq!(described(code)[0], format!("{code:?}"));
    }
}
