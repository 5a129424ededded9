//! A table made ready for training: split, scaled and encoded; batches are made elsewhere.

use super::column::{Column, ColumnKind};
use super::feature::{Feature, FeatureKind, Texts};
use super::preparation::{Preparation, Task};
use super::problem::word;
use super::scale::{Scale, narrow_range};
use super::sheet::{first_listed, quoted};
use super::split::Split;
use super::table::Table;
use super::target::Targets;
use burn_ema::{Error, Result};

/// A row as inputs and targets of a network.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The scaled features, [`Preparation::inputs`] of them.
    pub inputs: Vec<f32>,
    /// The outputs that the network is trained to have, [`Preparation::outputs`] of them.
    pub targets: Vec<f32>,
}

/// A table split into 60/20/20, with the preparation that turned its rows into samples.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The preparation of the samples, which encodes the rows of other tables in the same way, and
    /// decodes the network's outputs into answers.
    pub preparation: Preparation,
    /// The samples to learn from.
    pub train: Vec<Sample>,
    /// The validation samples, by which the epoch and the average are chosen.
    pub valid: Vec<Sample>,
    /// The test samples, for the final scores alone.
    pub test: Vec<Sample>,
    /// The rows of the three parts, as a text editor counts them in the file.
    pub split: Split,
    /// The notes of the table, notes on texts that no training row has, and notes on columns whose
    /// training rows differ by what may be rounding alone.
    pub notes: Vec<String>,
}

impl Prepared {
    /// Splits a table by a seed (see [`Split::seeded`]) and scales it.
    ///
    /// Features, and the target of a regression, are scaled to mean 0 and standard deviation 1
    /// over the training rows, so that nothing of the other rows leaks into the training.
    /// The features of [`digits`](super::digits()) are divided by 16 instead.
    /// A column of texts becomes one input for each text of the training rows, in their order.
    ///
    /// # Errors
    ///
    /// [`Error::Value`](burn_ema::Error::Value) for a number so far from the training rows that no
    /// `f32` holds it once it is scaled, and for a column without a value in all training rows.
    pub fn new(table: &Table, seed: u64) -> Result<Self> {
        let split = match table.targets() {
            Targets::Classes { of_row, .. } => Split::seeded(of_row, seed),
            Targets::Numbers(numbers) => Split::seeded(&vec![0; numbers.len()], seed),
        };
        let preparation = preparation(table, &split.train)?;
        let mut notes = table.notes().to_vec();
        notes.extend(preparation.features().iter().filter_map(untrained));
        notes.extend(narrow(table, &split.train));

        let inputs = preparation.encode(&rows(table, &preparation))?;
        let inputs = inputs.chunks_exact(preparation.inputs()).map(<[f32]>::to_vec);
        let targets = preparation.encode_targets(table.targets())?;
        let samples: Vec<_> =
            inputs.zip(targets).map(|(inputs, targets)| Sample { inputs, targets }).collect();
        let part = |rows: &[usize]| rows.iter().map(|&row| samples[row].clone()).collect();
        Ok(Self {
            train: part(&split.train),
            valid: part(&split.valid),
            test: part(&split.test),
            split: split.in_file(table.rows()),
            notes,
            preparation,
        })
    }
}

/// The numbers of a feature in the training rows that have a value.
fn trained(table: &Table, train: &[usize], feature: usize) -> Vec<f64> {
    let values = train.iter().map(|&row| table.features()[row][feature]);
    values.filter(|value| !value.is_nan()).collect()
}

/// A note for each column whose numbers differ by so little that it may be rounding.
///
/// The divisor of such a column is as small as the differences, so that any other number becomes a
/// huge input.
fn narrow(table: &Table, train: &[usize]) -> Vec<String> {
    let note = |name: &str, values: &[f64], way_on: &str| {
        let (least, most) = narrow_range(values)?;
        Some(format!(
            "column {} goes from {least} to {most} in the training rows, which may be rounding \
             alone{way_on}",
            quoted(name)
        ))
    };
    let columns = table.columns().iter().enumerate();
    let numbers = columns.filter(|(_, column)| column.kind == ColumnKind::Number);
    let features = numbers.filter_map(|(index, Column { name, .. })| {
        let way_on = format!("; --drop {} leaves it out", word(name));
        note(name, &trained(table, train, index), &way_on)
    });
    let target = match table.targets() {
        Targets::Numbers(numbers) => train.iter().map(|&row| numbers[row]).collect(),
        Targets::Classes { .. } => vec![],
    };
    features.chain(note(table.target(), &target, "")).collect()
}

/// The preparation of a table, with scales and texts from the training rows alone.
fn preparation(table: &Table, train: &[usize]) -> Result<Preparation> {
    let feature = |(index, column): (usize, &Column)| {
        let values = trained(table, train, index);
        if values.is_empty() {
            let what =
                format!("the values of feature {} in the training rows", quoted(&column.name));
            return Err(Error::value(what, "1 or more (--drop leaves a column out)", 0));
        }
        let (scale, kind) = match (&column.kind, table.known_range()) {
            (_, Some(largest)) => (Scale { offset: 0.0, divisor: largest }, FeatureKind::Number),
            (ColumnKind::Number, None) => (Scale::standard(&values), FeatureKind::Number),
            (ColumnKind::Truth, None) => (Scale::standard(&values), FeatureKind::Truth),
            (ColumnKind::Texts(all), None) => {
                (Scale { offset: 0.0, divisor: 1.0 }, FeatureKind::Texts(texts(all, &values)))
            }
        };
        Ok(Feature { name: column.name.clone(), scale, kind })
    };
    let features = table.columns().iter().enumerate().map(feature).collect::<Result<_>>()?;
    let task = match table.targets() {
        Targets::Classes { labels, .. } => Task::Classification { labels: labels.clone() },
        Targets::Numbers(numbers) => {
            let values: Vec<_> = train.iter().map(|&row| numbers[row]).collect();
            Task::Regression { scale: Scale::standard(&values) }
        }
    };
    let preparation = Preparation::new(table.target().into(), features, task)?;
    Ok(preparation.with_reading(table.reading().clone(), table.width()))
}

/// The texts of a column, in the order of the training rows. `all` is every text of the column, and
/// `trained` the index in `all` of each training row's text.
fn texts(all: &[String], trained: &[f64]) -> Texts {
    let mut counts: Vec<(usize, usize)> = vec![];
    for &index in trained {
        match counts.iter_mut().find(|(seen, _)| *seen as f64 == index) {
            Some((_, count)) => *count += 1,
            None => counts.push((index as usize, 1)),
        }
    }
    let is_trained = |index: &usize| counts.iter().any(|(seen, _)| seen == index);
    let untrained = (0..all.len()).filter(|index| !is_trained(index));
    Texts {
        trained: counts.iter().map(|(index, _)| all[*index].clone()).collect(),
        shares: counts.iter().map(|(_, count)| *count as f64 / trained.len() as f64).collect(),
        untrained: untrained.map(|index| all[index].clone()).collect(),
    }
}

/// The rows of a table, where texts have the indices that they have in the preparation.
fn rows(table: &Table, preparation: &Preparation) -> Vec<Vec<f64>> {
    let mut rows = table.features().to_vec();
    for (index, column) in table.columns().iter().enumerate() {
        let (ColumnKind::Texts(before), FeatureKind::Texts(after)) =
            (&column.kind, &preparation.features()[index].kind)
        else {
            continue;
        };
        let place = |text: &String| after.all().position(|other| other == text);
        let places: Vec<_> = before.iter().map(place).collect();
        for value in rows.iter_mut().map(|row| &mut row[index]).filter(|value| !value.is_nan()) {
            *value = places[*value as usize].map_or(f64::NAN, |place| place as f64);
        }
    }
    rows
}

/// A note on the texts of a feature that no training row has; `None` if there is no such text.
fn untrained(feature: &Feature) -> Option<String> {
    let FeatureKind::Texts(texts) = &feature.kind else { return None };
    (!texts.untrained.is_empty()).then(|| {
        format!(
            "column {}: no training row has {}, so all inputs of the column are 0 for it",
            quoted(&feature.name),
            first_listed(&texts.untrained, 6)
        )
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::data::{Missing, Reading};

    fn read(content: &str, reading: &Reading) -> Table {
        Table::parse(Path::new("t.csv"), content.as_bytes(), "y", None, reading).unwrap()
    }

    fn table(content: &str) -> Table {
        read(content, &Reading::default())
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
        assert_eq!(line().notes().len(), 2);
    }

    #[test]
    fn a_column_that_may_be_rounding_alone_is_noted() {
        let row = |i: usize| {
            let [x, y] =
                [["0.3", "0.30000001192092896"], ["1e9", "1000000000.5"]].map(|x| x[i % 2]);
            format!("{x},{}e-20,{y}\n", i * i % 17)
        };
        let text = format!("x 1,steps,y\n{}", (0..40).map(row).collect::<String>());
        let notes = Prepared::new(&table(&text), 1).unwrap().notes.join("\n");
        let feature = "column \"x 1\" goes from 0.3 to 0.30000001192092896 in the training rows, \
            which may be rounding alone; --drop 'x 1' leaves it out";
        assert!(notes.contains(feature), "{notes}");
        assert!(
            notes.contains("column \"y\" goes from 1000000000 to 1000000000.5 in the"),
            "{notes}"
        );
        assert!(!notes.contains("\"steps\""), "{notes}");
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

    /// 40 rows of a colour each, of which one is in a single row.
    fn colours(missing: &str) -> String {
        let row = |i: usize| {
            let colour = match i {
                7 => "grey",
                8 => missing,
                _ => ["red", "blue", "green"][i % 3],
            };
            format!("{colour},{},{}.5\n", i * i % 17, i)
        };
        format!("c,x,y\n{}", (0..40).map(row).collect::<String>())
    }

    #[test]
    fn texts_have_the_order_of_the_training_rows() {
        let (mut trained, mut untrained) = (0, 0);
        for seed in 0..20 {
            let prepared = Prepared::new(&table(&colours("red")), seed).unwrap();
            let FeatureKind::Texts(texts) = &prepared.preparation.features()[0].kind else {
                panic!("numbers")
            };
            let seen = prepared.train.iter().map(|sample| {
                let text = sample.inputs[..texts.trained.len()].iter().position(|one| *one == 1.0);
                text.expect("a training row has one of the texts")
            });
            let mut order: Vec<_> = vec![];
            seen.for_each(|text| {
                if !order.contains(&text) {
                    order.push(text)
                }
            });
            assert!(order.into_iter().eq(0..texts.trained.len()));
            assert!((texts.shares.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            let rest = prepared.valid.iter().chain(&prepared.test);
            let without = rest.filter(|sample| sample.inputs[..texts.trained.len()] == [0.0; 3]);
            match texts.untrained.len() {
                0 => trained += 1,
                _ => {
                    assert_eq!((&texts.untrained[..], without.count()), (&["grey".into()][..], 1));
                    assert!(prepared.notes.iter().any(|note| note.contains("\"grey\"")));
                    untrained += 1;
                }
            }
        }
        assert!(trained > 0 && untrained > 0, "{trained} {untrained}");
    }

    #[test]
    fn a_missing_value_is_the_mean_of_the_training_rows() {
        let reading = Reading { missing: Missing::Mean, ..Reading::default() };
        let text = colours("NA").replace("green,13,", "green,?,");
        let lacking = read(&text, &reading);
        for seed in 0..5 {
            let prepared = Prepared::new(&lacking, seed).unwrap();
            let features = prepared.preparation.features();
            let FeatureKind::Texts(texts) = &features[0].kind else { panic!("numbers") };
            let shares: Vec<_> = texts.shares.iter().map(|share| *share as f32).collect();
            let filled = prepared.preparation.encode(&[vec![f64::NAN; 2]]).unwrap();
            assert_eq!(filled, [&shares[..], &[0.0]].concat());
            // The mean of the training rows that have a value: their inputs have mean 0.
            let inputs =
                prepared.train.iter().map(|sample| f64::from(sample.inputs[texts.trained.len()]));
            assert!((inputs.sum::<f64>()).abs() < 1e-4);
        }
    }
}
