//! Masking of secrets, in values of properties and in what the product's tools print.
//!
//! The metadata tool prints the metadata URL with its password on standard error, and configuration files hold LDAP
//! and database passwords. Nothing of that may reach a journal, a log, a plan or a terminal. Where it is unclear how
//! far a secret reaches, too much is masked rather than too little.

/// What stands in place of a secret.
pub const MASK: &str = "***";

/// Parts of a key that make its value a secret, in lower case.
const SECRET_WORDS: [&str; 12] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "credential",
    "storepass",
    "keypass",
    "truststore-pass",
    "keystore-pass",
    "access.key",
    "private-key",
];

/// Whether the value of this key is a secret as a whole.
pub fn is_secret_key(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    // `passwordEncrypted=true` says how the password is kept, not what it is.
    !key.ends_with("encrypted") && SECRET_WORDS.iter().any(|word| key.contains(word))
}

/// The value of a property as it may be shown.
pub fn mask_value(key: &str, value: &str) -> String {
    if value.is_empty() || !is_secret_key(key) { mask_text(value) } else { MASK.to_owned() }
}

/// A text as it may be shown: values behind `password=`, `"token": ` and the like, credentials in URLs and in
/// `Authorization` headers are masked. Line ends are kept.
pub fn mask_text(text: &str) -> String {
    text.split_inclusive('\n').map(mask_line).collect()
}

fn mask_line(line: &str) -> String {
    mask_schemes(&mask_urls(&mask_assignments(line)))
}

fn is_key_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')
}

/// Masks what follows a secret key and its separator: `=`, `:`, or a blank after a long option.
fn mask_assignments(line: &str) -> String {
    let mut masked = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(start) = rest.find(is_key_char) {
        let (before, tail) = rest.split_at(start);
        masked.push_str(before);
        let key_len = tail.find(|c| !is_key_char(c)).unwrap_or(tail.len());
        let (key, after) = tail.split_at(key_len);
        masked.push_str(key);
        rest = after;
        if !is_secret_key(key) {
            continue;
        }
        if let Some(value) = value_start(key, after) {
            let end = value_end(&after[..value], &after[value..]);
            masked.push_str(&after[..value]);
            if end > 0 {
                masked.push_str(MASK);
            }
            rest = &after[value + end..];
        }
    }
    masked.push_str(rest);
    masked
}

/// Where the value begins in what follows a key, if a separator follows it.
fn value_start(key: &str, after: &str) -> Option<usize> {
    let unquoted = after.trim_start_matches(['"', '\'']);
    let blanks = unquoted.trim_start_matches([' ', '\t']);
    let tail = match blanks.strip_prefix(['=', ':']) {
        Some(tail) => tail,
        None if key.starts_with("--") && blanks.len() < unquoted.len() => blanks,
        None => return None,
    };
    let value = tail.trim_start_matches([' ', '\t']).trim_start_matches(['"', '\'']);
    Some(after.len() - value.len())
}

/// How long the value is: up to the closing quote if one was opened, else up to a blank, a comma or a quote.
fn value_end(before: &str, value: &str) -> usize {
    match before.chars().last() {
        Some(quote @ ('"' | '\'')) => value.find([quote, '\n', '\r']).unwrap_or(value.len()),
        _ => value.find([',', ' ', '\t', '"', '\'', '\n', '\r']).unwrap_or(value.len()),
    }
}

/// Masks `user:password` in `scheme://user:password@host`.
fn mask_urls(line: &str) -> String {
    let mut masked = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find("://") {
        let (before, tail) = rest.split_at(at + 3);
        masked.push_str(before);
        // The last `@` of the word, not of the authority alone: a password may hold a slash.
        let word = &tail[..tail.find([' ', '\t', '"', '\'', ',', '\n', '\r']).unwrap_or(tail.len())];
        match word.rfind('@') {
            Some(end) if word[..end].contains(':') => {
                masked.push_str(MASK);
                rest = &tail[end..];
            }
            _ => rest = tail,
        }
    }
    masked.push_str(rest);
    masked
}

/// Masks what follows `Basic` and `Bearer`.
fn mask_schemes(line: &str) -> String {
    let mut masked = line.to_owned();
    for scheme in ["Basic ", "Bearer "] {
        let mut from = 0;
        while let Some(at) = masked[from..].find(scheme) {
            let start = from + at + scheme.len();
            let tail = &masked[start..];
            let end = tail.find(|c: char| c.is_whitespace() || c == '"' || c == '\'').unwrap_or(tail.len());
            // A sentence may hold the word; a credential in base64 or a token has at least eight characters.
            if end >= 8 && tail[..end].chars().all(|c| c.is_ascii_alphanumeric() || "+/=-_.~".contains(c)) {
                masked.replace_range(start..start + end, MASK);
            }
            from = start;
        }
    }
    masked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_secret_keys_are_masked_as_a_whole() {
        for key in [
            "kylin.security.ldap.connection-password",
            "kylin.server.https.keystore-password",
            "fs.s3a.secret.key",
            "x.keyPass",
            "a.Token",
        ] {
            assert_eq!(mask_value(key, "p w,d"), MASK, "{key}");
            assert_eq!(mask_value(key, ""), "", "{key}: an unset value is no secret");
        }
        assert_eq!(mask_value("kylin.env.hdfs-working-dir", "/kylin"), "/kylin");
    }

    #[test]
    fn secrets_inside_text_are_masked_and_the_rest_is_kept() {
        let cases = [
            (
                "m@jdbc,url=jdbc:mysql://h:3306/db,username=u,password=p#w&d,passwordEncrypted=true",
                "m@jdbc,url=jdbc:mysql://h:3306/db,username=u,password=***,passwordEncrypted=true",
            ),
            ("url jdbc:mysql://u:p/w@h/db end", "url jdbc:mysql://***@h/db end"),
            ("hdfs://ns/user@realm", "hdfs://ns/user@realm"),
            (r#"{"username":"A","password":"$2a$10$x y"}"#, r#"{"username":"A","password":"***"}"#),
            ("Authorization: Basic QURNSU46S1lMSU4=", "Authorization: Basic ***"),
            ("Basic usage", "Basic usage"),
            ("tool --password geheim --port 1", "tool --password *** --port 1"),
            ("password: geheim\npassword=zwei\r\n", "password: ***\npassword=***\r\n"),
            ("the password was wrong", "the password was wrong"),
            ("kein=\u{fc}ber password=\u{fc}\u{fc}", "kein=\u{fc}ber password=***"),
        ];
        for (text, masked) in cases {
            assert_eq!(mask_text(text), masked);
            assert_eq!(mask_text(masked), masked, "masking twice changes nothing");
        }
    }
}
