//! What a connection speaks.

use std::io::{self, Read, Write};
use std::net::TcpStream;

/// Who the server says it is.
#[derive(Clone)]
pub enum Identity {}

/// One accepted connection.
pub enum Conversation {
    Plain(TcpStream),
}

impl Conversation {
    pub fn start(stream: TcpStream, _identity: Option<Identity>) -> io::Result<Self> {
        Ok(Conversation::Plain(stream))
    }
}

impl Read for Conversation {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Conversation::Plain(stream) => stream.read(buffer),
        }
    }
}

impl Write for Conversation {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Conversation::Plain(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Conversation::Plain(stream) => stream.flush(),
        }
    }
}
