//! The columns of a resource, whatever it sent.

use crate::Error;
use crate::arrow::column::Buffer;
use crate::arrow::maps::Maps;
use crate::arrow::strings::Strings;
use crate::otlp::value::Any;

/// The fields of `semantics.RESOURCE_KEYS`; all but the last are columns.
pub const RESOURCE_FIELDS: [&str; 7] = ["service", "namespace", "cluster", "version", "instance", "pod", "sdk"];
const SERVICE: usize = 0;
/// The place of `cluster`.
pub const CLUSTER: usize = 2;
/// The place of `sdk`, and how many fields are columns.
pub const SDK: usize = 6;

/// What decoding depends on besides the bytes: `schemas/otlp/semantics.py` and `schemas/histogram.py`.
pub struct Table {
    /// Per SPAN_FIELDS.
    pub span_keys: Vec<Vec<String>>,
    /// Per RESOURCE_FIELDS.
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

/// The codes of each field, resource by resource.
#[derive(Default)]
pub struct ResourceFields([Vec<u32>; SDK]);

impl ResourceFields {
    /// The next resource, of `cluster` unless it names its own. Returns the text of each field; "" for a cluster that it does not name.
    pub fn push(
        &mut self,
        table: &Table,
        attributes: &[(&[u8], Any<'_>)],
        cluster: &str,
        strings: &mut Strings,
        maps: &mut Maps,
    ) -> Result<[Vec<u8>; SDK + 1], Error> {
        let field = |keys: &Vec<String>| keys.iter().filter_map(|key| text_of(attributes, key)).find(|text| !text.is_empty());
        let mut texts: [Vec<u8>; SDK + 1] = Default::default();
        for (text, keys) in texts.iter_mut().zip(&table.resource_keys) {
            *text = field(keys).unwrap_or_default();
        }
        for (index, codes) in self.0.iter_mut().enumerate() {
            let default = match index {
                SERVICE => &table.unknown_service,
                CLUSTER => cluster,
                _ => "",
            };
            let text = if texts[index].is_empty() { default.as_bytes() } else { &texts[index] };
            codes.push(strings.code(maps.within(text))?);
        }
        Ok(texts)
    }

    /// One buffer a column.
    pub fn finish(self) -> impl Iterator<Item = Buffer> {
        self.0.into_iter().map(Buffer::U32)
    }
}
