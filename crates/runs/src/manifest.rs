//! The description that a commit holds of itself: the place in the run, its configuration, and the
//! digest of each file.

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

/// The version of the form in which commits are written.
pub(crate) const FORMAT: u32 = 1;

/// The name of the file.
pub(crate) const MANIFEST: &str = "MANIFEST.json";

/// The largest length of a manifest in bytes; a longer file is no manifest, and is not read.
///
/// A manifest holds the metrics of each epoch; this is enough for ten metrics and 100,000 epochs.
pub(crate) const MOST_BYTES: u64 = 64 << 20;

/// The largest length of a configuration in a manifest, in bytes of JSON on one line.
pub(crate) const MOST_CONFIG_BYTES: usize = 1 << 20;

/// The most values in such a configuration, each of which takes up to hundreds of bytes when read.
const MOST_CONFIG_VALUES: usize = MOST_CONFIG_BYTES / 2;

/// How far a run is.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// The epochs that are done, with their validation.
    pub epochs: usize,
    /// The batches of the next epoch that are done.
    pub batches: usize,
}

impl Progress {
    /// The end of an epoch.
    pub fn after(epochs: usize) -> Self {
        Self { epochs, batches: 0 }
    }

    /// The name of the commit's directory.
    pub(crate) fn name(self) -> String {
        match self {
            Self { epochs, batches: 0 } => format!("epoch-{epochs:04}"),
            Self { epochs, batches } => format!("epoch-{epochs:04}-batch-{batches:06}"),
        }
    }

    /// The progress of a commit's directory; none for any other name.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        let numbers = name.strip_prefix("epoch-")?;
        let (epochs, batches) = numbers.split_once("-batch-").unwrap_or((numbers, "0"));
        let progress = Self { epochs: epochs.parse().ok()?, batches: batches.parse().ok()? };
        // One name for one place, so that no other spelling passes for it.
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

/// The description that a commit holds of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The version of the form.
    pub format: u32,
    /// The id of the run that the commit belongs to: 16 hexadecimal digits, drawn at random when
    /// the run is new and kept when it is resumed.
    pub run: String,
    /// How far the run was.
    pub progress: Progress,
    /// The optimizer steps so far; 0 where nobody counts them, as for a plain model under a
    /// [kept strategy](crate::Fit::keep_strategy).
    pub steps: u64,
    /// The samples so far; 0 where they are not counted.
    pub samples: u64,
    /// The size of the training loader, for a commit within an epoch; none at the end of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loader: Option<LoaderSize>,
    /// The seed from which the random numbers of all steps are drawn.
    pub seed: u64,
    /// The name and description of each of the model's [parts](crate::RunModel::parts); the first
    /// part computes the outputs in validation. Empty for a plain model.
    #[serde(rename = "averages")]
    pub parts: Vec<(String, String)>,
    /// The configuration of the run, as its program gave it.
    pub config: Value,
    /// The metrics so far.
    pub(crate) metrics: Mark,
    /// The files of the commit.
    pub files: BTreeMap<String, File>,
    /// The version of this crate that wrote it, first; for people alone.
    pub versions: Vec<String>,
    /// The time of writing, in seconds since 1970; for people alone.
    pub written: u64,
}

/// The size of a training loader and of its steps, without which the place in an epoch means
/// nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoaderSize {
    /// The items of an epoch.
    pub items: usize,
    /// The items of the largest batch so far.
    pub batch: usize,
    /// The batches of an optimizer step, at least 1.
    pub accumulation: usize,
}

impl fmt::Display for LoaderSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} items in batches of {}", self.items, self.batch)
    }
}

/// A file of a commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Its length in bytes.
    pub bytes: u64,
    /// Its SHA-256, in hexadecimal digits.
    pub sha256: String,
}

impl File {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self { bytes: bytes.len() as u64, sha256: digest::sha256(bytes) }
    }
}

impl Manifest {
    /// JSON, and the digest of it in a line of its own.
    pub(crate) fn to_text(&self) -> Result<String> {
        let text = serde_json::to_string_pretty(self).map_err(Error::other)? + "\n";
        let digest = digest::sha256(text.as_bytes());
        Ok(format!("{text}sha256 {digest}\n"))
    }

    /// The manifest that a text is; the path is for the error.
    ///
    /// # Errors
    ///
    /// A text that is not what was written; one of a newer version.
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
        // A newer form may have fields that this version does not know.
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
        if config.0 > MOST_CONFIG_VALUES {
            let expected = format!("at most {MOST_CONFIG_VALUES} values");
            return Err(Error::parameter("config", expected, config.0));
        }
        let manifest: Self = serde_json::from_str(json).map_err(read)?;
        // A digest that fits makes a manifest whole, not kind: it opens no file elsewhere.
        match manifest.files.keys().find(|name| !is_plain(name)) {
            Some(name) => Err(Error::parameter("files", "names within the commit", name)),
            None => Ok(manifest),
        }
    }
}

/// True for the name of an entry of a directory, which is no path out of it or further down.
fn is_plain(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == name)
}

/// How many values JSON has, which are counted and not kept.
#[derive(Default)]
struct Values(usize);

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(CountValues)
    }
}

struct CountValues;

/// A value that holds no others is one.
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
