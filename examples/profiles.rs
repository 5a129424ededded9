//! The profiles of averages, from numbers alone: how much weight the start has, how old the rest
//! is, and how much noise is averaged down.
//!
//! ```text
//! cargo run --example profiles
//! cargo run --example profiles -- --steps 5400 --rule "ema(0.999)" --rule "power(sigma_rel=0.1)"
//! cargo run --example profiles -- --rule "window(5 snapshots, 1000 steps)" --plot
//! ```
//!
//! It trains nothing and needs no training stack:
//! `-p burn-ema-examples --no-default-features --features flex` builds it.

mod shared; // the standard output of a reader that may leave

use std::io::Write;

use anyhow::{Result, ensure};
use burn_ema::{AverageConfig, Profile, Rule};
use clap::Parser;

/// The rules that are shown by default: every kind of rule, with the numbers in use.
const RULES: [&str; 18] = [
    "ema(0.999)",
    "ema(0.9999)",
    "ema(0.9999, debias)",
    "half-life(1000 steps)",
    "warm-up(10, max=0.9999)",
    "inverse-gamma(1, power=0.6667, max=0.9999)",
    "inverse-gamma(1, power=0.75, max=0.9999)",
    "annealing(1, max=1)",
    "annealing(100, max=0.9998)",
    "exp-ramp(0.9999, tau=2000)",
    "half-life-ramp(0.05)",
    "power(sigma_rel=0.05)",
    "power(sigma_rel=0.1)",
    "equal",
    "window(5 snapshots, 1000 steps)",
    "cosine(0.996, end=1, steps=20000)",
    "linear(0.999, end=0.9999, steps=20000)",
    "bema(rho=10, gamma=1, eta=0.2, kappa=0.5)",
];

/// The width and the height of a plot in characters.
const COLUMNS: usize = 40;
const LINES: usize = 8;

#[derive(Parser)]
#[command(about = "Print what averages are made of: how much weight each past step has")]
#[command(after_help = "\
start      the weight of the weights that the average started from
mean       where the weights stand on average, as a share of the steps: 1 is now
deviation  the standard deviation of that
half-life  the newest so many steps have half of all weight
effective  as much independent noise is left as in the mean of so many steps")]
struct Args {
    /// The steps of the training
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    steps: u64,
    /// A rule such as "power(sigma_rel=0.1)"; several make several lines [default: one of each
    /// kind]
    #[arg(long, value_name = "RULE")]
    rule: Vec<Rule>,
    /// The steps from one update to the next
    #[arg(long, default_value_t = 1)]
    every: u64,
    /// The step after which it averages
    #[arg(long, default_value_t = 0)]
    start: u64,
    /// The samples of a step, for rules that count samples
    #[arg(long, value_name = "SAMPLES")]
    samples_per_step: Option<u64>,
    /// The steps of an epoch, for rules that count epochs
    #[arg(long, value_name = "STEPS")]
    steps_per_epoch: Option<u64>,
    /// Plot the weight of the steps of each rule, oldest on the left
    #[arg(long)]
    plot: bool,
    /// Print the table in Markdown
    #[arg(long, conflicts_with = "plot")]
    markdown: bool,
    /// Print lines of step,weight for one rule, the start and then every update
    #[arg(long, requires = "rule", conflicts_with_all = ["plot", "markdown"])]
    csv: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let rules = match args.rule.is_empty() {
        true => RULES.iter().map(|rule| rule.parse()).collect::<Result<_, _>>()?,
        false => args.rule.clone(),
    };
    let profile = |rule: Rule| -> Result<_> {
        let config = AverageConfig::new(rule.clone()).with_every(args.every).with_start(args.start);
        let config = config.with_samples_per_step(args.samples_per_step);
        let config = config.with_steps_per_epoch(args.steps_per_epoch);
        Ok((rule.to_string(), config.profile_after(args.steps)?))
    };
    let profiles = rules.into_iter().map(profile).collect::<Result<Vec<_>>>()?;

    let mut out = shared::Out;
    let began = args.start.min(args.steps) as f64;
    if args.csv {
        ensure!(profiles.len() == 1, "--csv takes one --rule, found {}", profiles.len());
        writeln!(out, "step,weight")?;
        let (_, profile) = &profiles[0];
        let start = (began, profile.mass_on_start());
        for (step, weight) in [&start].into_iter().chain(profile.weights()) {
            writeln!(out, "{step},{weight}")?;
        }
        return Ok(());
    }
    let rows = profiles.iter().map(|(rule, profile)| (rule, cells(profile, args.steps as f64)));
    if args.markdown {
        writeln!(out, "| rule | start | mean | deviation | half-life | effective steps |")?;
        writeln!(out, "|---|---|---|---|---|---|")?;
        for (rule, cells) in rows {
            writeln!(out, "| `{rule}` | {} |", cells.join(" | "))?;
        }
        return Ok(());
    }
    let width = profiles.iter().map(|(rule, _)| rule.len()).max().unwrap_or(0);
    let header = ["start", "mean", "deviation", "half-life", "effective"].map(str::to_owned);
    let after = format!("after {} steps", args.steps);
    let width = width.max(after.len());
    for (rule, [start, mean, deviation, half_life, effective]) in
        [(&after, header)].into_iter().chain(rows)
    {
        writeln!(
            out,
            "{rule:width$}  {start:>6}  {mean:>6}  {deviation:>9}  {half_life:>9}  {effective:>9}"
        )?;
    }
    if args.plot {
        for (rule, profile) in &profiles {
            writeln!(out, "\n{rule}")?;
            plot(&mut out, profile, began, args.steps as f64)?;
        }
    }
    Ok(())
}

/// Start, mean, deviation, half-life and effective steps of a profile.
fn cells(profile: &Profile, steps: f64) -> [String; 5] {
    let start = match profile.mass_on_start() {
        // The weights have the sum 1, in which less than this is rounding.
        mass if mass.abs() < f64::EPSILON => "0".to_owned(),
        mass if mass.abs() < 5e-4 => format!("{mass:.0e}"),
        mass => format!("{mass:.3}"),
    };
    let number = |steps: f64| match steps < 100.0 {
        true => format!("{steps:.1}"),
        false => format!("{steps:.0}"),
    };
    [
        start,
        format!("{:.3}", 1.0 - profile.mean_age() / steps),
        match profile.standard_deviation() {
            // Negative weights can leave none.
            0.0 if profile.mass_on_start() < 0.0 => "none".to_owned(),
            deviation => format!("{:.3}", deviation / steps),
        },
        number(profile.half_life()),
        number(profile.effective_steps()),
    ]
}

/// Draws the weight of the steps in columns of equally many steps.
fn plot(out: &mut impl Write, profile: &Profile, began: f64, steps: f64) -> Result<()> {
    let mut columns = [0.0; COLUMNS];
    let mut from = began;
    for &(to, weight) in profile.weights() {
        // An update stands for all the steps that it covers, which may be in several columns.
        let [first, last] = [from, to].map(|step| step / steps * COLUMNS as f64);
        let covered = columns.iter_mut().enumerate().take(last.ceil() as usize);
        for (index, column) in covered.skip(first as usize) {
            let inside = last.min(index as f64 + 1.0) - first.max(index as f64);
            *column += weight * inside / (last - first);
        }
        from = to;
    }
    let top = columns.iter().copied().fold(0.0, f64::max);
    for line in (0..LINES).rev() {
        let label = if line == LINES - 1 { format!("{:.1} %", 100.0 * top) } else { String::new() };
        // In whole characters; what rounds to none is a dot on the lowest line.
        let filled = |&weight: &f64| match weight / top * LINES as f64 - line as f64 {
            height if height >= 0.5 => '#',
            height if height > 0.0 && line == 0 => '.',
            _ => ' ',
        };
        let drawn: String = columns.iter().map(filled).collect();
        writeln!(out, "{label:>8} |{}", drawn.trim_end())?;
    }
    writeln!(out, "{:>8} +{}", "0 %", "-".repeat(COLUMNS))?;
    writeln!(out, "{:>8}  {:<20}{:>20}", "step", 0, steps)?;
    Ok(())
}
