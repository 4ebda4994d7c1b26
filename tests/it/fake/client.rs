//! The smallest client: one request on a connection of its own, or a watch, over plain HTTP.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use serde_json::Value;

use crate::support::PATIENCE;

pub const JSON: &str = "application/json";
pub const MERGE: &str = "application/merge-patch+json";
pub const APPLY: &str = "application/apply-patch+yaml";

/// A whole answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub text: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(it, _)| it == name);
        found.map_or("", |(_, value)| value)
    }

    /// The body; null when it is no JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }

    /// A body of one JSON document a line.
    pub fn lines(&self) -> Vec<Value> {
        self.text.lines().map(|line| serde_json::from_str(line).unwrap_or(Value::Null)).collect()
    }
}

/// Sends one request to a server at `http://HOST:PORT` and reads the answer to its end.
pub fn send(url: &str, method: &str, path: &str, body: Option<(&str, &str)>) -> io::Result<Answer> {
    send_with(url, method, path, body, &[])
}

/// The same with further headers.
pub fn send_with(
    url: &str,
    method: &str,
    path: &str,
    body: Option<(&str, &str)>,
    headers: &[(&str, &str)],
) -> io::Result<Answer> {
    let mut stream = begin(url, method, path, body, headers)?;
    let (status, headers) = head(&mut stream)?;
    let mut answer = Answer { status, headers, text: String::new() };
    if answer.header("transfer-encoding") == "chunked" {
        while let Some(chunk) = next_chunk(&mut stream)? {
            answer.text += &chunk;
        }
    } else {
        stream.read_to_string(&mut answer.text)?;
        let told = answer.header("content-length").parse().unwrap_or(answer.text.len());
        if answer.text.len() != told {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(answer)
}

/// A GET.
pub fn get(url: &str, path: &str) -> io::Result<Answer> {
    send(url, "GET", path, None)
}

/// A running watch.
pub struct Watch {
    stream: BufReader<TcpStream>,
    /// What came and was not looked at: a proxy cuts chunks as it likes.
    text: String,
}

impl Watch {
    /// Begins one; the head of the answer is there when this returns.
    pub fn start(url: &str, path: &str) -> io::Result<Self> {
        let mut stream = begin(url, "GET", path, None, &[])?;
        match head(&mut stream)? {
            (200, _) => Ok(Watch { stream, text: String::new() }),
            (status, _) => Err(io::Error::other(format!("a watch was answered {status}"))),
        }
    }
}

impl Iterator for Watch {
    type Item = io::Result<Value>;

    /// The next event; none when the server has ended the watch in good order.
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((event, rest)) = self.text.split_once('\n') {
                let event = serde_json::from_str(event).map_err(io::Error::other);
                self.text = rest.to_owned();
                return Some(event);
            }
            match next_chunk(&mut self.stream).transpose()? {
                Ok(chunk) => self.text += &chunk,
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

fn begin(
    url: &str,
    method: &str,
    path: &str,
    body: Option<(&str, &str)>,
    headers: &[(&str, &str)],
) -> io::Result<BufReader<TcpStream>> {
    let host = url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: probe/1\r\nAccept: application/json\r\nConnection: close\r\n"
    );
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    if let Some((kind, body)) = body {
        request += &format!("Content-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    } else {
        request += "\r\n";
    }
    stream.write_all(request.as_bytes())?;
    Ok(BufReader::new(stream))
}

fn head(stream: &mut impl BufRead) -> io::Result<(u16, Vec<(String, String)>)> {
    let first = line(stream)?;
    let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| io::Error::other(format!("no status line: {first:?}")))?;
    let mut headers = Vec::new();
    loop {
        let line = line(stream)?;
        let Some((name, value)) = line.split_once(':') else { return Ok((status, headers)) };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}

fn line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}

fn next_chunk(stream: &mut impl BufRead) -> io::Result<Option<String>> {
    let length = line(stream)?;
    let length = usize::from_str_radix(&length, 16).map_err(io::Error::other)?;
    let mut chunk = vec![0; length + 2];
    stream.read_exact(&mut chunk)?;
    chunk.truncate(length);
    let chunk = String::from_utf8(chunk).map_err(io::Error::other)?;
    Ok((length > 0).then_some(chunk))
}
