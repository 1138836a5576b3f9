//! What a sender is answered: gRPC's status headers, google.rpc.Status with RetryInfo, and Export responses with `partial_success`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use crate::otlp::wire::write_head;

/// google.rpc.Code.
#[allow(missing_docs)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    Ok = 0,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    Unauthenticated = 16,
}

/// How many codes there are.
pub const CODES: usize = 17;

const LONGEST_MESSAGE: usize = 1024; // clients take 8 KiB of trailers

/// An error as its sender sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// google.rpc.Code.
    pub code: u8,
    /// For people.
    pub message: String,
    /// RetryInfo's delay; None where repeating is no use.
    pub retry_ns: Option<u64>,
}

impl Status {
    /// Without RetryInfo. An overlong message is cut.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self::of_number(code as u8, message.into(), None)
    }

    /// With a delay after which to repeat.
    pub fn retry(code: Code, message: impl Into<String>, retry_ns: u64) -> Self {
        Self::of_number(code as u8, message.into(), Some(retry_ns))
    }

    /// By the code's number.
    pub fn of_number(code: u8, mut message: String, retry_ns: Option<u64>) -> Self {
        if message.len() > LONGEST_MESSAGE {
            message.truncate((0..=LONGEST_MESSAGE).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0));
        }
        Self { code, message, retry_ns }
    }

    /// The value of `grpc-status-details-bin`: google.rpc.Status in base64.
    pub fn details(&self) -> String {
        let mut status = Vec::new();
        varint_field(&mut status, 1, u64::from(self.code));
        bytes_field(&mut status, 2, self.message.as_bytes());
        if let Some(retry_ns) = self.retry_ns {
            let (mut duration, mut retry, mut any) = (Vec::new(), Vec::new(), Vec::new());
            varint_field(&mut duration, 1, retry_ns / 1_000_000_000);
            varint_field(&mut duration, 2, retry_ns % 1_000_000_000);
            bytes_field(&mut retry, 1, &duration);
            bytes_field(&mut any, 1, b"type.googleapis.com/google.rpc.RetryInfo");
            bytes_field(&mut any, 2, &retry);
            bytes_field(&mut status, 3, &any);
        }
        STANDARD_NO_PAD.encode(status)
    }

    /// The value of `grpc-message`: percent-encoded outside of visible ASCII and space (gRPC over HTTP/2, "Responses").
    pub fn encoded_message(&self) -> String {
        let mut encoded = String::with_capacity(self.message.len());
        for byte in self.message.bytes() {
            match byte {
                b'%' | ..0x20 | 0x7f.. => encoded.push_str(&format!("%{byte:02X}")),
                _ => encoded.push(char::from(byte)),
            }
        }
        encoded
    }
}

/// An Export*ServiceResponse that says how many items were left out and why; the three have the same numbers.
pub fn partial_success(rejected: u64, reason: &str) -> Vec<u8> {
    let (mut partial, mut response) = (Vec::new(), Vec::new());
    varint_field(&mut partial, 1, rejected);
    bytes_field(&mut partial, 2, reason.as_bytes());
    bytes_field(&mut response, 1, &partial);
    response
}

/// Why items were left out, in the words of `schemas.otlp`.
pub fn reason(topic: usize, bad_trace_ids: u64, bad_span_ids: u64, malformed: u64) -> String {
    let traces = (bad_trace_ids > 0).then(|| format!("{bad_trace_ids} with a trace id that is not 16 bytes or is zero"));
    let spans = (bad_span_ids > 0).then(|| format!("{bad_span_ids} with a span id that is not 8 bytes or is zero"));
    let others = (malformed > 0).then(|| format!("{malformed} that are not well-formed, or are in what is not"));
    let reasons: Vec<String> = traces.into_iter().chain(spans).chain(others).collect();
    format!("{} rejected: {}", ["spans", "data points", "log records"][topic], reasons.join(", "))
}

/// A number with thousands separated, as Python's `{:,}` has it.
pub fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn varint_field(out: &mut Vec<u8>, number: u8, mut value: u64) {
    if value == 0 {
        return;
    }
    out.push(number << 3);
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn bytes_field(out: &mut Vec<u8>, number: u8, value: &[u8]) {
    write_head(out, number, value.len());
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_are_a_status_with_retry_info() {
        let bytes = STANDARD_NO_PAD.decode(Status::retry(Code::Unavailable, "away", 1_500_000_000).details()).unwrap();
        let mut wanted =
            b"\x08\x0e\x12\x04away\x1a\x34\x0a\x28type.googleapis.com/google.rpc.RetryInfo\x12\x08\x0a\x06\x08\x01\x10".to_vec();
        wanted.extend_from_slice(b"\x80\xca\xb5\xee\x01");
        wanted[9] = (wanted.len() - 10) as u8;
        assert_eq!(bytes[..8], wanted[..8]);
        assert!(bytes.ends_with(b"\x08\x01\x10\x80\xca\xb5\xee\x01"), "{bytes:x?}");
        assert_eq!(STANDARD_NO_PAD.decode(Status::new(Code::Internal, "x").details()).unwrap(), b"\x08\x0d\x12\x01x");
    }

    #[test]
    fn messages_are_percent_encoded_and_cut() {
        assert_eq!(Status::new(Code::Internal, "100 % gr\u{fc}n\n").encoded_message(), "100 %25 gr%C3%BCn%0A");
        assert_eq!(Status::new(Code::Internal, "\u{20ac}".repeat(1000)).message.len(), 1023);
    }

    #[test]
    fn partial_success_has_count_and_reason() {
        assert_eq!(partial_success(300, "why"), b"\x0a\x08\x08\xac\x02\x12\x03why");
        assert_eq!(reason(0, 1, 0, 0), "spans rejected: 1 with a trace id that is not 16 bytes or is zero");
        assert!(reason(0, 1, 2, 0).ends_with("zero, 2 with a span id that is not 8 bytes or is zero"));
        assert!(reason(1, 0, 0, 3).starts_with("data points rejected: 3 that are not well-formed"));
    }

    #[test]
    fn thousands_are_separated() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
