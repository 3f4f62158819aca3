//! Kernels that are written by hand: branches, warps, barriers, parameters and variables.

use std::collections::BTreeSet;

use ptx_sim::{Arg, Launch, Memory, Module, Shape};

/// All texts, for the list of what is covered.
pub const ALL: [&str; 9] = [PARAMS, VARIABLES, LOOPS, TABLE, SHUFFLES, VOTES, HALVES, REDUCTION, SPECIAL];

/// Runs a text over threads that each get a word, in both orders: the words they leave. All its instructions are executed.
fn run(text: &str, grid: impl Into<Shape> + Copy, threads: impl Into<Shape> + Copy, words: &[u32], more: &[Arg]) -> Vec<u32> {
    let module = Module::parse(text).unwrap();
    let results = [false, true].map(|reversed| {
        let mut memory = Memory::new();
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let x = memory.alloc_named("x", bytes);
        let args: Vec<_> = std::iter::once(Arg::U64(x)).chain(more.iter().cloned()).collect();
        let stats = Launch::new(&module, "k", grid, threads).reversed(reversed).run(&mut memory, &args).unwrap();
        assert_eq!(stats.opcodes.keys().map(String::as_str).collect::<BTreeSet<_>>(), module.instructions());
        let left = memory.bytes(x, 4 * words.len());
        left.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect::<Vec<_>>()
    });
    assert_eq!(results[0], results[1], "the order of threads shows");
    results.into_iter().next().unwrap()
}

const PARAMS: &str = ".version 7.0 .target sm_75 .address_size 64
.visible .entry k(.param .u64 .ptr .global .align 4 x, .param .s8 a, .param .u16 b, .param .f32 c, .param .align 8 .b8 d[16], .param .f64 e)
{
    .reg .b16 %h<2>; .reg .f32 %f; .reg .b32 %r<8>; .reg .b64 %rd<8>; .reg .f64 %fd;
    ld.param.u64 %rd0, [x];
    ld.param.s8 %r0, [a];       st.global.u32 [%rd0], %r0;
    ld.param.u16 %h0, [b];      st.global.u16 [%rd0+4], %h0;
    ld.param.f32 %f, [c];       st.global.f32 [%rd0+8], %f;
    ld.param.u32 %r1, [d+4];    st.global.u32 [%rd0+12], %r1;
    ld.param.v2.u32 {%r2, %r3}, [d+8]; st.global.u32 [%rd0+16], %r3;
    ld.param.f64 %fd, [e];      st.global.f64 [%rd0+24], %fd;
    mov.b64 %rd1, d; ld.param.u8 %r4, [%rd1+1]; st.global.u32 [%rd0+32], %r4;
    ld.param.b32 %r5, [d]; ld.param.b64 %rd2, [d+8]; ld.param.s32 %r6, [d]; ld.param.u8 %r7, [a]; ld.param.s64 %rd3, [d]; ld.param.s16 %r7, [b];
    ld.param.b8 %h1, [a]; ld.param.b16 %h1, [b];
    ret;
}";

#[test]
fn parameters_lie_where_their_types_allow() {
    let d: Vec<u8> = (0..16).collect();
    let args = [Arg::Bytes(vec![0xfe]), Arg::Bytes(vec![0x34, 0x12]), Arg::F32(1.5), Arg::Bytes(d), Arg::F64(-2.0)];
    let found = run(PARAMS, 1, 1, &[0; 9], &args);
    let [low, high] = [(-2f64).to_bits() as u32, ((-2f64).to_bits() >> 32) as u32];
    assert_eq!(found, [-2i32 as u32, 0x1234, 1.5f32.to_bits(), 0x0706_0504, 0x0f0e_0d0c, 0, low, high, 1]);
}

const VARIABLES: &str = "//
.version 7.0
.target sm_75
.address_size 64
.const .align 4 .b8 bytes[8] = {1, 2, 3, 0xff};
.const .align 4 .f32 floats[2] = {0f3F800000, -1};
.visible .const .s16 negative = -3;
.const .align 8 .u64 wide[2][2] = {{1, 2}, {3, 4}};
.global .align 4 .u32 counter;
.extern .shared .align 4 .b8 dynamic[];
.visible .entry k(.param .u64 x) .maxntid 32 .minnctapersm 1
{
    .reg .b32 %r<9>; .reg .b64 %rd<9>; .reg .b16 %h0; .reg .f32 %f; .reg .f64 %fd;
    .shared .align 4 .u32 first;
    ld.param.u64 %rd0, [x];
    ld.const.u8 %r0, [bytes+3];     st.global.u32 [%rd0], %r0;
    ld.const.u32 %r1, [bytes+4];    st.global.u32 [%rd0+4], %r1;
    ld.const.f32 %f, [floats];      st.global.f32 [%rd0+8], %f;
    ld.const.s16 %r2, [negative];   st.global.u32 [%rd0+12], %r2;
    mov.u64 %rd1, wide; add.s64 %rd1, %rd1, 16; ld.const.u64 %rd2, [%rd1]; st.global.u32 [%rd0+16], %rd2;
    cvta.const.u64 %rd3, %rd1; ld.u64 %rd4, [%rd3+8]; st.global.u32 [%rd0+20], %rd4;
    atom.global.inc.u32 %r3, [counter], 7; ld.global.u32 %r4, [counter]; st.global.u32 [%rd0+24], %r4;
    mov.u32 %r5, dynamic; mov.u32 %r6, first; sub.s32 %r7, %r5, %r6; st.global.u32 [%rd0+28], %r7;
    ld.const.s8 %r8, [bytes+3]; ld.const.b8 %h0, [bytes]; ld.const.u16 %h0, [bytes]; ld.const.b16 %h0, [bytes]; ld.const.s32 %r8, [floats];
    ld.const.b32 %r8, [floats]; ld.const.b64 %rd8, [wide]; ld.const.f64 %fd, [wide]; ld.const.v2.u32 {%r7, %r8}, [wide]; ld.const.s64 %rd8, [wide];
    ld.const.v4.u32 {%r5, %r6, %r7, %r8}, [wide]; ld.const.v2.u64 {%rd7, %rd8}, [wide+16]; ld.const.v2.f32 {%f, _}, [floats];
    st.global.u32 [%rd0+32], %rd8;
    bra.uni end;
end:
}";

#[test]
fn variables_have_their_values() {
    // (The end of a kernel is a `ret`.)
    let found = run(VARIABLES, 1, 1, &[9; 9], &[]);
    assert_eq!(found, [0xff, 0, 1f32.to_bits(), -3i32 as u32, 3, 4, 1, 4, 4]);
}

/// Steps until 1 in the Collatz sequence, which no two lanes have the same.
const LOOPS: &str = ".version 7.0 .target sm_75 .address_size 64
.visible .entry k(.param .u64 x)
{
    .reg .pred %p<3>; .reg .b32 %r<9>; .reg .b64 %rd<3>;
    ld.param.u64 %rd0, [x];
    mov.u32 %r0, %tid.x; mov.u32 %r1, %ctaid.x; mov.u32 %r2, %ntid.x; mad.lo.s32 %r3, %r1, %r2, %r0;
    mul.wide.u32 %rd1, %r3, 4; add.s64 %rd0, %rd0, %rd1;
    ld.global.u32 %r4, [%rd0];
    mov.u32 %r5, 0;
again:
    setp.le.u32 %p0, %r4, 1;
    @%p0 bra done;
    add.s32 %r5, %r5, 1;
    and.b32 %r6, %r4, 1;
    setp.eq.u32 %p1, %r6, 0;
    @%p1 bra even;
    mad.lo.u32 %r4, %r4, 3, 1;
    bra.uni again;
even:
    shr.u32 %r4, %r4, 1;
    bra again;
done:
    st.global.u32 [%rd0], %r5;
    exit;
}";

#[test]
fn lanes_part_and_meet() {
    let words: Vec<u32> = (0..300).collect();
    let steps = |mut n: u32| {
        let mut steps = 0;
        while n > 1 {
            n = if n.is_multiple_of(2) { n / 2 } else { 3 * n + 1 };
            steps += 1;
        }
        steps
    };
    assert_eq!(run(LOOPS, 3, 100, &words, &[]), words.iter().map(|n| steps(*n)).collect::<Vec<_>>());
}

const TABLE: &str = ".version 7.0 .target sm_75 .address_size 64
.visible .entry k(.param .u64 x)
{
    .reg .b32 %r<9>; .reg .b64 %rd<3>;
    ld.param.u64 %rd0, [x];
    mov.u32 %r0, %tid.x; mul.wide.u32 %rd1, %r0, 4; add.s64 %rd0, %rd0, %rd1;
    ld.global.u32 %r1, [%rd0];
$L_brx_0: .branchtargets
    $L_a,
    $L_b,
    $L_a,
    $L_c;
    brx.idx %r1, $L_brx_0;
$L_a: mov.u32 %r2, 10; bra.uni $L_end;
$L_b: mov.u32 %r2, 20; bra.uni $L_end;
$L_c: mov.u32 %r2, 30;
$L_end:
    st.global.u32 [%rd0], %r2;
    ret;
}";

#[test]
fn branches_by_number() {
    let words: Vec<u32> = (0..64).map(|n| n * 7 % 4).collect();
    assert_eq!(run(TABLE, 1, 64, &words, &[]), words.iter().map(|n| [10, 20, 10, 30][*n as usize]).collect::<Vec<_>>());
}

/// Four shuffles in segments of `width` lanes by `delta`: their sum with weights, and the lanes whose source lies in the segment.
const SHUFFLES: &str = ".version 7.0 .target sm_75 .address_size 64
.visible .entry k(.param .u64 x, .param .u32 width, .param .u32 delta)
{
    .reg .pred %p<5>; .reg .b32 %r<20>; .reg .b64 %rd<3>;
    ld.param.u64 %rd0, [x]; ld.param.u32 %r1, [width]; ld.param.u32 %r2, [delta];
    mov.u32 %r0, %tid.x; mul.wide.u32 %rd1, %r0, 4; add.s64 %rd0, %rd0, %rd1;
    ld.global.u32 %r3, [%rd0];
    sub.s32 %r4, 32, %r1; shl.b32 %r4, %r4, 8; or.b32 %r5, %r4, 31;
    shfl.sync.up.b32 %r6|%p0, %r3, %r2, %r4, -1;
    shfl.sync.down.b32 %r7|%p1, %r3, %r2, %r5, -1;
    shfl.sync.bfly.b32 %r8|%p2, %r3, %r2, %r5, -1;
    shfl.sync.idx.b32 %r9|%p3, %r3, %r2, %r5, 0xffffffff;
    mad.lo.u32 %r6, %r6, 101, %r7; mad.lo.u32 %r6, %r6, 103, %r8; mad.lo.u32 %r6, %r6, 107, %r9;
    selp.u32 %r10, 1, 0, %p0; @%p1 or.b32 %r10, %r10, 2; @%p2 or.b32 %r10, %r10, 4; @%p3 or.b32 %r10, %r10, 8;
    mad.lo.u32 %r6, %r6, 16, %r10;
    st.global.u32 [%rd0], %r6;
    ret;
}";

#[test]
fn shuffles_stay_in_their_segments() {
    let words: Vec<u32> = (0..32).map(|lane| lane * 3 + 1).collect();
    for width in [2u32, 4, 8, 16, 32] {
        for delta in 0..32u32 {
            let expected = |lane: u32| {
                let (first, next) = (lane / width * width, (lane / width + 1) * width);
                // As the CUDA guide has it; the lane that is read, if it lies in the segment.
                let sources = [
                    lane.checked_sub(delta).filter(|source| *source >= first),
                    Some(lane + delta).filter(|source| *source < next),
                    Some(lane ^ delta).filter(|source| *source < next),
                    Some(first + delta % width),
                ];
                let value = |source: Option<u32>| words[source.unwrap_or(lane) as usize];
                let mut sum = 0u32;
                for (weight, source) in [0, 101, 103, 107].into_iter().zip(sources) {
                    sum = sum.wrapping_mul(weight).wrapping_add(value(source));
                }
                let inside = (0..4).fold(0, |inside, place| inside | u32::from(sources[place].is_some()) << place);
                sum.wrapping_mul(16).wrapping_add(inside)
            };
            let found = run(SHUFFLES, 1, 32, &words, &[Arg::U32(width), Arg::U32(delta)]);
            assert_eq!(found, (0..32).map(expected).collect::<Vec<_>>(), "width {width}, delta {delta}");
        }
    }
}

/// What the lanes of a mask find out together, one after the other, in an array of 16 rows of 32 lanes.
const VOTES: &str = ".version 7.8 .target sm_80 .address_size 64
.visible .entry k(.param .u64 x, .param .u32 mask)
{
    .reg .pred %p<9>; .reg .b32 %r<20>; .reg .b64 %rd<6>;
    ld.param.u64 %rd0, [x]; ld.param.u32 %r1, [mask];
    mov.u32 %r0, %laneid; mul.wide.u32 %rd1, %r0, 4; add.s64 %rd0, %rd0, %rd1;
    mov.u32 %r2, %lanemask_eq; and.b32 %r2, %r2, %r1; setp.eq.u32 %p0, %r2, 0;
    @%p0 ret;
    ld.global.u32 %r3, [%rd0];
    and.b32 %r4, %r3, 1; setp.ne.u32 %p1, %r4, 0;
    vote.sync.all.pred %p2, %p1, %r1;
    vote.sync.any.pred %p3, %p1, %r1;
    vote.sync.uni.pred %p4, !%p1, %r1;
    selp.u32 %r5, 1, 0, %p2; @%p3 or.b32 %r5, %r5, 2; @%p4 or.b32 %r5, %r5, 4;
    st.global.u32 [%rd0+128], %r5;
    vote.sync.ballot.b32 %r5, %p1, %r1; st.global.u32 [%rd0+256], %r5;
    match.any.sync.b32 %r5, %r3, %r1; st.global.u32 [%rd0+384], %r5;
    match.all.sync.b32 %r5|%p5, %r3, %r1; selp.u32 %r6, 1, 0, %p5; add.s32 %r5, %r5, %r6; st.global.u32 [%rd0+512], %r5;
    mov.b64 %rd2, {%r1, %r3}; match.any.sync.b64 %r5, %rd2, %r1; st.global.u32 [%rd0+640], %r5;
    match.all.sync.b64 %r5|%p5, %rd2, %r1; selp.u32 %r6, 1, 0, %p5; add.s32 %r5, %r5, %r6; st.global.u32 [%rd0+768], %r5;
    redux.sync.add.s32 %r5, %r3, %r1; redux.sync.add.u32 %r6, %r3, %r1; xor.b32 %r5, %r5, %r6; xor.b32 %r5, %r5, %r6; st.global.u32 [%rd0+896], %r5;
    redux.sync.min.s32 %r5, %r3, %r1; st.global.u32 [%rd0+1024], %r5;
    redux.sync.max.s32 %r5, %r3, %r1; st.global.u32 [%rd0+1152], %r5;
    redux.sync.min.u32 %r5, %r3, %r1; st.global.u32 [%rd0+1280], %r5;
    redux.sync.max.u32 %r5, %r3, %r1; st.global.u32 [%rd0+1408], %r5;
    redux.sync.and.b32 %r5, %r3, %r1; st.global.u32 [%rd0+1536], %r5;
    redux.sync.or.b32 %r5, %r3, %r1; st.global.u32 [%rd0+1664], %r5;
    redux.sync.xor.b32 %r5, %r3, %r1; st.global.u32 [%rd0+1792], %r5;
    bar.warp.sync %r1;
    activemask.b32 %r5; st.global.u32 [%rd0+1920], %r5;
}";

#[test]
fn lanes_of_a_mask_find_out_together() {
    for (mask, step) in [(u32::MAX, 1), (0x0ff0_0001, 3), (0x8000_0000, 5), (u32::MAX, 0), (0x5555_5555, 2)] {
        let words: Vec<u32> = (0..32u32).map(|lane| (lane * step % 5).wrapping_mul(0x4000_0001)).collect();
        let lanes: Vec<usize> = (0..32).filter(|lane| mask >> lane & 1 != 0).collect();
        let values: Vec<u32> = lanes.iter().map(|lane| words[*lane]).collect();
        let odd = lanes.iter().filter(|lane| words[**lane] & 1 != 0).fold(0u32, |odd, lane| odd | 1 << lane);
        let uniform = odd == 0 || odd == mask;
        let signed = || values.iter().map(|value| *value as i32);
        let same = values.iter().all(|value| *value == values[0]);
        let mut expected = words.clone();
        expected.resize(16 * 32, 0);
        for lane in &lanes {
            let equal = lanes.iter().filter(|other| words[**other] == words[*lane]).fold(0u32, |equal, other| equal | 1 << other);
            let all = if same { mask.wrapping_add(1) } else { 0 };
            let results = [
                u32::from(odd == mask) | u32::from(odd != 0) << 1 | u32::from(uniform) << 2,
                odd,
                equal,
                all,
                equal,
                all,
                values.iter().fold(0u32, |sum, value| sum.wrapping_add(*value)),
                signed().min().unwrap() as u32,
                signed().max().unwrap() as u32,
                *values.iter().min().unwrap(),
                *values.iter().max().unwrap(),
                values.iter().fold(u32::MAX, |all, value| all & value),
                values.iter().fold(0, |any, value| any | value),
                values.iter().fold(0, |odd, value| odd ^ value),
                mask,
            ];
            for (row, result) in results.into_iter().enumerate() {
                expected[32 * (row + 1) + lane] = result;
            }
        }
        let mut start = words;
        start.resize(16 * 32, 0);
        assert_eq!(run(VOTES, 1, 32, &start, &[Arg::U32(mask)]), expected, "mask {mask:#x}");
    }
}

/// Half warps shuffle with masks of their own, on two ways through a branch, then meet in one way.
const HALVES: &str = ".version 7.0 .target sm_75 .address_size 64
.visible .entry k(.param .u64 x)
{
    .reg .pred %p<3>; .reg .b32 %r<9>; .reg .b64 %rd<3>; .shared .u32 room[32];
    ld.param.u64 %rd0, [x];
    mov.u32 %r0, %tid.x; mul.wide.u32 %rd1, %r0, 4; add.s64 %rd0, %rd0, %rd1;
    mov.u64 %rd2, room; add.s64 %rd2, %rd2, %rd1;
    ld.global.u32 %r1, [%rd0];
    setp.lt.u32 %p0, %r0, 16;
    selp.b32 %r5, 0xffff, 0xffff0000, %p0;
    @%p0 bra lower;
    shfl.sync.bfly.b32 %r2, %r1, 1, 31, 0xffff0000;
    st.shared.u32 [%rd2], %r2;
    bar.warp.sync -1;
    bra join;
lower:
    shfl.sync.bfly.b32 %r2, %r1, 15, 31, 0x0000ffff;
    st.shared.u32 [%rd2], %r2;
    bar.warp.sync -1;
join:
    mov.u64 %rd2, room; xor.b32 %r3, %r0, 16; mul.wide.u32 %rd1, %r3, 4; add.s64 %rd2, %rd2, %rd1;
    ld.shared.u32 %r4, [%rd2];
    shfl.sync.idx.b32 %r6, %r4, 3, 0x101f, %r5;
    add.s32 %r4, %r4, %r6;
    st.global.u32 [%rd0], %r4;
    ret;
}";

#[test]
fn half_warps_have_masks_of_their_own() {
    let words: Vec<u32> = (0..32).map(|lane| lane * lane + 7).collect();
    let shuffled = |lane: u32| words[(lane ^ if lane < 16 { 15 } else { 1 }) as usize];
    let expected: Vec<u32> = (0..32).map(|lane| shuffled(lane ^ 16) + shuffled((lane / 16 * 16 + 3) ^ 16)).collect();
    assert_eq!(run(HALVES, 1, 32, &words, &[]), expected);
}

/// The sum of a block by a tree in shared memory. Each block leaves it in all its words.
const REDUCTION: &str = ".version 7.0 .target sm_75 .address_size 64
.shared .align 4 .b8 sums[512];
.visible .entry k(.param .u64 x)
{
    .reg .pred %p<3>; .reg .b32 %r<9>; .reg .b64 %rd<5>;
    ld.param.u64 %rd0, [x];
    mov.u32 %r0, %tid.x; mov.u32 %r1, %ctaid.x; mad.lo.s32 %r1, %r1, 128, %r0;
    mul.wide.u32 %rd1, %r1, 4; add.s64 %rd0, %rd0, %rd1;
    mul.wide.u32 %rd1, %r0, 4; mov.u64 %rd2, sums; add.s64 %rd2, %rd2, %rd1;
    ld.global.u32 %r2, [%rd0];
    st.shared.u32 [%rd2], %r2;
    mov.u32 %r3, 64;
again:
    bar.sync 0;
    setp.ge.u32 %p0, %r0, %r3;
    @%p0 bra next;
    mul.wide.u32 %rd3, %r3, 4; add.s64 %rd3, %rd3, %rd2;
    ld.shared.u32 %r4, [%rd3]; ld.shared.u32 %r5, [%rd2]; add.s32 %r4, %r4, %r5; st.shared.u32 [%rd2], %r4;
next:
    shr.u32 %r3, %r3, 1;
    setp.ne.u32 %p1, %r3, 0;
    @%p1 bra again;
    barrier.sync.aligned 0;
    bar.cta.sync 0;
    ld.shared.u32 %r4, [sums];
    st.global.u32 [%rd0], %r4;
    ret;
}";

#[test]
fn blocks_sum_up() {
    let words: Vec<u32> = (0..3 * 128).map(|n| n * n).collect();
    let sums: Vec<u32> = words.chunks(128).flat_map(|block| vec![block.iter().sum(); 128]).collect();
    assert_eq!(run(REDUCTION, 3, 128, &words, &[]), sums);
}

/// Special registers, mixed into one number for each thread.
const SPECIAL: &str = ".version 7.0 .target sm_75 .address_size 64
.visible .entry k(.param .u64 x)
{
    .reg .b32 %r<9>; .reg .b64 %rd<3>;
    ld.param.u64 %rd0, [x];
    mov.u32 %r0, %ctaid.z; mad.lo.u32 %r0, %r0, %nctaid.y, %ctaid.y; mad.lo.u32 %r0, %r0, %nctaid.x, %ctaid.x;
    mad.lo.u32 %r0, %r0, %ntid.z, %tid.z; mad.lo.u32 %r0, %r0, %ntid.y, %tid.y; mad.lo.u32 %r0, %r0, %ntid.x, %tid.x;
    mul.wide.u32 %rd1, %r0, 4; add.s64 %rd0, %rd0, %rd1;
    mov.u32 %r1, %warpid; mad.lo.u32 %r1, %r1, WARP_SZ, %laneid;
    add.u32 %r1, %r1, %lanemask_lt; xor.b32 %r1, %r1, %lanemask_le; add.u32 %r1, %r1, %lanemask_gt; xor.b32 %r1, %r1, %lanemask_ge;
    add.u32 %r1, %r1, %nctaid.z;
    st.global.u32 [%rd0], %r1;
    nanosleep.u32 20;
    prefetch.global.L2 [%rd0];
    ret;
}";

#[test]
fn special_registers() {
    let expected: Vec<u32> = (0..2 * 3 * 4 * 40)
        .map(|index| {
            let thread = index % 40u32;
            let (lane, bit) = (thread % 32, 1u64 << (thread % 32));
            let [lt, le, gt, ge] = [bit - 1, 2 * bit - 1, (1 << 32) - 2 * bit, (1 << 32) - bit].map(|mask| mask as u32);
            ((((thread / 32 * 32 + lane).wrapping_add(lt)) ^ le).wrapping_add(gt) ^ ge).wrapping_add(4)
        })
        .collect();
    assert_eq!(run(SPECIAL, [2, 3, 4], [4, 5, 2], &vec![0; expected.len()], &[]), expected);
}
