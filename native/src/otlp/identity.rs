//! Who made a span or a log record: `semantics.IDENTITY_RULE`, which see.

use hashbrown::HashMap;

use crate::Error;
use crate::arrow::column::Buffer;
use crate::arrow::maps::Maps;
use crate::arrow::strings::Strings;
use crate::otlp::resources::text_of;
use crate::otlp::value::Any;

/// The fields of `semantics.RESOURCE_KEYS`, then those of `semantics.PROXY_KEYS`.
pub const RESOURCE_FIELDS: [&str; 11] =
    ["service", "namespace", "cluster", "version", "instance", "pod", "sdk", "address", "mesh", "node", "proxy_service"];
/// The place of `service`.
pub const SERVICE: usize = 0;
const NAMESPACE: usize = 1;
/// The place of `cluster`.
pub const CLUSTER: usize = 2;
const VERSION: usize = 3;
const INSTANCE: usize = 4;
const POD: usize = 5;
/// The place of `sdk`.
pub const SDK: usize = 6;
const MESH: usize = 8;
/// The place of `node`.
pub const NODE: usize = 9;
const PROXY_SERVICE: usize = 10;
/// Columns of RESOURCE_SCHEMA that are texts: service to pod, and `address`.
pub const COLUMNS: usize = 7;
/// Of a resource's texts and of the columns.
const RESOURCE_ADDRESS: usize = 7;
const ADDRESS: usize = 6;

/// A span's own tags, in the order of the last of SPAN_FIELDS; "" for those it does not have.
pub const TAGS: usize = 6;
const TAG_SERVICE: usize = 0;
const TAG_VERSION: usize = 1;
const TAG_NAMESPACE: usize = 2;
const TAG_CLUSTER: usize = 3;
const TAG_MESH: usize = 4;
const TAG_NODE: usize = 5;

const GATEWAY: &[u8] = b"istio-ingressgateway";
const NAMELESS_PROXY: &[u8] = b"istio-proxy";
const UNNAMED: &[u8] = b"unknown_service";
/// Characters of Kubernetes' generated names.
const GENERATED: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// What a resource says of who it is.
pub type ResourceTexts = [Vec<u8>; RESOURCE_FIELDS.len()];

/// Who it is.
pub struct Identity<'a> {
    /// By COLUMNS.
    pub texts: [&'a [u8]; COLUMNS],
    /// Whether it is an Istio gateway, whose root spans are calls from outside.
    pub is_gateway: bool,
}

/// Of an Istio proxy's node id, `TYPE~ADDRESS~POD.NAMESPACE~DOMAIN`.
struct Node<'a> {
    is_gateway: bool,
    address: &'a [u8],
    pod: &'a [u8],
    namespace: &'a [u8],
}

impl<'a> Node<'a> {
    fn of(id: &'a [u8]) -> Option<Self> {
        let mut parts = id.split(|byte| *byte == b'~');
        let (kind, address, name, _domain) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() || ![&b"sidecar"[..], b"router", b"waypoint", b"ztunnel"].contains(&kind) {
            return None;
        }
        let (pod, namespace) = halves(name)?;
        Some(Self { is_gateway: kind == b"router", address, pod, namespace })
    }
}

/// NAME.NAMESPACE, which a namespace has no dot in.
fn halves(name: &[u8]) -> Option<(&[u8], &[u8])> {
    let dot = name.iter().rposition(|byte| *byte == b'.')?;
    let (name, namespace) = (&name[..dot], &name[dot + 1..]);
    (!name.is_empty() && !namespace.is_empty()).then_some((name, namespace))
}

/// A pod's name without what Kubernetes appended to its workload's.
fn workload(pod: &[u8]) -> &[u8] {
    let without = |name: &'_ [u8], lengths: std::ops::RangeInclusive<usize>| {
        let dash = name.iter().rposition(|byte| *byte == b'-').filter(|dash| *dash > 0)?;
        let end = &name[dash + 1..];
        (lengths.contains(&end.len()) && end.iter().all(|byte| GENERATED.contains(byte))).then_some(dash)
    };
    let Some(end) = without(pod, 5..=5) else { return pod };
    &pod[..without(&pod[..end], 8..=10).unwrap_or(end)]
}

fn first<'a>(texts: &[&'a [u8]]) -> &'a [u8] {
    texts.iter().copied().find(|text| !text.is_empty()).unwrap_or_default()
}

/// `semantics.IDENTITY_RULE`; `cluster` and `unknown_service` stand for what is not named.
pub fn identity<'a>(resource: &'a ResourceTexts, tags: [&'a [u8]; TAGS], cluster: &'a [u8], unknown_service: &'a [u8]) -> Identity<'a> {
    let of = |field: usize| resource[field].as_slice();
    let node = Node::of(first(&[tags[TAG_NODE], of(NODE)]));
    let is_istio = node.is_some() || tags[..TAG_NODE].iter().any(|tag| !tag.is_empty());
    let mut namespace = first(&[of(NAMESPACE), tags[TAG_NAMESPACE], node.as_ref().map_or(b"", |node| node.namespace)]);
    let canonical = tags[TAG_SERVICE];
    let mut short = |name: &'a [u8]| match halves(name) {
        Some((name, own)) if is_istio && (namespace.is_empty() || namespace == own) => {
            namespace = own;
            name
        }
        _ => name,
    };
    let named = if of(SERVICE).starts_with(UNNAMED) { &b""[..] } else { short(of(SERVICE)) };
    let mut service = if named == NAMELESS_PROXY { first(&[canonical, named]) } else { first(&[named, canonical]) };
    if service.is_empty() && !of(NODE).is_empty() {
        service = short(of(PROXY_SERVICE));
    }
    service = first(&[service, node.as_ref().map_or(b"", |node| workload(node.pod)), of(SERVICE), unknown_service]);
    let pod = first(&[of(POD), node.as_ref().map_or(b"", |node| node.pod)]);
    let mut texts = [&b""[..]; COLUMNS];
    texts[SERVICE] = service;
    texts[NAMESPACE] = namespace;
    texts[CLUSTER] = first(&[of(CLUSTER), tags[TAG_CLUSTER], cluster, of(MESH), tags[TAG_MESH]]);
    texts[VERSION] = first(&[of(VERSION), tags[TAG_VERSION]]);
    texts[INSTANCE] = first(&[of(INSTANCE), pod]);
    texts[POD] = pod;
    texts[ADDRESS] = first(&[of(RESOURCE_ADDRESS), node.as_ref().map_or(b"", |node| node.address)]);
    Identity { texts, is_gateway: node.is_some_and(|node| node.is_gateway) || is_istio && service == GATEWAY }
}

/// Rows of resources by what they are made of: a resource's number, and its spans' tags, each after its length.
#[derive(Default)]
pub struct Rows {
    rows: HashMap<(u32, Vec<u8>), u32>,
    /// Of each resource, what was asked for last: mostly it is asked for again.
    last: Vec<Option<(Vec<u8>, u32)>>,
}

impl Rows {
    /// The row, if there is one.
    #[inline]
    pub fn get(&mut self, resource: usize, tags: &[u8]) -> Option<u32> {
        if let Some(Some((known, row))) = self.last.get(resource)
            && known == tags
        {
            return Some(*row);
        }
        let row = *self.rows.get(&(resource as u32, tags.to_vec()))?;
        self.last[resource] = Some((tags.to_vec(), row));
        Some(row)
    }

    /// Makes the next row that of a resource and tags that have none. Returns it.
    pub fn add(&mut self, resource: usize, tags: &[u8]) -> u32 {
        let row = self.rows.len() as u32;
        self.rows.insert((resource as u32, tags.to_vec()), row);
        self.last.resize(self.last.len().max(resource + 1), None);
        self.last[resource] = Some((tags.to_vec(), row));
        row
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.rows.len()
    }
}

/// The codes of each column, row by row.
#[derive(Default)]
pub struct Identities([Vec<u32>; COLUMNS]);

impl Identities {
    /// The next row.
    pub fn push(&mut self, identity: &Identity<'_>, strings: &mut Strings, maps: &mut Maps) -> Result<(), Error> {
        for (codes, text) in self.0.iter_mut().zip(identity.texts) {
            codes.push(strings.code(maps.within(text))?);
        }
        Ok(())
    }

    /// One buffer a column.
    pub fn finish(self) -> impl Iterator<Item = Buffer> {
        self.0.into_iter().map(Buffer::U32)
    }
}

/// The text of each of RESOURCE_FIELDS.
pub fn resource_texts(keys: &[Vec<String>], attributes: &[(&[u8], Any<'_>)]) -> ResourceTexts {
    let mut texts = ResourceTexts::default();
    for (text, keys) in texts.iter_mut().zip(keys) {
        *text = keys.iter().filter_map(|key| text_of(attributes, key)).find(|text| !text.is_empty()).unwrap_or_default();
    }
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workloads_are_pods_without_what_is_generated() {
        for (pod, expected) in [
            ("reviews-v1-545db77b95-2ps7q", "reviews-v1"),
            ("agent-x7k2z", "agent"),
            ("db-0", "db-0"),
            ("reviews", "reviews"),
            ("-abcde", "-abcde"),
        ] {
            assert_eq!(workload(pod.as_bytes()), expected.as_bytes());
        }
    }
}
