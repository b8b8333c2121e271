//! The secret that admits to the control port.
//!
//! Owns comparing it without telling how much of it was right. Never shows it, not even to a debugger's print.

use alloc::boxed::Box;
use core::fmt;

/// A secret. `Debug` hides it.
#[derive(Clone)]
pub struct Token(Box<str>);

impl Token {
    /// A secret; `None` for an empty one, which would admit everybody.
    #[must_use]
    pub fn new(secret: &str) -> Option<Self> {
        (!secret.is_empty()).then(|| Self(secret.into()))
    }

    /// Whether `offered` is the secret. Takes a time that depends on the length of `offered` only.
    #[must_use]
    pub fn admits(&self, offered: &str) -> bool {
        let secret = self.0.as_bytes();
        let differing = offered.bytes().zip(secret.iter().cycle()).fold(0, |sum, (a, b)| sum | (a ^ b));
        core::hint::black_box(differing) == 0 && offered.len() == secret.len()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl PartialEq for Token {
    fn eq(&self, other: &Self) -> bool {
        self.admits(&other.0)
    }
}

impl Eq for Token {}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn only_the_whole_secret_admits() {
        let token = Token::new("abc").expect("not empty");
        assert!(token.admits("abc"));
        for wrong in ["", "a", "ab", "abd", "abcabc", "abca"] {
            assert!(!token.admits(wrong), "{wrong}");
        }
        assert!(Token::new("").is_none());
    }

    #[test]
    fn no_print_shows_it() {
        assert!(!format!("{:?}", Token::new("secret")).contains("secret"));
    }
}
