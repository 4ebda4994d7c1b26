//! What can be wrong with a server: chosen by a test for the next requests, or some of them.

use std::time::Duration;

use serde_json::Value;

use super::http::{Request, Response};
use super::status;

/// What happens instead of a proper answer.
#[derive(Clone, Debug)]
pub enum Wrong {
    /// This answer, and no effect.
    Answer { status: u16, headers: Vec<(String, String)>, body: String },
    /// The connection ends without an answer, before there is any effect.
    CloseBefore,
    /// The effect, and then the connection ends without an answer.
    CloseAfter,
    /// The effect, and half of its answer.
    Truncate,
    /// No effect, and never an answer.
    Blackhole,
    /// The effect, and its answer byte by byte with this pause.
    Drip(Duration),
    /// No effect, and an answer of 200 with a body of this many bytes.
    Endless(u64),
}

/// One fault, and which requests it hits.
#[derive(Clone, Debug)]
pub struct Fault {
    wrong: Wrong,
    method: Option<String>,
    path: Option<String>,
    watches: bool,
    left: Option<usize>,
}

impl Fault {
    /// Hits the next request, until told otherwise.
    pub fn new(wrong: Wrong) -> Self {
        Fault { wrong, method: None, path: None, watches: true, left: Some(1) }
    }

    /// An answer with a text.
    pub fn status(status: u16, body: &str) -> Self {
        Fault::new(Wrong::Answer { status, headers: Vec::new(), body: body.to_owned() })
            .header("Content-Type", "text/plain; charset=utf-8")
    }

    /// An answer with a `Status` of the API.
    pub fn api(code: u16, reason: &str, message: &str) -> Self {
        let body = status::body(code, reason, message, Value::Null).to_string();
        Fault::new(Wrong::Answer { status: code, headers: Vec::new(), body })
            .header("Content-Type", "application/json")
    }

    /// What priority and fairness answers when its queues are full.
    pub fn too_many(retry_after_seconds: u32) -> Self {
        let text = "Too many requests, please try again later.";
        Fault::status(429, text).header("Retry-After", &retry_after_seconds.to_string())
    }

    /// Sends the client elsewhere.
    pub fn redirect(location: &str) -> Self {
        Fault::status(307, "").header("Location", location)
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        if let Wrong::Answer { headers, .. } = &mut self.wrong {
            headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    /// Only requests of this method.
    pub fn on(mut self, method: &str) -> Self {
        self.method = Some(method.to_owned());
        self
    }

    /// Only requests whose path ends in this.
    pub fn at(mut self, path: &str) -> Self {
        self.path = Some(path.to_owned());
        self
    }

    /// Not watches.
    pub fn but_watches(mut self) -> Self {
        self.watches = false;
        self
    }

    pub fn times(mut self, times: usize) -> Self {
        self.left = Some(times);
        self
    }

    /// Until [`Faults::clear`].
    pub fn always(mut self) -> Self {
        self.left = None;
        self
    }

    fn hits(&self, request: &Request) -> bool {
        self.left != Some(0)
            && self.method.as_ref().is_none_or(|method| *method == request.method)
            && self.path.as_ref().is_none_or(|path| request.path.ends_with(path))
            && (self.watches || !request.flag("watch"))
    }
}

#[derive(Default)]
pub struct Faults(Vec<Fault>);

impl Faults {
    pub fn add(&mut self, fault: Fault) {
        self.0.push(fault);
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// How often the faults will still hit, those that always do left out.
    pub fn left(&self) -> usize {
        self.0.iter().filter_map(|fault| fault.left).sum()
    }

    /// What is wrong with this request, if anything; the oldest fault first.
    pub fn next(&mut self, request: &Request) -> Option<Wrong> {
        let fault = self.0.iter_mut().find(|fault| fault.hits(request))?;
        if let Some(left) = &mut fault.left {
            *left -= 1;
        }
        Some(fault.wrong.clone())
    }
}

impl Wrong {
    /// The answer that is sent without an effect.
    pub fn response(status: u16, headers: &[(String, String)], body: &str) -> Response {
        let mut response = Response::text(status, body);
        response.headers.clear();
        headers.iter().fold(response, |response, (name, value)| response.with(name, value))
    }
}
