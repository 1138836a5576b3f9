//! gzip, deflate, zstd and snappy, never making more than a limit allows.

use std::io::Read;

use flate2::bufread::{GzDecoder, ZlibDecoder};
use snap::read::FrameDecoder;

const MAX_ZSTD_WINDOW: u32 = 25; // log2 of what a frame may ask to keep: 32 MiB, the most that Go's encoder asks for
const SNAPPY_HEAD: &[u8] = b"\xff\x06\x00\x00sNaPpY";
const MAX_MEMBERS: usize = 1024; // of a gzip body: an empty one has 20 bytes and takes as long as many (ingest/http/encoding.py has the same)

/// How a message may be compressed (gRPC's names).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Not at all.
    Identity,
    /// RFC 1952, several members too.
    Gzip,
    /// RFC 1950.
    Deflate,
    /// RFC 8878, several frames too.
    Zstd,
    /// Framed, as a Collector sends it; or one block.
    Snappy,
}

/// What `grpc-accept-encoding` says.
pub const ACCEPTED: &str = "identity,gzip,deflate,zstd,snappy";

impl Encoding {
    /// By the value of `grpc-encoding`.
    pub fn of(name: &[u8]) -> Option<Self> {
        match name {
            b"" | b"identity" => Some(Self::Identity),
            b"gzip" => Some(Self::Gzip),
            b"deflate" => Some(Self::Deflate),
            b"zstd" => Some(Self::Zstd),
            b"snappy" => Some(Self::Snappy),
            _ => None,
        }
    }
}

/// Why nothing was unpacked.
#[derive(Debug, PartialEq, Eq)]
pub enum Fault {
    /// It makes more than the limit.
    TooLarge,
    /// It is not what it says, or ends too early.
    Corrupt,
}

/// The message unpacked, at most `limit` bytes of it.
pub fn inflate(encoding: Encoding, body: &[u8], limit: usize) -> Result<Vec<u8>, Fault> {
    match encoding {
        Encoding::Identity => Ok(body.to_vec()),
        Encoding::Gzip => gunzip(body, limit),
        Encoding::Deflate => {
            let mut unpacked = Vec::with_capacity((4 * body.len()).min(limit));
            read(ZlibDecoder::new(body), &mut unpacked, limit)?;
            Ok(unpacked)
        }
        Encoding::Zstd => {
            let mut unpacked = Vec::with_capacity((4 * body.len()).min(limit));
            let mut frames = zstd::stream::read::Decoder::with_buffer(body).map_err(|_| Fault::Corrupt)?;
            frames.window_log_max(MAX_ZSTD_WINDOW).map_err(|_| Fault::Corrupt)?;
            read(frames, &mut unpacked, limit)?;
            Ok(unpacked)
        }
        Encoding::Snappy if body.starts_with(SNAPPY_HEAD) => {
            let mut unpacked = Vec::with_capacity((4 * body.len()).min(limit));
            read(FrameDecoder::new(body), &mut unpacked, limit)?;
            Ok(unpacked)
        }
        Encoding::Snappy => match snap::raw::decompress_len(body) {
            Ok(length) if length > limit => Err(Fault::TooLarge),
            Ok(_) => snap::raw::Decoder::new().decompress_vec(body).map_err(|_| Fault::Corrupt),
            Err(_) => Err(Fault::Corrupt),
        },
    }
}

fn gunzip(mut body: &[u8], limit: usize) -> Result<Vec<u8>, Fault> {
    let mut unpacked = Vec::with_capacity((4 * body.len()).min(limit));
    for _ in 0..MAX_MEMBERS {
        let mut member = GzDecoder::new(body);
        read(&mut member, &mut unpacked, limit)?;
        body = member.into_inner();
        if body.is_empty() {
            return Ok(unpacked);
        }
    }
    Err(Fault::Corrupt)
}

/// What a message says that it makes: gzip ends with the length of its last member, modulo 2^32. 0 where it says nothing; it may lie.
pub fn announced(encoding: Encoding, body: &[u8]) -> usize {
    match (encoding, body.last_chunk()) {
        (Encoding::Gzip, Some(length)) => u32::from_le_bytes(*length) as usize,
        _ => 0,
    }
}

/// Adds what a decoder makes; `limit` is that of all.
fn read(decoder: impl Read, unpacked: &mut Vec<u8>, limit: usize) -> Result<(), Fault> {
    let room = (limit - unpacked.len()) as u64 + 1;
    decoder.take(room).read_to_end(unpacked).map_err(|_| Fault::Corrupt)?;
    if unpacked.len() > limit { Err(Fault::TooLarge) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};

    use super::*;

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn what_was_packed_comes_back() {
        let members = [gzip(b"ab"), gzip(b"c")].concat();
        assert_eq!(inflate(Encoding::Gzip, &members, 3), Ok(b"abc".to_vec()));
        assert_eq!(announced(Encoding::Gzip, &gzip(&[7; 70_000])), 70_000);
        assert_eq!([announced(Encoding::Gzip, b"abc"), announced(Encoding::Deflate, &gzip(b"abc"))], [0, 0]);
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(b"abc").unwrap();
        assert_eq!(inflate(Encoding::Deflate, &encoder.finish().unwrap(), 3), Ok(b"abc".to_vec()));
    }

    fn zstd(plain: &[u8]) -> Vec<u8> {
        zstd::bulk::compress(plain, 3).unwrap()
    }

    fn framed_snappy(plain: &[u8]) -> Vec<u8> {
        let mut encoder = snap::write::FrameEncoder::new(Vec::new());
        encoder.write_all(plain).unwrap();
        encoder.into_inner().unwrap()
    }

    #[test]
    fn zstd_and_snappy_come_back_within_the_limit() {
        let plain = b"abc".repeat(50_000);
        let block = snap::raw::Encoder::new().compress_vec(&plain).unwrap();
        let packed = [(Encoding::Zstd, zstd(&plain)), (Encoding::Snappy, framed_snappy(&plain)), (Encoding::Snappy, block)];
        for (encoding, packed) in packed {
            assert_eq!(inflate(encoding, &packed, plain.len()), Ok(plain.clone()));
            assert_eq!(inflate(encoding, &packed, plain.len() - 1), Err(Fault::TooLarge));
            assert_eq!(inflate(encoding, &packed[..packed.len() - 1], plain.len()), Err(Fault::Corrupt));
            assert_eq!(inflate(encoding, b"\xff\xff\xff\xff\xff\xff", 100), Err(Fault::Corrupt));
        }
        assert_eq!(inflate(Encoding::Zstd, &[zstd(b"a"), zstd(b"b")].concat(), 2), Ok(b"ab".to_vec()));
    }

    #[test]
    fn members_are_bounded() {
        let empty = gzip(b"");
        assert_eq!(inflate(Encoding::Gzip, &empty.repeat(MAX_MEMBERS), 0), Ok(Vec::new()));
        assert_eq!(inflate(Encoding::Gzip, &empty.repeat(MAX_MEMBERS + 1), 0), Err(Fault::Corrupt));
        assert_eq!(inflate(Encoding::Gzip, &gzip(b"abc").repeat(3), 8), Err(Fault::TooLarge));
    }

    #[test]
    fn bombs_and_damage_end_early() {
        let bomb = gzip(&vec![0; 10 << 20]);
        assert_eq!(inflate(Encoding::Gzip, &bomb, 1 << 20), Err(Fault::TooLarge));
        assert_eq!(inflate(Encoding::Gzip, &bomb[..bomb.len() - 9], 20 << 20), Err(Fault::Corrupt));
        assert_eq!(inflate(Encoding::Gzip, b"not gzip", 100), Err(Fault::Corrupt));
        assert_eq!(inflate(Encoding::Deflate, b"not deflate", 100), Err(Fault::Corrupt));
    }
}
