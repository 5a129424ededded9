//! The manifest of a commit: the place in the run, the run's configuration, and the digest of each
//! file.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Component, Path},
};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;

use burn_ema_base::digest;

use crate::{Error, Result, history::Mark};

/// The version of the format in which commits are written.
pub(crate) const FORMAT: u32 = 1;

/// The name of the manifest's file in a commit.
pub(crate) const MANIFEST: &str = "MANIFEST.json";

/// The largest length of a manifest in bytes. A longer file is refused and not read.
///
/// A manifest holds the metrics of each epoch; this is enough for ten metrics and 100,000 epochs.
pub(crate) const MAX_BYTES: u64 = 64 << 20;

/// The largest length of a configuration in a manifest, in bytes of JSON on one line.
pub(crate) const MAX_CONFIG_BYTES: usize = 1 << 20;

/// The largest number of values in a configuration. Each takes up to hundreds of bytes in memory.
const MAX_CONFIG_VALUES: usize = MAX_CONFIG_BYTES / 2;

/// A place in a run. Places are ordered by their time in the run.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// The number of epochs that are done, with their validation.
    pub epochs: usize,
    /// The number of batches of the next epoch that are done; 0 at the end of an epoch.
    pub batches: usize,
}

impl Progress {
    /// The place after this number of epochs.
    pub fn after(epochs: usize) -> Self {
        Self { epochs, batches: 0 }
    }

    /// The name of the directory of the commit at this place: `epoch-0012` after 12 epochs, and
    /// `epoch-0012-batch-000345` after 12 epochs and 345 batches of the 13th.
    pub(crate) fn name(self) -> String {
        match self {
            Self { epochs, batches: 0 } => format!("epoch-{epochs:04}"),
            Self { epochs, batches } => format!("epoch-{epochs:04}-batch-{batches:06}"),
        }
    }

    /// The place whose commit has a directory of this name; `None` for any other name.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        let numbers = name.strip_prefix("epoch-")?;
        let (epochs, batches) = numbers.split_once("-batch-").unwrap_or((numbers, "0"));
        let progress = Self { epochs: epochs.parse().ok()?, batches: batches.parse().ok()? };
        // A place has one name, so that another spelling of its numbers is refused.
        (progress.name() == name).then_some(progress)
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self { epochs, batches: 0 } => write!(f, "epoch {epochs}"),
            Self { epochs: 0, batches } => write!(f, "batch {batches} of epoch 1"),
            Self { epochs, batches } => write!(f, "batch {batches} of epoch {}", epochs + 1),
        }
    }
}

/// The description of a commit: its place in the run, the run's configuration, and the digest of
/// each file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The version of the format in which the commit is written.
    pub format: u32,
    /// The id of the run that the commit belongs to: 16 hexadecimal digits, drawn at random when
    /// the run is new and kept when it is resumed.
    pub run: String,
    /// The place of the commit in the run.
    pub progress: Progress,
    /// The number of optimizer steps so far; 0 if they are not counted, as for a plain model with a
    /// [kept strategy](crate::Fit::keep_strategy).
    pub steps: u64,
    /// The number of training samples so far; 0 if the model does not count them.
    pub samples: u64,
    /// The size of the training loader for a commit within an epoch; `None` at the end of an epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loader: Option<LoaderSize>,
    /// The seed from which the random numbers of all steps are drawn.
    pub seed: u64,
    /// The name and description of each of the model's [parts](crate::RunModel::parts); the first
    /// part computes the outputs in validation. Empty for a plain model.
    #[serde(rename = "averages")]
    pub parts: Vec<(String, String)>,
    /// The configuration that the program gave to
    /// [`with_config`](crate::CommitConfig::with_config), as JSON; `null` without a call.
    pub config: Value,
    /// The metrics so far.
    pub(crate) metrics: Mark,
    /// The length and digest of each file of the commit but the manifest, by the file's name.
    pub files: BTreeMap<String, File>,
    /// The version of this crate that wrote the commit, as the first element. Only for readers; no
    /// decision depends on it.
    pub versions: Vec<String>,
    /// The time of writing, in seconds since 1970 (UTC). Only for readers; no decision depends on
    /// it.
    pub written: u64,
}

/// The size of a training loader and of an optimizer step. A number of batches determines the items
/// that are done only for a loader of this size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoaderSize {
    /// The number of items in an epoch.
    pub items: usize,
    /// The number of items in the largest batch of the epoch so far.
    pub batch: usize,
    /// The number of batches whose gradients are summed for an optimizer step, at least 1.
    pub accumulation: usize,
}

impl fmt::Display for LoaderSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} items in batches of {}", self.items, self.batch)
    }
}

/// The length and digest of a file of a commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// The length in bytes.
    pub bytes: u64,
    /// The SHA-256, as 64 lowercase hexadecimal digits.
    pub sha256: String,
}

impl File {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self { bytes: bytes.len() as u64, sha256: digest::sha256(bytes) }
    }
}

impl Manifest {
    /// The manifest as JSON, followed by a line `sha256 DIGEST` with the SHA-256 of the JSON.
    pub(crate) fn to_text(&self) -> Result<String> {
        let text = serde_json::to_string_pretty(self).map_err(Error::other)? + "\n";
        let digest = digest::sha256(text.as_bytes());
        Ok(format!("{text}sha256 {digest}\n"))
    }

    /// Reads a manifest from its text. `path` is named in errors.
    ///
    /// # Errors
    ///
    /// A text that differs from what was written; a manifest of another format version; a
    /// configuration with too many values; the name of a file that is outside the commit.
    pub(crate) fn parse(text: &[u8], path: &Path) -> Result<Self> {
        let manifest = Self::checked(text);
        manifest.map_err(|error| Error::file("use the commit of", path, error))
    }

    fn checked(text: &[u8]) -> Result<Self> {
        let refuse = |found: &str| Error::parameter("sha256", "a last line of this name", found);
        let text = str::from_utf8(text).map_err(|_| refuse("no text"))?;
        let whole = text.strip_suffix('\n').ok_or_else(|| refuse("no end of the line"))?;
        let (json, last) = whole.rsplit_once('\n').ok_or_else(|| refuse("one line"))?;
        let written = last.strip_prefix("sha256 ").ok_or_else(|| refuse("another one"))?;
        let json = &text[..json.len() + 1];
        let found = digest::sha256(json.as_bytes());
        if found != written {
            let found = format!("{found}: it was altered");
            return Err(Error::parameter("sha256", written, found));
        }
        // The version is read first, since another format may have fields that this one lacks.
        #[derive(Deserialize)]
        struct Format {
            format: u32,
            #[serde(default)]
            config: Values,
        }
        let read = |error: serde_json::Error| Error::parameter("the JSON", "a manifest", error);
        let Format { format, config } = serde_json::from_str(json).map_err(read)?;
        if format != FORMAT {
            let found = format!("{format}: it was written by another version of this crate");
            return Err(Error::parameter("format", FORMAT, found));
        }
        if config.0 > MAX_CONFIG_VALUES {
            let expected = format!("at most {MAX_CONFIG_VALUES} values");
            return Err(Error::parameter("config", expected, config.0));
        }
        let manifest: Self = serde_json::from_str(json).map_err(read)?;
        // The digest detects damage, not malice: a name must not lead to a file outside the commit.
        match manifest.files.keys().find(|name| !is_plain(name)) {
            Some(name) => Err(Error::parameter("files", "names within the commit", name)),
            None => Ok(manifest),
        }
    }
}

/// True for the name of a directory entry, false for a path that leads elsewhere or further down.
fn is_plain(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == name)
}

/// The number of values in JSON, which are counted and not stored. Keys are not counted.
#[derive(Default)]
struct Values(usize);

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(CountValues)
    }
}

struct CountValues;

/// Methods for values that contain no others, which count as 1.
macro_rules! one {
    ($($visit:ident($kind:ty)),*) => {
        $(fn $visit<E>(self, _: $kind) -> std::result::Result<Values, E> {
            Ok(Values(1))
        })*
    };
}

impl<'de> Visitor<'de> for CountValues {
    type Value = Values;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    one!(visit_bool(bool), visit_i64(i64), visit_u64(u64), visit_f64(f64), visit_str(&str));

    fn visit_unit<E>(self) -> std::result::Result<Values, E> {
        Ok(Values(1))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<Values, A::Error> {
        let mut count = 1;
        while let Some(Values(more)) = list.next_element()? {
            count += more;
        }
        Ok(Values(count))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Values, A::Error> {
        let mut count = 1;
        while let Some((Values(_), Values(more))) = map.next_entry()? {
            count += more;
        }
        Ok(Values(count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_a_way_is_plain() {
        assert!(["model.bpk", "...", "a b", "~"].into_iter().all(is_plain));
        for name in ["", ".", "..", "/", "/dev/zero", "../a", "./a", "a/", "a/.", "a/b", "a//b"] {
            assert!(!is_plain(name), "{name}");
        }
    }

    #[test]
    fn a_place_in_a_run_has_one_name() {
        for (epochs, batches) in [(0, 1), (1, 0), (12, 345), (10_000, 0), (3, 1_000_000)] {
            let progress = Progress { epochs, batches };
            assert_eq!(Progress::of_name(&progress.name()), Some(progress));
        }
        for other in ["epoch-1", "epoch-0001-batch-0", "epoch-0001-batch-000000", "epoch-+001", ""]
        {
            assert_eq!(Progress::of_name(other), None, "{other}");
        }
        assert!(Progress { epochs: 1, batches: 2 } > Progress::after(1));
        assert!(Progress { epochs: 1, batches: 2 } < Progress::after(2));
        let places = [(0, 3), (2, 0), (2, 7)].map(|(epochs, batches)| Progress { epochs, batches });
        let places = places.map(|progress| progress.to_string());
        assert_eq!(places, ["batch 3 of epoch 1", "epoch 2", "batch 7 of epoch 3"]);
    }
}
