//! Where and how a run is crashed, in words that can be read back.

use std::fmt;
use std::str::FromStr;

use super::sys::Shutdown;

/// What happens at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL; the system goes on.
    Kill,
    /// Power cut, nothing flushed.
    Cut,
    /// Power cut, the journals flushed.
    CutFlushed,
}

/// All faults with their words.
const FAULTS: [(Fault, &str); 3] =
    [(Fault::Kill, "kill"), (Fault::Cut, "cut"), (Fault::CutFlushed, "cut-flushed")];

impl Fault {
    pub fn shutdown(self) -> Option<Shutdown> {
        match self {
            Fault::Kill => None,
            Fault::Cut => Some(Shutdown::NothingFlushed),
            Fault::CutFlushed => Some(Shutdown::JournalFlushed),
        }
    }
}

/// One crash of one run: at its call `number`, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    pub number: u64,
    pub after: bool,
    pub fault: Fault,
}

impl Point {
    pub fn when(&self) -> &'static str {
        if self.after { "after" } else { "before" }
    }
}

impl fmt::Display for Point {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (_, fault) = FAULTS[self.fault as usize];
        write!(out, "{fault}:{}:{}", self.when(), self.number)
    }
}

impl FromStr for Point {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("a crash is kill|cut|cut-flushed:before|after:N, not `{text}`");
        let mut parts = text.splitn(3, ':');
        let mut next = || parts.next().ok_or_else(wrong);
        let fault = next()?;
        let (fault, _) = FAULTS.iter().find(|(_, word)| *word == fault).ok_or_else(wrong)?;
        let after = match next()? {
            "before" => false,
            "after" => true,
            _ => return Err(wrong()),
        };
        let number = next()?.parse().map_err(|_| wrong())?;
        Ok(Point { number, after, fault: *fault })
    }
}

/// The crashes of one state, one a run, as in `cut:before:17,kill:after:4`.
pub fn shown(crashes: &[Point]) -> String {
    crashes.iter().map(Point::to_string).collect::<Vec<_>>().join(",")
}

/// Reads what [`shown`] wrote.
pub fn parsed(text: &str) -> Result<Vec<Point>, String> {
    text.split(',').map(str::parse).collect()
}
