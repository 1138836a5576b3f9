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
}
