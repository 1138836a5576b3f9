//! What OTLP messages are made of, as far as it decides whether bytes are well-formed: their strings, submessages and packed fields.
//! Everything else is well-formed when it can be skipped. `tests/schemas` holds this against opentelemetry-proto's descriptors.

use crate::otlp::wire::{Malformed, Reader, Result, deeper, is_ascii, is_text};

/// What a length-delimited field holds.
#[derive(Clone, Copy)]
pub enum Kind {
    /// Anything: bytes, or a field that OTLP does not know.
    Bytes,
    /// UTF-8.
    Text,
    /// Varints end to end.
    PackedVarint,
    /// 8-byte numbers end to end.
    PackedFixed64,
    /// An attribute: KEY_VALUE, tried the quick way first.
    Attribute,
    /// Another message.
    Message(&'static Message),
}

/// A message type.
pub struct Message {
    /// The last part of its protobuf name.
    pub name: &'static str,
    /// By field number.
    kinds: [Kind; LARGEST_FIELD + 1],
}

const LARGEST_FIELD: usize = 16;

impl Message {
    const fn new<const N: usize>(name: &'static str, fields: [(usize, Kind); N]) -> Self {
        let mut kinds = [Kind::Bytes; LARGEST_FIELD + 1];
        let mut index = 0;
        while index < N {
            kinds[fields[index].0] = fields[index].1;
            index += 1;
        }
        Self { name, kinds }
    }

    /// What the length-delimited field of this number holds.
    #[inline]
    pub fn kind(&self, number: u32) -> Kind {
        self.kinds.get(number as usize).copied().unwrap_or(Kind::Bytes)
    }

    /// The fields that are checked: number and kind.
    pub fn fields(&self) -> impl Iterator<Item = (usize, Kind)> {
        self.kinds.into_iter().enumerate().filter(|(_, kind)| !matches!(kind, Kind::Bytes))
    }
}

use Kind::{Attribute, PackedFixed64, PackedVarint, Text};

const fn message(message: &'static Message) -> Kind {
    Kind::Message(message)
}

macro_rules! messages {
    ($($static:ident = $name:literal { $($number:literal: $kind:expr),* $(,)? })*) => {
        $(#[doc = concat!("`", $name, "`.")] pub static $static: Message = Message::new($name, [$(($number, $kind)),*]);)*
        /// All of them.
        pub static ALL: &[&Message] = &[$(&$static),*];
    };
}

messages! {
    TRACES_DATA = "TracesData" { 1: message(&RESOURCE_SPANS) }
    RESOURCE_SPANS = "ResourceSpans" { 1: message(&RESOURCE), 2: message(&SCOPE_SPANS), 3: Text }
    SCOPE_SPANS = "ScopeSpans" { 1: message(&SCOPE), 2: message(&SPAN), 3: Text }
    SPAN = "Span" { 3: Text, 5: Text, 9: Attribute, 11: message(&EVENT), 13: message(&LINK), 15: message(&STATUS) }
    EVENT = "Event" { 2: Text, 3: Attribute }
    LINK = "Link" { 3: Text, 4: Attribute }
    STATUS = "Status" { 2: Text }

    LOGS_DATA = "LogsData" { 1: message(&RESOURCE_LOGS) }
    RESOURCE_LOGS = "ResourceLogs" { 1: message(&RESOURCE), 2: message(&SCOPE_LOGS), 3: Text }
    SCOPE_LOGS = "ScopeLogs" { 1: message(&SCOPE), 2: message(&LOG_RECORD), 3: Text }
    LOG_RECORD = "LogRecord" { 3: Text, 5: message(&ANY_VALUE), 6: Attribute, 12: Text }

    METRICS_DATA = "MetricsData" { 1: message(&RESOURCE_METRICS) }
    RESOURCE_METRICS = "ResourceMetrics" { 1: message(&RESOURCE), 2: message(&SCOPE_METRICS), 3: Text }
    SCOPE_METRICS = "ScopeMetrics" { 1: message(&SCOPE), 2: message(&METRIC), 3: Text }
    METRIC = "Metric" {
        1: Text, 2: Text, 3: Text, 12: Attribute,
        5: message(&GAUGE), 7: message(&SUM), 9: message(&HISTOGRAM), 10: message(&EXPONENTIAL_HISTOGRAM), 11: message(&SUMMARY),
    }
    GAUGE = "Gauge" { 1: message(&NUMBER_DATA_POINT) }
    SUM = "Sum" { 1: message(&NUMBER_DATA_POINT) }
    HISTOGRAM = "Histogram" { 1: message(&HISTOGRAM_DATA_POINT) }
    EXPONENTIAL_HISTOGRAM = "ExponentialHistogram" { 1: message(&EXPONENTIAL_HISTOGRAM_DATA_POINT) }
    SUMMARY = "Summary" { 1: message(&SUMMARY_DATA_POINT) }
    NUMBER_DATA_POINT = "NumberDataPoint" { 5: message(&EXEMPLAR), 7: Attribute }
    HISTOGRAM_DATA_POINT = "HistogramDataPoint" { 6: PackedFixed64, 7: PackedFixed64, 8: message(&EXEMPLAR), 9: Attribute }
    EXPONENTIAL_HISTOGRAM_DATA_POINT = "ExponentialHistogramDataPoint" {
        1: Attribute, 8: message(&BUCKETS), 9: message(&BUCKETS), 11: message(&EXEMPLAR),
    }
    BUCKETS = "Buckets" { 2: PackedVarint }
    SUMMARY_DATA_POINT = "SummaryDataPoint" { 6: message(&VALUE_AT_QUANTILE), 7: Attribute }
    VALUE_AT_QUANTILE = "ValueAtQuantile" { }
    EXEMPLAR = "Exemplar" { 7: Attribute }

    RESOURCE = "Resource" { 1: Attribute, 3: message(&ENTITY_REF) }
    ENTITY_REF = "EntityRef" { 1: Text, 2: Text, 3: Text, 4: Text }
    SCOPE = "InstrumentationScope" { 1: Text, 2: Text, 3: Attribute }
    KEY_VALUE = "KeyValue" { 1: Text, 2: message(&ANY_VALUE) }
    ANY_VALUE = "AnyValue" { 1: Text, 5: message(&ARRAY_VALUE), 6: message(&KEY_VALUE_LIST) }
    ARRAY_VALUE = "ArrayValue" { 1: message(&ANY_VALUE) }
    KEY_VALUE_LIST = "KeyValueList" { 1: Attribute }
}

/// Whether `body` is a well-formed message; `depth` is how many levels may follow below it.
pub fn validate(message: &Message, body: &[u8], depth: u32) -> Result<()> {
    let mut reader = Reader(body);
    while !reader.is_empty() {
        let tag = reader.tag()?;
        validate_field(message, tag, &mut reader, depth)?;
    }
    Ok(())
}

/// The same for the value of one field, whose tag has been read.
#[inline]
pub fn validate_field(message: &Message, tag: u32, reader: &mut Reader<'_>, depth: u32) -> Result<()> {
    if tag & 7 != 2 || tag >> 3 == 0 {
        return reader.skip(tag, depth);
    }
    let value = reader.bytes()?;
    let is_valid = match message.kind(tag >> 3) {
        Kind::Bytes => true,
        Kind::Text => is_text(value),
        Kind::PackedFixed64 => value.len() % 8 == 0,
        Kind::PackedVarint => return validate_varints(value),
        Kind::Attribute => return validate_attribute(value, deeper(depth)?),
        Kind::Message(inner) => return validate(inner, value, deeper(depth)?),
    };
    if is_valid { Ok(()) } else { Err(Malformed) }
}

/// Whether `body` is a well-formed KeyValue.
#[inline]
pub fn validate_attribute(body: &[u8], depth: u32) -> Result<()> {
    match split_attribute(body) {
        Some((_, value)) if depth > 0 && is_plain_text(value) && is_ascii(body) => Ok(()),
        _ => validate(&KEY_VALUE, body, depth),
    }
}

/// Key and AnyValue of a KeyValue that is written as nearly all are: key first, then one value, lengths below 128.
#[inline]
pub fn split_attribute(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let (0x0a, rest) = body.split_first().map(|(tag, rest)| (*tag, rest))? else { return None };
    let (length, rest) = rest.split_first()?;
    if *length > 0x7f {
        return None;
    }
    let (key, rest) = rest.split_at_checked(usize::from(*length))?;
    match rest {
        [0x12, length, value @ ..] if *length < 0x80 && usize::from(*length) == value.len() => Some((key, value)),
        _ => None,
    }
}

/// Whether an AnyValue is one string and nothing else. (Its length byte is below 128: the value itself is.)
#[inline]
pub fn is_plain_text(value: &[u8]) -> bool {
    matches!(value, [0x0a, length, text @ ..] if usize::from(*length) == text.len())
}

/// Whether `value` is varints end to end.
pub fn validate_varints(value: &[u8]) -> Result<()> {
    let mut reader = Reader(value);
    while !reader.is_empty() {
        reader.varint()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_split_only_when_written_plainly() {
        assert_eq!(split_attribute(b"\x0a\x01k\x12\x03\x0a\x01v"), Some((&b"k"[..], &b"\x0a\x01v"[..])));
        assert_eq!(split_attribute(b"\x12\x00\x0a\x01k"), None);
        assert_eq!(split_attribute(b"\x0a\x01k"), None);
        assert_eq!(split_attribute(b"\x0a\x01k\x12\x01"), None);
        assert_eq!(split_attribute(b""), None);
        assert!(is_plain_text(b"\x0a\x01v"));
        assert!(!is_plain_text(b"\x0a\x01v\x18\x01"));
    }

    #[test]
    fn nesting_is_bounded() {
        let mut body = Vec::new();
        for level in 0..101 {
            assert_eq!(validate(if level % 2 == 0 { &ANY_VALUE } else { &ARRAY_VALUE }, &body, 100), Ok(()), "{level}");
            let mut outer = Vec::new();
            crate::otlp::wire::write_head(&mut outer, if level % 2 == 0 { 1 } else { 5 }, body.len());
            outer.extend_from_slice(&body);
            body = outer;
        }
        assert_eq!(validate(&ARRAY_VALUE, &body, 100), Err(Malformed));
    }

    #[test]
    fn packed_fields_must_fill_their_length() {
        assert_eq!(validate(&BUCKETS, b"\x12\x02\x80\x01", 1), Ok(()));
        assert_eq!(validate(&BUCKETS, b"\x12\x02\x01\x80", 1), Err(Malformed));
        assert_eq!(validate(&HISTOGRAM_DATA_POINT, b"\x32\x07abcdefg", 1), Err(Malformed));
    }
}
