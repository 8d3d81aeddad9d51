//! What registries say about signing in, read and answered. No I/O.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Uri;
use http::header::HeaderValue;
use serde::Deserialize;

use super::Credentials;

/// Characters of a registry's own words that are shown.
const MAX_TEXT: usize = 300;

/// What a 401 asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer(Bearer),
}

/// Where to get a token.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Bearer {
    realm: String,
    service: Option<String>,
    scope: Option<String>,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
}

#[derive(Deserialize)]
struct Errors {
    errors: Vec<Error>,
}

#[derive(Deserialize)]
struct Error {
    #[serde(default)]
    message: String,
}

// === impl Challenge ===

impl Challenge {
    /// Reads a `WWW-Authenticate` header.
    pub(super) fn parse(header: &str) -> Option<Self> {
        let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let mut bearer = Bearer::default();
        for (key, value) in parameters(rest) {
            match key.to_ascii_lowercase().as_str() {
                "realm" => bearer.realm = value,
                "service" => bearer.service = Some(value),
                "scope" => bearer.scope = Some(value),
                _ => {}
            }
        }
        Some(Self::Bearer(bearer))
    }
}

impl Bearer {
    /// Returns the address that gives a token to pull from a repository.
    pub(super) fn token_uri(&self, repository: &str) -> Option<Uri> {
        let mut text = self.realm.clone();
        let scope = match &self.scope {
            Some(scope) => scope.clone(),
            None => format!("repository:{repository}:pull"),
        };
        let mut query = vec![("scope", scope)];
        if let Some(service) = &self.service {
            query.insert(0, ("service", service.clone()));
        }
        for (key, value) in query {
            text.push(if text.contains('?') { '&' } else { '?' });
            text.push_str(key);
            text.push('=');
            escape(&mut text, &value);
        }
        let uri: Uri = text.parse().ok()?;
        uri.authority()?;
        Some(uri)
    }
}

/// Reads `key="value", key=value`, with `\"` inside quotes.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        let mut key = String::new();
        while let Some(c) = chars.next_if(|c| *c != '=') {
            key.push(c);
        }
        if chars.next().is_none() {
            return found;
        }
        let mut value = String::new();
        if chars.next_if_eq(&'"').is_some() {
            while let Some(c) = chars.next() {
                match c {
                    '"' => break,
                    '\\' => value.extend(chars.next()),
                    _ => value.push(c),
                }
            }
        }
        for c in chars.by_ref() {
            if c == ',' {
                break;
            }
            value.push(c);
        }
        let key = key.trim_matches(|c: char| c == ',' || c.is_whitespace());
        found.push((key.to_owned(), value.trim_end().to_owned()));
    }
}

fn escape(out: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("a string takes any text");
        }
    }
}

/// Returns the authorization for a name and password.
pub(super) fn basic(credentials: &Credentials) -> HeaderValue {
    let pair = format!("{}:{}", credentials.username, credentials.password);
    let text = format!("Basic {}", STANDARD.encode(pair));
    let mut value = HeaderValue::from_str(&text).expect("base64 is fit for a header");
    value.set_sensitive(true);
    value
}

/// Reads the answer of a token server.
pub(super) fn token(body: &[u8]) -> Option<HeaderValue> {
    let answer: Answer = serde_json::from_slice(body).ok()?;
    let token = answer
        .token
        .or(answer.access_token)
        .filter(|t| !t.is_empty())?;
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Returns a registry's own words about an error.
pub(super) fn error_text(body: &[u8]) -> Option<String> {
    let errors: Errors = serde_json::from_slice(body).ok()?;
    let text = errors.errors.into_iter().next()?.message;
    let text: String = text
        .chars()
        .filter(|c| !c.is_control())
        .take(MAX_TEXT)
        .collect();
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_challenge_of_docker_hub_leads_to_its_token_server() {
        let header = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/nginx:pull""#;
        let Some(Challenge::Bearer(bearer)) = Challenge::parse(header) else {
            panic!("no bearer");
        };
        assert_eq!(
            bearer.token_uri("library/nginx").unwrap().to_string(),
            "https://auth.docker.io/token?service=registry.docker.io&scope=repository%3Alibrary%2Fnginx%3Apull"
        );
    }

    #[test]
    fn odd_challenges_are_read_or_refused_but_never_panic() {
        assert_eq!(
            Challenge::parse("Basic realm=\"x\""),
            Some(Challenge::Basic)
        );
        assert_eq!(Challenge::parse("Digest realm=\"x\""), None);
        for header in [
            "Bearer",
            "Bearer realm",
            "Bearer realm=\"x",
            "Bearer ==,,=\"\\",
        ] {
            let Some(Challenge::Bearer(bearer)) = Challenge::parse(header) else {
                panic!("{header}");
            };
            assert_eq!(bearer.token_uri("a"), None);
        }
        let Some(Challenge::Bearer(bearer)) =
            Challenge::parse("bearer realm=http://x/t , service=y")
        else {
            panic!();
        };
        let uri = bearer.token_uri("a").unwrap().to_string();
        assert_eq!(uri, "http://x/t?service=y&scope=repository%3Aa%3Apull");
    }
}
