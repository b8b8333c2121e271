//! Which values are secrets, by the look of their names, and how they are shown: not at all.
//!
//! Owns that rule. The VM's record and the guest get the true values; everything that shows a VM goes through here.

/// What stands for a secret.
const MASK: &str = "***";
/// A name that holds one of these, in any case, names a secret. Some harmless names do too: better so.
const SECRET_PARTS: [&str; 13] = [
    "PASS",
    "PWD",
    "SECRET",
    "TOKEN",
    "KEY",
    "CREDENTIAL",
    "AUTH",
    "PRIVATE",
    "DSN",
    "COOKIE",
    "SESSION",
    "SIGNATURE",
    "CERT",
];
/// So does a name one of whose words is one of these; as parts they stand in too many others.
const SECRET_WORDS: [&str; 6] = ["PAT", "PIN", "JWT", "SALT", "OTP", "CREDS"];
/// How tokens of well-known services begin, and keys in PEM.
const SECRET_BEGINNINGS: [&str; 9] =
    ["ghp_", "gho_", "github_pat_", "glpat-", "xoxb-", "xoxp-", "AKIA", "eyJ", "-----BEGIN"];

/// `NAME=value` as it may be shown; what is not of this form is shown as it is.
pub(crate) fn shown(entry: &str) -> String {
    match entry.split_once('=') {
        Some((name, value)) if is_secret(name, value) => format!("{name}={MASK}"),
        _ => entry.to_owned(),
    }
}

fn is_secret(name: &str, value: &str) -> bool {
    let name = name.to_ascii_uppercase();
    let by_name = SECRET_PARTS.iter().any(|part| name.contains(part))
        || name.split(|c: char| !c.is_ascii_alphabetic()).any(|word| SECRET_WORDS.contains(&word));
    let by_value = SECRET_BEGINNINGS.iter().any(|start| value.starts_with(start)) || has_user_info(value);
    !value.is_empty() && (by_name || by_value)
}

/// Whether a URL in the text says who asks: `scheme://user:password@host`, or `scheme://token@host`.
fn has_user_info(text: &str) -> bool {
    let after_scheme = text.split("://").skip(1);
    after_scheme.into_iter().any(|rest| {
        let url = rest.split(char::is_whitespace).next().unwrap_or_default();
        url.find('@').is_some_and(|at| at > 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_secret_names_are_not_shown() {
        for name in [
            "DB_PASSWORD",
            "passwd",
            "Client_Secret",
            "GH_TOKEN",
            "API_KEY",
            "AUTHORIZATION",
            "SENTRY_DSN",
            "DB_PASS",
            "PASSPHRASE",
            "PGPWD",
            "GITHUB_PAT",
            "COOKIE",
            "SESSION_ID",
            "jwt",
            "PIN2",
        ] {
            assert_eq!(shown(&format!("{name}=hunter2=x")), format!("{name}=***"));
        }
        assert_eq!(shown("--api-token=hunter2"), "--api-token=***");
    }

    #[test]
    fn urls_with_passwords_are_not_shown() {
        for url in ["postgres://u:hunter2@db/x", "a b=c https://hunter2@host", "amqp://u:p/a:hunter2@h"] {
            assert_eq!(shown(&format!("URL={url}")), "URL=***");
        }
    }

    #[test]
    fn values_that_look_like_tokens_are_not_shown() {
        for value in ["ghp_abc", "eyJhbGciOi", "-----BEGIN PRIVATE KEY-----", "AKIAX"] {
            assert_eq!(shown(&format!("X={value}")), "X=***");
        }
    }

    #[test]
    fn everything_else_is_shown_as_it_is() {
        for entry in [
            "MODE=prod",
            "URL=http://host:80/a",
            "MAIL=me@host",
            "TOKEN=",
            "PATH=/bin",
            "SPIN=1",
            "--verbose",
            "",
            "=x",
        ] {
            assert_eq!(shown(entry), entry);
        }
    }
}
