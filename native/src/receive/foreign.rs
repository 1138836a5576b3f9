//! Senders that speak something else than HTTP/2 to the port of OTLP/gRPC: noted, and HTTP/1.1 is answered.

use tokio::net::TcpStream;

use super::hub::Hub;
use super::notes::Kind;

const HEAD: usize = 8; // enough for the longest method of HTTP/1.1, and the space behind it
const DRAINED: usize = 64 << 10; // what is unread when a socket is closed takes the answer with it
const HTTP: &str = "HTTP/1.1; OTLP/HTTP is taken on the port of ingest.http_port, 4318 by default";
const TLS: &str = "TLS, which this port does not have (ingest.tls)";

/// Whether a connection in plain text begins as no HTTP/2 does; then it is noted, and answered where it can be.
pub async fn turned_away(hub: &Hub, stream: &TcpStream) -> bool {
    let mut head = [0; HEAD];
    let Ok(seen) = stream.peek(&mut head).await else { return false }; // whoever reads next sees the error
    let Some(spoken) = foreign(&head[..seen]) else { return false };
    hub.notes.add(Kind::Foreign, || {
        let peer = stream.peer_addr().map_or("?".to_owned(), |peer| peer.to_string());
        format!("{peer}: {spoken}")
    });
    if spoken == HTTP {
        answer(stream);
    }
    true
}

/// What is spoken, by its first bytes; None for HTTP/2, or what can't be known yet.
fn foreign(head: &[u8]) -> Option<&'static str> {
    const METHODS: [&[u8]; 6] = [b"GET ", b"POST ", b"PUT ", b"HEAD ", b"OPTIONS ", b"DELETE "];
    if METHODS.iter().any(|method| head.starts_with(method)) {
        Some(HTTP)
    } else if head.starts_with(b"\x16\x03") {
        Some(TLS)
    } else {
        None
    }
}

fn answer(stream: &TcpStream) {
    let (mut unread, mut left) = ([0; 4096], DRAINED);
    while let Ok(read @ 1..) = stream.try_read(&mut unread) {
        left = left.saturating_sub(read);
        if left == 0 {
            break;
        }
    }
    let text = format!("this port takes OTLP/gRPC (HTTP/2), not {HTTP}\n");
    let head = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: ";
    let _gone = stream.try_write(format!("{head}{}\r\n\r\n{text}", text.len()).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spoken_is_known_by_its_first_bytes() {
        assert_eq!(foreign(b"PRI * HT"), None);
        assert_eq!(foreign(b"P"), None);
        assert_eq!(foreign(b""), None);
        assert_eq!(foreign(b"POST /v1"), Some(HTTP));
        assert_eq!(foreign(b"OPTIONS "), Some(HTTP));
        assert_eq!(foreign(b"\x16\x03\x01\x02"), Some(TLS));
    }
}
