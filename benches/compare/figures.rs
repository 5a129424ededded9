//! What becomes of times: medians, ratios of rounds, and whether they reach a bar.

use std::fmt;

/// The middle of some numbers, the mean of the two middle ones where they are even.
///
/// Those that are no number are left out; none is left of none.
pub fn median(numbers: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut numbers: Vec<_> = numbers.into_iter().filter(|number| !number.is_nan()).collect();
    numbers.sort_by(f64::total_cmp);
    let half = numbers.len() / 2;
    match numbers.len() % 2 {
        1 => Some(numbers[half]),
        _ => Some(f64::midpoint(*numbers.get(half.checked_sub(1)?)?, numbers[half])),
    }
}

/// The least and the most of some numbers, without those that are no number; none is left of none.
pub fn range(numbers: impl IntoIterator<Item = f64>) -> Option<[f64; 2]> {
    numbers.into_iter().filter(|number| !number.is_nan()).fold(None, |range, number| {
        let [least, most] = range.unwrap_or([number; 2]);
        Some([f64::min(least, number), f64::max(most, number)])
    })
}

/// A number made of the times of each round.
///
/// A ratio of two times is taken within each round, so that a machine that is slow for a while is
/// slow for both.
/// The time of each of the rivals is replaced by that of the one with the lowest median over all
/// rounds. The minimum of each round would favour whichever had less interference.
pub fn over_rounds(
    rounds: &[Vec<f64>],
    rivals: &[usize],
    number: impl Fn(&[f64]) -> f64,
) -> Vec<f64> {
    let median_of = |place: usize| median(rounds.iter().map(|round| round[place]));
    let medians = rivals.iter().filter_map(|&place| Some((place, median_of(place)?)));
    let fastest = medians.min_by(|(_, one), (_, other)| one.total_cmp(other));
    let of_round = |round: &Vec<f64>| {
        let mut times = round.clone();
        if let Some((fastest, _)) = fastest {
            rivals.iter().for_each(|&rival| times[rival] = round[fastest]);
        }
        number(&times)
    };
    rounds.iter().map(of_round).collect()
}

/// What a number should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bar {
    AtLeast(f64),
    AtMost(f64),
    /// There is none: the figure is for information.
    None,
}

impl Bar {
    /// Whether a number reaches it, where there is one.
    pub fn is_reached(self, number: f64) -> Option<bool> {
        match self {
            Self::AtLeast(bar) => Some(number >= bar),
            Self::AtMost(bar) => Some(number <= bar),
            Self::None => None,
        }
    }
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(bar) => write!(f, "at least {bar}"),
            Self::AtMost(bar) => write!(f, "at most {bar}"),
            Self::None => Ok(()),
        }
    }
}

/// A number with its unit, in three digits or so.
pub fn show(number: f64, unit: Unit) -> String {
    let steps: &[(f64, &str)] = match unit {
        Unit::Waits => return format!("{number:.2}"),
        Unit::Nanoseconds => &[(1e9, "s"), (1e6, "ms"), (1e3, "µs"), (1.0, "ns")],
        Unit::Bytes => &[(1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B")],
    };
    let (size, name) = steps.iter().find(|(size, _)| number >= *size).unwrap_or(&(1.0, "ns"));
    let number = number / size;
    let digits = if number < 10.0 { 2 } else { usize::from(number < 100.0) };
    format!("{number:.digits$} {name}")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Nanoseconds,
    Bytes,
    /// How often the host waits for the device.
    #[allow(dead_code)] // for the measurements on a GPU
    Waits,
}

/// A table in Markdown.
pub fn table<const N: usize>(
    head: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let line = |cells: [String; N]| format!("| {} |\n", cells.join(" | "));
    let mut table = line(head.map(str::to_owned)) + &line(head.map(|_| "---".to_owned()));
    table.extend(rows.into_iter().map(line));
    table
}
