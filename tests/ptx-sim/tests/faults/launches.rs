//! Faults that no compiler writes, and launches that a GPU would not take.

use ptx_sim::{Arg, Fault, Launch, Memory, Module};

/// Runs a kernel with this body. It has a buffer of 64 words, `%rd0`, and `%r0` is the thread.
fn run(body: &str, threads: u32) -> Result<(), Fault> {
    let text = format!(
        ".version 7.8 .target sm_80 .address_size 64\n.const .u32 constant = 1;\n.visible .entry k(.param .u64 x) {{\n\
         .reg .pred %p<9>; .reg .b32 %r<9>; .reg .b64 %rd<9>; .reg .f32 %f<9>;\n.shared .align 4 .u32 room[64]; .local .u32 own[2];\n\
         ld.param.u64 %rd0, [x]; mov.u32 %r0, %tid.x; setp.eq.u32 %p0, %r0, 0;\n{body}\nret;\n}}"
    );
    let module = Module::parse(&text).unwrap();
    let mut memory = Memory::new();
    let x = memory.alloc_named("x", vec![0; 256]);
    Launch::new(&module, "k", 1, threads).patience(10_000).run(&mut memory, &[Arg::U64(x)]).map(drop)
}

/// What is said of it.
fn fault(body: &str, threads: u32) -> String {
    let fault = run(body, threads).unwrap_err();
    assert!(fault.place.is_some_and(|place| place.line >= 7), "{fault}");
    fault.to_string()
}

#[test]
fn faults_of_single_instructions() {
    for (body, message) in [
        ("mov.u32 %r1, 0; div.u32 %r2, %r0, %r1;", "integer division by zero"),
        ("mov.u64 %rd1, 0; rem.s64 %rd2, %rd0, %rd1;", "integer division by zero"),
        ("ld.global.u32 %r1, [%rd0+256];", "out of bounds"),
        ("ld.global.u32 %r1, [%rd0+-4];", "offset -4 of the buffer x of 256 bytes"),
        ("ld.global.u64 %rd1, [%rd0+4];", "misaligned"),
        ("ld.global.v4.u32 {%r1, %r2, %r3, %r4}, [%rd0+8];", "load of 16 bytes: misaligned"),
        ("ld.global.u32 %r1, [0];", "out of bounds: global address 0x0"),
        ("ld.u32 %r1, [%rd7];", "out of bounds"),
        ("st.shared.u32 [room+256], %r0;", "out of bounds: shared address 0x100 of 256 bytes"),
        ("mov.u64 %rd1, own; ld.local.u32 %r1, [%rd1+8];", "out of bounds: local address 0x8 of 8 bytes"),
        ("ld.param.u32 %r1, [x+8];", "out of bounds: parameter address"),
        ("ld.const.u32 %r1, [constant+4];", "the constant constant of 4 bytes"),
        ("mov.u64 %rd1, constant; st.u32 [%rd1], %r0;", "out of bounds"),
        ("mov.u64 %rd1, constant; ld.global.u32 %r1, [%rd1];", "out of bounds: global address"),
        ("ld.global.u32 %r1, [room];", "the variable lies in another space"),
        ("ld.u32 %r1, [room];", "a variable is accessed without its space"),
        ("trap;", "trap"),
        ("mad.lo.cc.u32 %r1, %r1, %r1, %r1;", "the modifier .cc is not known"),
        ("add.ftz.f32 %f1, %f1, %f1;", "denormals"),
        ("add.f32 %f1, %f1, %f1;", "contracted"),
        ("div.full.f32 %f1, %f1, %f1;", "an approximation"),
        ("fma.f32 %f1, %f1, %f1, %f1;", "no rounding mode"),
        ("add.rm.f32 %f1, %f1, %f1;", "contracted"),
        ("fma.rn.relu.f32 %f1, %f1, %f1, %f1;", ".relu is not known"),
        ("cvt.rn.satfinite.f32.f64 %f1, %rd1;", ".satfinite is not known"),
        ("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 %r1, %r2, %r3, %r4;", "the instruction is not known"),
        ("mov.u64 %rd1, %clock64;", "%clock64 is not known"),
        ("shfl.bfly.b32 %r1, %r1, 1, 31;", "without .sync"),
        ("atom.global.add.noftz.f16x2 %r1, [%rd0], %r1;", "order of threads"),
        ("bar.sync 1;", "another barrier than number 0"),
        ("bar.sync 0, 32;", "another barrier than number 0"),
        ("bra nowhere;", "no label nowhere"),
        ("@%p0 bra.uni end; end:", "lanes part at a branch that says they do not"),
        ("list: .branchtargets list_end; brx.idx %r0, list; list_end:", "branch 1 of a list of 1"),
        ("again: bra again;", "the kernel does not end"),
    ] {
        let found = fault(body, 32);
        assert!(found.contains(message), "{body}: {found}");
    }
}

#[test]
fn faults_of_threads_together() {
    for (body, threads, message) in [
        // Writes and reads of different warps, and of lanes.
        ("st.shared.u32 [room], %r0;", 33, "race: shared address 0x0 was written by thread"),
        ("@%p0 st.shared.u32 [room], 1; bar.warp.sync -1; ld.shared.u32 %r1, [room]; st.shared.u32 [room], 1;", 32, "was read by thread"),
        ("@%p0 st.shared.u32 [room], 1; bar.sync 0; atom.shared.add.u32 %r1, [room], 1; ld.shared.u32 %r1, [room];", 64, "was written by thread"),
        ("atom.shared.add.u32 %r1, [room], 1;", 32, "uninitialised"),
        // Barriers.
        ("@%p0 bra out; bar.sync 0; out: bar.warp.sync -1;", 32, "deadlock"),
        ("@%p0 bar.sync 0;", 32, "divergent barrier: the lane skips it"),
        ("setp.lt.u32 %p0, %r0, 32; @%p0 bra out; bar.sync 0; ret; out: bar.sync 0;", 64, "divergent barriers"),
        // Masks.
        ("shfl.sync.bfly.b32 %r1, %r1, 1, 31, 0xffff;", 32, "lanes must be in their masks"),
        ("selp.b32 %r2, 1, -1, %p0; shfl.sync.bfly.b32 %r1, %r1, 1, 31, %r2;", 32, "agree with all others"),
        ("@%p0 bra out; vote.sync.any.pred %p1, %p0, -1; ret; out: ret;", 32, "but other lanes wait for it at line 7"),
        ("vote.sync.any.pred %p1, %p0, -1;", 31, "names lanes that have exited: 0x80000000"),
    ] {
        let found = fault(body, threads);
        assert!(found.contains(message), "{body}: {found}");
    }
}

#[test]
fn what_is_in_order_is_no_fault() {
    for body in [
        "@%p0 st.shared.u32 [room], 1; bar.warp.sync 0xf; ld.shared.u32 %r1, [room];",
        "@%p0 st.shared.u32 [room], 1; bar.sync 0; ld.shared.u32 %r1, [room]; bar.warp.sync 0xf; @%p0 st.shared.u32 [room], 2;",
        "@%p0 st.shared.u32 [room], 1; bar.sync 0; atom.shared.add.u32 %r1, [room], 1; bar.sync 0; ld.shared.u32 %r1, [room];",
        // Lane 0 knows of lane 1, and lane 2 of lane 0.
        "setp.eq.u32 %p1, %r0, 1; setp.eq.u32 %p2, %r0, 2; @%p1 st.shared.u32 [room], 1; setp.lt.u32 %p3, %r0, 2; @%p3 bar.warp.sync 3; \
         xor.b32 %r2, %r0, 2; setp.lt.u32 %p4, %r2, 1; or.pred %p4, %p4, %p0; @%p4 bar.warp.sync 5; @%p2 ld.shared.u32 %r1, [room];",
    ] {
        run(body, 4).unwrap();
    }
    // Lane 3 knows nothing.
    let body =
        "setp.eq.u32 %p1, %r0, 1; @%p1 st.shared.u32 [room], 1; setp.lt.u32 %p3, %r0, 2; @%p3 bar.warp.sync 3; @!%p3 ld.shared.u32 %r1, [room];";
    assert!(fault(body, 4).contains("thread 2, PTX line 7: load of 4 bytes: race"));
}

#[test]
fn launches_that_no_gpu_takes() {
    let text = ".version 7.0 .target sm_75 .address_size 64 .visible .entry k(.param .u32 n) .maxntid 64, 2, 1 { .shared .b8 room[1024]; ret; }";
    let module = Module::parse(text).unwrap();
    let kernel = module.kernel("k").unwrap();
    assert_eq!((kernel.shared_bytes(), kernel.local_bytes(), kernel.max_threads(), kernel.param_bytes()), (1024, 0, 128, 4));
    assert_eq!((module.version(), module.target()), ((7, 0), "sm_75"));
    let run = |launch: Launch<'_>, args: &[Arg]| launch.run(&mut Memory::new(), args).map(drop).map_err(|fault| fault.to_string());
    let one = [Arg::U32(1)];
    run(Launch::new(&module, "k", 1, 128).dynamic_shared(47 << 10), &one).unwrap();
    for (launch, args, message) in [
        (Launch::new(&module, "none", 1, 1), &one[..], "kernel none: the module has no such kernel"),
        (Launch::new(&module, "k", 0, 1), &one, "a grid of 0 x 1 x 1 blocks"),
        (Launch::new(&module, "k", [1, 65536, 1], 1), &one, "a grid"),
        (Launch::new(&module, "k", 1, 129), &one, "blocks of 129 threads, where 1 to 128 are possible"),
        (Launch::new(&module, "k", 1, [1, 1, 65]), &one, "blocks of 65 threads"),
        (Launch::new(&module, "k", 1, 0), &one, "blocks of 0 threads"),
        (Launch::new(&module, "k", 1, 1).dynamic_shared(48 << 10), &one, "bytes of shared memory"),
        (Launch::new(&module, "k", 1, 1), &[], "0 arguments are given, the kernel has 1 parameters"),
        (Launch::new(&module, "k", 1, 1), &[Arg::U64(1)], "argument 0 has 8 bytes, the parameter 4"),
    ] {
        let found = run(launch, args).unwrap_err();
        assert!(found.contains(message), "{found}");
    }
}
