//! `statics`: files of a Machine that the proxy answers with (proxy-network-runtime.md, docs of
//! `[[statics]]`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::MachineConfig;

/// Most folders of a Machine.
pub const MAX_STATICS: usize = 10;

/// A folder in a Machine and the paths of requests that it stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Static {
    /// The folder: an absolute path inside.
    #[serde(default)]
    pub guest_path: String,
    /// What the paths of requests begin with, such as `/public`.
    #[serde(default)]
    pub url_prefix: String,
    /// A bucket instead of the Machine; nothing is served from it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tigris_bucket: String,
}

// === impl Static ===

impl Static {
    /// Returns the prefix without a slash at its end.
    #[must_use]
    pub fn prefix(&self) -> &str {
        self.url_prefix.trim_end_matches('/')
    }

    /// Returns what it asks for and is not done, with its key.
    fn refusals(&self) -> Vec<(&'static str, String)> {
        let mut all = Vec::new();
        if !self.tigris_bucket.is_empty() {
            let text = "buckets are not there: serve the files of the image, or leave it out";
            all.push(("tigris_bucket", text.to_owned()));
        }
        if !self.guest_path.starts_with('/') {
            let text = format!(
                "{:?} must be an absolute path in the Machine",
                self.guest_path
            );
            all.push(("guest_path", text));
        }
        if !self.url_prefix.starts_with('/') {
            let text = format!("{:?} must begin with a slash", self.url_prefix);
            all.push(("url_prefix", text));
        }
        all
    }
}

// === impl MachineConfig ===

impl MachineConfig {
    /// Returns the folders whose files are served, or what is wrong with them in words that fit
    /// after "config.".
    pub fn statics(&self) -> Result<Vec<Static>, String> {
        let Some(given) = self.other.get("statics").filter(|given| !given.is_null()) else {
            return Ok(Vec::new());
        };
        let statics = Vec::<Static>::deserialize(given).map_err(|e| format!("statics: {e}"))?;
        match refusals(&statics).into_iter().next() {
            Some((key, text)) => Err(format!("{key}: {text}")),
            None => Ok(statics),
        }
    }
}

/// Returns what folders ask for and is not done, each with its key, such as
/// `statics[0].guest_path`; nothing when all of it is.
#[must_use]
pub fn refusals(statics: &[Static]) -> Vec<(String, String)> {
    let mut all = Vec::new();
    if statics.len() > MAX_STATICS {
        let text = format!("{} are too many, at most {MAX_STATICS}", statics.len());
        all.push(("statics".to_owned(), text));
    }
    for (index, one) in statics.iter().enumerate() {
        let own = one.refusals().into_iter();
        all.extend(own.map(|(key, text)| (format!("statics[{index}].{key}"), text)));
        let earlier = statics.iter().take(index);
        if earlier
            .map(Static::prefix)
            .any(|prefix| prefix == one.prefix())
        {
            let text = format!("{:?} is there twice", one.url_prefix);
            all.push((format!("statics[{index}].url_prefix"), text));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(statics: serde_json::Value) -> Result<Vec<Static>, String> {
        let config = json!({"image": "x", "statics": statics});
        serde_json::from_value::<MachineConfig>(config)
            .unwrap()
            .statics()
    }

    #[test]
    fn folders_are_absolute_and_prefixes_are_there_once() {
        let fine = json!([{"guest_path": "/a", "url_prefix": "/x/"}, {"guest_path": "/a", "url_prefix": "/"}]);
        assert_eq!(of(fine).unwrap().len(), 2);
        assert!(of(json!(null)).unwrap().is_empty());
        for (wrong, word) in [
            (
                json!([{"guest_path": "a", "url_prefix": "/x"}]),
                "statics[0].guest_path",
            ),
            (
                json!([{"guest_path": "/a", "url_prefix": "x"}]),
                "statics[0].url_prefix",
            ),
            (
                json!([{"guest_path": "/a", "url_prefix": "/x"}, {"guest_path": "/b", "url_prefix": "/x/"}]),
                "statics[1].url_prefix",
            ),
            (
                json!([{"guest_path": "/a", "url_prefix": "/x", "tigris_bucket": "b"}]),
                "statics[0].tigris_bucket",
            ),
            (json!(vec![json!({}); 11]), "too many"),
            (json!({}), "statics:"),
        ] {
            let said = of(wrong).unwrap_err();
            assert!(said.contains(word), "{said}");
        }
    }
}
