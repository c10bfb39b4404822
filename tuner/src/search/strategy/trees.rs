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
    for feature in 0..rows[0].len() {
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
