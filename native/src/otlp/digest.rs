//! Identities: SHA-256, of which the first 128 bits are kept. Whoever sends can choose bytes, but not make two of them alike.

use sha2::{Digest, Sha256};

/// The digest of parts end to end. Parts whose length varies must be [`frame`]d, unless there is one, at the end.
pub fn digest(parts: &[&[u8]]) -> u128 {
    let mut state = Sha256::new();
    for part in parts {
        state.update(part);
    }
    let whole = state.finalize();
    u128::from_be_bytes(*whole.first_chunk().expect("32 bytes"))
}

/// Appends a part after its length.
pub fn frame(out: &mut Vec<u8>, part: &[u8]) {
    out.extend_from_slice(&(part.len() as u64).to_be_bytes());
    out.extend_from_slice(part);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_sha_256() {
        assert_eq!(digest(&[b"a", b"bc"]), 0xba78_16bf_8f01_cfea_4141_40de_5dae_2223); // FIPS 180's "abc"
        let mut framed = Vec::new();
        frame(&mut framed, b"ab");
        assert_eq!(framed, [0, 0, 0, 0, 0, 0, 0, 2, b'a', b'b']);
    }
}
