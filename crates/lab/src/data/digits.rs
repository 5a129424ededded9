//! Scanned digits that are part of this crate; `DIGITS.md` names their source.

use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;

use super::reading::Reading;
use super::table::Table;
use super::target::TaskKind;
use crate::{Error, Result};

/// The largest value of a pixel.
const INK: f64 = 16.0;

/// 1,797 scanned digits: 64 features `p00` to `p77`, the pixels of an 8x8 image row by row from 0
/// (paper) to 16 (ink), and the classes `0` to `9`.
///
/// The table holds the pixels as they are; [`Prepared::new`](super::Prepared::new) divides them by
/// 16 instead of standardising them, so that a network sees values in \[0, 1\].
///
/// # Errors
///
/// Only in a broken build of the crate, since the data are part of it.
pub fn digits() -> Result<Table> {
    let path = Path::new("digits.csv.gz");
    let mut csv = Vec::new();
    GzDecoder::new(include_bytes!("digits.csv.gz").as_slice())
        .read_to_end(&mut csv)
        .map_err(|error| Error::file("decompress", path, error))?;
    let kind = Some(TaskKind::Classification);
    Ok(Table::parse(path, &csv, "digit", kind, &Reading::default())?.with_known_range(INK))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Prepared, Targets};

    #[test]
    fn all_digits_are_there() {
        let table = digits().unwrap();
        assert_eq!(table.features().len(), 1797);
        assert_eq!(table.columns().len(), 64);
        assert!(table.notes().is_empty());
        let name = |column: usize| table.columns()[column].name.as_str();
        assert_eq!((name(0), name(63)), ("p00", "p77"));
        assert!(table.features().iter().flatten().all(|p| (0.0..=INK).contains(p)));
        assert!(table.features().iter().flatten().any(|&p| p == INK));

        let Targets::Classes { labels, of_row } = table.targets() else { panic!("not classes") };
        assert_eq!(labels.join(""), "0123456789");
        let counts: Vec<_> =
            (0..10).map(|class| of_row.iter().filter(|&&c| c == class).count()).collect();
        assert_eq!(counts, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]);
    }

    #[test]
    fn a_network_sees_values_from_0_to_1() {
        let prepared = Prepared::new(&digits().unwrap(), 1).unwrap();
        let sizes = (prepared.train.len(), prepared.valid.len(), prepared.test.len());
        assert_eq!(sizes, (1078, 359, 360));
        let inputs = || prepared.train.iter().flat_map(|sample| &sample.inputs);
        assert!(inputs().all(|x| (0.0..=1.0).contains(x)));
        assert!(inputs().any(|&x| x == 1.0));

        let drawn = vec![vec![4.0; 64]];
        assert_eq!(prepared.preparation.encode(&drawn).unwrap(), vec![0.25; 64]);
    }
}
