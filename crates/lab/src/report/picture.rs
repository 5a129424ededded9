//! Pictures as SVG: lines, columns, cells, points and images.
//!
//! All colours are from a small palette, so that a style sheet can replace each by its counterpart
//! on a dark ground: any rule of CSS overrides a presentation attribute such as `fill`.

mod images; // rows of small grey images

pub use images::Images;

use std::ops::Range;

use burn_ema::{Error, Result};
use plotters::{
    chart::{ChartBuilder, ChartContext},
    coord::{
        Shift,
        cartesian::Cartesian2d,
        ranged1d::{DefaultFormatting, KeyPointHint, Ranged},
    },
    drawing::{DrawingArea, DrawingAreaErrorKind, IntoDrawingArea as _},
    element::{Circle, PathElement, Polygon, Rectangle, Text},
    style::{
        Color as _, FontDesc, FontFamily, FontStyle, FontTransform, RGBColor, ShapeStyle,
        TextStyle,
        text_anchor::{HPos, Pos, VPos},
    },
};
use plotters_svg::SVGBackend;

use super::text::{html, number, plain, short};

/// A colour with its values on a light and on a dark ground.
pub(super) struct Shade {
    pub name: &'static str,
    light: RGBColor,
    pub dark: &'static str,
}

const INK: RGBColor = RGBColor(0x1F, 0x23, 0x28);
const MUTED: RGBColor = RGBColor(0x5A, 0x63, 0x6D);
const GRID: RGBColor = RGBColor(0xE1, 0xE4, 0xE8);
const GROUND: RGBColor = RGBColor(0xFE, 0xFE, 0xFE);
const LIVE: RGBColor = RGBColor(0xC2, 0x41, 0x0C);
const AVERAGES: [RGBColor; 7] = [
    RGBColor(0x1D, 0x4E, 0xD8),
    RGBColor(0x04, 0x78, 0x57),
    RGBColor(0x7E, 0x22, 0xCE),
    RGBColor(0xBE, 0x18, 0x5D),
    RGBColor(0x0E, 0x74, 0x90),
    RGBColor(0xA1, 0x62, 0x07),
    RGBColor(0x4D, 0x7C, 0x0F),
];

/// Every colour that a picture can have.
pub(super) const SHADES: [Shade; 12] = [
    Shade { name: "ink", light: INK, dark: "#E6EDF3" },
    Shade { name: "muted", light: MUTED, dark: "#9DA7B3" },
    Shade { name: "grid", light: GRID, dark: "#2A313A" },
    Shade { name: "ground", light: GROUND, dark: "#0D1117" },
    Shade { name: "live", light: LIVE, dark: "#FB923C" },
    Shade { name: "average-0", light: AVERAGES[0], dark: "#79A8FF" },
    Shade { name: "average-1", light: AVERAGES[1], dark: "#34D399" },
    Shade { name: "average-2", light: AVERAGES[2], dark: "#C99BFF" },
    Shade { name: "average-3", light: AVERAGES[3], dark: "#F58CBF" },
    Shade { name: "average-4", light: AVERAGES[4], dark: "#38D5EE" },
    Shade { name: "average-5", light: AVERAGES[5], dark: "#F2C94C" },
    Shade { name: "average-6", light: AVERAGES[6], dark: "#A6D85B" },
];

impl Shade {
    /// The colour on a light ground, as the backend writes it.
    pub fn light(&self) -> String {
        hex(self.light)
    }
}

fn hex(RGBColor(red, green, blue): RGBColor) -> String {
    format!("#{red:02X}{green:02X}{blue:02X}")
}

/// The CSS rules by which a picture follows the reader's choice of light or dark.
fn style() -> String {
    let dark: String = SHADES
        .iter()
        .map(|shade| {
            let (light, dark) = (shade.light(), shade.dark);
            format!("[fill=\"{light}\"]{{fill:{dark}}}[stroke=\"{light}\"]{{stroke:{dark}}}")
        })
        .collect();
    format!(
        "<style>text{{font-family:system-ui,sans-serif}}@media screen and \
         (prefers-color-scheme:dark){{{dark}}}</style>\n"
    )
}

/// The module that a line shows, which decides the colour of the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// Live.
    Live,
    /// The average with this index; the seven colours repeat.
    Average(usize),
}

impl Of {
    fn color(self) -> RGBColor {
        match self {
            Self::Live => LIVE,
            Self::Average(index) => AVERAGES[index % AVERAGES.len()],
        }
    }

    /// The name of the colour.
    pub(super) fn shade(self) -> String {
        match self {
            Self::Live => "live".to_owned(),
            Self::Average(index) => format!("average-{}", index % AVERAGES.len()),
        }
    }
}

/// A picture, for a file of its own or for a page whose style sheet has the colours.
#[derive(Clone, Debug)]
pub struct Picture {
    /// An SVG element without a style.
    pub(super) inline: String,
    /// The height of the picture in CSS pixels.
    height: u32,
}

impl Picture {
    /// Several pictures as one, from top to bottom.
    pub fn stack(pictures: &[Self]) -> Self {
        let mut height = 0;
        let pictures: String = pictures
            .iter()
            .map(|picture| {
                let moved = format!("<svg y=\"{height}\" ");
                height += picture.height;
                picture.inline.replacen("<svg ", &moved, 1)
            })
            .collect();
        // Without a ground, a page shows through the seams of a picture that is scaled.
        let ground = hex(GROUND);
        let inline = format!(
            "<svg width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
             xmlns=\"http://www.w3.org/2000/svg\">\n\
             <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"{ground}\"/>\n{pictures}</svg>\n"
        );
        Self { inline, height }
    }

    /// The text of an SVG file with the picture, and with a style for light and dark grounds.
    pub fn file(&self) -> String {
        let (open, rest) = self.inline.split_once('\n').unwrap_or((&self.inline, ""));
        format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{open}\n{}{rest}", style())
    }
}

/// A curve.
#[derive(Clone, Debug)]
pub struct Line {
    /// The name in the legend.
    pub name: String,
    /// The module that the curve shows.
    pub of: Of,
    /// The points as `(x, y)`. A point whose `y` is not finite is a gap.
    pub points: Vec<(f64, f64)>,
    /// The least and the largest height around each point, for an area behind the curve; empty for
    /// no area.
    pub spread: Vec<(f64, f64)>,
    /// A point to mark with a dot, if any.
    pub best: Option<(f64, f64)>,
    /// True for a thin line, to draw it beside another line of the same colour.
    pub thin: bool,
}

impl Line {
    /// A curve of the usual width, without a mark.
    pub fn new(
        name: impl Into<String>,
        of: Of,
        points: impl IntoIterator<Item = (f64, f64)>,
    ) -> Self {
        let points = points.into_iter().collect();
        Self { name: name.into(), of, points, spread: Vec::new(), best: None, thin: false }
    }

    /// A curve of means over several runs and, around it, their standard deviation, with a mark at
    /// the least mean; each run has a height for each `x`.
    pub fn of_means<'a>(
        name: impl Into<String>,
        of: Of,
        x: &[f64],
        runs: impl Iterator<Item = &'a [f64]> + Clone,
    ) -> Self {
        let (mut line, count) = (Self::new(name, of, []), runs.clone().count() as f64);
        for (place, x) in x.iter().enumerate() {
            let heights = || runs.clone().filter_map(|run| run.get(place));
            let mean = heights().sum::<f64>() / count;
            let squares: f64 = heights().map(|height| (height - mean).powi(2)).sum();
            // One run has no deviation.
            let off = (squares / (count - 1.0).max(1.0)).sqrt();
            line.points.push((*x, mean));
            line.spread.push((mean - off, mean + off));
        }
        let finite = line.points.iter().filter(|(_, mean)| mean.is_finite());
        line.best = finite.min_by(|(_, a), (_, b)| a.total_cmp(b)).copied();
        line
    }
}

/// The scale of the vertical axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum AxisScale {
    /// Values are drawn as they are.
    Linear,
    /// Values are drawn at their decimal logarithm; values of 0 and less are gaps in a line.
    Log,
    /// Values are drawn at `asinh(value / unit)` with this unit, above 0: by their logarithm on
    /// either side of 0, and in proportion below the unit.
    Signed(f64),
    /// Percentages are drawn by the logarithm of their distance from 100, since an error of 1 % is
    /// half of one of 2 %.
    Percent,
}

/// The least distance from 100 % that is drawn, in percent.
const MIN_MISSING: f64 = 0.05;

impl AxisScale {
    /// The place of a height in the picture; `None` for a gap.
    fn place(self, height: f64) -> Option<f64> {
        let place = match self {
            Self::Linear => height,
            Self::Log if height > 0.0 => height.log10(),
            Self::Log => return None,
            Self::Signed(unit) => (height / unit).asinh(),
            Self::Percent => -(100.0 - height).max(MIN_MISSING).log10(),
        };
        place.is_finite().then_some(place)
    }

    /// The height, as a value of a curve, that is drawn at a place in the picture: the inverse of
    /// [`place`](Self::place).
    fn height(self, place: f64) -> f64 {
        match self {
            Self::Linear => place,
            Self::Log => 10f64.powf(place),
            Self::Signed(unit) => unit * place.sinh(),
            Self::Percent => 100.0 - 10f64.powf(-place),
        }
    }

    /// The number of digits with which the marks differ: powers of 10 need few.
    fn digits(self) -> usize {
        match self {
            Self::Log | Self::Signed(_) => 3,
            Self::Linear | Self::Percent => 4,
        }
    }

    /// The places of marks at round heights, for a range of places.
    fn marks(self, range: (f64, f64)) -> Vec<f64> {
        let inside = |heights: Vec<f64>| -> Vec<f64> {
            let places = heights.into_iter().filter_map(|height| self.place(height));
            places.filter(|place| (range.0..=range.1).contains(place)).collect()
        };
        let (low, high) = (self.height(range.0), self.height(range.1));
        let marks = match self {
            Self::Linear => return ticks(range, 6),
            Self::Log => return log_ticks(range, 7),
            Self::Signed(unit) => {
                let powers = (1..40).map(|power| unit * 10f64.powi(power));
                let powers = powers.take_while(|height| *height <= high.max(-low));
                inside(powers.flat_map(|height| [-height, height]).chain([0.0]).collect())
            }
            Self::Percent => inside([0.0, 50.0, 80.0, 90.0, 95.0, 98.0, 99.0, 99.5, 99.8].into()),
        };
        match marks.len() {
            3.. => marks,
            // A narrow range.
            _ => inside(ticks((low, high), 6)),
        }
    }
}

/// Curves over a common axis.
#[derive(Clone, Debug)]
pub struct Lines {
    /// The title of the horizontal axis.
    pub x: &'static str,
    /// The title above the axes, cut after 66 characters.
    pub y: String,
    /// The scale of the vertical axis.
    pub scale: AxisScale,
    /// The curves.
    pub lines: Vec<Line>,
    /// The height of the axes in CSS pixels, usually [`HEIGHT`].
    pub height: u32,
    /// True to include the height 0, with a line of its own.
    pub zero: bool,
    /// The least and the largest height to include, so that several pictures have one scale;
    /// `None` for those of the lines.
    pub include: Option<(f64, f64)>,
}

/// The width of a picture in CSS pixels.
const WIDTH: u32 = 440;
/// The usual height of a picture's axes in CSS pixels.
pub const HEIGHT: u32 = 250;
/// The height of a line of the legend in CSS pixels.
const ENTRY: u32 = 19;
/// The height of the title above the axes in CSS pixels.
const TITLE: u32 = 30;
/// The size of letters in CSS pixels.
const TEXT: u32 = 12;
/// The units of a picture per CSS pixel, since the backend writes whole numbers.
const FINE: u32 = 4;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<Axis, Axis>>;
type Drawn<T = ()> = std::result::Result<T, DrawingAreaErrorKind<std::io::Error>>;

/// An axis with given marks.
struct Axis {
    range: (f64, f64),
    marks: Vec<f64>,
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (first, last): (i32, i32)) -> i32 {
        let (from, to) = self.range;
        let place = f64::from(first) + f64::from(last - first) * (value - from) / (to - from);
        // The cast turns NaN into 0, and the clamp keeps later sums from overflow.
        place.round().clamp(-1e6, 1e6) as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _hint: Hint) -> Vec<f64> {
        self.marks.clone()
    }

    fn range(&self) -> Range<f64> {
        self.range.0..self.range.1
    }
}

fn pixels(pixels: u32) -> i32 {
    (pixels * FINE) as i32
}

fn words(color: RGBColor, horizontal: HPos, vertical: VPos) -> TextStyle<'static> {
    // The backend divides the size by 1.24.
    let size = f64::from(TEXT * FINE) * 1.24;
    let font = FontDesc::new(FontFamily::SansSerif, size, FontStyle::Normal);
    let pos = Pos::new(horizontal, vertical);
    TextStyle { font, color: color.to_backend_color(), pos }
}

/// A line of this width, in tenths of a CSS pixel.
fn stroke(color: RGBColor, tenths: u32) -> ShapeStyle {
    color.stroke_width(tenths * FINE / 10)
}

/// Draws a picture of this height in CSS pixels, in units of 1 / [`FINE`] pixels.
fn draw(height: u32, paint: impl FnOnce(&Area<'_>) -> Drawn) -> Result<Picture> {
    let mut svg = String::new();
    let drawn = {
        let root = SVGBackend::with_string(&mut svg, (WIDTH * FINE, height * FINE));
        let root = root.into_drawing_area();
        root.fill(&GROUND).and_then(|()| paint(&root)).and_then(|()| root.present())
    };
    drawn.map_err(|error| Error::other(format!("cannot draw a picture: {error}")))?;
    // The size in CSS pixels, so that letters have the usual size where the file is opened.
    let whole = format!("width=\"{}\" height=\"{}\"", WIDTH * FINE, height * FINE);
    let inline = svg.replacen(&whole, &format!("width=\"{WIDTH}\" height=\"{height}\""), 1);
    Ok(Picture { inline, height })
}

/// The multiples of 1, 2 or 5 times a power of 10 in a range, about `most` of them or fewer.
fn ticks((from, to): (f64, f64), most: usize) -> Vec<f64> {
    let rough = (to - from) / most as f64;
    if !(rough > 0.0 && rough.is_finite()) {
        return vec![from];
    }
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|times| times * power);
    let step = step.into_iter().find(|step| *step >= rough * 0.999).unwrap_or(10.0 * power);
    let first = (from / step - 1e-9).ceil();
    let count = ((to / step + 1e-9).floor() - first).max(0.0) as usize;
    (0..=count.min(50)).map(|index| (first + index as f64) * step).collect()
}

/// The marks that are whole numbers, for axes of epochs or steps.
fn whole(mut marks: Vec<f64>) -> Vec<f64> {
    marks.retain(|mark| mark.fract() == 0.0);
    marks
}

/// The decimal logarithms of round numbers in a range of logarithms, in general at most `most`.
fn log_ticks((from, to): (f64, f64), most: usize) -> Vec<f64> {
    let powers = (from.floor() as i32)..=(to.ceil() as i32);
    for times in [&[1.0, 2.0, 3.0, 5.0, 7.0][..], &[1.0, 2.0, 5.0], &[1.0, 3.0], &[1.0]] {
        let all = powers.clone().flat_map(|power| {
            times.iter().map(move |times: &f64| f64::from(power) + times.log10())
        });
        let inside: Vec<_> = all.filter(|tick| (from..=to).contains(tick)).collect();
        if (2..=most).contains(&inside.len()) {
            return inside;
        }
    }
    // A narrow range, of less than a factor of 2, or one of very many powers.
    let around = (10f64.powf(from), 10f64.powf(to));
    match to - from > 1.0 {
        true => ticks((from, to), most).into_iter().filter(|tick| tick.fract() == 0.0).collect(),
        false => ticks(around, most).into_iter().filter(|t| *t > 0.0).map(f64::log10).collect(),
    }
}

/// The least range around all finite numbers, a little widened; 0 to 1 if there are none.
fn range(numbers: impl Iterator<Item = f64>) -> (f64, f64) {
    let finite = numbers.filter(|number| number.is_finite());
    let (from, to) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(from, to), number| {
        (from.min(number), to.max(number))
    });
    if from > to {
        return (0.0, 1.0);
    }
    let around = if to > from { (to - from) * 0.04 } else { (from.abs() * 0.1).max(1e-12) };
    (from - around, to + around)
}

impl Lines {
    /// Curves over axes of the usual height, by the logarithm of their values.
    pub fn log(
        x: &'static str,
        y: impl Into<String>,
        lines: impl IntoIterator<Item = Line>,
    ) -> Self {
        let (y, lines, scale) = (y.into(), lines.into_iter().collect(), AxisScale::Log);
        Self { x, y, scale, lines, height: HEIGHT, zero: false, include: None }
    }

    /// The least and the largest height of the lines, to [include](Self::include) in another
    /// picture; `None` if no point can be drawn.
    pub(super) fn extent(&self) -> Option<(f64, f64)> {
        let points = self.lines.iter().flat_map(|line| &line.points);
        let heights = points.map(|(_, y)| *y).filter(|y| self.scale.place(*y).is_some());
        heights.fold(None, |extent, y| match extent {
            None => Some((y, y)),
            Some((from, to)) => Some((y.min(from), y.max(to))),
        })
    }

    /// Draws the curves with axes and a legend.
    ///
    /// # Errors
    ///
    /// An error of the drawing crate.
    pub fn draw(&self) -> Result<Picture> {
        let names: Vec<_> = self.lines.iter().map(|line| (line.of, line.name.as_str())).collect();
        draw(TITLE + self.height + legend_height(&names), |root| {
            let (axes, below) = root.split_vertically(pixels(TITLE + self.height));
            self.axes(&axes)?;
            legend(&below, &names)
        })
    }

    fn axes(&self, area: &Area<'_>) -> Drawn {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let included = self.include.into_iter().flat_map(|(from, to)| [from, to]);
        let spreads = self.lines.iter().flat_map(|line| &line.spread);
        let included = included.chain(spreads.flat_map(|(from, to)| [*from, *to]));
        let heights = points().map(|(_, y)| *y).chain(included);
        let heights = heights.filter_map(|y| self.scale.place(y)).chain(self.zero.then_some(0.0));
        let (y, x) = (range(heights), range(points().map(|(x, _)| *x)));
        let marks = self.scale.marks(y);
        let shown = |place: &f64| number(self.scale.height(*place), self.scale.digits());
        let along = |x: &f64| number(x.abs(), 7);
        let mut chart = frame(area, &self.y, (x, whole(ticks(x, 6))), (y, marks))?;
        mesh(&mut chart, self.x, &along, &shown)?;
        let plane = chart.plotting_area();
        if self.zero {
            let zero = PathElement::new(vec![(x.0, 0.0), (x.1, 0.0)], stroke(MUTED, 12));
            plane.draw(&zero)?;
        }
        for line in &self.lines {
            let around = line.points.iter().zip(&line.spread);
            let edge = |(x, height): (f64, f64)| Some((x, self.scale.place(height)?));
            let above = around.clone().filter_map(|((x, _), (_, to))| edge((*x, *to)));
            let below = around.rev().filter_map(|((x, _), (from, _))| edge((*x, *from)));
            let area: Vec<_> = above.chain(below).collect();
            if !area.is_empty() {
                plane.draw(&Polygon::new(area, line.of.color().mix(0.15).filled()))?;
            }
        }
        for line in &self.lines {
            let width = if line.thin || line.of == Of::Live { 13 } else { 20 };
            let style = stroke(line.of.color(), width);
            let heights = line.points.iter().map(|(x, y)| Some((*x, self.scale.place(*y)?)));
            let heights: Vec<_> = heights.collect();
            for piece in heights.split(Option::is_none) {
                let piece: Vec<_> = piece.iter().flatten().copied().collect();
                match piece[..] {
                    [] => {}
                    // A line of one point would not be visible.
                    [point] => {
                        plane.draw(&Circle::new(point, pixels(2), line.of.color().filled()))?
                    }
                    _ => plane.draw(&PathElement::new(piece, style))?,
                }
            }
        }
        // The marks are drawn over all lines.
        for line in &self.lines {
            let Some((x, y)) = line.best else { continue };
            let Some(y) = self.scale.place(y) else { continue };
            for (radius, color) in [(5, GROUND), (4, line.of.color())] {
                let mark = Circle::new((x, y), pixels(radius), color.filled());
                plane.draw(&mark)?;
            }
        }
        Ok(())
    }
}

/// The weights of the steps in an average, in columns of equally many steps.
pub(super) struct Columns<'a> {
    pub of: Of,
    /// The number of steps of a column.
    pub width: u64,
    /// The weight of each column, oldest first; the last one ends at the last step.
    pub weights: &'a [f64],
}

impl Columns<'_> {
    pub fn draw(&self) -> Result<Picture> {
        draw(TITLE + HEIGHT, |root| {
            let width = self.width as f64;
            // The weight of one step, so that pictures with other widths of columns compare.
            let heights: Vec<_> = self.weights.iter().map(|weight| weight / width).collect();
            let left = -(width * heights.len() as f64);
            let (low, high) = range(heights.iter().copied().chain([0.0]));
            let y = (if heights.iter().any(|height| *height < 0.0) { low } else { 0.0 }, high);
            let x = (left, 0.0);
            let mut chart =
                frame(root, "weight of a step", (x, whole(ticks(x, 6))), (y, ticks(y, 6)))?;
            let along = |x: &f64| number(x.abs(), 7);
            let shown = |height: &f64| number(*height, 3);
            mesh(&mut chart, "steps ago", &along, &shown)?;
            let plane = chart.plotting_area();
            let outline = heights.iter().enumerate().flat_map(|(index, &height)| {
                let at = left + width * index as f64;
                [(at, height), (at + width, height)]
            });
            let mut outline: Vec<_> = outline.collect();
            let line = PathElement::new(outline.clone(), stroke(self.of.color(), 20));
            outline.extend([(0.0, 0.0), (left, 0.0)]);
            plane.draw(&Polygon::new(outline, self.of.color().mix(0.2).filled()))?;
            plane.draw(&line)
        })
    }
}

/// Counts of answers, by class of the row and class of the answer.
pub(super) struct Cells<'a> {
    pub of: Of,
    pub labels: &'a [String],
    /// The class of the row, the class of the answer, and the number of such rows.
    pub counts: &'a [(usize, usize, u64)],
}

/// The most classes for which names and counts are written.
const NAMED: usize = 26;

impl Cells<'_> {
    pub fn draw(&self) -> Result<Picture> {
        let count = self.labels.len().max(1);
        let (left, top) = if count <= NAMED { (74, 50) } else { (30, 30) };
        let side = WIDTH - left - 12;
        draw(top + side + 12, |root| {
            let place = |index: usize| ((side * FINE) as usize * index / count) as i32;
            let rows = (0..count).map(|class| {
                let row = self.counts.iter().filter(|(right, ..)| *right == class);
                row.map(|(.., count)| count).sum::<u64>().max(1)
            });
            let rows: Vec<_> = rows.collect();
            let (left, top) = (pixels(left), pixels(top));
            let corner = |answer: usize, right: usize| (left + place(answer), top + place(right));
            let frame = Rectangle::new([corner(0, 0), corner(count, count)], stroke(GRID, 10));
            root.draw(&frame)?;
            for &(right, answer, number) in self.counts {
                if right >= count || answer >= count {
                    continue;
                }
                let color = if right == answer { self.of.color() } else { INK };
                let share = number as f64 / rows[right] as f64;
                // A rare answer is visible too.
                let color = color.mix(0.12 + 0.5 * share).filled();
                let cell = [corner(answer, right), corner(answer + 1, right + 1)];
                root.draw(&Rectangle::new(cell, color))?;
                if count <= NAMED {
                    let middle = ((cell[0].0 + cell[1].0) / 2, (cell[0].1 + cell[1].1) / 2);
                    let style = words(INK, HPos::Center, VPos::Center);
                    root.draw(&Text::new(number.to_string(), middle, style))?;
                }
            }
            let half = pixels(side) / 2;
            let style = words(MUTED, HPos::Center, VPos::Center);
            let title = Text::new("answered", (left + half, pixels(12)), style);
            root.draw(&title)?;
            let title = words(MUTED, HPos::Center, VPos::Center);
            let title = title.transform(FontTransform::Rotate270);
            let title = Text::new("right", (pixels(12), top + half), title);
            root.draw(&title)?;
            if count > NAMED {
                return Ok(());
            }
            // As many letters as fit in the width of a column.
            let most = (side as usize / count / 7).max(1);
            for (index, label) in self.labels.iter().enumerate() {
                let (label, middle) = (plain(label), (place(index) + place(index + 1)) / 2);
                let style = words(INK, HPos::Center, VPos::Center);
                let above = Text::new(short(&label, most), (left + middle, pixels(36)), style);
                root.draw(&above)?;
                let style = words(INK, HPos::Right, VPos::Center);
                let beside = (left - pixels(6), top + middle);
                root.draw(&Text::new(short(&label, 7), beside, style))?;
            }
            Ok(())
        })
    }
}

/// Predictions against targets.
pub(super) struct Points<'a> {
    pub right: &'a [f64],
    /// The predictions of a module, with its name in the legend.
    pub predicted: Vec<(Of, String, &'a [f64])>,
}

impl Points<'_> {
    pub fn draw(&self) -> Result<Picture> {
        let all = self.predicted.iter().flat_map(|(.., predicted)| *predicted);
        let both = range(self.right.iter().chain(all).copied());
        let names: Vec<_> =
            self.predicted.iter().map(|(of, name, _)| (*of, name.as_str())).collect();
        draw(TITLE + HEIGHT + 80 + legend_height(&names), |root| {
            let (axes, below) = root.split_vertically(pixels(TITLE + HEIGHT + 80));
            let shown = |value: &f64| number(*value, 5);
            let marks = || (both, ticks(both, 6));
            let mut chart = frame(&axes, "predicted", marks(), marks())?;
            mesh(&mut chart, "right", &shown, &shown)?;
            let plane = chart.plotting_area();
            let ends = vec![(both.0, both.0), (both.1, both.1)];
            plane.draw(&PathElement::new(ends, stroke(MUTED, 12)))?;
            for (of, _, predicted) in &self.predicted {
                let finite = |(x, y): &(f64, f64)| x.is_finite() && y.is_finite();
                let points = self.right.iter().copied().zip(predicted.iter().copied());
                for point in points.filter(finite) {
                    let point = Circle::new(point, pixels(5) / 2, of.color().mix(0.55).filled());
                    plane.draw(&point)?;
                }
            }
            legend(&below, &names)
        })
    }
}

/// The most letters of a name in a legend of two columns, and in a legend of one.
const LETTERS: [usize; 2] = [28, 62];

/// The number of columns of a legend with these names.
fn legend_columns(names: &[(Of, &str)]) -> usize {
    let short = names.iter().all(|(_, name)| name.chars().count() <= LETTERS[0]);
    if short { 2 } else { 1 }
}

fn legend_height(names: &[(Of, &str)]) -> u32 {
    ENTRY * names.len().div_ceil(legend_columns(names)) as u32 + 8
}

/// The legend: the name of each colour.
fn legend(area: &Area<'_>, names: &[(Of, &str)]) -> Drawn {
    let columns = legend_columns(names);
    for (index, (of, name)) in names.iter().enumerate() {
        let left = 10 + WIDTH / 2 * (index % columns) as u32;
        let y = pixels(ENTRY * (index / columns) as u32 + ENTRY / 2 + 2);
        let swatch = vec![(pixels(left), y), (pixels(left + 20), y)];
        area.draw(&PathElement::new(swatch, stroke(of.color(), 30)))?;
        let words = words(INK, HPos::Left, VPos::Center);
        let name = short(&plain(name), LETTERS[2 - columns]);
        area.draw(&Text::new(name, (pixels(left + 26), y), words))?;
    }
    Ok(())
}

/// Axes with these ranges and marks, under a title.
fn frame<'a, 'b>(
    area: &'a Area<'b>,
    words_above: &str,
    (x, x_marks): ((f64, f64), Vec<f64>),
    (y, y_marks): ((f64, f64), Vec<f64>),
) -> Drawn<Chart<'a, 'b>> {
    let above = words(MUTED, HPos::Left, VPos::Center);
    let above = Text::new(short(&plain(words_above), 66), (pixels(10), pixels(12)), above);
    area.draw(&above)?;
    let mut chart = ChartBuilder::on(area);
    chart
        .margin_top(pixels(TITLE))
        .margin_right(pixels(14))
        .margin_left(pixels(4))
        .x_label_area_size(pixels(38))
        .y_label_area_size(pixels(54));
    let [x, y] = [(x, x_marks), (y, y_marks)].map(|(range, marks)| Axis { range, marks });
    chart.build_cartesian_2d(x, y)
}

/// Lines at the marks, with their numbers.
fn mesh(
    chart: &mut Chart<'_, '_>,
    x: &str,
    along: &dyn Fn(&f64) -> String,
    up: &dyn Fn(&f64) -> String,
) -> Drawn {
    chart
        .configure_mesh()
        .x_labels(12)
        .y_labels(12)
        .x_desc(x)
        .x_label_formatter(along)
        .y_label_formatter(up)
        .label_style(words(MUTED, HPos::Center, VPos::Center))
        .axis_desc_style(words(MUTED, HPos::Center, VPos::Center))
        .bold_line_style(stroke(GRID, 10))
        .light_line_style(GRID.mix(0.0))
        .axis_style(stroke(MUTED, 10))
        .set_all_tick_mark_size(pixels(4))
        .draw()
}

#[cfg(test)]
mod tests;
