//! What decoding depends on besides the bytes.

use crate::otlp::value::Any;

/// `schemas/otlp/semantics.py` and `schemas/histogram.py`.
pub struct Table {
    /// Per SPAN_FIELDS.
    pub span_keys: Vec<Vec<String>>,
    /// Per identity::RESOURCE_FIELDS.
    pub resource_keys: Vec<Vec<String>>,
    /// `semantics.UNKNOWN_SERVICE`.
    pub unknown_service: String,
    /// `semantics.NO_FLAGS`.
    pub no_flags: String,
    /// `histogram.UPPER_NS`.
    pub upper_ns: Vec<u64>,
}

/// An attribute's text.
pub fn text_of(attributes: &[(&[u8], Any<'_>)], key: &str) -> Option<Vec<u8>> {
    let (_, value) = attributes.iter().find(|(known, _)| *known == key.as_bytes())?;
    let mut text = Vec::new();
    value.write_text(&mut text);
    Some(text)
}
