//! What the guide says, and the formulas of the documentation.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use burn_ema::Rule;

/// The pages with a table of rules.
const PAGES: [&str; 2] =
    [include_str!("../../README.md"), include_str!("../../src/guide/choosing.md")];
const HEADER: &str = include_str!("../../src/guide/formulas.html");

/// The blocks of formulas in all sources, on one line each.
fn formulas(directory: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            formulas(&path, found);
        } else if path.extension().is_some_and(|kind| kind == "rs" || kind == "md") {
            let text = fs::read_to_string(&path).unwrap();
            let lines = text.lines().map(|line| {
                let line = line.trim_start();
                line.strip_prefix("///").or_else(|| line.strip_prefix("//!")).unwrap_or(line).trim()
            });
            let mut block: Option<Vec<&str>> = None;
            for line in lines {
                match (&mut block, line) {
                    (None, "```math") => block = Some(Vec::new()),
                    (None, _) => {}
                    (Some(_), "```") => {
                        let words = block.take().unwrap().join(" ");
                        found.insert(words.split_whitespace().collect::<Vec<_>>().join(" "));
                    }
                    (Some(lines), line) => lines.push(line),
                }
            }
            assert!(block.is_none(), "{} leaves a formula open", path.display());
        }
    }
}

#[test]
fn every_formula_is_drawn_in_the_documentation() {
    let mut written = BTreeSet::new();
    formulas(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut written);
    assert!(written.len() > 15, "{written:?}");
    let object = HEADER.split_once("const formulas = ").unwrap().1.split_once(";\n").unwrap().0;
    let drawn: BTreeMap<String, String> = serde_json::from_str(object).unwrap();
    assert_eq!(drawn.keys().cloned().collect::<BTreeSet<_>>(), written, "run tests/formulas.mjs");
    for (formula, drawn) in drawn {
        let whole = drawn.starts_with("<math ") && drawn.ends_with("</math>");
        assert!(whole && !drawn.contains("merror"), "{formula}: {drawn}");
    }
    // Nothing is loaded from elsewhere.
    assert!(!HEADER.contains(" src=") && !HEADER.contains(" href="));
}

/// The rules that the README and the guide name in their tables are rules.
#[test]
fn the_rules_of_the_guide_can_be_parsed() {
    for (page, least) in PAGES.into_iter().zip([8, 28]) {
        let mut count = 0;
        let lines = page.lines().filter_map(|line| line.strip_prefix("| "));
        for cell in lines.flat_map(|line| line.split(" | ").take(2)) {
            for code in cell.split('`').skip(1).step_by(2) {
                let other = code.contains("...") || code.starts_with(|c: char| !c.is_lowercase());
                // `k`, paths and calls of methods are no rules; neither is a formula.
                let formula = code.starts_with("min(") || code.starts_with("steps ");
                if other || formula || !code.ends_with(')') {
                    continue;
                }
                code.parse::<Rule>().unwrap_or_else(|error| panic!("{code}: {error}"));
                count += 1;
            }
        }
        assert!(count >= least, "{count}");
    }
}
