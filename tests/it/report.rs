//! A run on a page: what stands there, what is escaped, and what is recorded for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use burn_ema::{AverageConfig, Rule, model::MlpConfig};
use burn_ema_lab::{
    data::{Feature, Preparation, Scale, Task},
    report::{Answered, MadeOf, Page, Report, Summary},
    run::{OptimizerKind, RunConfig, RunDirectory},
};
use serde_json::{Value, json};

use crate::examples::{example, fails, succeeds};

/// What a user could have written, in a language that the page speaks too.
pub const HOSTILE: [&str; 5] = [
    "</td></table></svg><script>alert('label')</script>",
    "\"><img src=x onerror=alert(1)>",
    "' onload='alert(2)' x='",
    "&lt;b&gt; &amp; ]]> --> <!-- <style>*{display:none}</style>",
    "a\u{202e}b\nc\u{1b}[31m<svg onload=alert(3)>",
];

/// Rules of a run, the first of which validates.
const RULES: [&str; 4] =
    ["ema(0.999, debias)", "ema(0.99)", "power(sigma_rel=0.1)", "window(5 snapshots, 100 steps)"];

/// A run that never was, with all that one leaves.
pub fn generated(path: &Path, epochs: usize, averages: usize, hostile: bool) -> RunDirectory {
    let name = |index: usize, plain: &str| match hostile {
        true => format!("{}{index}", HOSTILE[index % HOSTILE.len()]),
        false => plain.to_owned(),
    };
    let labels: Vec<_> = (0..10).map(|index| name(index, &index.to_string())).collect();
    let scale = Scale { offset: 0.0, divisor: 16.0 };
    let feature = |index: usize| Feature::number(name(index, &format!("p{index:02}")), scale);
    let features = (0..64).map(feature).collect();
    let task = Task::Classification { labels: labels.clone() };
    let configs = RULES[..averages].iter().enumerate().map(|(index, rule)| {
        let config = AverageConfig::new(rule.parse::<Rule>().unwrap());
        // A name takes neither slashes nor the ends of lines.
        let named = name(index, rule).replace(['/', '\\'], "").replace(char::is_control, "");
        config.with_name(hostile.then_some(named))
    });
    let config = RunConfig {
        model: MlpConfig::new(vec![64, 64, 10]),
        preparation: Preparation::new(name(4, "digit"), features, task).unwrap(),
        averages: configs.collect(),
        optimizer: OptimizerKind::Adam,
        lr: 0.02,
        epochs,
        batch_size: 8,
        data: hostile.then(|| PathBuf::from(HOSTILE[1])),
        data_sha256: "5e".repeat(32),
        seed: 7,
        commit_every: None,
        keep_every: None,
    };
    let run = RunDirectory::create(path, &config).unwrap();
    let named = config.averages.iter().zip(RULES);
    let names: Vec<_> =
        named.map(|(average, rule)| average.name.clone().unwrap_or(rule.to_owned())).collect();

    let steps = epochs * 135;
    fs::write(path.join("metrics.csv"), history(epochs, &names)).unwrap();
    let made = RULES[..averages]
        .iter()
        .zip(&names)
        .map(|(rule, name)| made_of(rule, name, &config.averages[0], steps as u64));
    let cells = |shift: usize| {
        let right = (0..10).map(|class| (class, class, 33));
        right.chain((0..10).map(|class| (class, (class + shift) % 10, 3))).collect()
    };
    let summary = Summary {
        steps: steps as u64,
        refused_steps: 2,
        parameters: 4810,
        rows: [1078, 359, 360],
        averages: made.collect(),
        answers: Answered::Classes { labels, live: cells(1), average: cells(3) },
    };
    run.write_json("summary.json", &summary).unwrap();
    let scores = |index: usize| {
        let loss = 0.018 + 1.0 / (7.0 + index as f64);
        json!({ "test_loss": loss, "test_accuracy": 0.9 + 0.01 / (3.0 + index as f64) })
    };
    let rule = |index: usize| {
        let mut scores = scores(index);
        scores["rule"] = RULES[index].into();
        scores
    };
    let validation =
        names.iter().enumerate().map(|(index, name)| json!([name, 0.1 / (1.7 + index as f64)]));
    let report = json!({
        "device": name(2, "flex (CPU)"),
        "seed": 7,
        "validation": {
            "live": 1.0 / 47.0,
            "averages": validation.collect::<Vec<_>>(),
            "best": averages - 1,
        },
        "live": scores(9),
        "averages": (0..averages).map(rule).collect::<Vec<_>>(),
    });
    let report: Report = serde_json::from_value(report).unwrap();
    run.write_json("report.json", &report).unwrap();
    if hostile {
        HOSTILE.iter().for_each(|note| run.note(format!("warning: {note}")).unwrap());
    }
    run
}

fn made_of(rule: &str, name: &str, config: &AverageConfig, steps: u64) -> MadeOf {
    let config = AverageConfig { rule: rule.parse().unwrap(), ..config.clone() };
    let profile = config.profile_after(steps).unwrap();
    let columns: Vec<_> = profile.weights().iter().rev().take(200).map(|(_, w)| *w).collect();
    MadeOf {
        name: name.to_owned(),
        rule: rule.to_owned(),
        refused_updates: 1,
        mass_on_start: profile.mass_on_start(),
        mean_age: profile.mean_age(),
        standard_deviation: profile.standard_deviation(),
        half_life: profile.half_life(),
        effective_steps: profile.effective_steps(),
        step: steps,
        width: 1,
        older: 1.0 - columns.iter().sum::<f64>(),
        columns: columns.into_iter().rev().collect(),
    }
}

/// A history such as a training writes, with its single batches.
fn history(epochs: usize, names: &[String]) -> String {
    let mut lines = csv::Writer::from_writer(Vec::new());
    let mut line = |cells: [&str; 5]| lines.write_record(cells).unwrap();
    line(["split", "epoch", "metric", "value", "count"]);
    for epoch in 1..=epochs {
        let number = epoch.to_string();
        for batch in 0..45 {
            let value = (batch as f64 / epoch as f64).to_string();
            line(["train", &number, "Loss", &value, "8"]);
            line(["valid", &number, "Loss", &value, "8"]);
        }
        let noise = |of: usize| ((epoch * (of + 3) * 7919) % 101) as f64 / 101.0;
        let settled = 0.018 + 0.3 / epoch as f64;
        let all = std::iter::once(("live", 0)).chain(names.iter().map(String::as_str).zip(1..));
        for (name, of) in all {
            let metric = |metric: &str| match of {
                1 => metric.to_owned(),
                _ => format!("{metric} ({name})"),
            };
            let jump = noise(of) * 0.02 / (1 + of) as f64;
            line(["valid", &number, &metric("Loss"), &(settled + jump).to_string(), "epoch"]);
            let accuracy = (98.0 - 100.0 * settled - 50.0 * jump).to_string();
            line(["valid", &number, &metric("Accuracy"), &accuracy, "epoch"]);
            if of > 0 {
                let distance = (0.05 * settled * of as f64).to_string();
                let metric = format!("Distance ({name})");
                line(["valid", &number, &metric, &distance, "epoch"]);
            }
        }
        let samples = if epoch == 1 { 64 } else { 3 };
        for sample in 0..samples {
            let step = if epoch == 1 { sample } else { (epoch - 1) * 135 + sample * 45 };
            let of = |of: usize| -> Vec<f64> {
                (0..4)
                    .map(|w| (step as f64 / 300.0 + f64::from(w)).sin() + noise(of + w as usize))
                    .collect()
            };
            let averages: Vec<_> =
                names.iter().zip(1..).map(|(name, index)| json!([name, of(index)])).collect();
            let weights = ["0[1365]", "0[2730]", "1[213]", "1[426]"];
            let weights =
                weights.map(|place| format!("layers.{}", place.replacen('[', ".weight[", 1)));
            let text =
                json!({ "step": step, "weights": weights, "live": of(0), "averages": averages });
            line(["train", &number, "Weights", &text.to_string(), "text"]);
        }
    }
    String::from_utf8(lines.into_inner().unwrap()).unwrap()
}

/// A name, the attributes and the text.
type Element = (String, BTreeMap<String, String>, String);

/// The elements of a page, each with its attributes, and its text; a panic where tags do not pair,
/// or where an attribute is not as we write them.
fn elements(html: &str) -> Vec<Element> {
    const VOID: [&str; 4] = ["!doctype", "meta", "link", "?xml"];
    let mut found: Vec<Element> = Vec::new();
    let mut open: Vec<usize> = Vec::new();
    let mut rest = html;
    while let Some((text, tag)) = rest.split_once('<') {
        if let Some(&last) = open.last() {
            found[last].2 += text;
        }
        let (tag, after) = tag.split_once('>').expect("a tag that ends");
        rest = after;
        if let Some(name) = tag.strip_prefix('/') {
            let last = open.pop().unwrap_or_else(|| panic!("</{name}> ends nothing"));
            assert_eq!(found[last].0, name, "ends another element");
            continue;
        }
        let closed = tag.ends_with('/') || tag.ends_with('?');
        let (name, mut attributes) = tag.split_once(char::is_whitespace).unwrap_or((tag, ""));
        let name = name.trim_end_matches('/').to_lowercase();
        let mut each = BTreeMap::new();
        while let Some((key, value)) = attributes.split_once("=\"") {
            let (value, after) = value.split_once('"').expect("a quoted attribute");
            let key = key.trim();
            assert!(key.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'), "{key}");
            assert!(each.insert(key.to_owned(), value.to_owned()).is_none(), "{key} twice");
            attributes = after;
        }
        found.push((name.clone(), each, String::new()));
        if !closed && !VOID.contains(&name.as_str()) {
            open.push(found.len() - 1);
        }
        if name == "style" {
            let (css, after) = rest.split_once("</style>").unwrap();
            assert!(!css.contains('<'), "{css}");
            open.pop();
            rest = after;
        }
    }
    assert!(open.is_empty(), "{:?} do not end", open.iter().map(|i| &found[*i].0));
    found
}

/// Every number of a JSON value, by its pointer.
pub fn leaves(value: &Value, at: String, into: &mut BTreeMap<String, f64>) {
    match value {
        Value::Number(number) => drop(into.insert(at, number.as_f64().unwrap())),
        Value::Array(values) => {
            let values = values.iter().enumerate();
            values.for_each(|(index, value)| leaves(value, format!("{at}/{index}"), into));
        }
        Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| leaves(value, format!("{at}/{name}"), into));
        }
        _ => {}
    }
}

/// The scores of a run's `report.json`, by pointer.
pub fn scores(run: &Path) -> BTreeMap<String, f64> {
    let text = fs::read(run.join("report.json")).unwrap();
    let mut numbers = BTreeMap::new();
    leaves(&serde_json::from_slice(&text).unwrap(), String::new(), &mut numbers);
    // An index and a seed, which stand on the page in words.
    numbers.retain(|at, _| at != "/seed" && at != "/validation/best");
    assert!(numbers.len() > 3);
    numbers
}

/// Checks that a page shows exactly the scores of these runs.
fn assert_shows(html: &str, runs: &[&Path]) {
    let elements = elements(html);
    let data = elements.iter().filter(|(name, ..)| name == "data");
    let mut shown = vec![BTreeMap::new(); runs.len()];
    for (_, attributes, text) in data {
        let run: usize = attributes["data-run"].parse().unwrap();
        let (from, value) = (&attributes["data-from"], attributes["value"].parse::<f64>().unwrap());
        let rounded = match text.strip_suffix(" %") {
            Some(percent) => (percent.parse::<f64>().unwrap() / 100.0, 5.001e-5),
            None if from.ends_with("_r2") => (text.parse::<f64>().unwrap(), 5.001e-5),
            None => (text.parse::<f64>().unwrap(), 5.001e-7),
        };
        assert!((rounded.0 - value).abs() < rounded.1, "{from}: {text} for {value}");
        assert!(shown[run].insert(from.clone(), value).is_none(), "{from} twice");
    }
    for (run, shown) in runs.iter().zip(shown) {
        assert_eq!(scores(run), shown);
    }
}

#[test]
fn a_page_shows_the_run_and_only_what_we_wrote_is_html() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run <b> & \"co\"");
    let run = generated(&path, 12, 4, true);
    let page = Page::of(&[run]).unwrap();
    let html = page.html();
    assert_shows(html, &[&path]);

    let elements = elements(html);
    let names: BTreeSet<_> = elements.iter().map(|(name, ..)| name.as_str()).collect();
    let ours = [
        "!doctype",
        "a",
        "b",
        "body",
        "circle",
        "code",
        "data",
        "div",
        "figcaption",
        "figure",
        "h1",
        "h2",
        "head",
        "header",
        "html",
        "i",
        "li",
        "line",
        "link",
        "main",
        "meta",
        "nav",
        "p",
        "polygon",
        "polyline",
        "pre",
        "rect",
        "small",
        "style",
        "svg",
        "table",
        "tbody",
        "td",
        "text",
        "th",
        "thead",
        "title",
        "tr",
        "ul",
    ];
    assert!(names.iter().all(|name| ours.contains(name)), "{names:?}");
    for (name, attributes, _) in &elements {
        for (key, value) in attributes {
            assert!(!key.starts_with("on"), "{name} {key}");
            let loads = ["src", "href", "xlink:href", "data", "action", "srcset", "poster"];
            let harmless = value.starts_with('#') || value == "data:,";
            assert!(!loads.contains(&key.as_str()) || harmless, "{name} {key}={value}");
        }
    }
    assert!(!html.contains(|c: char| (c.is_control() && c != '\n') || c == '\u{202e}'));
    // What was escaped is there, for people to read.
    for text in ["&lt;script&gt;alert(&#39;label&#39;)&lt;/script&gt;0", "onerror=alert(1)&gt;1"] {
        assert!(html.contains(text), "{text}");
    }
    assert!(html.contains("run &lt;b&gt; &amp; &quot;co&quot;</h1>"));
    assert!(html.contains("warning: &quot;&gt;&lt;img src=x onerror=alert(1)&gt;</li>"));
    assert!(html.contains(
        "<li>refused, since numbers were not finite: 2 steps of the optimizer, 4 updates"
    ));

    // The same pictures as files, each an XML document that is whole.
    let page_file = directory.path().join("out.html");
    let pictures = page.write(&page_file).unwrap();
    assert_eq!(fs::read_to_string(&page_file).unwrap(), html);
    let files: BTreeSet<_> = fs::read_dir(&pictures)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let expected = [
        "accuracy.svg",
        "confusion-average.svg",
        "confusion-live.svg",
        "distance.svg",
        "gap.svg",
        "loss.svg",
        "profile-1.svg",
        "profile-2.svg",
        "profile-3.svg",
        "profile-4.svg",
        "weight-1.svg",
        "weight-2.svg",
        "weight-3.svg",
        "weight-4.svg",
    ];
    assert!(files.iter().map(String::as_str).eq(expected), "{files:?}");
    for file in files {
        let svg = fs::read_to_string(pictures.join(&file)).unwrap();
        let (_, inside) = svg.split_once("</style>\n").unwrap();
        assert!(html.contains(inside), "{file} is drawn on the page");
        let parts = self::elements(&svg);
        assert_eq!(parts[1].1["xmlns"], "http://www.w3.org/2000/svg");
        assert!(!svg.contains(|c: char| c.is_control() && c != '\n'), "{file}");
    }
}

#[test]
fn the_best_epoch_is_named_and_marked() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run");
    let run = generated(&path, 3, 1, false);
    let lines = |losses: [f64; 3]| {
        let mut text = "split,epoch,metric,value,count\n".to_owned();
        for (epoch, loss) in (1..).zip(losses) {
            let _ = writeln!(text, "valid,{epoch},Loss,{loss},epoch");
            let _ = writeln!(text, "valid,{epoch},Loss (live),{},epoch", loss + 0.25);
        }
        fs::write(path.join("metrics.csv"), text).unwrap();
    };
    let marks = |html: &str| {
        let svg = html.split("<svg").nth(1).unwrap();
        svg.split("</svg>").next().unwrap().matches("<circle").count()
    };
    let run = std::slice::from_ref(&run);
    lines([0.5, 0.125, 0.25]);
    let page = Page::of(run).unwrap();
    let html = page.html();
    assert!(html.contains(">0.125000<small>epoch 2</small>"), "{html}");
    assert!(html.contains(">0.375000<small>epoch 2</small>"));
    assert!(html.contains(">0.250000<small>epoch 3</small>"));
    assert_eq!(marks(html), 4, "two curves, each mark with its edge");
    // Of equals the first; what is no number is none.
    lines([0.5, 0.5, f64::NAN]);
    let page = Page::of(run).unwrap();
    assert!(page.html().contains(">0.500000<small>epoch 1</small>"));
    assert!(page.html().contains(">NaN<small>epoch 3</small>"));
}

#[test]
fn runs_stand_side_by_side() {
    let directory = tempfile::tempdir().unwrap();
    let paths = ["a", "b", "c"].map(|name| directory.path().join(name));
    let runs: Vec<_> = paths
        .iter()
        .zip([4, 9, 2])
        .map(|(path, epochs)| generated(path, epochs, 2, false))
        .collect();
    fs::remove_file(paths[2].join("report.json")).unwrap();
    fs::remove_file(paths[2].join("summary.json")).unwrap();
    let page = Page::of(&runs).unwrap();
    let html = page.html();
    assert_shows(
        html.split("<main>").nth(1).unwrap().split("</main>").next().unwrap(),
        &[&paths[0], &paths[1]],
    );
    assert!(html.contains("--columns:3"));
    assert!(
        html.contains("<tr class=\"differs\"><th>epochs</th><td>4</td><td>9</td><td>2</td></tr>")
    );
    assert!(
        html.contains("<tr><th>learning rate</th><td>0.02</td><td>0.02</td><td>0.02</td></tr>")
    );
    assert!(html.contains("The run has not ended; this is what there is so far."));
    let names: Vec<_> = page.pictures().map(|(name, _)| name.to_owned()).collect();
    for name in ["1-loss.svg", "2-loss.svg", "3-loss.svg", "1-confusion-live.svg"] {
        assert!(names.iter().any(|other| other == name), "{name} in {names:?}");
    }
    assert!(!names.contains(&"3-confusion-live.svg".to_owned()));
    // Pictures of one kind have one height.
    let heights = |name: &str| {
        let (_, svg) = page.pictures().find(|(other, _)| *other == name).unwrap();
        let texts = elements(&svg).into_iter().filter(|(tag, ..)| tag == "text");
        let texts: Vec<_> =
            texts.filter(|(_, a, _)| a["text-anchor"] == "end").map(|(.., t)| t).collect();
        assert!(texts.len() > 2, "{texts:?}");
        texts
    };
    assert_eq!(heights("1-loss.svg"), heights("2-loss.svg"));
}

/// A run of another program, of which there are commits and a history alone.
#[test]
fn a_run_of_another_module_has_its_page() {
    let run = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/commit-format-1");
    let page = Page::of(&[RunDirectory::open(run).unwrap()]).unwrap();
    let html = page.html();
    assert!(html.contains("The run has not ended; this is what there is so far."));
    assert!(html.contains("<tr><th>hidden</th><td>8</td></tr>"), "{html}");
    assert!(html.contains("let model = commit.average(MyModel::new(&amp;device))?;"));
    for rule in ["ema(0.9)", "power(sigma_rel=0.2)"] {
        assert!(html.contains(rule), "{rule}: {html}");
    }
    let names: Vec<_> = page.pictures().map(|(name, _)| name).collect();
    assert_eq!(names, ["loss.svg", "gap.svg"]);
}

/// What is damaged is an error by its name, or a note; what is lost is said.
#[test]
fn what_is_missing_or_damaged_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run");
    let run = generated(&path, 2, 1, false);
    let runs = std::slice::from_ref(&run);
    let history = fs::read(path.join("metrics.csv")).unwrap();
    let damaged = [&history[..history.len() - 40], b"\nvalid,x\xff,Loss,1,epoch\n"].concat();
    fs::write(path.join("metrics.csv"), damaged).unwrap();
    let page = Page::of(runs).unwrap();
    assert!(page.html().contains("<li>metrics.csv, before line"), "{}", page.html());
    fs::remove_file(path.join("metrics.csv")).unwrap();
    assert!(Page::of(runs).unwrap().html().contains("<li>no metrics.csv is left"));
    for name in ["report.json", "summary.json"] {
        let whole = fs::read(path.join(name)).unwrap();
        fs::write(path.join(name), &whole[..whole.len() / 2]).unwrap();
        let error = Page::of(runs).unwrap_err().to_string();
        assert!(error.contains("cannot read") && error.contains(name), "{error}");
        fs::write(path.join(name), whole).unwrap();
    }
    assert_eq!(
        Page::of(&[]).unwrap_err().to_string(),
        "the number of runs is 0, expected 1 or more"
    );
    let error = Page::of(runs).unwrap().write(directory.path().join("page")).unwrap_err();
    assert!(error.to_string().contains("page"), "{error}");
}

#[test]
fn numbers_of_any_size_are_drawn() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run");
    let run = generated(&path, 2, 1, false);
    let values =
        ["0", "-1", "1e308", "-1e308", "1e-320", "inf", "-inf", "NaN", "0.5", "0.5000000001"];
    for first in values {
        for second in values {
            let mut text = "split,epoch,metric,value,count\n".to_owned();
            for metric in ["Loss", "Loss (live)", "Accuracy", "Distance (ema(0.999, debias))"] {
                let _ = writeln!(
                    text,
                    "valid,1,\"{metric}\",{first},epoch\nvalid,2,\"{metric}\",{second},epoch"
                );
            }
            fs::write(path.join("metrics.csv"), text).unwrap();
            let page = Page::of(std::slice::from_ref(&run)).unwrap();
            assert!(page.html().len() < 200_000, "{first} and {second}: {}", page.html().len());
        }
    }
}

/// The program, on a run of `train`: everything is recorded that the page draws.
#[test]
fn a_training_leaves_its_page() {
    let directory = tempfile::tempdir().unwrap();
    let run = directory.path().join("a run");
    let mut train = example("train");
    train.args(["--device", "flex", "--epochs", "2", "--decay", "0.99", "--average", "ema(0.9)"]);
    let (stdout, stderr) = succeeds(train.arg("--run").arg(&run));
    assert!(stdout.contains(&format!("saved in {}:", run.display())), "{stdout}");
    assert!(stdout.contains(&format!("'{}/report.html'", run.display())), "{stdout}");
    assert!(stdout.contains(&format!("infer -- --run '{}'", run.display())), "{stdout}");
    let last = stderr.lines().last().unwrap();
    assert!(last.contains(" rows/s, 0 s left") && !last.contains("Distance"), "{stderr}");
    assert!(last.contains("(live ") && last.contains("ema(0.9) "), "{stderr}");

    let html = fs::read_to_string(run.join("report.html")).unwrap();
    assert_shows(&html, &[&run]);
    for missing in ["not recorded", "was recorded", "were recorded", "NaN"] {
        assert!(!html.contains(missing), "{missing}");
    }
    let summary = fs::read(run.join("summary.json")).unwrap();
    let summary: Summary = serde_json::from_slice(&summary).unwrap();
    assert_eq!((summary.steps, summary.rows), (270, [1078, 359, 360]));
    // The confusion has the accuracy of the report.
    let Answered::Classes { live, average, .. } = &summary.answers else { panic!("{summary:?}") };
    let share = |counts: &[(usize, usize, u64)]| {
        let right = counts.iter().filter(|(right, answer, _)| right == answer).map(|(.., n)| n);
        let (right, all) = (right.sum::<u64>(), counts.iter().map(|(.., n)| n).sum::<u64>());
        assert_eq!(all, 360);
        right as f64 / all as f64
    };
    let scores = scores(&run);
    let report = fs::read(run.join("report.json")).unwrap();
    let best = serde_json::from_slice::<Report>(&report).unwrap().validation.best;
    let accuracy = |of: &str| scores[&format!("{of}/test_accuracy")];
    assert!((share(live) - accuracy("/live")).abs() < 1e-9);
    assert!((share(average) - accuracy(&format!("/averages/{best}"))).abs() < 1e-9);

    // The same page again; and what is no run is an error with its name.
    fs::remove_file(run.join("report.html")).unwrap();
    let (stdout, _) = succeeds(example("report").arg(&run));
    assert!(stdout.contains("report.html: ") && stdout.contains(" pictures\n"), "{stdout}");
    assert_eq!(fs::read_to_string(run.join("report.html")).unwrap(), html);
    let message = fails(example("report").arg(directory.path().join("nowhere")));
    assert!(message.contains("nowhere/config.json"), "{message}");
}

/// Mean and worst of a validation metric over some epochs, from the file of metrics.
fn spread(run: &Path, metric: &str, epochs: &[usize], worse: fn(f64, f64) -> f64) -> (f64, f64) {
    let mut lines = csv::Reader::from_path(run.join("metrics.csv")).unwrap();
    let lines: Vec<_> = lines.records().map(Result::unwrap).collect();
    let value = |epoch: &usize| {
        let cells = ["valid".to_owned(), epoch.to_string(), metric.to_owned()];
        let mut of_epoch = lines.iter().filter(|line| line.iter().take(3).eq(&cells));
        of_epoch.find(|line| &line[4] == "epoch").unwrap()[3].parse::<f64>().unwrap()
    };
    let values: Vec<_> = epochs.iter().map(value).collect();
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    (mean, values.into_iter().reduce(worse).unwrap())
}

/// The last table of a training: its rows of numbers, and the same cells on its page.
#[test]
fn the_second_half_is_that_of_the_history_also_after_a_resume() {
    let directory = tempfile::tempdir().unwrap();
    let [whole, resumed] = ["whole", "resumed"].map(|name| directory.path().join(name));
    let train = |run: &Path, options: &[&str]| {
        let mut train = example("train");
        train.args(["--device", "flex", "--run"]).arg(run).args(options);
        succeeds(&mut train).0
    };
    let table = |stdout: &str| {
        let lines = stdout.lines().skip_while(|line| !line.starts_with("in validation,"));
        lines.take_while(|line| !line.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    };
    let printed = table(&train(&whole, &["--epochs", "3", "--decay", "0.9"]));
    let metrics = [("live", " (live)"), ("ema(0.9, debias)", "")];
    let losses = metrics.map(|(_, of)| spread(&whole, &format!("Loss{of}"), &[2, 3], f64::max));
    let [live, average] = losses;
    let change = |average: f64, live: f64| 100.0 * (average / live - 1.0);
    let (mean, worst) = (change(average.0, live.0), change(average.1, live.1));
    let rows = metrics.iter().zip(losses).map(|((name, of), (mean, worst))| {
        let accuracy = spread(&whole, &format!("Accuracy{of}"), &[2, 3], f64::min);
        format!("{name:18} {mean:.6} {worst:.6} {:.2} % {:.2} %", accuracy.0, accuracy.1)
    });
    let mut expected: Vec<_> = rows.collect();
    expected[1] += &format!(" loss {mean:+.1} %, worst {worst:+.1} %");
    let words = |line: &String| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words(&printed[1])[..4], ["epochs", "2", "to", "3"]);
    let found: Vec<_> = printed[2..].iter().map(words).collect();
    assert_eq!(found, expected.iter().map(words).collect::<Vec<_>>());
    let html = fs::read_to_string(whole.join("report.html")).unwrap();
    assert!(html.contains("In validation, over epochs 2 to 3: "), "{html}");
    let cell = |loss: f64, change: f64| {
        let class = if change < 0.0 { "good" } else { "bad" };
        format!("<td class=\"n\">{loss:.6}<small class=\"{class}\">{change:+.1} %</small></td>")
    };
    assert!(html.contains(&(cell(average.0, mean) + &cell(average.1, worst))), "{html}");
    assert!(html.contains(&format!("<td class=\"n\">{:.6}</td>", live.1)), "{html}");

    train(&resumed, &["--epochs", "2", "--decay", "0.9"]);
    assert_eq!(table(&train(&resumed, &["--resume", "--epochs", "3"])), printed);

    // An average that comes later has fewer epochs, and is compared with none.
    let other = ["--resume", "--epochs", "4", "--decay", "0.9", "--average", "ema(0.5)"];
    let printed = table(&train(&resumed, &other));
    assert!(printed[1].starts_with("epochs 3 to 4"), "{printed:?}");
    assert!(printed[3].contains(" loss ") && printed[3].contains(", worst "), "{printed:?}");
    let lacks = "  loss of 1 of 2 epochs, accuracy of 1 of 2 epochs";
    assert!(printed[4].starts_with("ema(0.5)") && printed[4].ends_with(lacks), "{printed:?}");
    assert!(!printed[4].contains(", worst "), "{printed:?}");
}

#[test]
fn a_regression_is_drawn_as_predicted_against_right() {
    let directory = tempfile::tempdir().unwrap();
    let [table, run] = ["table.csv", "run"].map(|name| directory.path().join(name));
    let row = |i: i32| format!("{i},{}.5\n", 3 * i);
    fs::write(&table, format!("x,\"<b>y\"\n{}", (0..200).map(row).collect::<String>())).unwrap();
    let mut train = example("train");
    train.args(["--device", "flex", "--epochs", "3", "--target", "<b>y", "--data"]).arg(&table);
    let (stdout, stderr) = succeeds(train.arg("--run").arg(&run));
    let summary = fs::read(run.join("summary.json")).unwrap();
    let summary: Summary = serde_json::from_slice(&summary).unwrap();
    let Answered::Numbers { target, rows, right, live, average } = &summary.answers else {
        panic!("{summary:?}")
    };
    assert_eq!((target.as_str(), *rows, right.len()), ("<b>y", 40, 40));
    assert_eq!((live.len(), average.len()), (40, 40));
    // In the target's own unit.
    assert!(
        right.iter().all(|y| (y - y.round()).abs() > 0.4 && (0.0..600.0).contains(y)),
        "{right:?}"
    );
    let html = fs::read_to_string(run.join("report.html")).unwrap();
    assert_shows(&html, &[&run]);
    assert!(html.contains("<figcaption>&lt;b&gt;y<small>40 rows</small>"), "{html}");
    assert!(run.join("report/predicted.svg").exists());

    // R2 of the answers, from their definition.
    let mean = right.iter().sum::<f64>() / 40.0;
    let squares = |of: &dyn Fn(usize) -> f64| (0..40).map(|i| of(i).powi(2)).sum::<f64>();
    let total = squares(&|i| right[i] - mean);
    let r2 = |answers: &[f64]| 1.0 - squares(&|i| answers[i] - right[i]) / total;
    let report: Report =
        serde_json::from_slice(&fs::read(run.join("report.json")).unwrap()).unwrap();
    for (found, answers) in [(report.live, live), (report.averages[0].scores, average)] {
        assert!((found.r2.unwrap() - r2(answers)).abs() < 1e-5, "{found:?} {}", r2(answers));
        assert_eq!(found.accuracy, None);
        assert!(stdout.contains(&format!("  {:.4}", found.r2.unwrap())), "{stdout}");
    }
    assert!(stdout.contains("test loss        test R2\n"), "{stdout}");
    // In validation it is the loss in other units: 1 - 2 loss / variance, at each epoch.
    let values = |metric: &str| [1, 2, 3].map(|epoch| spread(&run, metric, &[epoch], f64::max).0);
    for of in ["", " (live)"] {
        let (losses, r2) = (values(&format!("Loss{of}")), values(&format!("R2{of}")));
        let half_variances = losses.iter().zip(r2).map(|(loss, r2)| loss / (1.0 - r2));
        let half_variances: Vec<_> = half_variances.collect();
        assert!(half_variances.iter().all(|v| (v / half_variances[0] - 1.0).abs() < 1e-9));
        // The target is scaled to variance 1 over the training rows.
        assert!((0.3..0.7).contains(&half_variances[0]), "{half_variances:?}");
    }
    let last = stderr.lines().last().unwrap();
    assert!(last.contains("  R2 ") && last.matches("(live ").count() == 2, "{stderr}");
    let (mean, worst) = spread(&run, "R2 (live)", &[2, 3], f64::min);
    assert!(stdout.contains(&format!("{mean:.4}  {worst:>8.4}")), "{stdout}");
    assert!(html.contains("mean R2</th>") && html.contains("<figcaption>R2</figcaption>"));
    assert!(run.join("report/r2.svg").exists());
}

/// Equal targets in validation and test have no R2; the loss stays.
#[test]
fn a_regression_without_a_variance_has_no_r2() {
    let directory = tempfile::tempdir().unwrap();
    let [table, run] = ["table.csv", "run"].map(|name| directory.path().join(name));
    let mut train = example("train");
    // Of five rows one validates and one tests.
    fs::write(&table, "x,y\n1,1.5\n2,2.5\n3,3.5\n4,4.5\n5,5.5\n").unwrap();
    train.args(["--device", "flex", "--epochs", "1", "--target", "y", "--task", "regression"]);
    let (stdout, stderr) = succeeds(train.arg("--data").arg(&table).arg("--run").arg(&run));
    assert!(stdout.contains("test loss\n") && !stdout.contains("test R2"), "{stdout}");
    assert!(stdout.contains("note: no R2 in validation: its targets are all equal"), "{stdout}");
    assert!(!stderr.contains("R2"), "{stderr}");
}
