//! Sockets and threads: one thread a connection, all behind one lock.

use std::collections::VecDeque;
use std::io::{self, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::faults::{Faults, Wrong};
use super::http::{self, Body, Request, Response, Stream};
use super::kube::{self, Context, Target};
use super::rules::Rules;
use super::store::Store;
use super::tls::{Conversation, Identity};

/// Far more than a client of ours may open (50); beyond, new ones are closed at once.
const CONNECTIONS_MAX: usize = 300;
/// How often a silent watch looks whether its client is still there.
const LOOK: Duration = Duration::from_millis(100);
/// How many requests are remembered: those of ten thousand deliveries, several times over.
const REQUESTS_MAX: usize = 100_000;
/// The pieces of an endless body.
const PIECE: usize = 64 * 1024;

/// Further paths, answered before the API's own.
pub trait Routes: Send {
    /// `None` leaves the request to the next, and at last to the API server.
    fn answer(&mut self, request: &Request, store: &mut Store) -> Option<Response>;
}

/// Everything behind the lock.
#[derive(Default)]
pub struct State {
    pub store: Store,
    pub rules: Rules,
    pub faults: Faults,
    pub routes: Vec<Box<dyn Routes>>,
    /// The newest requests, in order of arrival.
    pub requests: VecDeque<Request>,
    pub connections: u64,
    /// What a client of ours must not do.
    pub violations: Vec<String>,
}

#[derive(Default)]
pub struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    /// For reading and changing; watches are told afterwards in either case.
    pub fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let result = act(&mut self.lock());
        self.changed.notify_all();
        result
    }

    /// Waits for the state to change, for a while.
    pub fn wait_until(
        &self,
        patience: Duration,
        mut reached: impl FnMut(&mut State) -> bool,
    ) -> bool {
        let state = self.lock();
        let waited = self.changed.wait_timeout_while(state, patience, |state| !reached(state));
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    // A thread that has panicked has left a violation's worth of noise; the data is whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a request is answered with, and what is wrong with that.
    fn handle(&self, request: &Request) -> (Option<Wrong>, Option<Response>) {
        self.with(|state| {
            if state.requests.len() == REQUESTS_MAX {
                state.requests.pop_front();
            }
            state.requests.push_back(request.clone());
            if request.user_agent().is_empty() {
                state.violations.push(format!("no User-Agent: {}", request.line()));
            }
            let wrong = state.faults.next(request);
            let response = match &wrong {
                Some(Wrong::CloseBefore | Wrong::Blackhole | Wrong::Endless(_)) => None,
                Some(Wrong::Answer { status, headers, body }) => {
                    Some(Wrong::response(*status, headers, body))
                }
                _ => Some(state.answer(request)),
            };
            (wrong, response)
        })
    }
}

impl State {
    fn answer(&mut self, request: &Request) -> Response {
        let target = Target::parse(&request.path);
        if let Some(refusal) = self.rules.stop(request, target.as_ref()) {
            return refusal;
        }
        for routes in &mut self.routes {
            if let Some(response) = routes.answer(request, &mut self.store) {
                return response;
            }
        }
        let mut context = Context { rules: &self.rules, violations: &mut self.violations };
        kube::answer(request, &mut self.store, &mut context)
    }
}

/// A listening server; ends with all its connections when dropped.
pub struct Server {
    address: SocketAddr,
    running: Arc<AtomicBool>,
    open: Open,
    accepting: Option<JoinHandle<()>>,
}

/// The connections that are open, by a handle that can end them, and their threads.
type Open = Arc<Mutex<Vec<(TcpStream, JoinHandle<()>)>>>;

impl Server {
    pub fn start(
        shared: Arc<Shared>,
        address: SocketAddr,
        identity: Option<Identity>,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let (running, open) = (Arc::new(AtomicBool::new(true)), Open::default());
        let (its_running, its_open) = (Arc::clone(&running), Arc::clone(&open));
        let accepting = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if !its_running.load(Ordering::SeqCst) {
                    break;
                }
                if let Ok(stream) = stream {
                    accept(stream, &shared, &its_running, &its_open, identity.clone());
                }
            }
        });
        Ok(Server { address, running, open, accepting: Some(accepting) })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.running.store(false, Ordering::SeqCst);
        // The accepting thread looks when somebody comes.
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        let open = std::mem::take(&mut *self.open.lock().unwrap_or_else(PoisonError::into_inner));
        for (stream, _) in &open {
            let _ = stream.shutdown(Shutdown::Both);
        }
        for (_, thread) in open {
            let _ = thread.join();
        }
    }
}

fn accept(
    stream: TcpStream,
    shared: &Arc<Shared>,
    running: &Arc<AtomicBool>,
    open: &Open,
    identity: Option<Identity>,
) {
    let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
    open.retain(|(_, thread)| !thread.is_finished());
    let (true, Ok(ours)) = (open.len() < CONNECTIONS_MAX, stream.try_clone()) else { return };
    let number = shared.with(|state| {
        state.connections += 1;
        state.connections
    });
    let (shared, running) = (Arc::clone(shared), Arc::clone(running));
    let thread = std::thread::spawn(move || {
        let _ = stream.set_nodelay(true);
        let Ok(raw) = stream.try_clone() else { return };
        let Ok(conversation) = Conversation::start(stream, identity) else { return };
        let mut connection = Connection { shared, running, raw, number };
        let ended = connection.serve(BufReader::new(conversation));
        if let Err(error) = ended
            && error.kind() == io::ErrorKind::Other
        {
            connection.shared.with(|state| state.violations.push(format!("bad HTTP: {error}")));
        }
        let _ = connection.raw.shutdown(Shutdown::Both);
    });
    open.push((ours, thread));
}

struct Connection {
    shared: Arc<Shared>,
    running: Arc<AtomicBool>,
    /// To look for the client's end, and to end it.
    raw: TcpStream,
    number: u64,
}

impl Connection {
    fn serve(&mut self, mut stream: BufReader<Conversation>) -> io::Result<()> {
        while let Some(request) = http::read(&mut stream, self.number)? {
            let (wrong, response) = self.shared.handle(&request);
            let out = stream.get_mut();
            match (wrong, response) {
                (None | Some(Wrong::Answer { .. }), Some(response)) => {
                    self.answer(out, response)?
                }
                (Some(Wrong::Truncate), Some(response)) => return truncate(out, response),
                (Some(Wrong::Drip(pause)), Some(response)) => self.drip(out, response, pause)?,
                (Some(Wrong::Endless(bytes)), _) => return self.endless(out, bytes),
                (Some(Wrong::Blackhole), _) => {
                    // Whatever more comes goes nowhere, until the client leaves or the server ends.
                    let mut sink = [0; 1024];
                    while self.is_running() && stream.read(&mut sink)? > 0 {}
                    return Ok(());
                }
                _ => return Ok(()),
            }
            let close =
                request.header("connection").is_some_and(|it| it.eq_ignore_ascii_case("close"));
            if close || !self.is_running() {
                break;
            }
        }
        Ok(())
    }

    fn answer(&self, out: &mut Conversation, response: Response) -> io::Result<()> {
        let mut bytes = response.head();
        match response.body {
            Body::Whole(body) => {
                bytes.extend_from_slice(&body);
                out.write_all(&bytes)?;
                out.flush()
            }
            Body::Stream(stream) => {
                out.write_all(&bytes)?;
                out.flush()?;
                self.follow(out, stream)
            }
        }
    }

    /// Sends what the stream has to say, until it ends, the client leaves or the server stops.
    fn follow(&self, out: &mut Conversation, mut stream: Stream) -> io::Result<()> {
        let deadline = Instant::now() + stream.timeout;
        let mut state = self.shared.lock();
        loop {
            let said = (stream.poll)(&mut state.store);
            if !said.lines.is_empty() {
                drop(state);
                for line in &said.lines {
                    http::chunk(out, line.as_bytes())?;
                }
                out.flush()?;
                state = self.shared.lock();
                if !said.end {
                    continue;
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if said.end || left.is_zero() {
                let last = stream.last.take().filter(|_| !said.end);
                let last = last.map(|last| last(&mut state.store)).unwrap_or_default();
                drop(state);
                for line in last {
                    http::chunk(out, line.as_bytes())?;
                }
                http::chunk(out, b"")?;
                return out.flush();
            }
            let waited = self.shared.changed.wait_timeout(state, left.min(LOOK));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            if !self.is_running() || self.has_left() {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
        }
    }

    fn drip(&self, out: &mut Conversation, response: Response, pause: Duration) -> io::Result<()> {
        let mut bytes = response.head();
        if let Body::Whole(body) = response.body {
            bytes.extend_from_slice(&body);
        }
        for byte in bytes {
            out.write_all(&[byte])?;
            out.flush()?;
            let start = Instant::now();
            while start.elapsed() < pause {
                if !self.is_running() || self.has_left() {
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
                std::thread::park_timeout(pause.saturating_sub(start.elapsed()).min(LOOK));
            }
        }
        Ok(())
    }

    fn endless(&self, out: &mut Conversation, bytes: u64) -> io::Result<()> {
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {bytes}\r\n\r\n{{\"kind\":\""
        );
        out.write_all(head.as_bytes())?;
        let (piece, mut left) = ([b'a'; PIECE], bytes.saturating_sub(9));
        while left > 0 && self.is_running() {
            let now = left.min(PIECE as u64);
            out.write_all(&piece[..now as usize])?;
            left -= now;
        }
        out.flush()
    }

    fn is_running(&self) -> bool {
        self.running.load(Ordering::SeqCst)
    }

    /// Whether the client has ended the connection; costs nothing and takes nothing away.
    fn has_left(&self) -> bool {
        let _ = self.raw.set_nonblocking(true);
        let seen = self.raw.peek(&mut [0]);
        let _ = self.raw.set_nonblocking(false);
        match seen {
            Ok(count) => count == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }
}

/// The whole head, and half of the body.
fn truncate(out: &mut Conversation, response: Response) -> io::Result<()> {
    let mut bytes = response.head();
    if let Body::Whole(body) = response.body {
        bytes.extend_from_slice(&body[..body.len() / 2]);
    }
    out.write_all(&bytes)?;
    out.flush()
}
