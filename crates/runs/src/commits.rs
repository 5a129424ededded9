//! The commits of a run: found, checked, read, written, and removed when they are old.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use burn::{module::Module, tensor::Bytes};
use burn_ema_base::{
    digest, disk, header,
    regular::{self, Length},
};
use sha2::{Digest, Sha256};

use crate::{
    Error, Result,
    manifest::{FORMAT, File, MANIFEST, MAX_BYTES, Manifest, Progress},
    strict,
};

/// The file of a commit that holds the model.
pub(crate) const MODEL: &str = "model.bpk";

/// The directory of the commits of a run.
#[derive(Clone, Debug)]
pub struct Commits {
    path: PathBuf,
}

/// The newest whole commit, and the errors of newer ones that are damaged.
#[derive(Debug, Default)]
pub struct Newest {
    /// The newest whole commit; `None` if no commit is whole.
    pub commit: Option<Commit>,
    /// The error of each newer commit, from the newest on; of every commit if none is whole.
    pub passed_over: Vec<Error>,
}

/// The newest whole commits, and the errors of those that are damaged.
#[derive(Debug, Default)]
pub struct LastCommits {
    /// The whole commits, oldest first.
    pub commits: Vec<Commit>,
    /// The error of each damaged commit that was read, from the newest on: of those newer than the
    /// oldest of these, or of all if fewer commits are whole than were asked for.
    pub passed_over: Vec<Error>,
}

/// A commit whose files all had the length and SHA-256 in its manifest when it was opened.
#[derive(Clone, Debug)]
pub struct Commit {
    path: PathBuf,
    manifest: Manifest,
}

impl Commits {
    /// The commits of the run in this directory, which need not exist. Reads nothing.
    pub fn of(run: impl AsRef<Path>) -> Self {
        Self { path: run.as_ref().join("commits") }
    }

    /// The directory of the commits: `commits` in that of the run.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The places in the run that have a commit, whole or not, in ascending order. Empty if there
    /// is no directory of commits.
    ///
    /// # Errors
    ///
    /// A directory that cannot be read.
    pub fn list(&self) -> Result<Vec<Progress>> {
        let mut places: Vec<_> =
            self.names()?.iter().filter_map(|name| Progress::of_name(name)).collect();
        places.sort();
        Ok(places)
    }

    /// All names in the directory that are UTF-8.
    fn names(&self) -> Result<Vec<String>> {
        let read = |error| Error::file("read", &self.path, error);
        let entries = match fs::read_dir(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(read)?,
        };
        let names = entries.map(|entry| Ok(entry?.file_name().into_string().ok()));
        let names: io::Result<Vec<_>> = names.collect();
        Ok(names.map_err(read)?.into_iter().flatten().collect())
    }

    /// Finds the newest whole commit. Reads all files of each commit, from the newest commit on,
    /// until a commit is whole.
    ///
    /// # Errors
    ///
    /// A directory that cannot be read; a commit of another version of this crate; a commit whose
    /// files cannot be read because of missing permission, too little memory or too many open
    /// files; commits that are removed again and again while they are read.
    pub fn newest(&self) -> Result<Newest> {
        let LastCommits { mut commits, passed_over } = self.last(1)?;
        Ok(Newest { commit: commits.pop(), passed_over })
    }

    /// Finds the newest `count` whole commits, or all if there are fewer. Reads all files of each
    /// commit, from the newest commit on, until so many are whole.
    ///
    /// While another process trains, it may remove a listed commit before it is read. The directory
    /// is then listed again, up to 16 times, and only commits that were not read before are read.
    ///
    /// # Errors
    ///
    /// The errors of [`newest`](Self::newest).
    pub fn last(&self, count: usize) -> Result<LastCommits> {
        self.last_of(count, || self.list())
    }

    /// The newest `count` whole commits of those that `list` returns in ascending order.
    fn last_of(
        &self,
        count: usize,
        mut list: impl FnMut() -> Result<Vec<Progress>>,
    ) -> Result<LastCommits> {
        let mut read = BTreeMap::new();
        for _ in 0..MAX_LISTS {
            let places = list()?;
            let (mut whole, mut is_complete) = (0, true);
            let mut found = BTreeMap::new();
            for place in places.into_iter().rev() {
                if whole == count {
                    break;
                }
                let opened = match read.remove(&place).unwrap_or_else(|| self.open(place)) {
                    Ok(commit) => {
                        whole += 1;
                        Ok(commit)
                    }
                    // The process that trains has removed this commit, after it wrote a newer one.
                    Err(_) if self.is_gone(place) => {
                        is_complete = false;
                        continue;
                    }
                    Err(error) if is_damage(&error) => Err(error),
                    Err(error) => return Err(error),
                };
                found.insert(place, opened);
            }
            if is_complete {
                let mut last = LastCommits::default();
                for opened in found.into_values() {
                    match opened {
                        Ok(commit) => last.commits.push(commit),
                        Err(error) => last.passed_over.insert(0, error),
                    }
                }
                return Ok(last);
            }
            read = found;
        }
        let expected = "commits that stay while they are read";
        let found = format!("a removed one each time, of {MAX_LISTS} times");
        Err(Error::file("read", &self.path, Error::parameter("commits", expected, found)))
    }

    /// The optimizer steps at a commit; `None` if its manifest cannot be read now.
    ///
    /// `known` holds the steps that were read. A failure is not stored, since the next call may be
    /// able to read the manifest.
    pub(crate) fn steps(
        &self,
        progress: Progress,
        known: &mut BTreeMap<Progress, u64>,
    ) -> Option<u64> {
        if let Some(steps) = known.get(&progress) {
            return Some(*steps);
        }
        let commit = Commit::describe(self.path.join(progress.name())).ok()?;
        known.insert(progress, commit.manifest.steps);
        Some(commit.manifest.steps)
    }

    fn is_gone(&self, progress: Progress) -> bool {
        let found = fs::symlink_metadata(self.path.join(progress.name()));
        found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    }

    /// Opens the commit of a place in the run, and reads and checks all its files.
    ///
    /// # Errors
    ///
    /// A commit that does not exist, or that another version of this crate wrote; a file of the
    /// commit that is missing, cannot be read, or differs from what was written.
    pub fn open(&self, progress: Progress) -> Result<Commit> {
        let commit = Commit::describe(self.path.join(progress.name()))?;
        let found = commit.manifest.progress;
        if found != progress {
            let error = Error::parameter("progress", progress, found);
            return Err(Error::file(USE, commit.path.join(MANIFEST), error));
        }
        commit.manifest.files.iter().try_for_each(|(name, file)| commit.verify(name, file))?;
        Ok(commit)
    }
}

impl Commit {
    /// Reads only the manifest of a commit; the other files are not checked.
    fn describe(path: PathBuf) -> Result<Self> {
        let manifest = path.join(MANIFEST);
        let text = regular::read(&manifest, Length::AtMost(MAX_BYTES), USE)?;
        let manifest = Manifest::parse(&text, &manifest)?;
        Ok(Self { path, manifest })
    }

    /// The manifest of the commit: its place in the run, the configuration and the digests.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The directory of the commit.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The place of the commit in the run.
    pub fn progress(&self) -> Progress {
        self.manifest.progress
    }

    /// Loads the weights of the commit into a plain module, and returns it. The weights are read
    /// into memory, not mapped.
    ///
    /// # Errors
    ///
    /// A file that differs from what was written; a parameter that differs from the module's in
    /// path, shape or dtype; a NaN or an infinity, even if the run allows them.
    pub fn model<M: Module>(&self, module: M) -> Result<M> {
        self.model_by(|record| plain_model(record, module))
    }

    /// Loads the model with a function of yours, which gets the bytes of the model's Burn record.
    ///
    /// # Errors
    ///
    /// A file that differs from what was written; more metadata than tensors of the file's length
    /// could have; the errors of `load`. All errors name the file's path.
    pub fn model_by<T>(&self, load: impl FnOnce(Bytes) -> Result<T>) -> Result<T> {
        let record = Bytes::from_bytes_vec(self.read(MODEL)?).shared();
        checked(record, load)
            .map_err(|error| Error::file("load the model from", self.path.join(MODEL), error))
    }

    /// The value of a validation metric, such as `Loss`, in the epoch that ended with this commit.
    /// `None` for a commit within an epoch, or if the epoch has no metric of this name.
    pub fn value(&self, metric: &str) -> Option<f64> {
        let Progress { epochs, batches: 0 } = self.progress() else { return None };
        let values = self.manifest.metrics.epochs.get(&epochs)?;
        values.get(&format!("valid/{metric}")).map(|value| value.0)
    }

    /// Reads a file of the commit into memory, and checks it. `name` is a name in the manifest,
    /// such as `model.bpk`.
    ///
    /// # Errors
    ///
    /// A name that is not in the manifest; a file that cannot be read, or differs from what was
    /// written.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.path.join(name);
        let refuse = |error| Error::file(USE, &path, error);
        let Some(expected) = self.manifest.files.get(name) else {
            let names: Vec<_> = self.manifest.files.keys().map(String::as_str).collect();
            return Err(refuse(Error::parameter(MANIFEST, name, names.join(", "))));
        };
        let bytes = regular::read(&path, Length::Exactly(expected.bytes), USE)?;
        self.check(name, File::of(&bytes))?;
        Ok(bytes)
    }

    /// Checks the length and the SHA-256 of a file, without keeping the file in memory.
    fn verify(&self, name: &str, expected: &File) -> Result<()> {
        let mut hash = Sha256::new();
        let length = Length::Exactly(expected.bytes);
        regular::visit(&self.path.join(name), length, USE, |piece| hash.update(piece))?;
        let sha256 = digest::hexadecimal(hash.finalize());
        self.check(name, File { bytes: expected.bytes, sha256 })
    }

    fn check(&self, name: &str, found: File) -> Result<()> {
        match self.manifest.files.get(name) {
            Some(expected) if *expected != found => {
                let found = format!("{}: it was altered", found.sha256);
                let error = Error::parameter("sha256", &expected.sha256, found);
                Err(Error::file(USE, self.path.join(name), error))
            }
            _ => Ok(()),
        }
    }
}

/// Calls `load` with a record, after a check that its metadata is in proportion to its length.
pub(crate) fn checked<T>(record: Bytes, load: impl FnOnce(Bytes) -> Result<T>) -> Result<T> {
    header::check(&record)?;
    load(record)
}

/// Loads the record of a plain model. A NaN or an infinity is an error.
pub(crate) fn plain_model<M: Module>(record: Bytes, module: M) -> Result<M> {
    strict::check_finite(record.clone())?;
    strict::model_record(record, module)
}

/// How often the directory is listed when commits are removed while they are read.
const MAX_LISTS: usize = 16;

/// The action that errors about files of commits name.
const USE: &str = "use the commit of";

/// True if an error shows damage of the commit; false if it comes from missing permission, memory
/// or file handles, or from a commit of another version of this crate.
fn is_damage(error: &Error) -> bool {
    let Error::File { source, .. } = error else { return true };
    if let Some(error) = source.downcast_ref::<io::Error>() {
        const TOO_MANY_OPEN_FILES: [i32; 2] = [23, 24];
        return !matches!(
            error.kind(),
            io::ErrorKind::PermissionDenied | io::ErrorKind::OutOfMemory
        ) && !error.raw_os_error().is_some_and(|code| TOO_MANY_OPEN_FILES.contains(&code));
    }
    !matches!(source.downcast_ref(), Some(Error::Parameter { path, .. }) if path == "format")
}

/// Prefixes of the names of directories: of a commit that is being written, and of one that is
/// being removed.
const UNFINISHED: &str = ".unfinished-";
const REMOVED: &str = ".removed-";

impl Commits {
    /// Creates the directory, and removes unfinished and half removed commits of an earlier
    /// process.
    ///
    /// Only the holder of the run's lock may call this method and those below.
    pub(crate) fn prepare(&self) -> Result<()> {
        disk::create_directory(&self.path)?;
        self.clear()
    }

    /// Removes directories of commits that were not finished, or not removed completely.
    fn clear(&self) -> Result<()> {
        let names = self.names()?;
        let ours = |name: &&String| name.starts_with(UNFINISHED) || name.starts_with(REMOVED);
        for name in names.iter().filter(ours) {
            // A directory that cannot be removed does no harm; a later call tries again.
            let _ = fs::remove_dir_all(self.path.join(name));
        }
        Ok(())
    }

    /// Writes a commit and reads it back; then removes the commits that `keep` does not return.
    ///
    /// `keep` gets the places of all commits, whole or not, in ascending order. If a whole commit
    /// of the same place exists, nothing is written; a damaged one is set aside first. A commit
    /// that cannot be removed stays, without an error.
    ///
    /// # Errors
    ///
    /// A file that cannot be written or read back. Commits of other places are unchanged then.
    pub(crate) fn write(
        &self,
        manifest: Manifest,
        files: &BTreeMap<&str, &[u8]>,
        keep: impl FnOnce(&[Progress]) -> Vec<Progress>,
    ) -> Result<()> {
        let progress = manifest.progress;
        let path = self.path.join(progress.name());
        // A whole commit of this place holds what would be written: the run has reached it again.
        if self.open(progress).is_err() {
            if path.exists() {
                disk::set_aside(&path)?;
            }
            self.write_new(manifest, files, &path)?;
            self.open(progress)?;
        }
        let places = self.list()?;
        let kept = keep(&places);
        for old in places.into_iter().filter(|place| !kept.contains(place)) {
            self.remove(old);
        }
        Ok(())
    }

    fn write_new(
        &self,
        mut manifest: Manifest,
        files: &BTreeMap<&str, &[u8]>,
        path: &Path,
    ) -> Result<()> {
        let unfinished = self.path.join(format!("{UNFINISHED}{}", manifest.progress.name()));
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished)
                .map_err(|error| Error::file("remove", &unfinished, error))?;
        }
        let files_of = files.iter().map(|(name, bytes)| ((*name).to_owned(), File::of(bytes)));
        manifest.format = FORMAT;
        manifest.files = files_of.collect();
        let written = || -> Result<()> {
            fs::create_dir(&unfinished)
                .map_err(|error| Error::file("create", &unfinished, error))?;
            for (name, bytes) in files {
                disk::write_new(&unfinished.join(name), bytes)?;
            }
            let text = manifest.to_text()?;
            disk::write_new(&unfinished.join(MANIFEST), text.as_bytes())?;
            disk::sync_directory(&unfinished)?;
            disk::rename(&unfinished, path)
        };
        let written = written();
        if written.is_err() {
            // On a full disk, an unfinished commit would take the space of a later one.
            let _ = fs::remove_dir_all(&unfinished);
        }
        written
    }

    /// Removes a commit. The directory is renamed first, so that no commit lacks some of its files.
    fn remove(&self, progress: Progress) {
        let name = progress.name();
        let removed = self.path.join(format!("{REMOVED}{name}"));
        // A directory that cannot be removed now is removed at the next start of the run.
        let _ = fs::remove_dir_all(&removed);
        if fs::rename(self.path.join(name), &removed).is_ok() {
            let _ = fs::remove_dir_all(&removed);
        }
    }

    /// The places after `last` that have a commit, whole or not; all places if `last` is `None`.
    ///
    /// # Errors
    ///
    /// A directory that cannot be read.
    pub(crate) fn after(&self, last: Option<Progress>) -> Result<Vec<Progress>> {
        let places = self.list()?.into_iter();
        Ok(places.filter(|place| Some(*place) > last).collect())
    }

    /// Renames the commits of these places, with the ending `.aside-1` or the next number that is
    /// free, so that the run can commit there again.
    ///
    /// These commits are damaged, or later than the one that the run goes on from. Nothing is
    /// deleted.
    ///
    /// # Errors
    ///
    /// A directory that cannot be renamed.
    pub(crate) fn set_aside(&self, places: Vec<Progress>) -> Result<()> {
        let mut paths = places.into_iter().map(|place| self.path.join(place.name()));
        paths.try_for_each(|path| disk::set_aside(&path))
    }
}

#[cfg(test)]
mod tests;
