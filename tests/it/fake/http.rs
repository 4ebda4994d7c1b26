//! HTTP/1.1 as far as a client of the API server needs it: whole requests in, whole or streamed
//! answers out.

use std::io::{self, BufRead, Read, Write};
use std::time::Duration;

use serde_json::Value;

use super::store::Store;

/// The bound of a request's body: twice the API server's own, since Porch takes as much.
const BODY_BYTES_MAX: usize = 6 * 1024 * 1024;
/// The bound of one line of a head, and of their number; the API server's is 1 MiB for all of it.
const LINE_BYTES_MAX: u64 = 64 * 1024;
const LINES_MAX: usize = 100;

/// One request, read to its end.
#[derive(Clone, Debug)]
pub struct Request {
    /// Which connection since the start of the server it came on, counted from 1.
    pub connection: u64,
    pub method: String,
    /// Without the query, as sent.
    pub path: String,
    /// Decoded, in order; empty pairs are left out.
    pub query: Vec<(String, String)>,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(it, _)| it == name);
        found.map(|(_, value)| value.as_str())
    }

    pub fn param(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str())
    }

    /// Whether a parameter of a Go boolean is set; `watch=maybe` is true there too.
    pub fn flag(&self, name: &str) -> bool {
        self.param(name).is_some_and(|value| !matches!(value, "" | "0" | "f" | "F" | "false"))
    }

    /// The media type without its parameters.
    pub fn content_type(&self) -> &str {
        let whole = self.header("content-type").unwrap_or("");
        whole.split(';').next().unwrap_or("").trim()
    }

    pub fn user_agent(&self) -> &str {
        self.header("user-agent").unwrap_or("")
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; null when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// Method, path and query, in one line for assertions.
    pub fn line(&self) -> String {
        let pairs: Vec<String> = self.query.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let mark = if pairs.is_empty() { "" } else { "?" };
        format!("{} {}{mark}{}", self.method, self.path, pairs.join("&"))
    }
}

/// One answer.
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Body,
}

pub enum Body {
    Whole(Vec<u8>),
    Stream(Stream),
}

/// Lines that come as the store changes, each in a chunk of its own.
pub struct Stream {
    /// Asked under the server's lock at first and after each change.
    pub poll: Box<dyn FnMut(&mut Store) -> Lines + Send>,
    /// When the server ends it by itself; `poll` is asked once more before, by `last`.
    pub timeout: Duration,
    pub last: Option<Last>,
}

/// What a stream says before the server ends it.
pub type Last = Box<dyn FnOnce(&mut Store) -> Vec<String> + Send>;

pub struct Lines {
    pub lines: Vec<String>,
    pub end: bool,
}

impl Response {
    pub fn json(status: u16, value: &Value) -> Self {
        // The API server ends each with a line feed.
        let body = format!("{value}\n").into_bytes();
        Response { status, headers: Vec::new(), body: Body::Whole(body) }
            .with("Content-Type", "application/json")
    }

    pub fn text(status: u16, text: &str) -> Self {
        let body = Body::Whole(text.as_bytes().to_vec());
        Response { status, headers: Vec::new(), body }
            .with("Content-Type", "text/plain; charset=utf-8")
    }

    pub fn stream(stream: Stream) -> Self {
        Response { status: 200, headers: Vec::new(), body: Body::Stream(stream) }
            .with("Content-Type", "application/json")
    }

    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Status line and headers, up to and with the empty line.
    pub fn head(&self) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, phrase(self.status));
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &match &self.body {
            Body::Whole(bytes) => format!("Content-Length: {}\r\n\r\n", bytes.len()),
            Body::Stream(_) => "Transfer-Encoding: chunked\r\n\r\n".to_owned(),
        };
        head.into_bytes()
    }
}

fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        409 => "Conflict",
        410 => "Gone",
        422 => "Unprocessable Entity",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Other",
    }
}

/// Reads one request; `None` at the end of the connection.
pub fn read(stream: &mut impl BufRead, connection: u64) -> io::Result<Option<Request>> {
    let Some(first) = line(stream)? else { return Ok(None) };
    let mut words = first.split(' ');
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        return Err(io::Error::other(format!("no request line: {first}")));
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut headers = Vec::new();
    loop {
        let Some(line) = line(stream)? else { return Ok(None) };
        if line.is_empty() {
            break;
        }
        let Some((name, value)) = line.split_once(':') else {
            return Err(io::Error::other(format!("no header: {line}")));
        };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        if headers.len() > LINES_MAX {
            return Err(io::Error::other("too many headers"));
        }
    }
    let mut request = Request {
        connection,
        method: method.to_owned(),
        path: path.to_owned(),
        query: pairs(query),
        headers,
        body: Vec::new(),
    };
    if request.header("transfer-encoding").is_some() {
        return Err(io::Error::other("bodies of requests come with a length here"));
    }
    let length = request.header("content-length").unwrap_or("0").parse().unwrap_or(usize::MAX);
    if length > BODY_BYTES_MAX {
        return Err(io::Error::other(format!("a body of {length} bytes")));
    }
    request.body.resize(length, 0);
    stream.read_exact(&mut request.body)?;
    Ok(Some(request))
}

fn line(stream: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = String::new();
    stream.by_ref().take(LINE_BYTES_MAX).read_line(&mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    match line.strip_suffix('\n') {
        Some(line) => Ok(Some(line.trim_end_matches('\r').to_owned())),
        None => Err(io::Error::other("a line without end")),
    }
}

/// The pairs of a query, decoded. kube writes `?&a=b`; the API server does not mind.
pub fn pairs(query: &str) -> Vec<(String, String)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(name), decoded(value))
        })
        .collect()
}

fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = text.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (bytes[at], hex) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Writes one chunk of a streamed answer; an empty one ends it.
pub fn chunk(stream: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
    chunk.extend_from_slice(bytes);
    chunk.extend_from_slice(b"\r\n");
    stream.write_all(&chunk)
}
