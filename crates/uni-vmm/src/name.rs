//! The name of a VM: what people call it and what every point about it carries as `vm`.
//!
//! Owns the rule of what a name may be; whether a name is taken is for the daemon to say.

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest name, in bytes.
pub const MAX_LEN: usize = 63;

/// A well-formed VM name: `[A-Za-z0-9][A-Za-z0-9._-]{0,62}`. Safe as a file name, an option value and a tag.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VmName(String);

/// Why a text is not a VM name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was given.
    #[error("a VM name must not be empty: use letters, digits, '.', '_' or '-', such as web-1")]
    Empty,
    /// More than [`MAX_LEN`] bytes.
    #[error("VM name of {len} bytes is too long: at most {MAX_LEN} are allowed")]
    TooLong {
        /// Bytes given.
        len: usize,
    },
    /// The first character is not a letter or digit.
    #[error("VM name {name:?} starts with {found:?}: it must start with a letter or a digit")]
    BadStart {
        /// The name given.
        name: String,
        /// Its first character.
        found: char,
    },
    /// A character that names may not hold.
    #[error("VM name {name:?} holds {found:?}: only letters, digits, '.', '_' and '-' are allowed")]
    BadCharacter {
        /// The name given.
        name: String,
        /// The first offending character.
        found: char,
    },
}

impl FromStr for VmName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        Self::try_from(name.to_owned())
    }
}

impl TryFrom<String> for VmName {
    type Error = NameError;

    fn try_from(name: String) -> Result<Self, NameError> {
        let first = name.chars().next().ok_or(NameError::Empty)?;
        if name.len() > MAX_LEN {
            return Err(NameError::TooLong { len: name.len() });
        }
        if !first.is_ascii_alphanumeric() {
            return Err(NameError::BadStart { name, found: first });
        }
        match name.chars().find(|c| !(c.is_ascii_alphanumeric() || "._-".contains(*c))) {
            Some(found) => Err(NameError::BadCharacter { name, found }),
            None => Ok(Self(name)),
        }
    }
}

impl From<VmName> for String {
    fn from(name: VmName) -> Self {
        name.0
    }
}

impl Deref for VmName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VmName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_error_says_what_is_wrong() {
        let fault = |name: &str| name.parse::<VmName>().unwrap_err().to_string();
        assert!(fault("").contains("empty"));
        assert!(fault(&"a".repeat(64)).contains("64 bytes"));
        assert!(fault("-web").contains("starts with '-'"));
        assert!(fault("web/1").contains("holds '/'"));
        assert!(fault("..").contains("starts with '.'"));
    }

    proptest! {
        #[test]
        fn every_name_of_the_documented_form_is_accepted(name in "[A-Za-z0-9][A-Za-z0-9._-]{0,62}") {
            prop_assert_eq!(&*name.parse::<VmName>().unwrap(), name.as_str());
        }

        #[test]
        fn whatever_is_accepted_has_the_documented_form(name in any::<String>()) {
            if let Ok(name) = name.parse::<VmName>() {
                prop_assert!(name.len() <= MAX_LEN && name.is_ascii());
                prop_assert!(!name.contains(['/', ',', ' ', '\n', '\0', '=']));
            }
        }
    }
}
