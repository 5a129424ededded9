//! Stored averages added up, with a share each, in double precision on the host.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use burn::{
    module::Module,
    tensor::{DType, Shape, TensorData},
};

use super::super::{
    pack::Pack,
    post_hoc::Mix,
    record::ReadRecord,
    snapshots::{LEFT_OUT, NOT_MIXED, Snapshot, foreign},
    walk::{self, Entry},
};
use crate::{Error, Result};

/// The parameters of a module as sums of those of files, for some mixes.
pub(super) struct Sums {
    newest: SnapshotFile,
    layout: BTreeMap<String, (DType, Shape)>,
    /// The sums of each mix, by path.
    of_mixes: std::vec::IntoIter<BTreeMap<String, Vec<f64>>>,
}

impl Sums {
    /// Reads every file that has a share in a mix, and the newest, once.
    pub fn new<M: Module>(
        module: &M,
        snapshots: &[Snapshot],
        at: usize,
        mixes: &[&Mix],
    ) -> Result<Self> {
        let layout = walk::recorded_layout(&module.valid());
        let newest = SnapshotFile::read(&snapshots[at].path)?;
        let mut of_mixes = vec![BTreeMap::<String, Vec<f64>>::new(); mixes.len()];
        for (index, snapshot) in snapshots.iter().enumerate() {
            if mixes.iter().all(|mix| mix.coefficients()[index] == 0.0) {
                continue;
            }
            let other = if index == at { None } else { Some(SnapshotFile::read(&snapshot.path)?) };
            let file = other.as_ref().unwrap_or(&newest);
            let within = |error| Error::file("mix", &snapshot.path, error);
            file.check_like(&newest).map_err(within)?;
            let mixed = file.entries.iter().filter(|(path, _)| !file.not_mixed.contains(*path));
            for (path, Entry { data, .. }) in mixed {
                let found = || walk::describe(data.dtype(), data.shape());
                let Some((dtype, shape)) = layout.get(path) else {
                    return Err(within(Error::parameter(path, "no entry of this path", found())));
                };
                if data.shape() != shape || !data.dtype().is_float() {
                    let expected = walk::describe(*dtype, shape);
                    return Err(within(Error::parameter(path, expected, found())));
                }
                for (sums, mix) in of_mixes.iter_mut().zip(mixes) {
                    let share = mix.coefficients()[index];
                    if share != 0.0 {
                        let sum = sums.entry(path.clone());
                        let sum = sum.or_insert_with(|| vec![0.0; shape.num_elements()]);
                        sum.iter_mut().zip(data.iter::<f64>()).for_each(|(s, x)| *s += share * x);
                    }
                }
            }
        }
        Ok(Self { newest, layout, of_mixes: of_mixes.into_iter() })
    }

    /// The module of the next mix.
    pub fn next<M: Module>(&mut self, module: &M) -> Result<M> {
        let mut sums = self.of_mixes.next().unwrap_or_default();
        let entries = self.newest.entries.iter().map(|(path, Entry { id, data })| {
            let data = match (sums.remove(path), self.layout.get(path)) {
                (Some(sum), Some((dtype, shape))) => {
                    TensorData::new(sum, shape.clone()).convert_dtype(*dtype)
                }
                _ => data.clone(),
            };
            (path.clone(), Entry { id: *id, data })
        });
        let entries: BTreeMap<_, _> = entries.collect();
        let left_out: Vec<_> = self.newest.left_out.iter().cloned().collect();
        let made = ReadRecord::from(entries).apply(module.valid(), &left_out, |_| false);
        made.map_err(|error| Error::file("mix", &self.newest.path, error))
    }
}

/// The content of a snapshot file, with the paths that its average did not mix or left out.
struct SnapshotFile {
    path: PathBuf,
    entries: BTreeMap<String, Entry>,
    not_mixed: BTreeSet<String>,
    left_out: BTreeSet<String>,
}

impl SnapshotFile {
    fn read(path: &Path) -> Result<Self> {
        let Pack { entries, metadata } = Pack::read(path)?;
        let names = |key: &str| -> Result<BTreeSet<String>> {
            let lines = metadata.get(key).ok_or_else(|| foreign(path, key))?;
            Ok(lines.lines().map(str::to_owned).collect())
        };
        let (not_mixed, left_out) = (names(NOT_MIXED)?, names(LEFT_OUT)?);
        Ok(Self { path: path.to_owned(), entries, not_mixed, left_out })
    }

    /// Checks that each parameter is treated alike in both files (averaged, not mixed, left out):
    /// only then do its shares sum to 1.
    fn check_like(&self, newest: &Self) -> Result<()> {
        let paths =
            [self, newest].into_iter().flat_map(|file| file.entries.keys().chain(&file.not_mixed));
        for path in paths.collect::<BTreeSet<_>>() {
            let (found, expected) = (self.part_of(path), newest.part_of(path));
            if found != expected {
                let expected = format!("{expected} as in {}", newest.path.display());
                return Err(Error::parameter(path, expected, found));
            }
        }
        Ok(())
    }

    fn part_of(&self, path: &str) -> &'static str {
        if self.left_out.contains(path) {
            "a parameter that is left out"
        } else if self.not_mixed.contains(path) {
            "a parameter that is copied or frozen"
        } else if self.entries.contains_key(path) {
            "an averaged parameter"
        } else {
            "none of this path"
        }
    }
}
