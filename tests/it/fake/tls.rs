//! What a connection speaks: plain HTTP, or TLS with a certificate that is right or wrong.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::crypto::ring;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// How the server's certificate is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certificate {
    /// For 127.0.0.1, from the authority that the kubeconfig names.
    Valid,
    Expired,
    /// For another host.
    OtherHost,
    /// From an authority that nobody knows.
    UnknownAuthority,
}

/// The authority of one cluster.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// Who the server says it is.
#[derive(Clone)]
pub struct Identity(Arc<ServerConfig>);

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        Authority { pem: certificate.pem(), issuer: Issuer::new(params, key) }
    }

    /// Its own certificate, for clients to trust.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A server's identity that is as wrong as wanted.
    pub fn identity(&self, certificate: Certificate) -> Identity {
        let host = match certificate {
            Certificate::OtherHost => "elsewhere.example",
            _ => "127.0.0.1",
        };
        let mut params = CertificateParams::new([host.to_owned()]).expect("a name");
        if certificate == Certificate::Expired {
            (params.not_before, params.not_after) =
                (date_time_ymd(2001, 1, 1), date_time_ymd(2002, 1, 1));
        }
        let key = KeyPair::generate().expect("a key");
        let signed = match certificate {
            Certificate::UnknownAuthority => {
                params.signed_by(&key, &Authority::new("somebody").issuer)
            }
            _ => params.signed_by(&key, &self.issuer),
        };
        let chain = vec![signed.expect("a certificate").der().clone()];
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|it| it.with_no_client_auth().with_single_cert(chain, key));
        Identity(Arc::new(config.expect("a configuration")))
    }
}

/// One accepted connection.
pub enum Conversation {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ServerConnection, TcpStream>>),
}

impl Conversation {
    /// The handshake comes with the first bytes.
    pub fn start(stream: TcpStream, identity: Option<Identity>) -> io::Result<Self> {
        let Some(Identity(config)) = identity else { return Ok(Conversation::Plain(stream)) };
        let connection = ServerConnection::new(config).map_err(io::Error::other)?;
        Ok(Conversation::Tls(Box::new(StreamOwned::new(connection, stream))))
    }
}

impl Read for Conversation {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Conversation::Plain(stream) => stream.read(buffer),
            Conversation::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Conversation {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Conversation::Plain(stream) => stream.write(bytes),
            Conversation::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Conversation::Plain(stream) => stream.flush(),
            Conversation::Tls(stream) => stream.flush(),
        }
    }
}
