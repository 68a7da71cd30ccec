//! Where a request comes from: the socket's peer or, behind a proxy that the operator trusts, whom the proxy names.
//!
//! Each proxy appends the address of its own peer to `X-Forwarded-For`, so the list is to be read from the right: as long
//! as the one who tells is trusted, the next address to the left is true; what stands left of the first address that is not
//! a trusted proxy's was written by anybody. From a peer that is not trusted the header means nothing. Only this one header is read:
//! of two that may say the same, a proxy that sets one passes the other on as its client wrote it.

use http::HeaderMap;
use std::net::IpAddr;
use valv_policy::Cidr;

const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// The client's address; `None` if a trusted proxy names something that is no address.
pub(crate) fn client(peer: IpAddr, headers: &HeaderMap, trusted: &[Cidr]) -> Option<IpAddr> {
    let is_trusted = |address: IpAddr| trusted.iter().any(|block| block.contains(address));
    let mut client = peer.to_canonical();
    // Lines of one name are one list (RFC 9110, section 5.3); the last is the nearest proxy's.
    let lines = headers.get_all(X_FORWARDED_FOR).iter().rev();
    for line in lines {
        if !is_trusted(client) {
            break;
        }
        for entry in line.as_bytes().rsplit(|byte| *byte == b',') {
            if !is_trusted(client) {
                break;
            }
            client = address(entry.trim_ascii())?;
        }
    }
    Some(client)
}

/// An address as proxies write it: bare, with a port, or in brackets.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?;
    let bare = text.parse::<IpAddr>().ok();
    let with_port = || text.parse::<std::net::SocketAddr>().ok().map(|address| address.ip());
    let in_brackets = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    bare.or_else(with_port).or_else(in_brackets).map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client_of(peer: &str, lines: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(X_FORWARDED_FOR, line.parse().expect("value"));
        }
        let trusted: Vec<Cidr> = ["10.0.0.0/8", "fd00::/8"].iter().filter_map(|text| Cidr::parse(text)).collect();
        client(peer.parse().expect("address"), &headers, &trusted).map(|address| address.to_string())
    }

    #[test]
    fn only_what_trusted_proxies_say_counts() {
        for (peer, lines, expected) in [
            // No header, or nobody whose header counts.
            ("192.0.2.1", &[][..], Some("192.0.2.1")),
            ("192.0.2.1", &["198.51.100.7"], Some("192.0.2.1")),
            ("10.0.0.1", &[], Some("10.0.0.1")),
            // One proxy, two, and one that passes on what its client had written.
            ("10.0.0.1", &["198.51.100.7"], Some("198.51.100.7")),
            ("10.0.0.1", &["198.51.100.7, 10.0.0.2"], Some("198.51.100.7")),
            ("10.0.0.1", &["10.9.9.9, 198.51.100.7"], Some("198.51.100.7")),
            ("10.0.0.1", &["10.9.9.9", "198.51.100.7", "10.0.0.2"], Some("198.51.100.7")),
            // Everybody on the way is a proxy: the farthest.
            ("10.0.0.1", &["10.0.0.3,10.0.0.2"], Some("10.0.0.3")),
            // Forms.
            ("10.0.0.1", &["198.51.100.7:4711"], Some("198.51.100.7")),
            ("fd00::1", &["[2001:db8::7]:4711"], Some("2001:db8::7")),
            ("fd00::1", &["[2001:db8::7]"], Some("2001:db8::7")),
            ("::ffff:10.0.0.1", &["::ffff:198.51.100.7"], Some("198.51.100.7")),
            // Not an address, where one has to be.
            ("10.0.0.1", &["unknown"], None),
            ("10.0.0.1", &[""], None),
            ("10.0.0.1", &["198.51.100.7, 10.0.0.2, nonsense"], None),
            ("10.0.0.1", &["nonsense, 198.51.100.7"], Some("198.51.100.7")),
        ] {
            assert_eq!(client_of(peer, lines).as_deref(), expected, "{peer} {lines:?}");
        }
    }
}
