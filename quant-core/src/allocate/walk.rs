//! The walk along the hulls and the exchanges after it, for a cost that is limited and a value that is to be small.

use std::cmp::Ordering;

/// The most exchanges. Each looks at every candidate once; a walk leaves little to exchange.
const EXCHANGES: usize = 64;

/// One candidate.
#[derive(Clone, Copy)]
pub(super) struct Point {
    pub(super) cost: f64,
    pub(super) value: f64,
}

/// What was found.
pub(super) struct Solved {
    pub(super) choice: Vec<usize>,
    pub(super) cost: f64,
    pub(super) value: f64,
    pub(super) bound: f64,
}

/// A sum whose items can be replaced, in the same order of additions whatever is replaced when.
struct Sum {
    /// Node `i` is the sum of nodes `2i` and `2i + 1`; the items are the last `n`.
    nodes: Vec<f64>,
    n: usize,
}

impl Sum {
    fn of(items: impl ExactSizeIterator<Item = f64>) -> Sum {
        let n = items.len();
        let mut nodes = vec![0.0; n];
        nodes.extend(items);
        for i in (1..n).rev() {
            nodes[i] = nodes[2 * i] + nodes[2 * i + 1];
        }
        Sum { nodes, n }
    }

    fn total(&self) -> f64 {
        self.nodes.get(1).copied().unwrap_or(0.0)
    }

    fn set(&mut self, item: usize, to: f64) {
        let mut i = item + self.n;
        self.nodes[i] = to;
        while i > 1 {
            i /= 2;
            self.nodes[i] = self.nodes[2 * i] + self.nodes[2 * i + 1];
        }
    }
}

/// The candidates of one tensor that none beats in both numbers: costs rise, values fall.
struct Frontier {
    index: Vec<usize>,
    points: Vec<Point>,
}

impl Frontier {
    fn of(candidates: &[Point]) -> Frontier {
        let mut order: Vec<usize> = (0..candidates.len()).collect();
        let by = |a: f64, b: f64| a.partial_cmp(&b).unwrap_or(Ordering::Equal);
        // Stable: of equals the first stays first.
        order.sort_by(|&a, &b| by(candidates[a].cost, candidates[b].cost).then(by(candidates[a].value, candidates[b].value)));
        let mut least = f64::INFINITY;
        order.retain(|&i| {
            candidates[i].value < least && {
                least = candidates[i].value;
                true
            }
        });
        Frontier { points: order.iter().map(|&i| candidates[i]).collect(), index: order }
    }

    /// The places on the lower convex hull; points on its edges too, because every one is a place to stop.
    fn hull(&self) -> Vec<usize> {
        let mut hull: Vec<usize> = Vec::new();
        for (i, c) in self.points.iter().enumerate() {
            while let [.., a, b] = hull[..] {
                let (a, b) = (self.points[a], self.points[b]);
                if (a.value - b.value) * (c.cost - b.cost) >= (b.value - c.value) * (b.cost - a.cost) {
                    break;
                }
                hull.pop();
            }
            hull.push(i);
        }
        hull
    }
}

/// An edge of a hull, between two places of a frontier.
struct Edge {
    tensor: usize,
    from: usize,
    to: usize,
    slope: f64,
}

/// The edges of all hulls, steepest first; those of one tensor in their order.
fn edges(frontiers: &[Frontier]) -> Vec<Edge> {
    let mut edges = Vec::new();
    for (tensor, frontier) in frontiers.iter().enumerate() {
        let mut before = f64::INFINITY;
        for pair in frontier.hull().windows(2) {
            let (a, b) = (frontier.points[pair[0]], frontier.points[pair[1]]);
            // Rounding must not put an edge before the one that leads to it.
            before = ((a.value - b.value) / (b.cost - a.cost)).min(before);
            edges.push(Edge { tensor, from: pair[0], to: pair[1], slope: before });
        }
    }
    edges.sort_by(|a, b| b.slope.total_cmp(&a.slope));
    edges
}

/// A choice being improved.
struct State<'a> {
    frontiers: &'a [Frontier],
    at: Vec<usize>,
    cost: Sum,
    value: Sum,
    budget: f64,
}

impl State<'_> {
    fn point(&self, tensor: usize) -> Point {
        self.frontiers[tensor].points[self.at[tensor]]
    }

    fn set(&mut self, tensor: usize, place: usize) {
        self.at[tensor] = place;
        let Point { cost, value } = self.point(tensor);
        self.cost.set(tensor, cost);
        self.value.set(tensor, value);
    }

    /// Makes all steps, or none if they do not fit or gain nothing.
    fn make(&mut self, steps: &[Step]) -> bool {
        let before: Vec<usize> = steps.iter().map(|step| self.at[step.tensor]).collect();
        let value = self.value.total();
        steps.iter().for_each(|step| self.set(step.tensor, step.to));
        let is_better = self.cost.total() <= self.budget && self.value.total() < value;
        if !is_better {
            steps.iter().zip(before).for_each(|(step, place)| self.set(step.tensor, place));
        }
        is_better
    }
}

/// A change of one tensor's choice.
#[derive(Clone, Copy)]
struct Step {
    tensor: usize,
    to: usize,
    cost: f64,
    /// How much less the value is.
    gain: f64,
}

/// The least that `tensors` cost together.
pub(super) fn least(tensors: &[Vec<Point>]) -> f64 {
    Sum::of(tensors.iter().map(|t| t.iter().map(|p| p.cost).fold(f64::INFINITY, f64::min))).total()
}

/// The least value at a cost of at most `budget`, which is no less than [`least`]. No tensor is without points.
pub(super) fn solve(tensors: &[Vec<Point>], budget: f64) -> Solved {
    let frontiers: Vec<Frontier> = tensors.iter().map(|t| Frontier::of(t)).collect();
    let at = vec![0; frontiers.len()];
    let cost = Sum::of(frontiers.iter().map(|f| f.points[0].cost));
    let value = Sum::of(frontiers.iter().map(|f| f.points[0].value));
    let mut state = State { frontiers: &frontiers, at, cost, value, budget };
    let bound = walk(&mut state).unwrap_or(f64::INFINITY);
    for _ in 0..EXCHANGES {
        let Some(steps) = best_exchange(&state) else { break };
        if !state.make(&steps) {
            break;
        }
    }
    let choice = state.at.iter().zip(&frontiers).map(|(&place, frontier)| frontier.index[place]).collect();
    let value = state.value.total();
    Solved { choice, cost: state.cost.total(), value, bound: bound.min(value) }
}

/// Takes edges while they fit. Gives the value of the relaxation, in which a part of the first edge that does not fit is taken;
/// none if all fit.
fn walk(state: &mut State<'_>) -> Option<f64> {
    let mut bound = None;
    for Edge { tensor, from, to, .. } in edges(state.frontiers) {
        if state.at[tensor] != from {
            continue;
        }
        let (a, b) = (state.point(tensor), state.frontiers[tensor].points[to]);
        let (left, value) = (state.budget - state.cost.total(), state.value.total());
        state.set(tensor, to);
        if state.cost.total() > state.budget {
            state.set(tensor, from);
            bound = bound.or(Some(value - (a.value - b.value) * (left / (b.cost - a.cost)).clamp(0.0, 1.0)));
        }
    }
    bound
}

/// The step of one tensor, or the steps of two, that fit and gain most.
fn best_exchange(state: &State<'_>) -> Option<Vec<Step>> {
    let steps = || (0..state.at.len()).flat_map(|tensor| steps_of(state, tensor));
    let mut spending: Vec<Step> = steps().filter(|step| step.gain > 0.0).collect();
    spending.sort_by(|a, b| a.cost.total_cmp(&b.cost));
    let best = best_so_far(&spending);
    let left = state.budget - state.cost.total();
    let nothing = Step { tensor: usize::MAX, to: 0, cost: 0.0, gain: 0.0 };
    let mut found: Option<(f64, Vec<Step>)> = None;
    for saving in std::iter::once(nothing).chain(steps().filter(|step| step.cost < 0.0)) {
        let fit = spending.partition_point(|step| step.cost <= left - saving.cost);
        let Some(pair) = fit.checked_sub(1).map(|last| best[last]) else { continue };
        let Some(spent) = pair.into_iter().flatten().map(|i| spending[i]).find(|step| step.tensor != saving.tensor) else { continue };
        let gain = spent.gain + saving.gain;
        if gain > found.as_ref().map_or(0.0, |(most, _)| *most) {
            let steps = if saving.tensor == usize::MAX { vec![spent] } else { vec![saving, spent] };
            found = Some((gain, steps));
        }
    }
    found.map(|(_, steps)| steps)
}

/// Every other choice of one tensor.
fn steps_of<'a>(state: &'a State<'_>, tensor: usize) -> impl Iterator<Item = Step> + 'a {
    let here = state.point(tensor);
    let step = move |(to, p): (usize, &Point)| Step { tensor, to, cost: p.cost - here.cost, gain: here.value - p.value };
    state.frontiers[tensor].points.iter().enumerate().map(step).filter(move |step| step.to != state.at[tensor])
}

/// For each step the best up to it, and the best of another tensor.
fn best_so_far(steps: &[Step]) -> Vec<[Option<usize>; 2]> {
    let mut best = [None, None];
    let gain = |i: Option<usize>| i.map_or(0.0, |i: usize| steps[i].gain);
    let mut all = Vec::with_capacity(steps.len());
    for (i, step) in steps.iter().enumerate() {
        let is_of_first = best[0].is_some_and(|first: usize| steps[first].tensor == step.tensor);
        if step.gain > gain(best[0]) {
            best = [Some(i), if is_of_first { best[1] } else { best[0] }];
        } else if !is_of_first && step.gain > gain(best[1]) {
            best[1] = Some(i);
        }
        all.push(best);
    }
    all
}
