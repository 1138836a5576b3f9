//! Partitions of ids and resources; `schemas/ids.py` says how and why. These functions must never change.

/// MurmurHash3's fmix64.
pub fn mix(mut value: u64) -> u64 {
    value ^= value >> 33;
    value = value.wrapping_mul(0xff51_afd7_ed55_8ccd);
    value ^= value >> 33;
    value = value.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    value ^ value >> 33
}

/// Both halves of a trace id; None when it is not 16 bytes or is zero.
pub fn trace_id(id: &[u8]) -> Option<(u64, u64)> {
    let (high, low) = halves(id)?;
    (high | low != 0).then_some((high, low))
}

/// Both halves of 16 bytes.
pub fn halves(id: &[u8]) -> Option<(u64, u64)> {
    let value = u128::from_be_bytes(id.try_into().ok()?);
    Some(((value >> 64) as u64, value as u64))
}

/// A span id; 0 when it is not 8 bytes.
pub fn span_id(id: &[u8]) -> u64 {
    id.try_into().map_or(0, u64::from_be_bytes)
}

/// The partition of a trace.
pub fn trace_partition((high, low): (u64, u64), partitions: u32) -> u32 {
    (mix(high ^ mix(low)) % u64::from(partitions)) as u32
}

/// The sum over a resource's attributes that [`resource_partition`] takes.
pub fn attribute_hash(key_value: &[u8]) -> u64 {
    let fnv1a = |state: u64, byte: &u8| (state ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    mix(key_value.iter().fold(0xcbf2_9ce4_8422_2325, fnv1a))
}

/// The partition of a resource.
pub fn resource_partition(sum: u64, partitions: u32) -> u32 {
    (mix(sum) % u64::from(partitions)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_the_published_ones() {
        assert_eq!(mix(0), 0);
        assert_eq!(mix(1), 0xb456_bcfc_34c2_cb2c); // MurmurHash3 fmix64(1)
        assert_eq!(attribute_hash(b"a"), mix(0xaf63_dc4c_8601_ec8c)); // FNV-1a's test vector
    }

    #[test]
    fn ids_have_their_length() {
        assert_eq!(trace_id(&[0; 16]), None);
        assert_eq!(trace_id(&[1; 15]), None);
        assert_eq!(trace_id(&[0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2]), Some((1, 2)));
        assert_eq!(span_id(&[1; 9]), 0);
    }
}
