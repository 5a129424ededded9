//! Profiles as densities over time, their norms and inner products.

/// `(gamma + 1) t^gamma / to^(gamma + 1)` on `(from, to]`, and 0 elsewhere.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub from: f64,
    pub to: f64,
    pub gamma: f64,
}

impl Piece {
    pub fn at(&self, t: f64) -> f64 {
        if self.from < t && t <= self.to { self.inside(t) } else { 0.0 }
    }

    pub fn inside(&self, t: f64) -> f64 {
        (self.gamma + 1.0) / self.to * (t / self.to).powf(self.gamma)
    }

    /// `(from / to)^(gamma + 1)`: the share of the whole power function that lies before `from`.
    pub fn share_before(&self) -> f64 {
        (self.from / self.to).powf(self.gamma + 1.0)
    }

    /// The integral.
    pub fn mass(&self) -> f64 {
        one_minus_power(self.from, self.to, self.gamma + 1.0)
    }

    /// The L2 norm.
    pub fn norm(&self) -> f64 {
        let twice = 2.0 * self.gamma + 1.0;
        (self.gamma + 1.0) / (twice * self.to).sqrt()
            * one_minus_power(self.from, self.to, twice).sqrt()
    }

    /// The cosine of the angle to another piece: their inner product over both norms.
    ///
    /// For whole power functions, `from = 0`, times the norms, it is the published
    /// `(a + 1) (b + 1) (s / t)^b / ((a + b + 1) t)` of exponents `a`, `b` at steps `s <= t`.
    /// As a product of numbers of moderate size it neither overflows nor loses digits.
    pub fn cosine(&self, other: &Self) -> f64 {
        let (from, to) = (self.from.max(other.from), self.to.min(other.to));
        if from >= to {
            return 0.0;
        }
        let sum = self.gamma + other.gamma + 1.0;
        let side = |piece: &Self| {
            let twice = 2.0 * piece.gamma + 1.0;
            (twice / sum / one_minus_power(piece.from, piece.to, twice)).sqrt()
                * (to / piece.to).powf(0.5 * twice)
        };
        side(self) * side(other) * one_minus_power(from, to, sum)
    }
}

/// `1 - (a / b)^exponent` for `0 <= a < b`, without cancellation where `a` is close to `b`.
pub(super) fn one_minus_power(a: f64, b: f64, exponent: f64) -> f64 {
    -(exponent * ((a - b) / b).ln_1p()).exp_m1()
}

/// A wanted profile: parts that do not overlap.
#[derive(Clone, Debug)]
pub(super) struct Density {
    pub parts: Vec<Part>,
}

/// One part of a wanted profile.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part {
    /// `factor` times a power function.
    Power { piece: Piece, factor: f64 },
    /// `rate exp(rate (t - to)) / (1 - exp(-rate to))` on `(0, to]`.
    Exponential { rate: f64, to: f64 },
    /// `1 / (2 sqrt((t - origin) (to - origin)))` on `(from, to]`, with `from > origin`.
    InverseSqrt { origin: f64, from: f64, to: f64 },
}

impl Density {
    pub fn squared_norm(&self) -> f64 {
        self.parts.iter().map(Part::squared_norm).sum()
    }
}

impl Part {
    /// The constant that has this integral on `(from, to]`.
    pub fn level(from: f64, to: f64, integral: f64) -> Self {
        Self::Power { piece: Piece { from, to, gamma: 0.0 }, factor: integral * to / (to - from) }
    }

    pub fn at(&self, t: f64) -> f64 {
        match *self {
            Self::Power { piece, factor } => factor * piece.at(t),
            Self::Exponential { rate, to } if 0.0 < t && t <= to => {
                rate * (rate * (t - to)).exp() / -(-rate * to).exp_m1()
            }
            Self::InverseSqrt { origin, from, to } if from < t && t <= to => {
                0.5 / ((t - origin) * (to - origin)).sqrt()
            }
            Self::Exponential { .. } | Self::InverseSqrt { .. } => 0.0,
        }
    }

    /// The integral of the square.
    pub fn squared_norm(&self) -> f64 {
        match *self {
            Self::Power { piece, factor } => (factor * piece.norm()).powi(2),
            Self::Exponential { rate, to } => 0.5 * rate / (0.5 * rate * to).tanh(),
            Self::InverseSqrt { origin, from, to } => {
                0.25 * ((to - origin) / (from - origin)).ln() / (to - origin)
            }
        }
    }

    /// The inner product with a piece.
    pub fn inner(&self, piece: &Piece) -> f64 {
        match *self {
            Self::Power { piece: own, factor } => {
                factor * own.cosine(piece) * own.norm() * piece.norm()
            }
            Self::Exponential { rate, to } => {
                let end = piece.to.min(to);
                let start = piece.negligible_before(end).max(end - NEGLIGIBLE / rate);
                let panel = |t: f64| (0.5 * t).min(2.0 / rate);
                integral(start, end, panel, |t| piece.inside(t) * self.at(t))
            }
            // With t = origin + y^2 the root in the density cancels: dt = 2 y dy.
            Self::InverseSqrt { origin, from, to } => {
                let end = piece.to.min(to);
                let start = piece.negligible_before(end).max(from);
                if start >= end {
                    return 0.0;
                }
                integral(
                    (start - origin).sqrt(),
                    (end - origin).sqrt(),
                    |y| 0.5 * y,
                    |y| piece.inside(origin + y * y) / (to - origin).sqrt(),
                )
            }
        }
    }
}

/// `exp(-NEGLIGIBLE)` is far below the rounding of 1.
pub(super) const NEGLIGIBLE: f64 = 40.0;

impl Piece {
    /// The time below which the integral up to `end` is negligible, at least `from`.
    pub fn negligible_before(&self, end: f64) -> f64 {
        self.from.max(end * (-NEGLIGIBLE / (self.gamma + 1.0)).exp())
    }
}

/// The integral of a smooth function, by Gauss and Legendre on panels from the end downwards;
/// `panel` is the width of the panel that ends at a place.
pub(super) fn integral(
    start: f64,
    end: f64,
    panel: impl Fn(f64) -> f64,
    function: impl Fn(f64) -> f64,
) -> f64 {
    let rule = gauss();
    let (mut total, mut high) = (0.0, end);
    while high > start {
        let low = (high - panel(high)).max(start);
        let (middle, half) = (0.5 * (low + high), 0.5 * (high - low));
        let both = |&(node, weight): &(f64, f64)| {
            weight * (function(middle - half * node) + function(middle + half * node))
        };
        total += half * rule.iter().map(both).sum::<f64>();
        // A panel below the rounding of its end would not move it.
        if low >= high {
            break;
        }
        high = low;
    }
    total
}

/// The positive nodes of the Gauss-Legendre rule of 20 points, with their weights.
///
/// The nodes are the roots of the Legendre polynomial of that degree, found by Newton's method.
fn gauss() -> [(f64, f64); POINTS / 2] {
    std::array::from_fn(|i| {
        let degree = POINTS as f64;
        let mut x = (std::f64::consts::PI * (i as f64 + 0.75) / (degree + 0.5)).cos();
        let mut slope = 1.0;
        for _ in 0..8 {
            // P_k from P_(k-1) and P_(k-2), by the three-term recurrence.
            let (mut before, mut value) = (1.0, x);
            for k in 2..=POINTS {
                let k = k as f64;
                (before, value) = (value, ((2.0 * k - 1.0) * x * value - (k - 1.0) * before) / k);
            }
            slope = degree * (before - x * value) / (1.0 - x * x);
            x -= value / slope;
        }
        (x, 2.0 / ((1.0 - x * x) * slope * slope))
    })
}

const POINTS: usize = 20;
