//! SHA-256 digests, printed the way `sha256sum` users expect.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// The SHA-256 of some bytes; shown as `sha256:<64 hex digits>`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    pub fn of(bytes: &[u8]) -> Self {
        Digest(Sha256::digest(bytes).into())
    }

    /// Digests several parts so that moving a byte from one part to the next changes the result.
    pub fn of_parts<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        // Parts are short as a rule, and the hash takes a few long ones faster than many short ones.
        const GATHERED: usize = 1024;
        let mut hash = Sha256::new();
        let mut gathered = Vec::with_capacity(GATHERED);
        for part in parts {
            if gathered.len() + 8 + part.len() > GATHERED {
                hash.update(&gathered);
                gathered.clear();
            }
            gathered.extend_from_slice(&(part.len() as u64).to_le_bytes());
            if part.len() + 8 > GATHERED {
                hash.update(&gathered);
                gathered.clear();
                hash.update(part);
            } else {
                gathered.extend_from_slice(part);
            }
        }
        hash.update(&gathered);
        Digest(hash.finalize().into())
    }

    /// The digest whose raw bytes these are; `None` unless there are 32.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Digest(bytes.try_into().ok()?))
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first eight hex digits, for names that have to stay short.
    pub fn short(&self) -> String {
        hex(&self.0[..4])
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Two lower-case digits a byte: through the formatter it would take a call for each.
fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| char::from(DIGITS[usize::from(value)]);
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.push(digit(byte >> 4));
        text.push(digit(byte & 15));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_shown_as_sha256sum_shows_it() {
        let digest = Digest::of(b"");
        let shown = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!((digest.to_string().as_str(), digest.short().as_str()), (shown, "e3b0c442"));
    }

    #[test]
    fn parts_are_digested_with_their_lengths_whatever_these_are() {
        for lengths in [vec![], vec![0, 1], vec![1008, 1], vec![1016], vec![3, 1017, 5, 5000, 9]] {
            let parts: Vec<Vec<u8>> = lengths.iter().map(|length| vec![7; *length]).collect();
            let mut whole = Vec::new();
            for part in &parts {
                whole.extend_from_slice(&(part.len() as u64).to_le_bytes());
                whole.extend_from_slice(part);
            }
            let digest = Digest::of_parts(parts.iter().map(Vec::as_slice));
            assert_eq!(digest, Digest::of(&whole), "{lengths:?}");
        }
    }
}
