//! A table made ready for training: split, scaled and encoded; batches are made elsewhere.

use super::preparation::{Feature, Preparation, Task};
use super::scale::Scale;
use super::split::Split;
use super::table::{Table, Targets};
use burn_ema::Result;

/// A row as a network sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The scaled features, [`Preparation::inputs`] of them.
    pub inputs: Vec<f32>,
    /// The outputs that it should have, [`Preparation::outputs`] of them.
    pub targets: Vec<f32>,
}

/// A table split into 60/20/20, with the preparation that turned its rows into samples.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// Turns other rows into inputs in the same way, and outputs into answers.
    pub preparation: Preparation,
    /// The samples to learn from.
    pub train: Vec<Sample>,
    /// The samples to choose by.
    pub valid: Vec<Sample>,
    /// The samples for the last word.
    pub test: Vec<Sample>,
    /// The notes of the table.
    pub notes: Vec<String>,
}

impl Prepared {
    /// Splits a table by a seed (see [`Split::seeded`]) and scales it.
    ///
    /// Features, and the target of a regression, are scaled to mean 0 and standard deviation 1
    /// over the training rows, so that nothing of the other rows leaks into the training.
    ///
    /// # Errors
    ///
    /// [`Error::Value`](burn_ema::Error::Value) for a number so far from the training rows that no
    /// `f32` holds it once it is scaled.
    pub fn new(table: &Table, seed: u64) -> Result<Self> {
        let split = match table.targets() {
            Targets::Classes { of_row, .. } => Split::seeded(of_row, seed),
            Targets::Numbers(numbers) => Split::seeded(&vec![0; numbers.len()], seed),
        };
        let preparation = preparation(table, &split.train)?;

        let inputs = preparation.encode(table.features())?;
        let inputs = inputs.chunks_exact(preparation.inputs()).map(<[f32]>::to_vec);
        let targets = preparation.encode_targets(table.targets())?;
        let samples: Vec<_> =
            inputs.zip(targets).map(|(inputs, targets)| Sample { inputs, targets }).collect();
        let part = |rows: &[usize]| rows.iter().map(|&row| samples[row].clone()).collect();
        Ok(Self {
            train: part(&split.train),
            valid: part(&split.valid),
            test: part(&split.test),
            notes: table.notes().to_vec(),
            preparation,
        })
    }
}

/// The preparation of a table, with scales that look at the training rows alone.
fn preparation(table: &Table, train: &[usize]) -> Result<Preparation> {
    let feature = |(column, name): (usize, &String)| {
        let scale = match table.known_range() {
            Some(largest) => Scale { offset: 0.0, divisor: largest },
            None => {
                let value = |&row: &usize| table.features()[row][column];
                Scale::standard(&train.iter().map(value).collect::<Vec<_>>())
            }
        };
        Feature { name: name.clone(), scale }
    };
    let features = table.columns().iter().enumerate().map(feature).collect();
    let task = match table.targets() {
        Targets::Classes { labels, .. } => Task::Classification { labels: labels.clone() },
        Targets::Numbers(numbers) => {
            let values: Vec<_> = train.iter().map(|&row| numbers[row]).collect();
            Task::Regression { scale: Scale::standard(&values) }
        }
    };
    Preparation::new(table.target().into(), features, task)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn table(content: &str) -> Table {
        Table::parse(Path::new("t.csv"), content.as_bytes(), "y", None).unwrap()
    }

    /// 100 rows with y = 1000 + 3 x, and a constant column.
    fn line() -> Table {
        let row = |i: u32| format!("{i},0.1,{}\n", 1000 + 3 * i);
        table(&format!("x,c,y\n{}", (0..100).map(row).collect::<String>()))
    }

    #[test]
    fn training_rows_alone_decide_the_scales() {
        for seed in 0..5 {
            let prepared = Prepared::new(&line(), seed).unwrap();
            let column = |samples: &[Sample]| -> Vec<f64> {
                samples.iter().map(|sample| f64::from(sample.inputs[0])).collect()
            };
            let trained = Scale::standard(&column(&prepared.train));
            assert!(trained.offset.abs() < 1e-6 && (trained.divisor - 1.0).abs() < 1e-6);
            let tested = Scale::standard(&column(&prepared.test));
            assert!(tested.offset.abs() > 1e-4, "the test rows were scaled by themselves");

            let targets: Vec<_> =
                prepared.train.iter().map(|sample| f64::from(sample.targets[0])).collect();
            assert!((Scale::standard(&targets).divisor - 1.0).abs() < 1e-6);
            assert!(prepared.train.iter().all(|sample| sample.inputs[1] == 0.0));
        }
    }

    #[test]
    fn inputs_and_targets_stay_together() {
        let prepared = Prepared::new(&line(), 3).unwrap();
        let x = prepared.preparation.features()[0].scale;
        let Task::Regression { scale: y } = prepared.preparation.task() else { panic!("classes") };
        let mut seen: Vec<_> = [&prepared.train, &prepared.valid, &prepared.test]
            .into_iter()
            .flatten()
            .map(|sample| {
                let x = x.undo(f64::from(sample.inputs[0]));
                let y = y.undo(f64::from(sample.targets[0]));
                assert!((y - (1000.0 + 3.0 * x)).abs() < 1e-3);
                x.round() as usize
            })
            .collect();
        seen.sort_unstable();
        assert!(seen.into_iter().eq(0..100));
    }

    #[test]
    fn notes_come_along() {
        assert_eq!(Prepared::new(&line(), 0).unwrap().notes, line().notes());
        assert_eq!(line().notes().len(), 1);
    }

    #[test]
    fn a_row_far_from_the_training_is_refused() {
        // Wherever 3e38 is held out, it is beyond an f32 in units of the tiny deviation.
        let row = |i: i32| format!("{},{}.5\n", f64::from(i) * 1e-9, i);
        let content = (0..9).map(row).collect::<String>();
        let table = table(&format!("x,y\n{content}3e38,9.5\n"));
        let refused = (0..20).filter(|&seed| Prepared::new(&table, seed).is_err()).count();
        assert!((1..20).contains(&refused), "{refused} of 20 splits hold the row out");
    }
}
