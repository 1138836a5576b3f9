//! The requests of a file.

use std::error::Error;
use std::path::Path;

use bytes::{Buf, Bytes};

const PREFIX: usize = 5;

pub struct Request {
    pub spans: u32,
    /// As gRPC frames it: 0, length, body.
    pub message: Bytes,
}

pub struct Load {
    pub requests: Vec<Request>,
}

impl Load {
    pub fn read(path: &Path) -> Result<Self, Box<dyn Error>> {
        let mut rest = Bytes::from(std::fs::read(path)?);
        let mut requests = Vec::new();
        while rest.has_remaining() {
            if rest.len() < 4 + PREFIX {
                return Err("the load file ends within a request".into());
            }
            let spans = rest.get_u32_le();
            let length = PREFIX + u32::from_be_bytes(rest[1..PREFIX].try_into()?) as usize;
            if rest.len() < length {
                return Err("the load file ends within a request".into());
            }
            requests.push(Request { spans, message: rest.split_to(length) });
        }
        Ok(Self { requests })
    }
}
