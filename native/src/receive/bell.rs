//! Wakes Python's event loop: a byte through a socket pair, one at a time.

use std::io::{self, Write};
use std::os::fd::IntoRawFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};

/// Rings until it is heard.
pub struct Bell {
    writer: UnixStream,
    is_ringing: AtomicBool,
}

impl Bell {
    /// The bell, and the file descriptor that becomes readable; whoever takes it closes it.
    pub fn new() -> io::Result<(Self, i32)> {
        let (reader, writer) = UnixStream::pair()?;
        reader.set_nonblocking(true)?;
        writer.set_nonblocking(true)?;
        Ok((Self { writer, is_ringing: AtomicBool::new(false) }, reader.into_raw_fd()))
    }

    /// Makes the descriptor readable, unless it is.
    pub fn ring(&self) {
        if !self.is_ringing.swap(true, Ordering::AcqRel) {
            let _gone = (&self.writer).write(&[1]); // an error: nobody listens any more
        }
    }

    /// The descriptor was read: what comes from now on rings again.
    pub fn heard(&self) {
        self.is_ringing.store(false, Ordering::Release);
    }
}
