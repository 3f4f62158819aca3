//! A program of cudarc's safe layer. It loads modules with the feature `nvrtc` only, which nothing here has.

use cudarc::driver::CudaContext;

#[test]
fn the_safe_layer_of_cudarc() {
    let Some(ran) = fake_cuda::again("safe::the_safe_layer_of_cudarc", &[]) else {
        assert_eq!(CudaContext::device_count().unwrap(), 1);
        let context = CudaContext::new(0).unwrap();
        assert_eq!((context.name().unwrap().as_str(), context.compute_capability().unwrap()), ("ptx-sim, no GPU", (7, 5)));
        context.uuid().unwrap();
        let streams = [context.default_stream(), context.new_stream().unwrap(), context.new_stream().unwrap()];
        let copies = streams.each_ref().map(|stream| stream.clone_htod(&[1u32, 2, 21]).unwrap());
        // Buffers of one stream in another: events order them.
        for (copy, stream) in copies.iter().zip(streams.iter().rev()) {
            assert_eq!(stream.clone_dtoh(copy).unwrap(), [1, 2, 21]);
            assert_eq!(stream.clone_dtoh(&stream.alloc_zeros::<u64>(2).unwrap()).unwrap(), [0, 0]);
        }
        context.synchronize().unwrap();
        return;
    };
    assert_eq!(ran.log.iter().filter(|line| line.starts_with("download")).count(), 6);
}
