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
    manifest::{FORMAT, File, MANIFEST, MOST_BYTES, Manifest, Progress},
    strict,
};

/// The file of a commit that holds the model.
pub(crate) const MODEL: &str = "model.bpk";

/// The directory of the commits of a run.
#[derive(Clone, Debug)]
pub struct Commits {
    path: PathBuf,
}

/// The newest whole commit, and those that are newer but not whole.
#[derive(Debug, Default)]
pub struct Newest {
    /// The newest whole commit, if there is one.
    pub commit: Option<Commit>,
    /// Why each newer one was passed over.
    pub passed_over: Vec<Error>,
}

/// A commit whose files were all as they were written when it was read.
#[derive(Clone, Debug)]
pub struct Commit {
    path: PathBuf,
    manifest: Manifest,
}

impl Commits {
    /// The commits of the run in this directory, of which there may be none.
    pub fn of(run: impl AsRef<Path>) -> Self {
        Self { path: run.as_ref().join("commits") }
    }

    /// Where they are.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The places in the run that have a commit, whole or not, in their order.
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

    /// All names that are there.
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

    /// The newest commit whose every file is as it was written.
    ///
    /// Each is read whole, from the newest on, until one is.
    ///
    /// # Errors
    ///
    /// A directory that cannot be read; a commit that cannot be judged, since it is of another
    /// version of this crate, or since its files may not be opened.
    pub fn newest(&self) -> Result<Newest> {
        'listed: loop {
            let mut newest = Newest::default();
            for progress in self.list()?.into_iter().rev() {
                match self.open(progress) {
                    Ok(commit) => {
                        newest.commit = Some(commit);
                        break;
                    }
                    // Removed by the one that trains, which has committed a newer one before.
                    Err(_) if self.is_gone(progress) => continue 'listed,
                    Err(error) if is_damage(&error) => newest.passed_over.push(error),
                    Err(error) => return Err(error),
                }
            }
            return Ok(newest);
        }
    }

    fn is_gone(&self, progress: Progress) -> bool {
        let found = fs::symlink_metadata(self.path.join(progress.name()));
        found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    }

    /// The commit of a place in the run.
    ///
    /// # Errors
    ///
    /// A commit that is not there; a file of it that is missing, that cannot be read, or that is
    /// not as it was written.
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
    /// A commit by its manifest alone, whose files are not checked.
    fn describe(path: PathBuf) -> Result<Self> {
        let manifest = path.join(MANIFEST);
        let text = regular::read(&manifest, Length::AtMost(MOST_BYTES), USE)?;
        let manifest = Manifest::parse(&text, &manifest)?;
        Ok(Self { path, manifest })
    }

    /// The description that the commit holds of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Where the commit is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How far the run was.
    pub fn progress(&self) -> Progress {
        self.manifest.progress
    }

    /// The plain model that was committed, as this module; its weights are in memory.
    ///
    /// # Errors
    ///
    /// A file that is not as it was written; a parameter that differs from the module's in path,
    /// shape or dtype; a NaN or an infinity.
    pub fn model<M: Module>(&self, module: M) -> Result<M> {
        self.model_by(|record| plain_model(record, module))
    }

    /// Loads the record of the model, in Burn's bytes, by a function of yours.
    ///
    /// # Errors
    ///
    /// A file that is not as it was written; bytes that claim more tensors than they have room for;
    /// the errors of the function. All come with the file's path.
    pub fn model_by<T>(&self, load: impl FnOnce(Bytes) -> Result<T>) -> Result<T> {
        let record = Bytes::from_bytes_vec(self.read(MODEL)?).shared();
        checked(record, load)
            .map_err(|error| Error::file("load the model from", self.path.join(MODEL), error))
    }

    /// The value of a metric of validation in the epoch that ended with this commit; none within an
    /// epoch, or without such a metric.
    pub fn value(&self, metric: &str) -> Option<f64> {
        let Progress { epochs, batches: 0 } = self.progress() else { return None };
        let values = self.manifest.metrics.epochs.get(&epochs)?;
        values.get(&format!("valid/{metric}")).map(|value| value.0)
    }

    /// A file of the commit, in memory: what happens to the file later reaches nothing.
    ///
    /// # Errors
    ///
    /// A file that is not in the manifest, that cannot be read, or that is not as it was written.
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

    /// Checks that a file is as it was written, and does not keep it.
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

/// Loads a record whose header claims no more than its bytes have room for.
pub(crate) fn checked<T>(record: Bytes, load: impl FnOnce(Bytes) -> Result<T>) -> Result<T> {
    header::check(&record)?;
    load(record)
}

/// Loads the record of a plain model whose numbers are all finite.
pub(crate) fn plain_model<M: Module>(record: Bytes, module: M) -> Result<M> {
    strict::check_finite(record.clone())?;
    strict::model_record(record, module)
}

/// The action of errors about files of commits.
const USE: &str = "use the commit of";

/// True where a commit is damaged itself: the system is not short of anything at the moment, and
/// the commit is not of another version of this crate.
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

/// The beginnings of the names of directories that are no commits yet, or no more.
const UNFINISHED: &str = ".unfinished-";
const REMOVED: &str = ".removed-";

impl Commits {
    /// Makes the directory, and clears what an earlier process left half done.
    ///
    /// Only the holder of the run's lock may do this, or anything below.
    pub(crate) fn prepare(&self) -> Result<()> {
        disk::create_directory(&self.path)?;
        self.clear()
    }

    /// Removes what is no commit, and never was one or is none any more.
    fn clear(&self) -> Result<()> {
        let names = self.names()?;
        let ours = |name: &&String| name.starts_with(UNFINISHED) || name.starts_with(REMOVED);
        for name in names.iter().filter(ours) {
            // What cannot be removed today is in the way of nothing, and is tried again.
            let _ = fs::remove_dir_all(self.path.join(name));
        }
        Ok(())
    }

    /// Writes a commit and reads it back; then removes the commits that `keep` does not return.
    ///
    /// `keep` gets the places of all commits, whole or not, in their order. A whole commit of the
    /// same place is not written again; a damaged one is renamed first. A commit that cannot be
    /// removed stays, without an error.
    ///
    /// # Errors
    ///
    /// A file that cannot be written or read back. Earlier commits are as they were.
    pub(crate) fn write(
        &self,
        manifest: Manifest,
        files: &BTreeMap<&str, &[u8]>,
        keep: impl FnOnce(&[Progress]) -> Vec<Progress>,
    ) -> Result<()> {
        let progress = manifest.progress;
        let path = self.path.join(progress.name());
        // The same place, reached again: what is there is what would be written.
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
            // On a full disk, what is half there takes the room of what could be whole.
            let _ = fs::remove_dir_all(&unfinished);
        }
        written
    }

    /// Removes a commit. It is renamed first, so that a commit never lacks some of its files.
    fn remove(&self, progress: Progress) {
        let name = progress.name();
        let removed = self.path.join(format!("{REMOVED}{name}"));
        // What cannot be removed now is tried again with the next commit.
        let _ = fs::remove_dir_all(&removed);
        if fs::rename(self.path.join(name), &removed).is_ok() {
            let _ = fs::remove_dir_all(&removed);
        }
    }

    /// The places after one that have a commit, whole or not.
    ///
    /// # Errors
    ///
    /// A directory that cannot be read.
    pub(crate) fn after(&self, last: Option<Progress>) -> Result<Vec<Progress>> {
        let places = self.list()?.into_iter();
        Ok(places.filter(|place| Some(*place) > last).collect())
    }

    /// Sets commits aside, so that the run can commit there again.
    ///
    /// Such commits are damaged, or later than the one that the run goes on from; they are renamed,
    /// so that nothing is lost.
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
