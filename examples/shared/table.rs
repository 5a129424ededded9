//! A table of texts, for the terminal or in Markdown.

/// Rows of equally many cells, the first of which are titles: in columns, of which the first begins
/// at the left and the others end at the right, or in Markdown.
pub fn table(rows: &[Vec<String>], markdown: bool) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let letters = |row: &Vec<String>, column: usize| row[column].chars().count();
    let width = |column| rows.iter().map(|row| letters(row, column)).max().unwrap_or(0);
    let widths: Vec<_> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        if markdown {
            text += &format!("| {} |\n", row.join(" | "));
            if index == 0 {
                text += &format!("|{}\n", "---|".repeat(columns));
            }
            continue;
        }
        let cells =
            row.iter().zip(&widths).skip(1).map(|(cell, width)| format!("  {cell:>width$}"));
        text += &format!("{:width$}{}\n", row[0], cells.collect::<String>(), width = widths[0]);
    }
    text
}
