//! Work is done as late as can be, in the order that streams and events ask for.

use cudarc::driver::sys::CUresult;

use crate::support::{Event, Module, Pinned, Stream, alloc, read, start, synchronize};
use crate::{TWICE, bytes, error};

const NOT_READY: CUresult = CUresult::CUDA_ERROR_NOT_READY;

#[test]
fn who_reads_too_early_reads_wrong() {
    let Some(ran) = fake_cuda::again("time::who_reads_too_early_reads_wrong", &[]) else {
        start().unwrap();
        let stream = Stream::new().unwrap();
        let kernel = Module::load(TWICE).unwrap().kernel("twice").unwrap();
        let memory = alloc(8).unwrap();
        let from = Pinned::of(&bytes(&[1, 21])).unwrap();
        let mut to = Pinned::new(8).unwrap();
        stream.upload(memory, from.bytes()).unwrap();
        stream.launch(kernel, 1, 2, &[Some(memory)]).unwrap();
        stream.download(to.bytes_mut(), memory).unwrap();
        assert_eq!(to.bytes(), [0xa5; 8]);
        // The null stream knows nothing of it.
        assert_eq!(read(memory, 8).unwrap(), [0xa5; 8]);
        stream.synchronize().unwrap();
        assert_eq!(to.bytes(), bytes(&[2, 42]));
        return;
    };
    let done = ["download 8 stream 0", "upload 8 stream 1", "launch twice grid 1,1,1 threads 2,1,1 stream 1", "download 8 stream 1"];
    assert_eq!(ran.log[1..], done);
}

#[test]
fn who_uses_a_buffer_again_too_early_copies_the_wrong_bytes() {
    if fake_cuda::again("time::who_uses_a_buffer_again_too_early_copies_the_wrong_bytes", &[]).is_some() {
        return;
    }
    start().unwrap();
    let stream = Stream::new().unwrap();
    let memory = alloc(8).unwrap();
    let mut from = Pinned::of(&[1; 4]).unwrap();
    stream.upload(memory, from.bytes()).unwrap();
    from.bytes_mut().fill(2);
    stream.upload(memory + 4, from.bytes()).unwrap();
    drop(from);
    stream.synchronize().unwrap();
    assert_eq!(read(memory, 8).unwrap(), [0xdb; 8]);

    let mut from = Pinned::of(&[1; 4]).unwrap();
    stream.upload(memory, from.bytes()).unwrap();
    from.bytes_mut().fill(2);
    stream.upload(memory + 4, from.bytes()).unwrap();
    stream.synchronize().unwrap();
    assert_eq!(read(memory, 8).unwrap(), [2; 8]);

    // A copy to memory that is gone goes nowhere.
    let mut to = Pinned::new(4).unwrap();
    stream.download(to.bytes_mut(), memory).unwrap();
    drop(to);
    stream.synchronize().unwrap();
}

#[test]
fn copies_of_other_memory_wait_for_their_stream() {
    let Some(ran) = fake_cuda::again("time::copies_of_other_memory_wait_for_their_stream", &[]) else {
        start().unwrap();
        let stream = Stream::new().unwrap();
        let memory = alloc(4).unwrap();
        stream.fill(memory, 1, 4).unwrap();
        let mut here = [0; 4];
        stream.download(&mut here, memory).unwrap();
        assert_eq!(here, [1; 4]);
        stream.upload(memory, &[2; 4]).unwrap();
        assert_eq!(read(memory, 4).unwrap(), [2; 4]);
        return;
    };
    assert_eq!(ran.log[1..], ["download 4 stream 1", "upload 4 stream 1", "download 4 stream 0"]);
}

#[test]
fn events_order_streams() {
    let Some(ran) = fake_cuda::again("time::events_order_streams", &[]) else {
        start().unwrap();
        let (first, second) = (Stream::new().unwrap(), Stream::new().unwrap());
        let event = Event::new().unwrap();
        let [a, b] = [(); 2].map(|()| alloc(4).unwrap());
        let from = Pinned::of(&[1, 2, 3, 4]).unwrap();
        let mut to = Pinned::new(4).unwrap();
        first.upload(a, from.bytes()).unwrap();
        first.record(event).unwrap();
        first.fill(a, 9, 4).unwrap();
        second.wait(event).unwrap();
        // What is recorded later, and elsewhere, is not what the second stream waits for.
        second.record(event).unwrap();
        second.copy(b, a, 4).unwrap();
        second.download(to.bytes_mut(), b).unwrap();
        second.synchronize().unwrap();
        assert_eq!(to.bytes(), [1, 2, 3, 4]);
        // What comes behind the event in the first stream has not been done.
        assert_eq!(read(a, 4).unwrap(), [1, 2, 3, 4]);
        synchronize().unwrap();
        assert_eq!(read(a, 4).unwrap(), [9; 4]);
        return;
    };
    assert_eq!(ran.log[2..4], ["upload 4 stream 1", "download 4 stream 2"]);
}

#[test]
fn without_an_event_streams_go_their_ways() {
    if fake_cuda::again("time::without_an_event_streams_go_their_ways", &[]).is_some() {
        return;
    }
    start().unwrap();
    let (first, second) = (Stream::new().unwrap(), Stream::new().unwrap());
    let memory = alloc(4).unwrap();
    first.fill(memory, 1, 4).unwrap();
    let mut to = Pinned::new(4).unwrap();
    second.download(to.bytes_mut(), memory).unwrap();
    second.synchronize().unwrap();
    assert_eq!(to.bytes(), [0xa5; 4]);
    // Work of a stream that goes is done.
    first.destroy().unwrap();
    assert_eq!(read(memory, 4).unwrap(), [1; 4]);
    assert_eq!(first.fill(memory, 1, 4), error(CUresult::CUDA_ERROR_INVALID_HANDLE));
    assert_eq!(Stream::NULL.destroy(), error(CUresult::CUDA_ERROR_INVALID_HANDLE));
}

#[test]
fn questions_move_the_work_on() {
    if fake_cuda::again("time::questions_move_the_work_on", &[]).is_some() {
        return;
    }
    start().unwrap();
    let stream = Stream::new().unwrap();
    let event = Event::new().unwrap();
    let memory = alloc(4).unwrap();
    // What was never recorded is reached.
    assert_eq!(event.query(), Ok(()));
    event.synchronize().unwrap();
    stream.fill(memory, 1, 4).unwrap();
    stream.record(event).unwrap();
    stream.fill(memory, 2, 4).unwrap();
    stream.fill(memory, 3, 4).unwrap();
    assert_eq!((event.query(), event.query()), (error(NOT_READY), Ok(())));
    assert_eq!(event.query(), Ok(()));
    assert_eq!(read(memory, 4).unwrap(), [1; 4]);
    assert_eq!((stream.query(), stream.query(), stream.query()), (error(NOT_READY), Ok(()), Ok(())));
    assert_eq!(read(memory, 4).unwrap(), [3; 4]);

    stream.fill(memory, 4, 4).unwrap();
    stream.record(event).unwrap();
    stream.fill(memory, 5, 4).unwrap();
    event.synchronize().unwrap();
    assert_eq!(read(memory, 4).unwrap(), [4; 4]);
    event.destroy().unwrap();
    assert_eq!(event.query(), error(CUresult::CUDA_ERROR_INVALID_HANDLE));
}

#[test]
fn events_tell_the_time_if_they_are_to() {
    if fake_cuda::again("time::events_tell_the_time_if_they_are_to", &[]).is_some() {
        return;
    }
    start().unwrap();
    let stream = Stream::new().unwrap();
    let [first, last] = [(); 2].map(|()| Event::timed().unwrap());
    stream.record(first).unwrap();
    stream.record(last).unwrap();
    assert_eq!(last.since(first), error(NOT_READY));
    stream.synchronize().unwrap();
    assert!(last.since(first).unwrap() >= 0.0);
    let other = Event::new().unwrap();
    stream.record(other).unwrap();
    stream.synchronize().unwrap();
    assert_eq!(other.since(first), error(CUresult::CUDA_ERROR_INVALID_HANDLE));
}
