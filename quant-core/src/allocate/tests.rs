use super::*;

/// xorshift64*: the same numbers on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) % n
    }
}

fn c(bytes: u64, error: f64) -> Candidate {
    Candidate { bytes, error }
}

/// Up to 5 tensors of up to 5 candidates; every other instance with few different numbers, so that ties are many.
fn instance(random: &mut Random) -> Vec<Vec<Candidate>> {
    let few = random.below(2) == 0;
    let (bytes, errors) = if few { (5, 6) } else { (100, 1000) };
    let n_tensors = random.below(6);
    (0..n_tensors).map(|_| (0..1 + random.below(5)).map(|_| c(random.below(bytes), random.below(errors) as f64 / 8.0)).collect()).collect()
}

/// The bytes and the error of every possible choice.
fn all(tensors: &[Vec<Candidate>]) -> Vec<Candidate> {
    tensors.iter().fold(vec![c(0, 0.0)], |sums, t| sums.iter().flat_map(|s| t.iter().map(|x| c(s.bytes + x.bytes, s.error + x.error))).collect())
}

/// The largest fall of one number on a step to a neighbour: what the walk may lose at the step that does not fit.
fn largest_step(tensors: &[Vec<Candidate>], number: impl Fn(&Candidate) -> f64) -> f64 {
    let range = |t: &Vec<Candidate>| t.iter().map(&number).fold(0.0, f64::max) - t.iter().map(&number).fold(f64::INFINITY, f64::min);
    tensors.iter().map(range).fold(0.0, f64::max)
}

fn sums<B>(tensors: &[Vec<Candidate>], allocation: &Allocation<B>) -> Candidate {
    assert_eq!(allocation.choice.len(), tensors.len());
    let chosen = || tensors.iter().zip(&allocation.choice).map(|(t, &i)| t[i]);
    c(chosen().map(|x| x.bytes).sum(), chosen().map(|x| x.error).sum())
}

const TINY: f64 = 1e-9;

#[test]
fn the_least_error_lies_between_bound_and_result() {
    let mut random = Random(1);
    let (mut n, mut best_found) = (0, 0);
    for _ in 0..400 {
        let tensors = instance(&mut random);
        let choices = all(&tensors);
        for budget in [random.below(20), random.below(150), random.below(400), 10_000] {
            let Some(best) = choices.iter().filter(|x| x.bytes <= budget).map(|x| x.error).reduce(f64::min) else {
                let least = choices.iter().map(|x| x.bytes).min().unwrap();
                let expected = format!("the smallest choice needs {least} bytes, the budget is {budget}");
                assert_eq!(within_bytes(&tensors, budget).unwrap_err().to_string(), expected);
                continue;
            };
            let found = within_bytes(&tensors, budget).unwrap();
            let sums = sums(&tensors, &found);
            assert_eq!((found.bytes, found.error), (sums.bytes, sums.error));
            assert!(found.bytes <= budget && found.bound <= best + TINY && best <= found.error, "{tensors:?} {budget} {found:?} {best}");
            assert!(found.bound <= found.error && found.error - found.bound <= largest_step(&tensors, |x| x.error) + TINY);
            n += 1;
            best_found += u32::from(found.error == best);
        }
    }
    assert!(n > 1000 && f64::from(best_found) > 0.97 * f64::from(n), "{best_found} of {n}");
}

#[test]
fn the_fewest_bytes_lie_between_bound_and_result() {
    let mut random = Random(2);
    let (mut n, mut best_found) = (0, 0);
    for _ in 0..400 {
        let tensors = instance(&mut random);
        let choices = all(&tensors);
        for limit in [random.below(20), random.below(150), random.below(400), 10_000] {
            let limit = limit as f64 / 2.0;
            let Some(best) = choices.iter().filter(|x| x.error <= limit).map(|x| x.bytes).min() else {
                assert!(within_error(&tensors, limit).is_err());
                continue;
            };
            let found = within_error(&tensors, limit).unwrap();
            let sums = sums(&tensors, &found);
            assert_eq!((found.bytes, found.error), (sums.bytes, sums.error));
            assert!(found.error <= limit && found.bound <= best && best <= found.bytes, "{tensors:?} {limit} {found:?} {best}");
            assert!((found.bytes - found.bound) as f64 <= largest_step(&tensors, |x| x.bytes as f64) + 1.0);
            n += 1;
            best_found += u32::from(found.bytes == best);
        }
    }
    assert!(n > 1000 && f64::from(best_found) > 0.97 * f64::from(n), "{best_found} of {n}");
}

/// At a place where the walk may stop nothing is left, and the bound is reached. The choice (20, 45) lies above the hull.
#[test]
fn there_is_no_gap_at_the_corners_of_the_hull() {
    let tensors = [vec![c(10, 50.0), c(20, 45.0), c(30, 10.0), c(60, 0.5)], vec![c(5, 7.0), c(6, 1.0)]];
    for (budget, error) in [(15, 57.0), (16, 51.0), (36, 11.0), (66, 1.5), (1000, 1.5)] {
        let found = within_bytes(&tensors, budget).unwrap();
        assert_eq!((found.bytes, found.error, found.bound), (budget.min(66), error, error));
        let back = within_error(&tensors, error).unwrap();
        assert_eq!((back.bytes, back.bound, &back.choice), (found.bytes, found.bytes, &found.choice));
    }
    // Between corners a choice above the hull is what the budget pays for.
    assert_eq!(within_bytes(&tensors, 26).unwrap().choice, [1, 1]);
}

#[test]
fn an_exchange_finds_what_the_walk_passes_by() {
    // The walk takes the steep edge of the first and has no room for the large one of the second.
    let tensors = [vec![c(0, 10.0), c(2, 0.0)], vec![c(0, 40.0), c(9, 0.0)]];
    let found = within_bytes(&tensors, 10).unwrap();
    assert_eq!((found.choice, found.error), (vec![0, 1], 10.0));
    assert!(found.bound > 0.0);
}

#[test]
fn more_budget_is_not_worse_by_more_than_the_gap() {
    let mut random = Random(3);
    let (mut n, mut rises) = (0, 0);
    for _ in 0..400 {
        let tensors = instance(&mut random);
        let mut before: Option<Allocation> = None;
        for budget in 0..500 {
            let Ok(found) = within_bytes(&tensors, budget) else { continue };
            assert_eq!(found, within_bytes(&tensors, budget).unwrap());
            if let Some(before) = before {
                assert!(found.bound <= before.bound + TINY);
                assert!(found.error - before.error <= found.error - found.bound + TINY);
                n += 1;
                rises += u32::from(found.error > before.error);
            }
            before = Some(found);
        }
    }
    assert!(rises * 2000 < n, "{rises} of {n}");
}

#[test]
fn ties_go_to_the_lower_index() {
    // Three tensors alike, and every candidate twice: equal slopes everywhere.
    let tensors = vec![vec![c(0, 3.0), c(0, 3.0), c(2, 2.0), c(2, 2.0), c(4, 1.0)]; 3];
    assert_eq!(within_bytes(&tensors, 2).unwrap().choice, [2, 0, 0]);
    assert_eq!(within_bytes(&tensors, 4).unwrap().choice, [4, 0, 0]);
    assert_eq!(within_bytes(&tensors, 5).unwrap(), Allocation { choice: vec![4, 0, 0], bytes: 4, error: 7.0, bound: 6.5 });
    // Here the walk goes the other way: the first tensors are the first to become smaller.
    assert_eq!(within_error(&tensors, 7.0).unwrap(), Allocation { choice: vec![0, 0, 4], bytes: 4, error: 7.0, bound: 4 });
}

#[test]
fn nothing_costs_nothing() {
    assert_eq!(within_bytes(&[], 0).unwrap(), Allocation { choice: vec![], bytes: 0, error: 0.0, bound: 0.0 });
    assert_eq!(within_error(&[], 0.0).unwrap(), Allocation { choice: vec![], bytes: 0, error: 0.0, bound: 0 });
    let free = [vec![c(0, 2.0), c(0, 1.0)], vec![c(0, 0.0)]];
    assert_eq!(within_bytes(&free, 0).unwrap(), Allocation { choice: vec![1, 0], bytes: 0, error: 1.0, bound: 1.0 });
    assert_eq!(within_error(&free, f64::INFINITY).unwrap().choice, [1, 0]);
}

#[test]
fn what_cannot_be_summed_is_refused() {
    let refused = |tensors: &[Vec<Candidate>]| {
        let error = within_bytes(tensors, 9).unwrap_err().to_string();
        assert_eq!(within_error(tensors, 9.0).unwrap_err().to_string(), error);
        error
    };
    assert_eq!(refused(&[vec![c(1, 1.0)], vec![]]), "tensor 1 has no candidate");
    let nan = refused(&[vec![c(1, 1.0)], vec![c(1, 1.0), c(2, f64::NAN)]]);
    assert_eq!(nan, "tensor 1, candidate 1: the error is NaN, needed a finite number");
    assert!(refused(&[vec![c(1, f64::INFINITY)]]).contains("the error is inf"));
    assert_eq!(refused(&[vec![c(1, f64::MAX)], vec![c(1, -f64::MAX)]]), "the errors are too large to be summed");
    assert!(refused(&[vec![c(u64::MAX, 1.0)], vec![c(1, 1.0)]]).contains("at most 9007199254740992 are counted"));
    assert!(within_error(&[vec![c(1, 1.0)]], f64::NAN).unwrap_err().to_string().contains("the limit is NaN"));
    let best = within_error(&[vec![c(1, 1.5), c(0, 4.0)]], 1.0).unwrap_err().to_string();
    assert_eq!(best, "the best choice has an error of 1.5, the limit is 1");
}

/// The error of one allocation is the limit of another, whatever the order in which rounding sums would go.
#[test]
fn totals_depend_on_the_choice_alone() {
    let mut random = Random(4);
    for _ in 0..100 {
        let tensors: Vec<Vec<Candidate>> = (0..60)
            .map(|_| {
                (1..8).map(|bits| c(bits * 100 + random.below(90), (1 + random.below(1 << 30)) as f64 / f64::from(3u32.pow(bits as u32)))).collect()
            })
            .collect();
        let found = within_bytes(&tensors, 20_000).unwrap();
        let back = within_error(&tensors, found.error).unwrap();
        assert!(back.error <= found.error && back.bound <= found.bytes);
        assert!(found.error - found.bound <= 0.02 * found.error, "{} {}", found.error, found.bound);
    }
}
