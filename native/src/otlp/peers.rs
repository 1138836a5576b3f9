//! Whom a span's URL names.

/// `semantics.PEER_RULE`: the host of a URL, "" where it has none.
pub fn host_of(url: &[u8]) -> &[u8] {
    let authority = authority_of(url);
    let host = &authority[authority.iter().rposition(|byte| *byte == b'@').map_or(0, |at| at + 1)..];
    if let Some(address) = host.strip_prefix(b"[") {
        return address.iter().position(|byte| *byte == b']').map_or(b"", |end| &address[..end]);
    }
    &host[..host.iter().position(|byte| *byte == b':').unwrap_or(host.len())]
}

/// User, host and port of a URL, "" where it has none.
pub fn authority_of(url: &[u8]) -> &[u8] {
    let Some(scheme) = url.windows(3).position(|three| three == b"://") else { return b"" };
    let rest = &url[scheme + 3..];
    &rest[..rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(rest.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_between_the_scheme_and_the_path() {
        for (url, host) in [
            ("https://a.example/x?y=z://b", "a.example"),
            ("http://user:secret@a.example:8080", "a.example"),
            ("http://[::1]:80/", "::1"),
            ("http://a?b", "a"),
            ("http://[::1", ""),
            ("/path", ""),
            ("", ""),
            ("http:///x", ""),
        ] {
            assert_eq!(host_of(url.as_bytes()), host.as_bytes(), "{url}");
        }
    }
}
