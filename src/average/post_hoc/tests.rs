use proptest::prelude::*;

use super::*;

const SOLVES: [Solve; 2] = [Solve::Published, Solve::Constrained];

fn gamma_of(sigma_rel: f64) -> f64 {
    Rule::gamma_of(sigma_rel).unwrap()
}

fn power(sigma_rel: f64) -> Target {
    Target::PowerFunction { sigma_rel }
}

/// Averages of these widths, stored every `every` steps up to `last`.
fn grid(last: u32, every: usize, sigmas: &[f64]) -> Vec<Stored> {
    let steps = (every as u32..=last).step_by(every).map(f64::from);
    steps
        .flat_map(|step| sigmas.iter().map(move |&sigma| Stored { step, gamma: gamma_of(sigma) }))
        .collect()
}

fn refusal(stored: &[Stored], target: Target, at: f64) -> String {
    mix(stored, &target, at, Solve::Published).unwrap_err().to_string()
}

/// The published inner product of two whole power functions.
fn published_inner(a: &Stored, b: &Stored) -> f64 {
    let (early, late) = if a.step < b.step { (a, b) } else { (b, a) };
    (early.gamma + 1.0) * (late.gamma + 1.0) * (early.step / late.step).powf(late.gamma)
        / ((early.gamma + late.gamma + 1.0) * late.step)
}

#[derive(Deserialize)]
struct Oracle {
    trajectory: Vec<Vec<f64>>,
    snapshots: Vec<Snapshot>,
    targets: Vec<Case>,
}

#[derive(Deserialize)]
struct Snapshot {
    gamma: f64,
    sigma_rel: f64,
    step: f64,
    average: Vec<f64>,
}

#[derive(Deserialize)]
struct Case {
    sigma_rel: f64,
    gamma: f64,
    coefficients_sum_to_one: Vec<f64>,
    squared_profile_error_before_scaling: f64,
    synthesised: Vec<f64>,
}

#[test]
fn the_coefficients_are_those_of_the_oracle() {
    let oracle: Oracle =
        serde_json::from_str(include_str!("../../../tests/oracle/post_hoc.json")).unwrap();
    let at = (oracle.trajectory.len() - 1) as f64;
    let stored: Vec<Stored> =
        oracle.snapshots.iter().map(|s| Stored { step: s.step, gamma: s.gamma }).collect();
    for snapshot in &oracle.snapshots {
        assert!((gamma_of(snapshot.sigma_rel) - snapshot.gamma).abs() < 1e-12);
    }
    assert!(!oracle.targets.is_empty() && !oracle.snapshots.is_empty());
    for case in &oracle.targets {
        assert!((gamma_of(case.sigma_rel) - case.gamma).abs() < 1e-12);
        // Vectors of other lengths can ask for what no mix is near to.
        let mix = best(&stored, &power(case.sigma_rel), at, Solve::default()).unwrap();
        for (found, expected) in mix.coefficients().iter().zip(&case.coefficients_sum_to_one) {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
        let squares = case.coefficients_sum_to_one.iter().map(|x| x * x).sum::<f64>();
        assert!((mix.noise_gain() - squares.sqrt()).abs() < 1e-12);
        let error = mix.squared_error_before_scaling();
        assert!((error - case.squared_profile_error_before_scaling).abs() < 1e-14);
        for (i, expected) in case.synthesised.iter().enumerate() {
            let terms = mix.coefficients().iter().zip(&oracle.snapshots);
            let found: f64 = terms.map(|(x, snapshot)| x * snapshot.average[i]).sum();
            assert!((found - expected).abs() < 1e-12);
        }
    }
}

#[test]
fn exponents_are_the_published_ones() {
    // The largest roots of g^3 + 7 g^2 + (16 - s) g + 12 - s with s = sigma_rel^-2, in 40
    // digits, rounded.
    for (sigma_rel, gamma) in [
        (0.001, 996.99949899787),
        (0.01, 96.99489782370982),
        (0.05, 16.97219860230345),
        (0.1, 6.937203937601807),
        (0.2, 1.826213779895839),
        (0.28, 0.1693439937694988),
        (0.2886, 0.001560428814753696),
    ] {
        let found = gamma_of(sigma_rel);
        assert!((found - gamma).abs() < 4e-15 * (1.0 + gamma), "{sigma_rel}: {found}");
    }
}

#[test]
fn a_stored_average_is_made_of_itself() {
    let stored = grid(120, 10, &[0.05, 0.1, 0.2]);
    for (i, one) in stored.iter().enumerate() {
        for solve in SOLVES {
            let target = Target::PowerFunctionGamma { gamma: one.gamma };
            let mix = mix(&stored, &target, one.step, solve).unwrap();
            for (j, x) in mix.coefficients().iter().enumerate() {
                let expected = if i == j { 1.0 } else { 0.0 };
                assert!((x - expected).abs() < 1e-8, "{i} {j} {x}");
            }
            assert!(mix.relative_error() < 1e-7);
            assert!((mix.noise_gain() - 1.0).abs() < 1e-8);
        }
    }
}

#[test]
fn stored_averages_after_the_wanted_one_get_zero() {
    let stored = grid(64, 4, &[0.05, 0.1]);
    let mix_early = mix(&stored, &power(0.075), 40.0, Solve::Published).unwrap();
    let (until, after) = mix_early.coefficients().split_at(20);
    assert!(after.iter().all(|&x| x == 0.0));
    let alone = mix(&stored[..20], &power(0.075), 40.0, Solve::Published).unwrap();
    assert_eq!(until, alone.coefficients());
}

#[test]
fn the_order_of_the_stored_averages_does_not_matter() {
    let stored = grid(64, 4, &[0.05, 0.1]);
    let shuffled: Vec<Stored> = (0..32).map(|i| stored[(i * 13 + 5) % 32]).collect();
    let straight = mix(&stored, &power(0.075), 64.0, Solve::Published).unwrap();
    let mixed = mix(&shuffled, &power(0.075), 64.0, Solve::Published).unwrap();
    for i in 0..32 {
        let (a, b) = (mixed.coefficients()[i], straight.coefficients()[(i * 13 + 5) % 32]);
        assert!((a - b).abs() < 1e-13);
    }
}

fn targets(at: f64) -> Vec<Target> {
    vec![
        power(0.04),
        power(0.15),
        Target::PowerFunctionGamma { gamma: 3.0 },
        Target::Constant { decay: 1.0 - 10.0 / at },
        Target::Window { steps: at / 4.0 },
        Target::Window { steps: at * 0.37 },
        Target::Sqrt { steps: at / 4.0 },
        Target::Sqrt { steps: at * 0.37 },
    ]
}

#[test]
fn the_constraint_has_the_least_error_of_all_sums_of_one() {
    let stored = grid(64, 4, &[0.05, 0.1]);
    for target in targets(64.0) {
        let published = mix(&stored, &target, 64.0, Solve::Published).unwrap();
        let constrained = mix(&stored, &target, 64.0, Solve::Constrained).unwrap();
        assert!(constrained.relative_error() <= published.relative_error());
        let (before, norm) =
            (published.squared_error_before_scaling(), constrained.target.squared_norm());
        assert!(constrained.relative_error().powi(2) * norm >= before * (1.0 - 1e-12));
        assert_eq!(constrained.squared_error_before_scaling(), before);
    }
}

/// The reported error is the distance of the two profiles, measured by integration.
#[test]
fn the_reported_error_is_that_of_the_profiles() {
    for stored in [grid(64, 4, &[0.05, 0.1]), grid(64, 8, &[0.03, 0.1, 0.2])] {
        for (target, solve) in targets(64.0).iter().flat_map(|t| SOLVES.map(|s| (t, s))) {
            let mix = mix(&stored, target, 64.0, solve).unwrap();
            let mut ends: Vec<f64> = mix.target.parts.iter().map(Part::start).collect();
            ends.extend(stored.iter().map(|s| s.step));
            ends.push(0.0);
            ends.sort_by(f64::total_cmp);
            let over_all = |function: &dyn Fn(f64) -> f64| -> f64 {
                let pieces = ends.windows(2);
                pieces.map(|e| density::integral(e[0].max(1e-9), e[1], |t| t / 4.0, function)).sum()
            };
            let mass = over_all(&|t| mix.profile_at(t));
            assert!((mass - 1.0).abs() < 1e-7, "{target}: {mass}");
            assert!((over_all(&|t| mix.target_at(t)) - 1.0).abs() < 1e-7, "{target}");
            let error = over_all(&|t| (mix.profile_at(t) - mix.target_at(t)).powi(2));
            let norm = over_all(&|t| mix.target_at(t).powi(2));
            assert!((norm / mix.target.squared_norm() - 1.0).abs() < 1e-7, "{target}");
            let error = (error / norm).sqrt();
            assert!((error - mix.relative_error()).abs() < 1e-7, "{target}: {error}");
        }
    }
}

impl Part {
    fn start(&self) -> f64 {
        match *self {
            Self::Power { piece, .. } => piece.from,
            Self::Exponential { .. } => 0.0,
            Self::InverseSqrt { from, .. } => from,
        }
    }
}

/// Against integrals in 40 digits, rounded.
#[test]
fn inner_products_with_an_exponential_have_twelve_digits() {
    for (gamma, from, to, decay, at, expected) in [
        (0.0, 0.0, 64.0, 0.9, 64.0, 0.015625),
        (6.9, 0.0, 64.0, 0.9, 64.0, 0.05874143269032294),
        (6.9, 60.0, 64.0, 0.99, 100.0, 0.004328638546835577),
        (0.3, 0.0, 1000.0, 0.9999, 1000.0, 0.001006498015720369),
        (17.0, 0.0, 1000.0, 0.5, 1000.0, 0.017568509547779526),
        (1000.0, 0.0, 500.0, 0.99, 500.0, 0.010066323918757067),
        (2.5, 100.0, 4096.0, 0.001, 4096.0, 0.000854416690761622),
        (1.5, 0.0, 8.0, 0.999999, 1000000.0, 5.819798631032728e-07),
        (99.0, 0.0, 1000.0, 0.905, 1000.0, 0.05008024178456663),
    ] {
        let target = Target::Constant { decay }.profile(&[], at).unwrap();
        let found = target.parts[0].inner(&Piece { from, to, gamma });
        assert!((found / expected - 1.0_f64).abs() < 1e-12, "{gamma} {to}: {found}");
    }
}

/// Against integrals in 40 digits, rounded.
#[test]
fn inner_products_with_an_inverse_root_have_twelve_digits() {
    for (gamma, from, to, origin, first, at, expected) in [
        (0.0, 0.0, 64.0, 0.0, 4.0, 64.0, 0.01171875),
        (6.9, 0.0, 64.0, 32.0, 36.0, 64.0, 0.01804466303952365),
        (17.0, 60.0, 64.0, 32.0, 36.0, 64.0, 0.011027312863142028),
        (0.3, 0.0, 1000.0, 0.0, 1.0, 1000.0, 0.0008092653792392528),
        (1000.0, 0.0, 500.0, 100.0, 110.0, 500.0, 0.0012507811527225799),
        (2.5, 0.0, 2000.0, 1000.0, 1100.0, 4096.0, 0.0003350480042039825),
        (4.0, 0.0, 4096.0, 4000.5, 4001.0, 4096.0, 0.0010665153849667194),
        (4000.0, 0.0, 10000.0, 9900.0, 9901.0, 10000.0, 0.005064970187915706),
    ] {
        let part = Part::InverseSqrt { origin, from: first, to: at };
        let found = part.inner(&Piece { from, to, gamma });
        assert!((found / expected - 1.0_f64).abs() < 1e-12, "{gamma} {to}: {found}");
        let before = Piece { from: 0.0, to: first, gamma };
        assert_eq!(part.inner(&before), 0.0);
    }
}

/// The cosine against the published inner product, as a sum of pieces.
#[test]
fn increments_add_up_to_the_published_inner_products() {
    let stored = grid(40, 5, &[0.05, 0.1, 0.2]);
    for a in &stored {
        for b in &stored {
            let whole = |s: &Stored| Piece { from: 0.0, to: s.step, gamma: s.gamma };
            let inner = whole(a).cosine(&whole(b)) * whole(a).norm() * whole(b).norm();
            assert!((inner / published_inner(a, b) - 1.0).abs() < 1e-13);
        }
    }
    let (whole, gamma) = (Piece { from: 0.0, to: 40.0, gamma: 3.0 }, 3.0);
    let (low, high) = (Piece { to: 25.0, ..whole }, Piece { from: 25.0, ..whole });
    let other = Piece { from: 10.0, to: 35.0, gamma: 7.0 };
    let inner = |a: &Piece, b: &Piece| a.cosine(b) * a.norm() * b.norm();
    let share = (25.0f64 / 40.0).powf(gamma + 1.0);
    let sum = inner(&high, &other) + share * inner(&low, &other);
    assert!((sum / inner(&whole, &other) - 1.0).abs() < 1e-13);
    assert!((high.mass() + share - 1.0).abs() < 1e-15);
    assert_eq!(high.share_before(), share);
}

/// A noisy descent, its averages as a training stores them, and their mix.
struct Trial {
    path: Vec<f64>,
    stored: Vec<Stored>,
    averages: Vec<f64>,
}

impl Trial {
    fn new(every: usize) -> Self {
        let (mut w, mut noise) = (3.0, 1u64);
        let path = Vec::from_iter((0..512).map(|_| {
            noise = noise.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let uniform = (noise >> 11) as f64 / (1u64 << 53) as f64 - 0.5;
            w += -0.02 * w + 0.3 * uniform;
            w
        }));
        let stored = grid(512, every, &[0.05, 0.1]);
        let averages = stored.iter().map(|stored| {
            let mut average = 0.0;
            for (t, w) in (1..=stored.step as usize).zip(&path) {
                let keep = (1.0 - 1.0 / t as f64).powf(stored.gamma + 1.0);
                average = keep * average + (1.0 - keep) * w;
            }
            average
        });
        Self { averages: averages.collect(), path, stored }
    }

    /// The value that the mix gives, and the greatest distance to the wanted average that its error
    /// allows: by Cauchy and Schwarz, error times the norm of the weights around any constant.
    fn mixed(&self, target: &Target) -> (f64, f64) {
        let mix = mix(&self.stored, target, 512.0, Solve::Published).unwrap();
        let made = mix.coefficients().iter().zip(&self.averages).map(|(x, a)| x * a).sum();
        let mean = self.path.iter().sum::<f64>() / 512.0;
        let spread = self.path.iter().map(|w| (w - mean).powi(2)).sum::<f64>();
        (made, mix.relative_error() * (mix.target.squared_norm() * spread).sqrt())
    }

    /// The sum of the weights times the share of each step.
    fn weighted(&self, share: impl Fn(f64) -> f64) -> f64 {
        let shares: Vec<f64> = (1..=512).map(|t| share(f64::from(t))).collect();
        assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        self.path.iter().zip(shares).map(|(w, share)| w * share).sum()
    }
}

#[test]
fn a_mix_makes_the_moving_average_of_constant_decay() {
    let trial = Trial::new(32);
    let decay: f64 = 0.98;
    let direct =
        trial.weighted(|t| (1.0 - decay) * decay.powf(512.0 - t) / (1.0 - decay.powf(512.0)));
    // The recurrence with bias correction gives the same.
    let v = trial.path.iter().fold(0.0, |v, w| decay * v + (1.0 - decay) * w);
    assert!((v / (1.0 - decay.powi(512)) - direct).abs() < 1e-12);
    let (made, bound) = trial.mixed(&Target::Constant { decay });
    assert!((made - direct).abs() <= bound, "{made} {direct} {bound}");
    assert!((made - direct).abs() < 2e-3, "{made} {direct}");
}

#[test]
fn a_mix_makes_the_mean_of_a_window() {
    let trial = Trial::new(32);
    let (mut aligned, mut astray) = (0.0, 0.0);
    for steps in [128.0, 144.0, 256.0, 272.0] {
        let target = Target::Window { steps };
        let direct = trial.weighted(|t| if t > 512.0 - steps { 1.0 / steps } else { 0.0 });
        let (made, bound) = trial.mixed(&target);
        assert!((made - direct).abs() <= bound, "{steps}: {made} {direct} {bound}");
        let error = mix(&trial.stored, &target, 512.0, Solve::Published).unwrap().relative_error();
        *(if steps % 32.0 == 0.0 { &mut aligned } else { &mut astray }) += error;
    }
    assert!(aligned < 0.5 * astray, "{aligned} {astray}");
}

#[test]
fn a_mix_emulates_the_decay_of_the_learning_rate() {
    let steps = 256.0;
    let begin = 512.0 - steps;
    let root = |t: f64| ((t - begin).max(0.0) / steps).sqrt();
    let mut before = f64::INFINITY;
    for every in [64, 16, 4, 1] {
        let trial = Trial::new(every);
        let target = Target::Sqrt { steps };
        let (made, bound) = trial.mixed(&target);
        // With the density levelled up to the first stored step of the window ...
        let first = begin + every as f64;
        let ramp = |t: f64| {
            if t < first { root(first) * (t - begin).max(0.0) / every as f64 } else { root(t) }
        };
        let levelled = trial.weighted(|t| ramp(t) - ramp(t - 1.0));
        assert!((made - levelled).abs() <= bound, "{every}: {made} {levelled} {bound}");
        // ... and as it is: the share of the weights after a time is the wanted factor, at the
        // stored steps and in between ever better.
        let mix = mix(&trial.stored, &target, 512.0, Solve::Published).unwrap();
        let survival = |t: f64| -> f64 {
            let later = mix.coefficients().iter().zip(&trial.stored);
            let share = |s: &Stored| 1.0 - (t / s.step).min(1.0).powf(s.gamma + 1.0);
            later.map(|(x, stored)| x * share(stored)).sum()
        };
        let factor = |t: f64| 1.0 - root(t);
        let gap = |t: i32| (survival(f64::from(t)) - factor(f64::from(t))).abs();
        let worst = (1..=512).map(gap).fold(0.0, f64::max);
        assert!(worst < 0.6 * before, "{every}: {worst} {before}");
        before = worst;
    }
    assert!(before < 1e-3, "{before}");
}

#[test]
fn no_averaging_is_the_last_step() {
    let mix =
        mix(&grid(16, 1, &[0.05, 0.1]), &Target::Constant { decay: 0.0 }, 16.0, Solve::Published);
    let mix = mix.unwrap();
    assert_eq!(mix.target_at(15.5), 1.0);
    assert_eq!(mix.target_at(14.5), 0.0);
    assert!((mix.profile_at(15.5) - 1.0).abs() < 0.05);
    assert!(mix.relative_error() < 0.2);
}

#[test]
fn averages_of_one_width_are_independent() {
    let stored = grid(4096, 32, &[0.1]);
    let mix = mix(&stored, &power(0.09), 4096.0, Solve::Published).unwrap();
    assert_eq!(mix.condition(), 1.0);
}

#[test]
fn huge_exponents_long_trainings_and_equal_widths_stay_finite() {
    let mut stored = grid(1000, 50, &[0.001, 0.1]);
    stored.extend(grid(1000, 40, &[0.05]).iter().map(|s| Stored { gamma: s.gamma + 1e-9, ..*s }));
    stored.extend(grid(1000, 50, &[0.05]));
    for scale in [1e-6, 1.0, 1e9, 1e200] {
        let scaled: Vec<Stored> =
            stored.iter().map(|s| Stored { step: s.step * scale, ..*s }).collect();
        for (sigma_rel, solve) in [0.001, 0.05, 0.08, 0.15].map(|s| SOLVES.map(|v| (s, v))).concat()
        {
            let mix = mix(&scaled, &power(sigma_rel), 1000.0 * scale, solve).unwrap();
            assert!(mix.relative_error() < 0.1, "{sigma_rel} {}", mix.relative_error());
            assert!((mix.coefficients().iter().sum::<f64>() - 1.0).abs() < 1e-9);
            assert!(mix.condition().is_finite());
        }
    }
    // Hardly anything here can be represented, but nothing panics or goes on for ever.
    for sigma_rel in [f64::MIN_POSITIVE, 1e-300, 1e-150] {
        let gamma = gamma_of(sigma_rel);
        for at in [1e-300, 1.0, 5e13, 1e300] {
            let extreme = [(at, gamma), (at, 7.0), (1e-301, 1e308), (50.0, 7.0)];
            let extreme = extreme.map(|(step, gamma)| Stored { step, gamma });
            for target in targets(at).into_iter().chain([Target::Constant { decay: 1e-300 }]) {
                for target in [target, power(sigma_rel)] {
                    if let Ok(mix) = mix(&extreme, &target, at, Solve::Published) {
                        assert!(mix.coefficients().iter().all(|x| x.is_finite()));
                    }
                }
            }
        }
        assert!(mix(&stored, &power(sigma_rel), 1000.0, Solve::Published).is_err());
    }
}

#[test]
fn averages_of_almost_one_width_share_a_coefficient() {
    let stored = grid(1000, 50, &[0.05, 0.1]);
    let twins = stored.iter().flat_map(|s| [*s, Stored { gamma: s.gamma + 1e-9, ..*s }]);
    let twins: Vec<Stored> = twins.collect();
    for target in targets(1000.0) {
        for solve in SOLVES {
            let alone = mix(&stored, &target, 1000.0, solve).unwrap();
            let shared = mix(&twins, &target, 1000.0, solve).unwrap();
            assert!((shared.relative_error() - alone.relative_error()).abs() < 1e-6);
            for (pair, x) in shared.coefficients().chunks(2).zip(alone.coefficients()) {
                assert!((pair[0] - 0.5 * x).abs() < 1e-5, "{target}: {pair:?} {x}");
                assert!((pair[1] - 0.5 * x).abs() < 1e-5, "{target}: {pair:?} {x}");
            }
        }
    }
}

/// The steps after the last stored one are in no mix, and the error says so.
#[test]
fn the_error_grows_with_the_steps_that_are_in_no_stored_average() {
    let stored = grid(64, 4, &[0.05, 0.1]);
    let error = |at| mix(&stored, &power(0.15), at, Solve::default()).unwrap().relative_error();
    assert!(error(64.0) < 0.01);
    assert!(error(64.0) < error(65.0) && error(65.0) < error(66.0));
    assert!(mix(&stored, &power(0.15), 90.0, Solve::default()).is_err());
}

/// The cost of such a system is the cube of its size.
#[test]
fn widths_that_were_stored_at_other_steps_make_one_system_which_is_limited() {
    let unaligned = |count: usize| -> Vec<Stored> {
        let of = |sigma: f64, first: f64| {
            let gamma = gamma_of(sigma);
            (1..=count).map(move |i| Stored { step: 10.0 * i as f64 - first, gamma })
        };
        of(0.05, 0.0).chain(of(0.1, 5.0)).collect()
    };
    let at = |stored: &[Stored]| stored.iter().map(|s| s.step).fold(0.0, f64::max);
    let within = unaligned(SYSTEM_LIMIT / 2);
    mix(&within, &power(0.15), at(&within), Solve::Published).unwrap();
    let beyond = unaligned(SYSTEM_LIMIT / 2 + 1);
    assert_eq!(
        mix(&beyond, &power(0.15), at(&beyond), Solve::Published).unwrap_err().to_string(),
        "the number of stored averages whose steps interlock is 130, expected at most 128 \
         (averages of all widths at the same steps do not)",
    );
    let aligned = grid(4000, 10, &[0.05, 0.1]);
    mix(&aligned, &power(0.15), 4000.0, Solve::Published).unwrap();
}

#[test]
fn a_step_before_the_first_stored_one_is_refused() {
    let stored = grid(16, 4, &[0.05, 0.1]);
    for (at, expected) in [
        (3.0, "3, expected a number from 4, the first stored step"),
        (0.0, "0, expected a number from 4, the first stored step"),
        (-4.0, "-4, expected a number from 4, the first stored step"),
        (f64::NAN, "NaN, expected a number from 4, the first stored step"),
        (f64::INFINITY, "inf, expected a number from 4, the first stored step"),
    ] {
        let expected = format!("the step of the wanted average is {expected}");
        assert_eq!(refusal(&stored, power(0.1), at), expected);
    }
    assert_eq!(
        refusal(&[], power(0.1), 4.0),
        "the number of stored averages is 0, expected at least 1",
    );
}

#[test]
fn stored_averages_that_cannot_be_are_refused_with_their_number() {
    let good = Stored { step: 4.0, gamma: 7.0 };
    for step in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert_eq!(
            refusal(&[good, Stored { step, ..good }], power(0.1), 4.0),
            format!("the step of stored average 1 is {step}, expected a finite number above 0"),
        );
    }
    for gamma in [-0.5, f64::NAN, f64::INFINITY] {
        assert_eq!(
            refusal(&[Stored { gamma, ..good }, good], power(0.1), 4.0),
            format!(
                "the exponent gamma of stored average 0 is {gamma}, \
                 expected a finite number of at least 0"
            ),
        );
    }
    let later = Stored { step: 8.0, gamma: 7.0 };
    assert_eq!(
        refusal(&[good, later, good], power(0.1), 8.0),
        "stored average 2 is that of step 4 and gamma 7 again, like number 0, \
         expected another step or width",
    );
    let zero = Stored { step: 4.0, gamma: 0.0 };
    assert!(
        refusal(&[zero, good, Stored { gamma: -0.0, ..zero }], power(0.1), 4.0)
            .starts_with("stored average 2 is that of step 4 and gamma 0 again, like number 0"),
    );
}

#[test]
fn targets_outside_their_ranges_are_refused_with_their_value() {
    let stored = grid(16, 4, &[0.05, 0.1]);
    let refused = |target: Target, what: &str, found: f64, expected: &str| {
        assert_eq!(
            refusal(&stored, target, 16.0),
            format!("{what} of the wanted average is {found}, expected {expected}"),
        );
    };
    for sigma_rel in [0.0, -0.1, 0.3, 0.2887, f64::NAN, f64::INFINITY] {
        let range = "a number in (0, 1 / sqrt(12)], which is 0.2887";
        refused(power(sigma_rel), "sigma_rel", sigma_rel, range);
    }
    for gamma in [-0.1, f64::NAN, f64::INFINITY] {
        let target = Target::PowerFunctionGamma { gamma };
        refused(target, "gamma", gamma, "a finite number of at least 0");
    }
    for decay in [-0.1, 1.0, f64::NAN, f64::INFINITY] {
        refused(Target::Constant { decay }, "decay", decay, "a number in [0, 1)");
    }
    for steps in [0.0, -1.0, 16.5, f64::NAN, f64::INFINITY] {
        for target in [Target::Window { steps }, Target::Sqrt { steps }] {
            refused(target, "the number of steps", steps, "a number in (0, 16]");
        }
    }
}

#[test]
fn a_mix_that_is_another_average_is_refused() {
    let stored = grid(16, 4, &[0.05]);
    assert_eq!(
        refusal(&stored, power(0.005), 16.0),
        "the relative error of the mix for power(sigma_rel=0.005) at step 16 is 0.871, expected at \
         most 0.5 (averages of another width too, or at closer steps, help)",
    );
    let mix = mix(&stored, &power(0.04), 16.0, Solve::Published).unwrap();
    let error = mix.relative_error();
    assert!(error > 0.05 && error < 0.3, "{error}");
    assert_eq!(mix.clone().require(error).unwrap().coefficients(), mix.coefficients());
    for limit in [0.05, f64::NAN] {
        assert_eq!(
            mix.clone().require(limit).unwrap_err().to_string(),
            format!(
                "the relative error of the mix for power(sigma_rel=0.04) at step 16 is {error:.3}, \
                 expected at most {limit} (averages of another width too, or at closer steps, \
                 help)"
            ),
        );
    }
}

#[test]
fn targets_print_in_a_short_form_and_are_saved() {
    for (target, text) in [
        (power(0.1), "power(sigma_rel=0.1)"),
        (Target::PowerFunctionGamma { gamma: 3.0 }, "power(gamma=3)"),
        (Target::Constant { decay: 0.99 }, "ema(0.99, debias)"),
        (Target::Window { steps: 100.0 }, "window(100 steps)"),
        (Target::Sqrt { steps: 100.0 }, "sqrt(100 steps)"),
    ] {
        assert_eq!(target.to_string(), text);
        let saved = serde_json::to_string(&target).unwrap();
        assert_eq!(serde_json::from_str::<Target>(&saved).unwrap(), target);
    }
}

/// Averages of a few widths at any steps.
fn any_stored() -> impl Strategy<Value = Vec<Stored>> {
    prop::collection::btree_set((1u32..300, 0usize..3), 1..40).prop_map(|set| {
        let widths = [0.05, 0.1, 0.2].map(gamma_of);
        set.into_iter()
            .map(|(step, width)| Stored { step: f64::from(step), gamma: widths[width] })
            .collect()
    })
}

proptest! {
    #[test]
    fn the_coefficients_sum_to_one(stored in any_stored(), which in 0usize..8, last in 0usize..40) {
        let at = stored[last.min(stored.len() - 1)].step;
        let target = &targets(at.max(20.0))[which];
        let [published, constrained] = SOLVES.map(|solve| mix(&stored, target, at, solve));
        for mix in [&published, &constrained].into_iter().flatten() {
            let sum = mix.coefficients().iter().sum::<f64>();
            prop_assert!((sum - 1.0).abs() < 1e-11 * (1.0 + mix.noise_gain()), "{sum}");
            prop_assert!(mix.relative_error() <= LIMIT);
            prop_assert!(mix.condition() >= 1.0);
        }
        if let (Ok(published), Ok(constrained)) = (&published, &constrained) {
            prop_assert!(constrained.relative_error() <= published.relative_error() + 1e-12);
        }
    }

    /// The published equations hold: `A x` is in proportion to `b`, and under the constraint
    /// `A x - b` is the same number in every row.
    #[test]
    fn the_equations_hold(stored in any_stored(), sigma_rel in 0.03..0.25) {
        let at = stored.iter().map(|s| s.step).fold(0.0, f64::max);
        let wanted = Stored { step: at, gamma: gamma_of(sigma_rel) };
        let row = |mix: &Mix, i: usize| -> f64 {
            let terms = mix.coefficients().iter().zip(&stored);
            terms.map(|(x, other)| x * published_inner(&stored[i], other)).sum()
        };
        let b = |i: usize| published_inner(&stored[i], &wanted);
        let scale = published_inner(&wanted, &wanted);
        for solve in SOLVES {
            let Ok(mix) = mix(&stored, &power(sigma_rel), at, solve) else { continue };
            let newest = stored.iter().position(|s| s.step == at).unwrap();
            for i in 0..stored.len() {
                let gap = match solve {
                    Solve::Published => row(&mix, i) - b(i) * row(&mix, newest) / b(newest),
                    Solve::Constrained => row(&mix, i) - b(i) - row(&mix, newest) + b(newest),
                };
                let large = 1e-10 * scale * (1.0 + mix.noise_gain());
                prop_assert!(gap.abs() < large, "{i}: {gap}");
            }
        }
    }
}
