//! Who asks: the address by which the public routes are limited.
//!
//! Promise: a client is one IPv4 address or one IPv6 network of 64 bits, which is what one customer
//! of a provider has; from a reverse proxy that the configuration names, the last address in
//! `X-Forwarded-For` that is no such proxy. What a client itself writes into that header stands
//! before it and is never looked at.
//!
//! Failure policy: a header that does not read counts as absent: then it is the proxy that is
//! limited.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::HeaderMap;
use axum::http::request::Parts;

use super::Public;

/// The header that proxies add a client's address to.
const FORWARDED: &str = "x-forwarded-for";

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Client(pub(super) IpAddr);

impl Client {
    fn of(peer: IpAddr, headers: &HeaderMap, proxies: &[IpAddr]) -> Self {
        let peer = peer.to_canonical();
        let mut client = peer;
        if proxies.contains(&peer) {
            let values = headers.get_all(FORWARDED).iter().rev();
            let texts = values.map(|value| value.to_str().unwrap_or_default());
            for text in texts.flat_map(|text| text.rsplit(',')) {
                let Some(address) = address(text.trim()) else { break };
                client = address;
                if !proxies.contains(&address) {
                    break;
                }
            }
        }
        Self(network(client))
    }
}

/// An address as proxies write it: plain, in brackets, with or without a port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let socket = || text.parse::<SocketAddr>().ok().map(|socket| socket.ip());
    bare.parse().ok().or_else(socket).map(|address: IpAddr| address.to_canonical())
}

fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            let bits = u128::from(address) & (u128::MAX << 64);
            IpAddr::V6(Ipv6Addr::from(bits))
        }
    }
}

impl FromRequestParts<Public> for Client {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &Public) -> Result<Self, Infallible> {
        let peer = ConnectInfo::<SocketAddr>::from_request_parts(parts, state).await;
        // without one all share a limit
        let peer = peer.map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), |ConnectInfo(peer)| peer.ip());
        Ok(Self::of(peer, &parts.headers, &state.app.config.public_proxies))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, forwarded: &[&str]) -> String {
        let values = forwarded
            .iter()
            .map(|value| (axum::http::HeaderName::from_static(FORWARDED), value.parse().unwrap()));
        let proxies = ["127.0.0.1".parse().unwrap(), "10.0.0.7".parse().unwrap()];
        let client = Client::of(peer.parse().unwrap(), &values.collect(), &proxies);
        client.0.to_string()
    }

    /// Loss prevented: behind a proxy one impatient wallet uses up every customer's limit; or a
    /// guesser names another address with each try.
    #[test]
    fn a_client_is_told_by_the_proxy_alone() {
        assert_eq!(client("192.0.2.1", &["198.51.100.1"]), "192.0.2.1", "no proxy of ours");
        assert_eq!(client("127.0.0.1", &[]), "127.0.0.1");
        assert_eq!(client("127.0.0.1", &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(client("127.0.0.1", &["6.6.6.6, 198.51.100.1"]), "198.51.100.1");
        assert_eq!(client("127.0.0.1", &["6.6.6.6", "198.51.100.1, 10.0.0.7"]), "198.51.100.1");
        assert_eq!(client("127.0.0.1", &["198.51.100.1:4711"]), "198.51.100.1");
        assert_eq!(client("127.0.0.1", &["6.6.6.6, unknown"]), "127.0.0.1");
        assert_eq!(client("::ffff:127.0.0.1", &["::ffff:198.51.100.1"]), "198.51.100.1");
    }

    /// Loss prevented: whoever has one IPv6 line has 2^64 addresses, and a limit for each.
    #[test]
    fn an_ipv6_line_is_one_client() {
        assert_eq!(client("2001:db8:1:2:3::4", &[]), "2001:db8:1:2::");
        assert_eq!(client("127.0.0.1", &["[2001:db8:1:2:ffff::1]:99"]), "2001:db8:1:2::");
    }
}
