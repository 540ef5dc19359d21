//! From an address to a connection, with TLS where the address says so.
//!
//! Promise: what a name resolves to is checked before anything is connected to, and what was
//! checked is what is connected to.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use nostr::Url;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::{SendError, TargetError};

/// A connection.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Whether an address is of this computer or of its own network, where nobody else listens.
pub(super) fn is_own_network(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

/// Whether an address is of the Internet at large: not of this computer, of a network behind it, or
/// of none.
pub(super) fn is_public(address: IpAddr) -> bool {
    if is_own_network(address) {
        return false;
    }
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            let shared = a == 100 && (64..128).contains(&b);
            let reserved =
                a == 0 || a >= 224 || (a == 192 && b == 0) || (a == 198 && b & 254 == 18);
            !(shared || reserved || v4.is_documentation())
        }
        IpAddr::V6(v6) => {
            // what is handed out is 2000::/3; 2002::/16 and 64:ff9b::/96 hide an IPv4 address
            let [first, second, ..] = v6.segments();
            first & 0xe000 == 0x2000 && first != 0x2002 && !(first == 0x2001 && second <= 0x1ff)
        }
    }
}

/// Connects.
#[derive(Clone)]
pub(super) struct Connector {
    tls: TlsConnector,
    /// Nothing but the Internet at large.
    public_only: bool,
}

impl Connector {
    pub(super) fn new() -> Result<Self, TargetError> {
        let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| TargetError::Tls(e.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { tls: TlsConnector::from(Arc::new(config)), public_only: false })
    }

    /// One that connects to nothing of the operator's own network.
    pub(super) fn public_only(self) -> Self {
        Self { public_only: true, ..self }
    }

    /// Nothing is written to the server yet, but for TLS.
    pub(super) async fn connect(&self, url: &Url) -> Result<Box<dyn Stream>, SendError> {
        let host = url.host_str().unwrap_or_default();
        // an IPv6 address stands in brackets in an address
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let secure = url.scheme() == "https";
        let port = url.port_or_known_default().unwrap_or(443);
        let found = tokio::net::lookup_host((host, port)).await;
        let found = found.map_err(|e| SendError::NotSent(format!("{host} is not found: {e}")))?;
        let mut last = SendError::NotSent(format!("{host} has no address"));
        for address in found {
            if self.public_only && !is_public(address.ip()) {
                let words = format!("{} is no public address", address.ip());
                last = SendError::NotSent(format!("{host}: {words}"));
                continue;
            }
            if !secure && !is_own_network(address.ip()) {
                let words = "it is outside of your own network, and http:// would show it your key; \
                             use https://";
                last = SendError::NotSent(format!("{host}: {words}"));
                continue;
            }
            match open(address).await {
                Ok(stream) if !secure => return Ok(Box::new(stream)),
                Ok(stream) => return self.secure(host, stream).await,
                Err(error) => last = SendError::NotSent(format!("{host}: {error}")),
            }
        }
        Err(last)
    }

    async fn secure(&self, host: &str, stream: TcpStream) -> Result<Box<dyn Stream>, SendError> {
        let failed = |e: &dyn std::fmt::Display| SendError::NotSent(format!("{host}: TLS: {e}"));
        let name = ServerName::try_from(host.to_owned()).map_err(|e| failed(&e))?;
        let stream = self.tls.connect(name, stream).await.map_err(|e| failed(&e))?;
        Ok(Box::new(stream))
    }
}

async fn open(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    /// Loss prevented: a wallet's key in the clear on the Internet.
    #[test]
    fn only_the_own_network_is_spoken_to_in_the_clear() {
        for own in [
            "127.0.0.1",
            "10.0.0.7",
            "172.18.0.2",
            "192.168.1.1",
            "::1",
            "fd00::1",
            "::ffff:127.0.0.1",
        ] {
            assert!(is_own_network(own.parse().unwrap()), "{own}");
        }
        for foreign in ["203.0.113.9", "8.8.8.8", "2001:db8::1", "::ffff:8.8.8.8", "100.64.0.1"] {
            assert!(!is_own_network(foreign.parse().unwrap()), "{foreign}");
        }
        for inside in [
            "127.0.0.1",
            "10.0.0.7",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "198.18.0.1",
            "192.0.2.1",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2002:a00:1::",
            "2001::1",
        ] {
            assert!(!is_public(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "2a00:1450::1"] {
            assert!(is_public(outside.parse().unwrap()), "{outside}");
        }
        assert!(!is_own_network(IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
        assert!(!is_own_network(IpAddr::V6(Ipv6Addr::UNSPECIFIED)));
    }
}
