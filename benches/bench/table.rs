//! The lines of the table, how they are judged, shown, saved and compared.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

/// What a line has to reach.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    /// For information.
    None,
    /// Ours is at least so many times the reference.
    Least(f64),
    /// Ours is at most so many times the reference.
    Most(f64),
    /// Ours itself is at most this.
    Value(f64),
    /// Like `Value`, and exceeding it fails the run: counted, so the same on every machine.
    Budget(f64),
}

/// One line.
#[derive(Debug)]
pub struct Row {
    /// What was measured; also the key in a saved result.
    pub name: String,
    pub unit: &'static str,
    pub ours: f64,
    /// What it is held against, and its name.
    pub reference: Option<(f64, &'static str)>,
    pub goal: Goal,
}

impl Row {
    fn ratio(&self) -> Option<f64> {
        self.reference.map(|(value, _)| self.ours / value)
    }

    fn target(&self) -> String {
        let met = match (self.goal, self.ratio()) {
            (Goal::None, _) => return String::new(),
            (Goal::Least(least), Some(ratio)) => ratio >= least,
            (Goal::Most(most), Some(ratio)) => ratio <= most,
            (Goal::Value(most) | Goal::Budget(most), _) => self.ours <= most,
            (Goal::Least(_) | Goal::Most(_), None) => false,
        };
        let wanted = match self.goal {
            Goal::None => String::new(),
            Goal::Least(least) => format!(">= {least}x"),
            Goal::Most(most) => format!("<= {most}x"),
            Goal::Value(most) => format!("<= {} {}", number(most), self.unit),
            Goal::Budget(most) => format!("<= {} {} (budget)", number(most), self.unit),
        };
        format!("{wanted}{}", if met { "" } else { " MISSED" })
    }

    /// Whether the run has to fail.
    pub fn breaks_budget(&self) -> bool {
        matches!(self.goal, Goal::Budget(most) if self.ours > most)
    }
}

/// Prints the table, beside an earlier result if there is one.
pub fn print(rows: &[Row], before: Option<&Saved>) {
    let mut heads = vec!["measure", "ours", "floor or reference", "ratio", "target"];
    heads.extend(before.map(|_| "against the saved result"));
    let mut lines: Vec<Vec<String>> = vec![heads.into_iter().map(str::to_owned).collect()];
    for row in rows {
        let reference = row.reference.map(|(value, name)| format!("{} ({name})", number(value)));
        let ratio = row.ratio().map(|ratio| format!("{ratio:.2}"));
        let mut line = vec![
            row.name.clone(),
            format!("{} {}", number(row.ours), row.unit),
            reference.unwrap_or_default(),
            ratio.unwrap_or_default(),
            row.target(),
        ];
        line.extend(before.map(|before| before.against(row)));
        lines.push(line);
    }
    let columns = lines[0].len();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max();
    let widths: Vec<usize> = (0..columns).filter_map(width).collect();
    for (index, line) in lines.iter().enumerate() {
        let cells: Vec<String> =
            line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        println!("| {} |", cells.join(" | "));
        if index == 0 {
            let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
            println!("|-{}-|", rule.join("-|-"));
        }
    }
}

fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.01 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

/// A result of another run, by the names of its lines.
#[derive(Debug)]
pub struct Saved(BTreeMap<String, Value>);

impl Saved {
    pub fn read(path: &Path) -> Self {
        let text = fs::read(path).expect("a result that was saved before");
        Saved(serde_json::from_slice(&text).expect("a result as --save writes it"))
    }

    pub fn write(path: &Path, rows: &[Row]) {
        let entry = |row: &Row| {
            let reference = row.reference.map(|(value, _)| value);
            let value = json!({
                "ours": row.ours, "unit": row.unit, "reference": reference, "ratio": row.ratio(),
            });
            (row.name.clone(), value)
        };
        let entries: BTreeMap<String, Value> = rows.iter().map(entry).collect();
        let text = serde_json::to_vec_pretty(&entries).expect("strings and numbers");
        fs::write(path, text).expect("a place to save the result");
    }

    /// The ratio, where there is one, says more than the figure: the machine divides out.
    fn against(&self, row: &Row) -> String {
        let Some(entry) = self.0.get(&row.name) else { return "new".to_owned() };
        let (field, now) = match row.ratio() {
            Some(ratio) => ("ratio", ratio),
            None => ("ours", row.ours),
        };
        match entry[field].as_f64() {
            Some(was) if was != 0.0 => {
                format!(
                    "{field} {} -> {} ({:+.1} %)",
                    number(was),
                    number(now),
                    (now / was - 1.0) * 100.0
                )
            }
            _ => format!("{field} -> {}", number(now)),
        }
    }
}
