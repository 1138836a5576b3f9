//! gRPC's framing of a unary request: one byte that says whether it is compressed, four of length, the message; in any pieces.

use bytes::Bytes;

const PREFIX: usize = 5;
const SMALL: usize = 256 << 10; // of which most requests are: room for as much is made early, and copied to once
const SMALL_GROWTH: usize = 16; // room is made for this times what came, so that a length alone costs nothing
const GROWTH: usize = 2;

/// What is wrong with a request's frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Fault {
    /// Longer than allowed: what it says of its length.
    TooLarge(usize),
    /// The stream ended too early.
    Short,
    /// More bytes than one message.
    Long,
    /// The first byte is neither 0 nor 1.
    Flag(u8),
}

/// A message that is being received.
pub struct Message {
    limit: usize,
    whole: Option<Bytes>, // all of it in one piece, prefix included: nothing is copied then
    pieces: Vec<u8>,
    length: Option<usize>, // with the prefix
}

/// A message that has come.
#[derive(Debug, PartialEq, Eq)]
pub struct Received {
    /// Whether it is compressed.
    pub is_compressed: bool,
    /// The message.
    pub body: Bytes,
}

impl Message {
    /// One of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit, whole: None, pieces: Vec::new(), length: None }
    }

    /// How many bytes of memory are its own. (Room of a small one that is not written to yet costs nothing.)
    pub fn held_bytes(&self) -> usize {
        if self.pieces.capacity() <= SMALL { self.pieces.len() } else { self.pieces.capacity() }
    }

    /// Lets go of memory that is shared with what came before and after: the rest may take its time.
    pub fn own(&mut self) {
        if let Some(whole) = self.whole.take() {
            self.pieces = whole.to_vec();
        }
    }

    /// Takes the next piece.
    pub fn push(&mut self, piece: Bytes) -> Result<(), Fault> {
        if piece.is_empty() {
            return Ok(());
        }
        if self.whole.is_none() && self.pieces.is_empty() && length(&piece, self.limit)? == Some(piece.len()) {
            self.length = Some(piece.len());
            self.whole = Some(piece);
            return Ok(());
        }
        self.own();
        if self.length.is_none() && self.pieces.len() + piece.len() >= PREFIX {
            let mut head = [0; PREFIX];
            for (to, from) in head.iter_mut().zip(self.pieces.iter().chain(&piece)) {
                *to = *from;
            }
            self.length = length(&head, self.limit)?;
        }
        let received = self.pieces.len() + piece.len();
        if let Some(length) = self.length {
            if received > length {
                return Err(Fault::Long);
            }
            if self.pieces.capacity() < received {
                let room = (received * SMALL_GROWTH).min(SMALL).max(received * GROWTH);
                self.pieces.reserve_exact(length.min(room) - self.pieces.len());
            }
        }
        self.pieces.extend_from_slice(&piece);
        Ok(())
    }

    /// The stream has ended.
    pub fn finish(self) -> Result<Received, Fault> {
        let bytes = self.whole.unwrap_or_else(|| Bytes::from(self.pieces));
        if self.length != Some(bytes.len()) {
            return Err(Fault::Short);
        }
        match bytes[0] {
            flag @ (0 | 1) => Ok(Received { is_compressed: flag == 1, body: bytes.slice(PREFIX..) }),
            flag => Err(Fault::Flag(flag)),
        }
    }
}

/// Of the whole frame, as its prefix says; None where the prefix has not come yet.
fn length(bytes: &[u8], limit: usize) -> Result<Option<usize>, Fault> {
    let Some((prefix, _)) = bytes.split_first_chunk::<PREFIX>() else { return Ok(None) };
    let [flag, length @ ..] = *prefix;
    let length = u32::from_be_bytes(length) as usize;
    if flag > 1 {
        return Err(Fault::Flag(flag));
    }
    if length > limit {
        return Err(Fault::TooLarge(length));
    }
    Ok(Some(PREFIX + length))
}

/// A response's frame around a message.
pub fn framed(message: &[u8]) -> Bytes {
    let mut frame = Vec::with_capacity(PREFIX + message.len());
    frame.push(0);
    frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
    frame.extend_from_slice(message);
    Bytes::from(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(pieces: &[&'static [u8]]) -> Result<Received, Fault> {
        let mut message = Message::new(100);
        for piece in pieces {
            message.push(Bytes::from_static(piece))?;
        }
        message.finish()
    }

    #[test]
    fn pieces_of_any_size_make_the_same_message() {
        let frame: &'static [u8] = b"\x01\0\0\0\x03abc";
        let wanted = Ok(Received { is_compressed: true, body: Bytes::from_static(b"abc") });
        assert_eq!(receive(&[frame]), wanted);
        for cut in 0..=frame.len() {
            assert_eq!(receive(&[&frame[..cut], &frame[cut..]]), wanted, "{cut}");
        }
        assert_eq!(receive(&frame.chunks(1).collect::<Vec<_>>()), wanted);
        assert_eq!(receive(&[framed_static()]).unwrap().body, b"".as_slice());
    }

    fn framed_static() -> &'static [u8] {
        b"\0\0\0\0\0"
    }

    #[test]
    fn faults() {
        assert_eq!(receive(&[]), Err(Fault::Short));
        assert_eq!(receive(&[b"\0\0\0\0"]), Err(Fault::Short));
        assert_eq!(receive(&[b"\0\0\0\0\x02a"]), Err(Fault::Short));
        assert_eq!(receive(&[b"\0\0\0\0\x01ab"]), Err(Fault::Long));
        assert_eq!(receive(&[b"\0\0\0\0\x01a", b"b"]), Err(Fault::Long));
        assert_eq!(receive(&[b"\0\0\0\0\x65"]), Err(Fault::TooLarge(101)));
        assert_eq!(receive(&[b"\0", b"\xff\xff\xff\xff"]), Err(Fault::TooLarge(0xffff_ffff)));
        assert_eq!(receive(&[b"\x02\0\0\0\0"]), Err(Fault::Flag(2)));
    }

    #[test]
    fn a_length_alone_takes_no_memory() {
        let mut message = Message::new(64 << 20);
        message.push(Bytes::from_static(b"\0\x03\xff\xff\xff")).unwrap();
        assert!(message.pieces.capacity() <= SMALL_GROWTH * PREFIX, "{}", message.pieces.capacity());
        assert_eq!(message.held_bytes(), PREFIX);
    }

    #[test]
    fn room_is_at_most_twice_what_came() {
        let mut message = Message::new(64 << 20);
        message.push(Bytes::from_static(b"\0\x03\xff\xff\xff")).unwrap();
        let mut came = PREFIX;
        while came < 8 << 20 {
            message.push(Bytes::from_static(&[0; 16_384])).unwrap();
            came += 16_384;
            assert!((came..=2 * came).contains(&message.held_bytes()), "{} of {came}", message.held_bytes());
            assert!(message.pieces.capacity() <= SMALL.max(2 * came), "{} of {came}", message.pieces.capacity());
        }
    }
}
