//! The sums of an audit: those of the device have the bits of the CPU's.

mod common;

use std::sync::Mutex;

use common::{Sim, normal};
use quant_core::audit::{DeviceSums, ErrorStats, stats_on};
use quant_core::backend::{Backend, Cpu, Encoded, Target};
use quant_core::codec::Slab;
use quant_cuda::run::measure::measure;

/// A backend that measures in the interpreter, and counts how often it did.
struct Measuring {
    sim: Mutex<Sim>,
    done: Mutex<usize>,
}

impl Backend for Measuring {
    fn name(&self) -> &str {
        "interpreter"
    }

    fn encode(&self, target: &Target<'_>, slab: &Slab<'_>, x: &mut [f32], out: &mut [Vec<u8>]) -> Encoded {
        Ok(target.codec.encode(slab, x, out)?)
    }

    fn measure(&self, w: &[f32], q: &[f32], importance: Option<&[f32]>) -> Result<Option<DeviceSums>, String> {
        let bytes = |x: &[f32]| x.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        let found = measure(&mut *self.sim.lock().unwrap(), &bytes(w), &bytes(q), importance.map(bytes).as_deref());
        let found = found.map_err(|error| error.to_string())?;
        *self.done.lock().unwrap() += usize::from(found.is_some());
        Ok(found)
    }
}

/// The figures of both, which are compared bit for bit where they are numbers.
fn check(w: &[f32], q: &[f32], importance: Option<&[f32]>, reversed: bool) -> (ErrorStats, usize) {
    let backend = Measuring { sim: Mutex::new(Sim { reversed, ..Sim::new() }), done: Mutex::new(0) };
    let [found, wanted] = [&backend as &dyn Backend, &Cpu].map(|backend| stats_on(backend, w, q, importance, 7).unwrap());
    assert_eq!(found, wanted, "{} pairs", w.len());
    let bits = |stats: &ErrorStats| {
        let moments = [stats.weights.mean, stats.weights.m2, stats.weights.m3, stats.weights.m4];
        let sums = [stats.sum_w2, stats.sum_q2, stats.sum_wq, stats.sum_e, stats.sum_e2, stats.max_abs];
        (moments.map(f64::to_bits), sums.map(f64::to_bits), stats.weighted.map(|w| w.map(f64::to_bits)))
    };
    assert_eq!(bits(&found), bits(&wanted));
    let done = *backend.done.lock().unwrap();
    (found, done)
}

#[test]
fn all_sums_are_those_of_the_cpu() {
    for n in [0, 1, 3, 4, 5, 255, 256, 257, 1000, 4096, 20_003] {
        let w = normal(n, n as u64);
        let q: Vec<f32> = w.iter().map(|v| (v * 64.0).round() / 64.0).collect();
        let h: Vec<f32> = normal(n, 5).iter().map(|v| v * v).collect();
        let (stats, done) = check(&w, &q, None, false);
        assert_eq!((stats.n(), done), (n as u64, 1));
        assert_eq!(check(&w, &q, Some(&h), true).1, 1);
        // Nothing differs.
        assert!(check(&w, &w, None, false).0.is_exact());
    }
}

#[test]
fn edges() {
    let mut w: Vec<f32> = quant_core::backend::difficult(3000);
    let mut q = w.iter().map(|v| v * 0.9).collect::<Vec<f32>>();
    (w[5], q[5]) = (f32::MAX, f32::MIN);
    (w[300], q[300]) = (1e-45, -1e-45);
    (w[999], q[999]) = (-7.0, 6.5);
    (w[1500], q[1500]) = (0.0, -0.0);
    // The first of equal errors is told.
    (w[2000], q[2000], w[2003], q[2003]) = (1e30, 2e30, 3e30, 2e30);
    let (stats, done) = check(&w, &q, None, false);
    assert_eq!((stats.max_at, done), (5, 1));
    check(&w[600..], &q[600..], None, true);
    let constant = vec![0.25; 1024];
    check(&constant, &vec![0.25 + 1e-3; 1024], None, false);
}

#[test]
fn numbers_that_are_not_finite_are_left_to_the_cpu() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let w = normal(700, 2);
        let mut q = w.clone();
        q[300] = bad;
        let (stats, done) = check(&w, &q, None, false);
        assert_eq!((stats.non_finite, done), (1, 0));
        let (stats, done) = check(&q, &w, None, true);
        assert_eq!((stats.non_finite, done), (1, 0));
    }
}
