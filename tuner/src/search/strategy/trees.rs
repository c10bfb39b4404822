//! Extremely randomised trees: a regression that needs no scales and likes switches.
//!
//! Each tree sees all points; its splits are the best of some drawn at random, so that trees differ and their spread
//! says how little is known. After Geurts, Ernst, Wehenkel: Extremely randomized trees (Machine Learning 63, 2006).

use rand::Rng;

/// A node: a split, or the mean of a leaf.
#[derive(Debug, Clone, Copy)]
enum Node {
    Split { feature: u32, threshold: f32, right: u32 },
    Leaf(f32),
}

/// An ensemble.
#[derive(Debug, Default)]
pub(super) struct Trees {
    trees: Vec<Vec<Node>>,
}

impl Trees {
    /// Fits `count` trees to rows and their targets, of which there is at least one.
    pub(super) fn fit(count: usize, rows: &[&[f32]], targets: &[f32], rng: &mut impl Rng) -> Self {
        let trees = (0..count)
            .map(|_| {
                let mut order: Vec<u32> = (0..rows.len() as u32).collect();
                let mut nodes = Vec::new();
                grow(&mut nodes, &mut order, rows, targets, rng);
                nodes
            })
            .collect();
        Self { trees }
    }

    /// Returns the mean of the trees and their standard deviation.
    pub(super) fn predict(&self, row: &[f32]) -> (f64, f64) {
        let (mut sum, mut squares) = (0.0f64, 0.0f64);
        for nodes in &self.trees {
            let mut at = 0;
            let value = loop {
                match nodes[at] {
                    Node::Leaf(value) => break f64::from(value),
                    Node::Split { feature, threshold, right } => {
                        at = if row[feature as usize] <= threshold { at + 1 } else { right as usize };
                    }
                }
            };
            sum += value;
            squares += value * value;
        }
        let count = self.trees.len() as f64;
        let mean = sum / count;
        (mean, (squares / count - mean * mean).max(0.0).sqrt())
    }
}

/// Grows a subtree over the rows in `order`; the left child follows its parent.
fn grow(nodes: &mut Vec<Node>, order: &mut [u32], rows: &[&[f32]], targets: &[f32], rng: &mut impl Rng) {
    let mean = order.iter().map(|&row| targets[row as usize]).sum::<f32>() / order.len() as f32;
    let at = nodes.len();
    nodes.push(Node::Leaf(mean));
    let same = order.windows(2).all(|pair| targets[pair[0] as usize] == targets[pair[1] as usize]);
    let split = if order.len() < 2 || same { None } else { best_split(order, rows, targets, rng) };
    let Some((feature, threshold)) = split else { return };
    let mut left = 0;
    for index in 0..order.len() {
        if rows[order[index] as usize][feature] <= threshold {
            order.swap(left, index);
            left += 1;
        }
    }
    let (below, above) = order.split_at_mut(left);
    grow(nodes, below, rows, targets, rng);
    let right = nodes.len() as u32;
    grow(nodes, above, rows, targets, rng);
    nodes[at] = Node::Split { feature: feature as u32, threshold, right };
}

/// Draws one threshold for each feature and returns the split that leaves the least spread.
fn best_split(order: &[u32], rows: &[&[f32]], targets: &[f32], rng: &mut impl Rng) -> Option<(usize, f32)> {
    let mut best: Option<(f32, usize, f32)> = None;
    for (feature, _) in rows.first()?.iter().enumerate() {
        let (mut low, mut high) = (f32::INFINITY, f32::NEG_INFINITY);
        for &row in order {
            let value = rows[row as usize][feature];
            low = low.min(value);
            high = high.max(value);
        }
        if low >= high {
            continue;
        }
        let threshold = low + (high - low) * rng.random_range(0.0..0.999f32);
        let (mut below, mut above) = ((0f32, 0f32), (0f32, 0f32));
        for &row in order {
            let side = if rows[row as usize][feature] <= threshold { &mut below } else { &mut above };
            side.0 += 1.0;
            side.1 += targets[row as usize];
        }
        // Least spread within is most of sum squared over count.
        let gain = below.1 * below.1 / below.0 + above.1 * above.1 / above.0;
        if above.0 > 0.0 && best.is_none_or(|(most, ..)| gain > most) {
            best = Some((gain, feature, threshold));
        }
    }
    best.map(|(_, feature, threshold)| (feature, threshold))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// A cost with a switch, a slope and a feature that says nothing.
    fn cost(row: &[f32]) -> f32 {
        if row[0] > 0.5 { 3.0 } else { row[1] }
    }

    fn grid() -> Vec<[f32; 3]> {
        let step = |n: usize| n as f32 / 9.0;
        (0..200).map(|n| [(n % 2) as f32, step(n / 2 % 10), step(n / 20)]).collect()
    }

    #[test]
    fn trees_reproduce_what_they_were_fitted_to() {
        let all = grid();
        let rows: Vec<&[f32]> = all.iter().map(|row| &row[..]).collect();
        let targets: Vec<f32> = rows.iter().map(|row| cost(row)).collect();
        let trees = Trees::fit(10, &rows, &targets, &mut ChaCha8Rng::seed_from_u64(1));
        for (row, target) in rows.iter().zip(&targets) {
            let (mean, deviation) = trees.predict(row);
            assert!(
                (mean - f64::from(*target)).abs() < 1e-6 && deviation < 1e-3,
                "{row:?}: {mean} {deviation}"
            );
        }
    }

    #[test]
    fn trees_predict_what_they_have_not_seen_and_doubt_it() {
        let all = grid();
        let (seen, unseen): (Vec<_>, Vec<_>) = all.iter().enumerate().partition(|(n, _)| n % 5 < 2);
        let rows: Vec<&[f32]> = seen.iter().map(|(_, row)| &row[..]).collect();
        let targets: Vec<f32> = rows.iter().map(|row| cost(row)).collect();
        let trees = Trees::fit(50, &rows, &targets, &mut ChaCha8Rng::seed_from_u64(2));
        let (mut error, mut doubt) = (0.0, 0.0);
        for (_, row) in &unseen {
            let (mean, deviation) = trees.predict(&row[..]);
            error += (mean - f64::from(cost(&row[..]))).abs() / unseen.len() as f64;
            doubt += deviation / unseen.len() as f64;
        }
        assert!(error < 0.1, "{error}: guessing the mean is off by more than 1");
        assert!(doubt > 0.01, "{doubt}");
    }

    #[test]
    fn rows_that_cannot_be_told_apart_get_their_mean() {
        let trees = Trees::fit(3, &[&[1.0], &[1.0]], &[2.0, 4.0], &mut ChaCha8Rng::seed_from_u64(3));
        assert_eq!(trees.predict(&[1.0]), (3.0, 0.0));
    }
}
