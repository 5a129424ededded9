//! Public tables that are part of this crate; `tables/README.md` names their sources.

use std::path::PathBuf;

use super::{reading::Reading, table::Table, target::TaskKind};
use crate::Result;

/// A public table to learn from, and the column to learn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicTable {
    /// The name, such as `penguins, mass`.
    pub name: &'static str,
    file: &'static str,
    target: &'static str,
    kind: TaskKind,
    packed: &'static [u8],
}

/// The table in a file of `tables/`.
macro_rules! table {
    ($name:literal, $file:literal, $target:literal, $kind:ident) => {
        PublicTable {
            name: $name,
            file: $file,
            target: $target,
            kind: TaskKind::$kind,
            packed: include_bytes!(concat!("tables/", $file)),
        }
    };
}

impl PublicTable {
    /// All tables: six quantities, then four tables of classes.
    pub const ALL: [Self; 10] = [
        table!("diabetes", "diabetes.csv.gz", "progression", Regression),
        table!("cars", "cars.csv.gz", "mpg", Regression),
        table!("penguins, mass", "penguins.csv.gz", "body_mass_g", Regression),
        table!("houses", "houses.csv.gz", "median", Regression),
        table!("bikes", "bikes.csv.gz", "bikers", Regression),
        table!("diamonds", "diamonds.csv.gz", "price", Regression),
        table!("penguins, species", "penguins.csv.gz", "species", Classification),
        table!("wines", "wines.csv.gz", "cultivar", Classification),
        table!("tumours", "tumours.csv.gz", "diagnosis", Classification),
        table!("weather", "weather.csv.gz", "weather", Classification),
    ];

    /// The table of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.name == name)
    }

    /// Reads the table, whose numbers are scaled and whose texts are made inputs as those of any
    /// other CSV.
    ///
    /// # Errors
    ///
    /// Only in a broken build of the crate, since the data are part of it.
    pub fn read(&self) -> Result<Table> {
        let path = PathBuf::from(self.file);
        Table::parse(&path, self.packed, self.target, Some(self.kind), &Reading::default())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::data::{Prepared, Targets};

    const README: &str = include_str!("tables/README.md");

    /// The rows, the columns and the licence of each table are those that its page names.
    #[test]
    fn the_page_of_the_tables_describes_them() {
        let lines = README.lines().filter_map(|line| line.strip_prefix("| `"));
        let lines = lines.map(|line| {
            let (file, cells) = line.split_once("` | ").unwrap();
            (file, cells.split(" | ").collect::<Vec<_>>())
        });
        let described: BTreeMap<_, _> = lines.collect();
        for table in PublicTable::ALL {
            let cells = &described[table.file];
            let read = table.read().unwrap();
            // The columns of the file, of which one is the target.
            let size = [read.features().len(), read.width()].map(|count| count.to_string());
            assert_eq!(cells[..2], size, "{}", table.name);
            assert!(cells[2].split(", ").any(|name| name == format!("`{}`", table.target)));
            assert!(
                ["BSD-3", "MIT", "CC0", "CC BY 4.0", "public domain"]
                    .iter()
                    .any(|licence| { cells[4].contains(licence) })
            );
            assert_eq!(PublicTable::named(table.name), Some(table));
            // Each column but the target is an input.
            assert_eq!(read.columns().len(), read.width() - 1, "{:?}", read.notes());
            Prepared::new(&read, 1).unwrap();
            assert_eq!(
                matches!(read.targets(), Targets::Numbers(_)),
                table.kind == TaskKind::Regression
            );
        }
        let files = PublicTable::ALL.map(|table| (table.file, table.packed.len()));
        let files: BTreeMap<_, _> = files.into_iter().collect();
        assert_eq!(described.len(), files.len());
        assert!(files.values().sum::<usize>() <= 250_000, "{files:?}");
        assert_eq!(PublicTable::named("nothing"), None);
    }
}
