//! One request and its whole answer.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header};
use http_body_util::Full;
use kube::client::AuthError;
use serde::de::DeserializeOwned;
use tower::{BoxError, ServiceExt};

use crate::sink::cluster::access::{Clients, auth_words};
use crate::sink::cluster::pool;
use crate::sink::cluster::trouble::{Refusal, Trouble, innermost};

const JSON: &str = "application/json";

/// A request.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    pub method: Method,
    /// From the first slash, with every name in it checked or escaped by the caller.
    pub path: &'a str,
    /// Not escaped.
    pub query: &'a [(&'a str, &'a str)],
    pub content: Content,
}

/// What goes with a request.
#[derive(Clone, Debug)]
pub enum Content {
    None,
    Json(Vec<u8>),
    /// A JSON merge patch.
    Merge(Vec<u8>),
    /// A server-side apply patch, as JSON.
    Apply(Vec<u8>),
}

/// An answer that says yes.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub body: Bytes,
}

impl<'a> Call<'a> {
    /// Reads something.
    pub fn get(path: &'a str) -> Self {
        Call { method: Method::GET, path, query: &[], content: Content::None }
    }

    fn request(&self) -> Result<Request<Full<Bytes>>, http::Error> {
        let mut target = self.path.to_owned();
        for (at, (name, value)) in self.query.iter().enumerate() {
            target.push(if at == 0 { '?' } else { '&' });
            target.push_str(&escaped(name));
            target.push('=');
            target.push_str(&escaped(value));
        }
        let request = Request::builder()
            .method(self.method.clone())
            .uri(target)
            .header(header::ACCEPT, HeaderValue::from_static(JSON));
        let (kind, body) = match &self.content {
            Content::None => return request.body(Full::default()),
            Content::Json(body) => (JSON, body),
            Content::Merge(body) => ("application/merge-patch+json", body),
            Content::Apply(body) => ("application/apply-patch+yaml", body),
        };
        let kind = HeaderValue::from_static(kind);
        request.header(header::CONTENT_TYPE, kind).body(Full::from(body.clone()))
    }
}

impl Reply {
    /// The answer's object.
    ///
    /// # Errors
    ///
    /// It is no such object.
    pub fn object<T: DeserializeOwned>(&self) -> Result<T, Trouble> {
        serde_json::from_slice(&self.body)
            .map_err(|error| Trouble::lost(format!("its answer cannot be read: {error}")))
    }
}

/// Sends a request and reads the whole answer.
pub async fn send(clients: &Clients, call: &Call<'_>, due: Instant) -> Result<Reply, Trouble> {
    let request = call.request().map_err(|error| Trouble::lost(error.to_string()))?;
    let whole = async {
        let answer = clients.caller.clone().oneshot(request).await.map_err(unanswered)?;
        read(answer)
    };
    tokio::time::timeout_at(due.into(), whole)
        .await
        .unwrap_or_else(|_| Err(Trouble::lost("it did not answer in time".to_owned())))
}

fn read(answer: Response<Bytes>) -> Result<Reply, Trouble> {
    let (head, body) = answer.into_parts();
    let status = head.status.as_u16();
    if head.status.is_success() {
        return Ok(Reply { status, body });
    }
    let text = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
    let retry_after = text(header::RETRY_AFTER).and_then(|text| text.parse().ok());
    if let Some(place) = text(header::LOCATION) {
        let message = format!("it sends us elsewhere ({place}), which is not followed");
        return Err(Trouble::Refused(Box::new(Refusal { message, ..Refusal::bare(status) })));
    }
    let retry_after = retry_after.map(Duration::from_secs);
    Err(Trouble::Refused(Box::new(Refusal { retry_after, ..Refusal::read(status, &body) })))
}

fn unanswered(error: BoxError) -> Trouble {
    if let Some(error) = error.downcast_ref::<AuthError>() {
        return Trouble::access(&auth_words(error));
    }
    Trouble::lost(match error.downcast_ref::<pool::Error>() {
        Some(broken @ pool::Error::Broken(_)) => format!("{broken}: {}", innermost(broken)),
        _ => innermost(&*error),
    })
}

/// Percent-encoding of all but the unreserved characters of RFC 3986.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_escaped_and_a_body_has_its_type() {
        let call = Call {
            method: Method::PATCH,
            path: "/api/v1/x",
            query: &[("labelSelector", "a/b=true"), ("force", "true")],
            content: Content::Merge(b"{}".to_vec()),
        };
        let request = call.request().unwrap();
        assert_eq!(request.uri(), "/api/v1/x?labelSelector=a%2Fb%3Dtrue&force=true");
        assert_eq!(request.headers()["content-type"], "application/merge-patch+json");
        assert_eq!(Call::get("/version").request().unwrap().uri(), "/version");
    }
}
