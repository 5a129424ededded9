//! Several ways to do the same, timed in turn, and what is claimed of their times.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use serde_json::{Value, json};

use crate::figures::{Bar, Unit, median, over_rounds, range, show, table};

/// How long one runs before it is another's turn, in nanoseconds, where once does not take longer.
const TURN: f64 = 2e8;

/// How many rounds there are at least, however long they take.
const LEAST_ROUNDS: usize = 3;

/// Threads of the one before may still look out for work.
const PAUSE: Duration = Duration::from_millis(10);

/// One way to do it.
pub struct Contestant {
    name: String,
    /// What so many repetitions come to, in the unit of the contest.
    run: Box<dyn FnMut(usize) -> Result<f64>>,
    repeat: usize,
    warms_up: bool,
}

impl Contestant {
    /// One that measures the nanoseconds of so many repetitions.
    pub fn new(name: &str, run: impl FnMut(usize) -> Result<f64> + 'static) -> Self {
        Self { name: name.to_owned(), run: Box::new(run), repeat: 1, warms_up: true }
    }

    /// One whose repetitions are timed here.
    pub fn timed(name: &str, mut once: impl FnMut() -> Result<()> + 'static) -> Self {
        Self::new(name, move |repeat| {
            let start = Instant::now();
            (0..repeat).try_for_each(|_| once())?;
            Ok(start.elapsed().as_secs_f64() * 1e9)
        })
    }

    /// One that is run once a turn, and measures something.
    pub fn once(name: &str, mut once: impl FnMut() -> Result<f64> + 'static) -> Self {
        Self { warms_up: false, ..Self::new(name, move |_| once()) }
    }

    /// Runs until it is warm, to see how often it fits into a turn.
    fn warm_up(&mut self) -> Result<()> {
        if !self.warms_up {
            return Ok(());
        }
        // The first time may take seconds on a GPU, whose kernels are compiled and chosen then.
        (self.run)(1)?;
        let (mut taken, mut fastest) = (0.0, f64::INFINITY);
        while taken < TURN {
            let last = (self.run)(self.repeat)?;
            taken += last;
            fastest = fastest.min(last / self.repeat as f64);
            self.repeat = (TURN / 8.0 / fastest).clamp(1.0, 2.0 * self.repeat as f64) as usize;
        }
        self.repeat = (TURN / fastest).max(1.0) as usize;
        Ok(())
    }

    /// What one repetition comes to, the mean over a turn.
    fn turn(&mut self) -> Result<f64> {
        std::thread::sleep(PAUSE);
        Ok((self.run)(self.repeat)? / self.repeat as f64)
    }
}

/// A number made of the times of one round.
type Figure = Box<dyn Fn(&[f64]) -> f64>;

/// What is claimed: a number made of the times of a round, and the bar for it.
pub struct Claim {
    pub what: String,
    pub bar: Bar,
    number: Figure,
    rivals: Vec<usize>,
}

impl Claim {
    pub fn new(what: &str, bar: Bar, number: impl Fn(&[f64]) -> f64 + 'static) -> Self {
        Self { what: what.to_owned(), bar, number: Box::new(number), rivals: Vec::new() }
    }

    /// Replaces the time of each of these rivals by that of the fastest, see [`over_rounds`].
    pub fn against_fastest(self, rivals: impl IntoIterator<Item = usize>) -> Self {
        Self { rivals: rivals.into_iter().collect(), ..self }
    }

    /// The time of one over that of another, by their places.
    pub fn ratio(what: &str, bar: Bar, [of, to]: [usize; 2]) -> Self {
        Self::new(what, bar, move |times| times[of] / times[to])
    }
}

/// Ways to do the same.
pub struct Contest {
    pub name: String,
    pub unit: Unit,
    pub contestants: Vec<Contestant>,
    pub claims: Vec<Claim>,
}

/// The head of the table of [`Outcome::rows`].
pub const HEAD: [&str; 7] = ["row", "what", "measured", "bar", "reached", "least", "most"];

/// What came of a contest.
pub struct Outcome {
    name: String,
    unit: Unit,
    names: Vec<String>,
    /// Why a contestant was left out, for each.
    left_out: Vec<Option<String>>,
    rounds: Vec<Vec<f64>>,
    claims: Vec<Claimed>,
}

/// A claim, with the median and the range of what was measured.
struct Claimed {
    what: String,
    bar: Bar,
    median: Option<f64>,
    range: Option<[f64; 2]>,
}

impl Claimed {
    fn is_reached(&self) -> Option<bool> {
        self.median.and_then(|median| self.bar.is_reached(median))
    }
}

impl Contest {
    /// Rounds of one turn each, the order reversed from round to round.
    ///
    /// One that cannot run is left out, with the reason; its times are no numbers.
    /// After `until`, no other contestant is warmed up, and no round begins after the first few.
    pub fn hold(mut self, rounds: usize, until: Option<Instant>) -> Result<Outcome> {
        let is_over = || until.is_some_and(|until| Instant::now() >= until);
        let mut left_out = Vec::new();
        for (place, contestant) in self.contestants.iter_mut().enumerate() {
            let warm = match place > 0 && is_over() {
                true => Err(anyhow!("the time for this row was over")),
                false => contestant.warm_up(),
            };
            let reason = warm.err().map(|error| format!("{error:#}"));
            if let Some(reason) = &reason {
                eprintln!("{}: {} is left out: {reason}", self.name, contestant.name);
            }
            left_out.push(reason);
        }
        let mut times = Vec::with_capacity(rounds);
        for round in 0..rounds {
            if round >= LEAST_ROUNDS && is_over() {
                break;
            }
            let runs = |&place: &usize| left_out[place].is_none();
            let mut places: Vec<_> = (0..self.contestants.len()).filter(runs).collect();
            if round % 2 == 1 {
                places.reverse();
            }
            let mut turns = vec![f64::NAN; self.contestants.len()];
            for place in places {
                turns[place] = self.contestants[place].turn()?;
            }
            times.push(turns);
        }
        let claims = self.claims.into_iter().map(|claim| {
            let numbers = over_rounds(&times, &claim.rivals, &claim.number);
            let (median, range) = (median(numbers.iter().copied()), range(numbers));
            Claimed { what: claim.what, bar: claim.bar, median, range }
        });
        Ok(Outcome {
            name: self.name,
            unit: self.unit,
            claims: claims.collect(),
            names: self.contestants.into_iter().map(|contestant| contestant.name).collect(),
            left_out,
            rounds: times,
        })
    }
}

impl Outcome {
    /// What each took.
    pub fn times(&self) -> String {
        let rows = self.names.iter().enumerate().map(|(place, name)| {
            let times = || self.rounds.iter().map(|round| round[place]);
            let [least, most] = range(times()).map_or([None; 2], |range| range.map(Some));
            let shown = [median(times()), least, most].map(|number| match number {
                Some(number) => show(number, self.unit),
                None => "left out".to_owned(),
            });
            let [median, least, most] = shown;
            [name.clone(), median, least, most]
        });
        format!("### {}\n\n{}", self.name, table(["", "median", "least", "most"], rows))
    }

    /// The claims, as rows of a table below [`HEAD`].
    pub fn rows(&self) -> impl Iterator<Item = [String; 7]> {
        self.claims.iter().map(|claim| {
            let reached = match claim.is_reached() {
                Some(true) => "yes",
                Some(false) => "no",
                None => "",
            };
            let number = |number: f64| format!("{number:.3}");
            let median = claim.median.map_or_else(|| "left out".to_owned(), number);
            let [least, most] =
                claim.range.map_or_else(Default::default, |range| range.map(number));
            let (name, what, bar) = (self.name.clone(), claim.what.clone(), claim.bar.to_string());
            [name, what, median, bar, reached.to_owned(), least, most]
        })
    }

    /// Contestants that could not run, and why.
    #[allow(dead_code)] // for the page of the measurements on a GPU
    pub fn left_out(&self) -> impl Iterator<Item = (String, &str)> {
        self.names.iter().zip(&self.left_out).filter_map(|(name, reason)| {
            Some((format!("{}: {name}", self.name), reason.as_deref()?))
        })
    }

    pub fn json(&self) -> Value {
        let contestants = self.names.iter().enumerate().map(|(place, name)| {
            let rounds: Vec<_> = self.rounds.iter().map(|round| round[place]).collect();
            json!({
                "name": name, "median": median(rounds.iter().copied()), "rounds": rounds,
                "left_out": self.left_out[place],
            })
        });
        let claims = self.claims.iter().map(|claim| {
            let range = claim.range;
            json!({
                "what": claim.what, "bar": claim.bar.to_string(), "reached": claim.is_reached(),
                "number": claim.median,
                "least": range.map(|[least, _]| least), "most": range.map(|[_, most]| most),
            })
        });
        let unit = match self.unit {
            Unit::Nanoseconds => "nanoseconds",
            Unit::Bytes => "bytes",
            Unit::Waits => "waits",
        };
        json!({
            "name": self.name,
            "unit": unit,
            "contestants": contestants.collect::<Vec<_>>(),
            "claims": claims.collect::<Vec<_>>(),
        })
    }
}
