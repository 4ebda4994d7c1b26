//! Prints what a package holds for the cluster, ready to be piped into another program.
//!
//! Each delivery is one write: its resources as YAML documents that each start with `---`, or as
//! one JSON object a line. What is only about the package (`Kptfile`, `intent.yaml`) stays out, for
//! `kubectl` would take it for something to create.
//!
//! A package that is delivered twice is printed twice: a stream has no place to look at.

use std::fmt;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::compose::Package;
use crate::model::Code;
use crate::sink::{Answer, Confirmation, Context, Delivery, Fatal, Fault, Retry, Sink};

/// In which form resources are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Yaml,
    Json,
}

/// Prints packages to `W`.
pub struct Stdout<W> {
    name: String,
    format: Format,
    writer: W,
}

impl<W> Stdout<W> {
    pub fn new(name: String, format: Format, writer: W) -> Self {
        Stdout { name, format, writer }
    }
}

impl<W> fmt::Debug for Stdout<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stdout")
            .field("name", &self.name)
            .field("format", &self.format)
            .finish_non_exhaustive()
    }
}

impl<W: Write + AsFd + Send> Sink for Stdout<W> {
    fn name(&self) -> &str {
        &self.name
    }

    fn probe(&mut self) -> Result<(), Fault> {
        self.writer.flush().map_err(fault)
    }

    fn deliver(
        &mut self,
        batch: &[Delivery<'_>],
        context: &Context<'_>,
    ) -> Result<Vec<Answer>, Fatal> {
        let mut answers = Vec::with_capacity(batch.len());
        for delivery in batch {
            context.fence.check()?;
            let printed = self.print(delivery.package, context.deadline);
            answers.push(match printed {
                Ok(()) => Answer::Done(Confirmation {
                    location: "-".to_owned(),
                    unchanged: false,
                    further: Default::default(),
                }),
                Err(error) => Answer::Failed(fault(error)),
            });
        }
        Ok(answers)
    }
}

impl<W: Write + AsFd> Stdout<W> {
    fn print(&mut self, package: &Package, deadline: Instant) -> io::Result<()> {
        let text = text(package, self.format)?;
        wait_writable(&self.writer, deadline)?;
        self.writer.write_all(text.as_bytes())?;
        self.writer.flush()
    }
}

fn text(package: &Package, format: Format) -> io::Result<String> {
    let mut text = String::new();
    for file in package.files.iter().filter(|file| file.is_resource()) {
        match format {
            Format::Yaml => {
                text.push_str("---\n");
                text.push_str(&file.text);
            }
            Format::Json => {
                let value: serde_json::Value =
                    serde_saphyr::from_str(&file.text).map_err(io::Error::other)?;
                text.push_str(&value.to_string());
                text.push('\n');
            }
        }
    }
    Ok(text)
}

/// Waits until a reader has made room: a pipe that is writable takes 4 KiB, and so nearly every
/// package, without blocking. A larger one is written whole even past the deadline, because half of
/// it would be worse.
fn wait_writable(writer: &impl AsFd, deadline: Instant) -> io::Result<()> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).ok();
        match poll(&mut [PollFd::new(writer, PollFlags::OUT)], timeout.as_ref()) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            // An error on the descriptor is told by the write that follows.
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn fault(error: io::Error) -> Fault {
    let (message, retry) = match error.kind() {
        io::ErrorKind::BrokenPipe => {
            ("nobody reads standard output any more".to_owned(), Retry::Never)
        }
        io::ErrorKind::TimedOut => {
            ("the reader of standard output does not read".to_owned(), Retry::Later)
        }
        _ => (format!("standard output cannot be written: {error}"), Retry::Later),
    };
    Fault { code: Code::SinkUnavailable, message, retry }
}
