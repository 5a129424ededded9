//! The stored averages as increments, and least squares in them.

use nalgebra::{DMatrix, DVector, SymmetricEigen};

use super::{
    Solve, Stored,
    density::{Density, Piece},
};

/// The indices of the stored averages by exponent, and within one exponent by step.
pub(super) fn chains(stored: &[Stored]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..stored.len()).collect();
    // Adding 0.0 makes -0.0 a 0.0.
    order.sort_by(|&a, &b| {
        let key = |i: usize| stored[i].gamma + 0.0;
        key(a).total_cmp(&key(b)).then(stored[a].step.total_cmp(&stored[b].step))
    });
    order
}

/// The stored averages as increments: what each adds to the stored average of the same exponent
/// before it.
pub(super) struct Increments {
    /// In the order of [`chains`], without those of averages after `at`.
    pub pieces: Vec<Piece>,
    /// The index of the stored average of each piece.
    stored: Vec<usize>,
}

/// The solution of the least squares.
pub(super) struct Solution {
    /// The factor of each increment.
    pub factors: Vec<f64>,
    /// The squared distance to the target, as a share of its squared norm.
    pub squared_share: f64,
    /// The `squared_share` of the unconstrained solution, before its coefficients were scaled.
    pub squared_share_before: f64,
    pub condition: f64,
}

impl Increments {
    pub fn new(stored: &[Stored], at: f64) -> Self {
        let order: Vec<usize> =
            chains(stored).into_iter().filter(|&i| stored[i].step <= at).collect();
        let pieces = order.iter().enumerate().map(|(place, &i)| {
            let Stored { step: to, gamma } = stored[i];
            let before = place.checked_sub(1).map(|place| stored[order[place]]);
            let from = before.filter(|s| s.gamma == gamma).map_or(0.0, |s| s.step);
            Piece { from, to, gamma }
        });
        Self { pieces: pieces.collect(), stored: order }
    }

    /// The coefficients of the stored averages from the factors of the increments.
    pub fn coefficients(&self, factors: &[f64], count: usize) -> Vec<f64> {
        let mut coefficients = vec![0.0; count];
        for (place, (&i, &factor)) in self.stored.iter().zip(factors).enumerate() {
            coefficients[i] += factor;
            // Where a chain begins, the share before it is 0.
            if let Some(before) = place.checked_sub(1) {
                coefficients[self.stored[before]] -= factor * self.pieces[place].share_before();
            }
        }
        coefficients
    }

    /// The places of the increments in groups that do not overlap each other.
    pub fn groups(&self) -> Vec<Vec<usize>> {
        let mut order: Vec<usize> = (0..self.pieces.len()).collect();
        order.sort_by(|&a, &b| self.pieces[a].from.total_cmp(&self.pieces[b].from));
        let mut groups: Vec<Vec<usize>> = Vec::new();
        let mut end = 0.0;
        for place in order {
            let piece = self.pieces[place];
            match groups.last_mut() {
                Some(group) if piece.from < end => group.push(place),
                _ => groups.push(vec![place]),
            }
            end = piece.to.max(end);
        }
        groups
    }

    /// Least squares; `None` where an eigenvalue cannot be computed.
    ///
    /// In units of the norms of the increments and of the target, with `G` the cosines of the
    /// increments to each other and `b` those to the target, the solution is `z = G^+ b`, and its
    /// squared error is `1 - b.z`.
    /// Let `c.z` be the sum of the coefficients. Dividing by it moves the solution along itself,
    /// by `(1 - 1 / c.z)` of its length `sqrt(b.z)`. The condition `c.z = 1` moves it by
    /// `(1 - c.z) / c.(G^+ c)` of `G^+ c`. Both moves are orthogonal to the error that was left.
    pub fn solve(&self, target: &Density, solve: Solve) -> Option<Solution> {
        let count = self.pieces.len();
        let length = target.squared_norm().sqrt();
        let unit: Vec<f64> = self.pieces.iter().map(|piece| length / piece.norm()).collect();
        let b = self.pieces.iter().zip(&unit).map(|(piece, unit)| {
            target.parts.iter().map(|part| part.inner(piece)).sum::<f64>() * unit / length / length
        });
        let b = DVector::from_iterator(count, b);
        let c = self.pieces.iter().zip(&unit).map(|(piece, unit)| piece.mass() * unit);
        let c = DVector::from_iterator(count, c);

        // z = G^+ b, v = G^+ c, and the squared lengths b.z and c.v as sums of squares.
        let (mut z, mut v) = (DVector::zeros(count), DVector::zeros(count));
        let (mut bz, mut cv) = (0.0, 0.0);
        let (mut least, mut greatest) = (f64::INFINITY, 0.0_f64);
        for group in self.groups() {
            let size = group.len();
            let gram = DMatrix::from_fn(size, size, |i, j| {
                if i == j { 1.0 } else { self.pieces[group[i]].cosine(&self.pieces[group[j]]) }
            });
            if gram.iter().any(|cosine| !cosine.is_finite()) {
                return None;
            }
            let eigen = SymmetricEigen::try_new(gram, f64::EPSILON, 10_000)?;
            let b = DVector::from_iterator(size, group.iter().map(|&place| b[place]));
            let c = DVector::from_iterator(size, group.iter().map(|&place| c[place]));
            let rounding = 64.0 * size as f64 * f64::EPSILON;
            for (value, axis) in eigen.eigenvalues.iter().zip(eigen.eigenvectors.column_iter()) {
                if *value <= rounding {
                    continue;
                }
                least = least.min(*value);
                greatest = greatest.max(*value);
                let (along_b, along_c) = (axis.dot(&b), axis.dot(&c));
                bz += along_b * along_b / value;
                cv += along_c * along_c / value;
                for (&place, part) in group.iter().zip(axis.iter()) {
                    z[place] += part * along_b / value;
                    v[place] += part * along_c / value;
                }
            }
        }

        let sum = c.dot(&z);
        let squared_share_before = (1.0 - bz).max(0.0);
        let moved = match solve {
            Solve::Published => {
                z /= sum;
                bz * (1.0 - 1.0 / sum).powi(2)
            }
            Solve::Constrained => {
                z += v * ((1.0 - sum) / cv);
                (1.0 - sum).powi(2) / cv
            }
        };
        Some(Solution {
            factors: z.iter().zip(&unit).map(|(z, unit)| z * unit).collect(),
            squared_share: squared_share_before + moved,
            squared_share_before,
            condition: greatest / least,
        })
    }
}
