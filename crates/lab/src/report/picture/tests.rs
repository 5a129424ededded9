use super::*;

#[test]
fn marks_are_round_and_inside() {
    assert_eq!(ticks((0.0, 40.0), 6), [0.0, 10.0, 20.0, 30.0, 40.0]);
    assert_eq!(ticks((-0.31, 0.29), 6), [-3.0, -2.0, -1.0, 0.0, 1.0, 2.0].map(|x| x * 0.1));
    assert_eq!(whole(ticks((0.9, 1.1), 6)), [1.0]);
    let powers = |range, most| -> Vec<String> {
        log_ticks(range, most).iter().map(|tick| number(10f64.powf(*tick), 3)).collect()
    };
    assert_eq!(powers((-2.0, 0.0), 7), ["0.01", "0.02", "0.05", "0.1", "0.2", "0.5", "1"]);
    assert_eq!(powers((-1.71, -1.69), 7), ["0.0196", "0.0198", "0.02", "0.0202", "0.0204"]);
    assert_eq!(powers((-300.0, 300.0), 7).len(), 7);
    for range in [(0.0, 0.0), (f64::NEG_INFINITY, f64::INFINITY), (-1e308, 1e308)] {
        assert!(ticks(range, 6).len() <= 51);
    }
}

#[test]
fn marks_of_every_scale_are_round() {
    let shown = |scale: AxisScale, range: [f64; 2]| -> Vec<String> {
        let [low, high] = range.map(|height| scale.place(height).unwrap());
        let marks = scale.marks((low, high)).into_iter();
        let mut marks: Vec<f64> = marks.map(|place| scale.height(place)).collect();
        marks.sort_by(f64::total_cmp);
        marks.into_iter().map(|height| number(height, scale.digits())).collect()
    };
    assert_eq!(shown(AxisScale::Linear, [0.0, 0.5]), ["0", "0.1", "0.2", "0.3", "0.4", "0.5"]);
    let signed = AxisScale::Signed(1e-4);
    assert_eq!(shown(signed, [-0.2, 0.03]), ["-0.1", "-0.01", "-0.001", "0", "0.001", "0.01"]);
    assert_eq!(shown(signed, [0.0, 2e-4]), ["0", "5.00e-5", "0.0001", "0.00015", "0.0002"]);
    assert_eq!(shown(AxisScale::Percent, [60.0, 98.6]), ["80", "90", "95", "98"]);
    assert_eq!(
        shown(AxisScale::Percent, [97.0, 97.5]),
        ["97", "97.1", "97.2", "97.3", "97.4", "97.5"]
    );
    let close = ["99.91", "99.92", "99.93", "99.94"];
    assert_eq!(shown(AxisScale::Percent, [99.905, 99.945]), close);
    for scale in [AxisScale::Linear, AxisScale::Log, signed, AxisScale::Percent] {
        for height in [0.01, 1.0, 98.5] {
            let back = scale.height(scale.place(height).unwrap());
            assert!((back - height).abs() < 1e-9, "{scale:?}: {back} for {height}");
        }
    }
    assert_eq!(AxisScale::Percent.place(100.0), AxisScale::Percent.place(99.95));
    assert_eq!(AxisScale::Log.place(-1.0), None);
}

#[test]
fn a_range_is_a_little_wider_than_its_numbers() {
    assert_eq!(range([0.0, 100.0, f64::NAN].into_iter()), (-4.0, 104.0));
    assert_eq!(range([5.0].into_iter()), (4.5, 5.5));
    assert_eq!(range([f64::INFINITY].into_iter()), (0.0, 1.0));
}

/// A height that is none is a gap, and a point alone is a dot.
#[test]
fn gaps_are_not_bridged() {
    let points = [1.0, 2.0, f64::NAN, 4.0, f64::INFINITY, 6.0, 7.0];
    let points = points.into_iter().enumerate().map(|(x, y)| (x as f64, y));
    let line = Line::new("a", Of::Live, points);
    let lines = Lines {
        x: "epoch",
        y: "loss".to_owned(),
        scale: AxisScale::Log,
        lines: vec![line],
        height: HEIGHT,
        zero: false,
        include: None,
    };
    assert_eq!(lines.extent(), Some((1.0, 7.0)));
    let svg = lines.draw().unwrap().inline;
    let live = |tag: &str| {
        svg.lines().filter(|line| line.starts_with(tag) && line.contains("#C2410C")).count()
    };
    // Two pieces and the swatch of the legend.
    assert_eq!(live("<polyline"), 3, "{svg}");
    assert_eq!(live("<circle"), 1, "{svg}");
    let empty = Lines { lines: Vec::new(), ..lines };
    assert_eq!(empty.extent(), None);
    empty.draw().unwrap();
}

/// Each picture begins where the one above it ends, on the ground of all.
#[test]
fn stacked_pictures_do_not_overlap() {
    let lines = |height: u32, thin: bool| {
        let points = vec![(0.0, 0.0), (1.0, 1.0)];
        let line = Line { thin, ..Line::new("a", Of::Average(0), points) };
        let lines = Lines {
            x: "step",
            y: "weight".to_owned(),
            scale: AxisScale::Linear,
            lines: vec![line],
            height,
            zero: false,
            include: None,
        };
        lines.draw().unwrap()
    };
    let [low, high] = [lines(100, false), lines(HEIGHT, true)];
    assert_eq!(high.height - low.height, HEIGHT - 100);
    let svg = Picture::stack(&[low.clone(), high.clone(), low.clone()]).file();
    let whole = 2 * low.height + high.height;
    assert!(
        svg.contains(&format!("<svg width=\"440\" height=\"{whole}\" viewBox=\"0 0 440 {whole}\""))
    );
    assert!(svg.contains(&format!("<rect width=\"440\" height=\"{whole}\" fill=\"#FEFEFE\"/>")));
    let tops: Vec<_> = svg.lines().filter_map(|line| line.strip_prefix("<svg y=")).collect();
    for (top, expected) in tops.iter().zip([0, low.height, low.height + high.height]) {
        assert!(top.starts_with(&format!("\"{expected}\" width=\"440\"")), "{top}");
    }
    assert_eq!(tops.len(), 3);
    assert_eq!(svg.matches("<svg").count(), svg.matches("</svg>").count());
    // Of a thin line less ink, but in the legend.
    let widths = |picture: &Picture| -> Vec<_> {
        let lines = picture.inline.lines().filter(|line| line.contains("#1D4ED8"));
        let width =
            |line: &str| line.split("stroke-width=\"").nth(1)?.split('"').next()?.parse().ok();
        lines.filter_map(width).collect::<Vec<u32>>()
    };
    assert_eq!([widths(&low), widths(&high)], [[8, 12], [5, 12]]);
}

#[test]
fn many_classes_are_drawn_without_names() {
    let labels: Vec<_> = (0..300).map(|index| index.to_string()).collect();
    let counts: Vec<_> = (0..300).map(|class| (class, (class + 1) % 300, 2)).collect();
    let mut cells = Cells { of: Of::Average(8), labels: &labels, counts: &counts };
    assert_eq!(cells.draw().unwrap().inline.matches("<text").count(), 2);
    (cells.labels, cells.counts) = (&labels[..3], &[(0, 1, 2), (9, 0, 1)]);
    // The names along both sides, two titles, and one cell; what is beyond the classes is not.
    assert_eq!(cells.draw().unwrap().inline.matches("<text").count(), 9);
}

/// The area behind a curve is within the axes, and as high as its edges say.
#[test]
fn a_spread_is_an_area_behind_its_curve() {
    let line = Line::new("a", Of::Average(0), [(0.0, 1.0), (1.0, 2.0)]);
    let lines = |spread: Vec<(f64, f64)>| Lines {
        x: "width",
        y: "distance".to_owned(),
        scale: AxisScale::Linear,
        lines: vec![Line { spread, ..line.clone() }],
        height: HEIGHT,
        zero: false,
        include: None,
    };
    let area = |svg: &str| -> Option<Vec<i32>> {
        let polygon = svg.lines().find(|line| line.starts_with("<polygon"))?;
        let points = polygon.split_once("points=\"").unwrap().1.split_once('"').unwrap().0;
        let heights = points.split_whitespace().map(|point| point.split_once(',').unwrap().1);
        Some(heights.map(|height| height.parse().unwrap()).collect())
    };
    let svg = lines(vec![(0.5, 1.5), (1.0, 4.0)]).draw().unwrap().inline;
    // To the right above, and back below; downwards in the picture is more.
    let heights = area(&svg).unwrap();
    let [a, b, c, d] = heights[..] else { panic!("{heights:?}") };
    let unit = f64::from(d - a);
    for (found, expected) in [(a - b, 2.5), (d - c, 0.5), (c - b, 3.0)] {
        assert!((f64::from(found) / unit - expected).abs() < 0.02, "{heights:?}");
    }
    assert!(b >= (TITLE * FINE) as i32 && d <= ((TITLE + HEIGHT) * FINE) as i32, "{heights:?}");
    assert_eq!(area(&lines(Vec::new()).draw().unwrap().inline), None);
}

#[test]
fn a_curve_of_means_has_their_deviations() {
    let runs = [[1.0, 5.0, f64::NAN], [3.0, 1.0, 2.0]];
    let line = Line::of_means("a", Of::Live, &[0.0, 2.0, 4.0], runs.iter().map(|run| &run[..]));
    let heights: Vec<_> = line.points.iter().zip(&line.spread).take(2).collect();
    let [off, more] = [2f64.sqrt(), 8f64.sqrt()];
    let expected =
        [(&(0.0, 2.0), &(2.0 - off, 2.0 + off)), (&(2.0, 3.0), &(3.0 - more, 3.0 + more))];
    assert_eq!(heights, expected);
    // One of the runs has no height there.
    assert!(line.points[2].1.is_nan());
    assert_eq!(line.best, Some((0.0, 2.0)));
    let one = Line::of_means("a", Of::Live, &[0.0], [&[7.0][..]].into_iter());
    assert_eq!((&one.points[..], &one.spread[..]), (&[(0.0, 7.0)][..], &[(7.0, 7.0)][..]));
    Lines::log("width", "distance", [line, one]).draw().unwrap();
}

/// Each pixel with ink is a square at its place, in the path of its shade.
#[test]
fn images_have_a_square_for_each_pixel_with_ink() {
    let images = vec![0.0, 1.0, 0.4, 0.0, f64::NAN, 0.4, 7.0, -1.0];
    let images = Images { rows: vec![("a < b".to_owned(), images), ("c".into(), vec![])], side: 2 };
    let picture = images.draw();
    let paths: Vec<_> = picture.inline.lines().filter(|line| line.starts_with("<path")).collect();
    let expected = [
        "<path fill=\"#1F2328\" fill-opacity=\"0.40\" d=\"M0 1h1v1h-1zM4 0h1v1h-1z\"/>",
        "<path fill=\"#1F2328\" fill-opacity=\"1.00\" d=\"M1 0h1v1h-1zM3 1h1v1h-1z\"/>",
    ];
    assert_eq!(paths, expected);
    assert!(picture.inline.contains(">a &lt; b</text>"), "{}", picture.inline);
    assert!(picture.inline.contains(&format!("height=\"{}\"", picture.height)));
    Images { rows: vec![], side: 8 }.draw();
}
