//! Bearer tokens (RFC 6750), as `ingest/security.py` has them: digests are compared, each in a time that shows nothing.

use ring::digest::{SHA256, digest};
use subtle::{Choice, ConstantTimeEq};

/// Why a request has to be refused; their order is `ingest.security.REASONS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It has none.
    NoToken,
    /// Another scheme.
    NotBearer,
    /// Not one that holds.
    UnknownToken,
}

impl Reason {
    /// What the sender is answered, in the words of `ingest.admission`.
    pub fn message(self) -> &'static str {
        match self {
            Self::NoToken => "this receiver asks for \"authorization: Bearer TOKEN\"; the request has none",
            Self::NotBearer => "this receiver asks for \"authorization: Bearer TOKEN\"; the request has another scheme",
            Self::UnknownToken => "the token is none of this receiver's",
        }
    }
}

/// The tokens that hold.
#[derive(Clone, Default)]
pub struct Tokens(Vec<Vec<u8>>);

impl Tokens {
    /// Keeps their digests.
    pub fn new(tokens: &[Vec<u8>]) -> Self {
        Self(tokens.iter().map(|token| digest(&SHA256, token).as_ref().to_vec()).collect())
    }

    /// Whether the value of `authorization` has one of them.
    pub fn authorize(&self, authorization: Option<&[u8]>) -> Result<(), Reason> {
        let value = authorization.ok_or(Reason::NoToken)?.trim_ascii();
        let (scheme, token) = value.split_at(value.iter().position(|byte| *byte == b' ').unwrap_or(value.len()));
        if !scheme.eq_ignore_ascii_case(b"bearer") {
            return Err(Reason::NotBearer);
        }
        let given = digest(&SHA256, token.trim_ascii());
        let known = self.0.iter().fold(Choice::from(0), |known, token| known | token.ct_eq(given.as_ref()));
        if bool::from(known) { Ok(()) } else { Err(Reason::UnknownToken) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_of_several_tokens_holds() {
        let tokens = Tokens::new(&[b"one".to_vec(), b"two".to_vec()]);
        for good in ["Bearer one", "bearer  two ", "BEARER two"] {
            assert_eq!(tokens.authorize(Some(good.as_bytes())), Ok(()), "{good}");
        }
        assert_eq!(tokens.authorize(None), Err(Reason::NoToken));
        assert_eq!(tokens.authorize(Some(b"Basic one")), Err(Reason::NotBearer));
        for bad in ["Bearer", "Bearer ", "Bearer three", "Bearer on", "Bearer one two"] {
            assert_eq!(tokens.authorize(Some(bad.as_bytes())), Err(Reason::UnknownToken), "{bad}");
        }
    }
}
