//! Rows of small grey images.

use std::fmt::Write as _;

use super::{GROUND, INK, MUTED, Picture, TEXT, TITLE, WIDTH, hex, html, plain, short};

/// Small square images in rows, each row under a title.
pub struct Images {
    /// The title of each row, cut after 66 characters, and its images one after the other, each row
    /// by row: pixels from 0 (paper) to 1 (ink).
    pub rows: Vec<(String, Vec<f64>)>,
    /// The pixels along the side of an image.
    pub side: usize,
}

/// The shades of grey, without paper.
const LEVELS: usize = 15;

impl Images {
    /// Draws the images, of which as many are beside each other as the longest row has.
    ///
    /// Pixels of one shade are one path, which makes the file small.
    pub fn draw(&self) -> Picture {
        let longest = self.rows.iter().map(|(_, images)| images.len()).max().unwrap_or(0);
        let count = longest.div_ceil((self.side * self.side).max(1)).max(1);
        // One pixel is between images.
        let scale = f64::from(WIDTH - 20) / (count * (self.side + 1)) as f64;
        let tall = TITLE + (scale * (self.side + 1) as f64).ceil() as u32;
        let height = tall * self.rows.len() as u32 + 8;
        let mut svg = format!(
            "<svg width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
             xmlns=\"http://www.w3.org/2000/svg\">\n\
             <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"{}\"/>\n",
            hex(GROUND)
        );
        for (row, (title, images)) in self.rows.iter().enumerate() {
            let (top, muted, ink) = (tall * row as u32, hex(MUTED), hex(INK));
            let (title, base) = (html(&short(&plain(title), 66)), top + TITLE - 10);
            let _ = writeln!(
                svg,
                "<text x=\"10\" y=\"{base}\" font-size=\"{TEXT}\" fill=\"{muted}\">{title}</text>\n\
                 <g transform=\"translate(10 {}) scale({scale:.4})\">",
                top + TITLE
            );
            for level in 1..=LEVELS {
                let path = self.path(images, level);
                if !path.is_empty() {
                    let share = level as f64 / LEVELS as f64;
                    let _ = writeln!(
                        svg,
                        "<path fill=\"{ink}\" fill-opacity=\"{share:.2}\" d=\"{path}\"/>"
                    );
                }
            }
            svg += "</g>\n";
        }
        Picture { inline: svg + "</svg>\n", height }
    }

    /// The pixels of a shade as squares.
    fn path(&self, images: &[f64], level: usize) -> String {
        let mut path = String::new();
        for (pixel, ink) in images.iter().enumerate() {
            // A number that is none has no shade.
            if (ink.clamp(0.0, 1.0) * LEVELS as f64).round() == level as f64 {
                let (line, x) = (pixel / self.side, pixel % self.side);
                let [image, y] = [line / self.side, line % self.side];
                let _ = write!(path, "M{} {y}h1v1h-1z", image * (self.side + 1) + x);
            }
        }
        path
    }
}
