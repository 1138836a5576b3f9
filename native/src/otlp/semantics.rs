//! How a span's numbers are read.

/// `semantics.NUMBER_RULE`.
pub fn number(text: &[u8]) -> u16 {
    if text.len() > 5 || !text.iter().all(u8::is_ascii_digit) {
        return 0;
    }
    let number = text.iter().fold(0u32, |number, digit| number * 10 + u32::from(digit - b'0'));
    u16::try_from(number).unwrap_or(0)
}

/// `schemas.histogram.bucket_of`, given its UPPER_NS (where entry 16 i is 2^i).
#[inline]
pub fn bucket(upper_ns: &[u64], duration_ns: i64) -> i16 {
    const PER_OCTAVE: usize = 16;
    let duration = duration_ns.max(1) as u64;
    let octave = PER_OCTAVE * duration.ilog2() as usize;
    let within = upper_ns[octave..octave + PER_OCTAVE].iter().map(|upper| i16::from(*upper < duration)).sum::<i16>();
    octave as i16 + within - 1
}

const GRPC_STATUSES: [&[u8]; 17] = [
    b"OK",
    b"CANCELLED",
    b"UNKNOWN",
    b"INVALID_ARGUMENT",
    b"DEADLINE_EXCEEDED",
    b"NOT_FOUND",
    b"ALREADY_EXISTS",
    b"PERMISSION_DENIED",
    b"RESOURCE_EXHAUSTED",
    b"FAILED_PRECONDITION",
    b"ABORTED",
    b"OUT_OF_RANGE",
    b"UNIMPLEMENTED",
    b"INTERNAL",
    b"UNAVAILABLE",
    b"DATA_LOSS",
    b"UNAUTHENTICATED",
];

/// A gRPC status by its name or number, 0 for none that gRPC knows.
pub fn grpc_status(text: &[u8]) -> u16 {
    let named = GRPC_STATUSES.iter().position(|name| *name == text).map(|place| place as u16);
    let status = named.unwrap_or_else(|| number(text));
    if usize::from(status) < GRPC_STATUSES.len() { status } else { 0 }
}

const SERVER: i32 = 2;
const CLIENT: i32 = 3;
const PRODUCER: i32 = 4;
const CONSUMER: i32 = 5;

/// Whether the codes of a span whose status is UNSET say that it failed, `semantics.CODE_RULE`; `grpc` is asked last.
pub fn is_code_error(kind: i32, http_status: u16, grpc: impl FnOnce() -> u16) -> bool {
    match kind {
        SERVER => (500..600).contains(&http_status) || matches!(grpc(), 2 | 4 | 12..=15),
        CLIENT => (400..600).contains(&http_status) && http_status != 404 || grpc() != 0,
        _ => false,
    }
}

/// `semantics.MESSAGING_RULE`: 1 sends, 2 receives.
pub fn messaging_role(kind: i32, operation: &[u8]) -> u8 {
    match (kind, operation) {
        (PRODUCER, b"create") => 0,
        (PRODUCER, _) | (CLIENT, b"send" | b"publish") => 1,
        (CONSUMER, _) | (CLIENT, b"receive" | b"poll") => 2,
        _ => 0,
    }
}

/// `semantics.BYTES_RULE`.
pub fn bytes(text: &[u8]) -> u64 {
    const MOST: u64 = 1 << 40;
    if text.len() > 13 || !text.iter().all(u8::is_ascii_digit) {
        return 0;
    }
    let number = text.iter().fold(0u64, |number, digit| number * 10 + u64::from(digit - b'0'));
    if number <= MOST { number } else { 0 }
}

/// `semantics.MIRROR_RULE`: whether a host, with its port or without, ends with the suffix.
pub fn is_shadow(authority: &[u8]) -> bool {
    let port = authority.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let rest = &authority[..authority.len() - port];
    let host = if port == 0 { authority } else { rest.strip_suffix(b":").unwrap_or(authority) };
    host.ends_with(b"-shadow")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_decimal() {
        let cases: [(&[u8], u16); 8] =
            [(b"200", 200), (b"65535", 65535), (b"65536", 0), (b"00404", 404), (b"000404", 0), (b"-1", 0), (b"", 0), (b"2x", 0)];
        for (text, expected) in cases {
            assert_eq!(number(text), expected);
        }
    }

    #[test]
    fn bytes_are_decimal_and_no_more_than_a_request_has() {
        let cases: [(&[u8], u64); 8] = [
            (b"0", 0),
            (b"1099511627776", 1 << 40),
            (b"1099511627777", 0),
            (b"0000000000042", 42),
            (b"00000000000042", 0),
            (b"-1", 0),
            (b"", 0),
            (b"1e3", 0),
        ];
        for (text, expected) in cases {
            assert_eq!(bytes(text), expected);
        }
    }

    #[test]
    fn a_shadow_ends_before_its_port() {
        for shadow in ["a-shadow", "a.b-shadow:80", "[::1]-shadow:80", "-shadow"] {
            assert!(is_shadow(shadow.as_bytes()), "{shadow}");
        }
        for host in ["", "a", "a:80", "80", ":", "a-shadow:", "a-shadow:x", "a-shadow.b", "a-shadow80", "a-shadow:1:2", "a:-shadow2"] {
            assert!(!is_shadow(host.as_bytes()), "{host}");
        }
    }

    #[test]
    fn a_grpc_status_is_a_name_or_a_number_that_grpc_knows() {
        let cases: [(&[u8], u16); 7] = [(b"0", 0), (b"14", 14), (b"UNAVAILABLE", 14), (b"16", 16), (b"17", 0), (b"-32602", 0), (b"ok", 0)];
        for (text, expected) in cases {
            assert_eq!(grpc_status(text), expected);
        }
    }
}
