use super::*;

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
    let manifest = Manifest {
        format: FORMAT,
        run: "a".to_owned(),
        progress,
        steps: 1,
        samples: 0,
        loader: None,
        seed: 0,
        parts: Vec::new(),
        config: serde_json::Value::Null,
        metrics: Default::default(),
        files: BTreeMap::new(),
        versions: Vec::new(),
        written: 0,
    };
    commits.write(manifest, &BTreeMap::from([(MODEL, &record[..])]), <[_]>::to_vec).unwrap();

    let commit = commits.open(progress).unwrap();
    let error = commit.model_by(|_| -> Result<()> { unreachable!("it was handed over") });
    let error = error.unwrap_err();
    assert!(error.to_string().ends_with("epoch-0001/model.bpk"), "{error}");
    assert_eq!(
        std::error::Error::source(&error).unwrap().to_string(),
        "the header: expected at most 69703 items of metadata, in 100010 bytes, found 100000"
    );
}
