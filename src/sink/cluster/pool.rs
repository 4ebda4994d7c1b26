//! Connections to one server, for whole exchanges: a request and all of its answer.
//!
//! Put together from the HTTP library's connections rather than its client, whose way of finding a
//! connection costs about as much as the rest of an exchange. A connection is looked after by the
//! runtime in which it was made, so all exchanges have to be made there.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use tower::{BoxError, Service, ServiceExt};

/// Most of an answer that is read. The largest that is wanted is a package of Porch: 6 MiB of texts
/// at the server's limit, which JSON may make twice as long.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// How long a connection is kept that nobody uses, looked at whenever another one becomes free; servers
/// and what lies before them close it after a minute or more, and then a call may meet that.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("connect")]
    Connect(#[source] BoxError),
    #[error("send the request")]
    Send(#[source] hyper::Error),
    #[error("its answer broke off")]
    Broken(#[source] BoxError),
    #[error("its answer is longer than {ANSWER_BYTES_MAX} bytes")]
    TooLong,
}

/// Makes exchanges with one server.
#[derive(Debug)]
pub struct Pool<C> {
    connector: C,
    server: Uri,
    host: HeaderValue,
    /// What the server's address has before every path.
    prefix: String,
    /// As many as there are exchanges at a time at most; the last that was used is the last.
    idle: Mutex<Vec<Idle>>,
}

#[derive(Debug)]
struct Idle {
    sender: SendRequest<Full<Bytes>>,
    since: Instant,
}

impl<C> Pool<C> {
    /// No connection is made yet. The connections are those of `connector`.
    ///
    /// # Errors
    ///
    /// The address has no host.
    pub fn new(connector: C, server: Uri) -> Result<Self, BoxError> {
        let authority = server.authority().ok_or("the server's address has no host")?;
        let host = authority.as_str().rsplit('@').next().unwrap_or_default();
        let host = HeaderValue::from_str(host)?;
        let prefix = server.path().trim_end_matches('/').to_owned();
        Ok(Pool { connector, server, host, prefix, idle: Mutex::default() })
    }

    fn idle(&self) -> Option<SendRequest<Full<Bytes>>> {
        let mut idle = self.lock();
        while let Some(Idle { sender, since }) = idle.pop() {
            if !sender.is_closed() && since.elapsed() < IDLE_MAX {
                return Some(sender);
            }
        }
        None
    }

    /// The ones that were used longest ago are at the front.
    fn give_back(&self, sender: SendRequest<Full<Bytes>>) {
        let mut idle = self.lock();
        let old = idle.partition_point(|it| it.since.elapsed() >= IDLE_MAX);
        idle.drain(..old);
        idle.push(Idle { sender, since: Instant::now() });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Completes the head of a request whose address is a path.
    fn address(&self, request: &mut Request<Full<Bytes>>) -> Result<(), BoxError> {
        if !self.prefix.is_empty() {
            *request.uri_mut() = format!("{}{}", self.prefix, request.uri()).parse()?;
        }
        request.headers_mut().insert(header::HOST, self.host.clone());
        Ok(())
    }
}

impl<C> Pool<C>
where
    C: Service<Uri, Error: Into<BoxError>> + Clone,
    C::Response: hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static,
{
    async fn exchange(&self, mut request: Request<Full<Bytes>>) -> Result<Response<Bytes>, Error> {
        self.address(&mut request).map_err(Error::Connect)?;
        loop {
            let (mut sender, is_used) = match self.idle() {
                Some(sender) => (sender, true),
                None => (self.connect().await.map_err(Error::Connect)?, false),
            };
            if is_used && sender.ready().await.is_err() {
                continue;
            }
            match sender.try_send_request(request).await {
                Ok(response) => {
                    let whole = whole(response).await?;
                    self.give_back(sender);
                    return Ok(whole);
                }
                Err(mut error) => match error.take_message() {
                    // The server has closed it before anything of this went out.
                    Some(unsent) if is_used => request = unsent,
                    _ => return Err(Error::Send(error.into_error())),
                },
            }
        }
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, BoxError> {
        let connected = self.connector.clone().oneshot(self.server.clone());
        let (sender, connection) = handshake(connected.await.map_err(Into::into)?).await?;
        // What goes wrong with it is told to whoever has an exchange on it.
        tokio::spawn(async move { drop(connection.await) });
        Ok(sender)
    }
}

async fn whole(response: Response<hyper::body::Incoming>) -> Result<Response<Bytes>, Error> {
    let (head, body) = response.into_parts();
    let read = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
    let body = read.map_err(|error| match error.is::<LengthLimitError>() {
        true => Error::TooLong,
        false => Error::Broken(error),
    })?;
    Ok(Response::from_parts(head, body.to_bytes()))
}

/// A pool that layers can be put upon.
#[derive(Debug)]
pub struct Exchanges<C>(pub Arc<Pool<C>>);

impl<C> Clone for Exchanges<C> {
    fn clone(&self) -> Self {
        Exchanges(Arc::clone(&self.0))
    }
}

impl<C> Service<Request<Full<Bytes>>> for Exchanges<C>
where
    C: Service<Uri, Error: Into<BoxError>, Future: Send> + Clone + Send + Sync + 'static,
    C::Response: hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static,
{
    type Response = Response<Bytes>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Bytes>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        let pool = Arc::clone(&self.0);
        Box::pin(async move { pool.exchange(request).await.map_err(Into::into) })
    }
}
