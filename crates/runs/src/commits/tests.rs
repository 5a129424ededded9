use super::*;

/// A manifest without files, after 7 steps an epoch.
fn manifest(progress: Progress) -> Manifest {
    Manifest {
        format: FORMAT,
        run: "a".to_owned(),
        progress,
        steps: 7 * progress.epochs as u64,
        samples: 0,
        loader: None,
        seed: 0,
        parts: Vec::new(),
        config: serde_json::Value::Null,
        metrics: Default::default(),
        files: BTreeMap::new(),
        versions: Vec::new(),
        written: 0,
    }
}

/// The commits of a run at the ends of these epochs.
fn written(run: &Path, epochs: impl IntoIterator<Item = usize>) -> Commits {
    let commits = Commits::of(run);
    commits.prepare().unwrap();
    for progress in epochs.into_iter().map(Progress::after) {
        let files = BTreeMap::from([(MODEL, &b"model"[..])]);
        commits.write(manifest(progress), &files, <[_]>::to_vec).unwrap();
    }
    commits
}

#[test]
fn a_header_that_claims_too_much_reaches_no_loader() {
    let directory = tempfile::tempdir().unwrap();
    let commits = Commits::of(directory.path());
    commits.prepare().unwrap();
    let items = 100_000_u32;
    let mut record = vec![0; 6];
    record.extend(items.to_le_bytes());
    record.extend(vec![0x80; items as usize]); // empty arrays
    let progress = Progress::after(1);
    commits
        .write(manifest(progress), &BTreeMap::from([(MODEL, &record[..])]), <[_]>::to_vec)
        .unwrap();

    let commit = commits.open(progress).unwrap();
    let error = commit.model_by(|_| -> Result<()> { unreachable!("it was handed over") });
    let error = error.unwrap_err();
    assert!(error.to_string().ends_with("epoch-0001/model.bpk"), "{error}");
    assert_eq!(
        std::error::Error::source(&error).unwrap().to_string(),
        "the header: expected at most 69703 items of metadata, in 100010 bytes, found 100000"
    );
}

/// A manifest that cannot be read is no reason to remove its commit, neither at once nor later.
#[test]
fn a_commit_that_cannot_be_read_once_stays() {
    let directory = tempfile::tempdir().unwrap();
    let commits = written(directory.path(), 1..=6);
    let config = crate::CommitConfig::new("run").without_best().with_keep_every_steps(Some(14));
    let mut known = BTreeMap::new();
    let mut kept = || {
        let places = commits.list().unwrap();
        let steps = |place| commits.steps(place, &mut known);
        let mut kept = config.keep(&places, &Default::default(), steps);
        kept.sort();
        kept.dedup();
        kept
    };
    // Of another version of this crate, and for a moment no file.
    let path = commits.path().join("epoch-0002").join(MANIFEST);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen("\"format\": 1", "\"format\": 2", 1)).unwrap();
    assert_ne!(fs::read_to_string(&path).unwrap(), text);
    let all = [2, 3, 4, 5, 6].map(Progress::after);
    assert_eq!(kept(), all);
    fs::remove_file(&path).unwrap();
    assert_eq!(kept(), all);
    // Now it is read, so that the third is not the first of its interval.
    fs::write(&path, text).unwrap();
    assert_eq!(kept(), [2, 4, 5, 6].map(Progress::after));
    // What was read is not read again.
    fs::remove_file(&path).unwrap();
    assert_eq!(kept(), [2, 4, 5, 6].map(Progress::after));
}

/// A commit that is removed after it was listed: what was read stays read, and the end is certain.
#[test]
fn commits_that_are_removed_while_they_are_read_are_listed_again() {
    let directory = tempfile::tempdir().unwrap();
    let commits = written(directory.path(), 3..=6);
    let alter = |epoch: usize| {
        let model = commits.path().join(Progress::after(epoch).name()).join(MODEL);
        fs::write(model, "other").unwrap();
    };
    alter(4);
    let mut lists = [vec![1, 2, 3, 4, 5], vec![3, 4, 5, 6]].into_iter();
    let found = commits.last_of(4, || {
        let list: Vec<_> = lists.next().unwrap().into_iter().map(Progress::after).collect();
        if list.contains(&Progress::after(6)) {
            // It would be damaged if it were read again.
            alter(5);
        }
        Ok(list)
    });
    let LastCommits { commits: whole, passed_over } = found.unwrap();
    let places: Vec<_> = whole.iter().map(Commit::progress).collect();
    assert_eq!(places, [3, 5, 6].map(Progress::after));
    let [error] = &passed_over[..] else { panic!("{passed_over:?}") };
    assert!(error.to_string().ends_with("epoch-0004/model.bpk"), "{error}");

    // One that is always listed and never there.
    let error = commits.last_of(1, || Ok([6, 7].map(Progress::after).to_vec())).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot read {}", commits.path().display()));
    assert_eq!(
        std::error::Error::source(&error).unwrap().to_string(),
        "commits: expected commits that stay while they are read, found a removed one each time, \
         of 16 times"
    );
}
