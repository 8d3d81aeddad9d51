//! A configuration written out again: the definition that is stored with a release.

use serde_json::Value as Json;

use crate::app::AppConfig;

impl AppConfig {
    /// Returns the configuration in the JSON form of fly.toml.
    #[must_use]
    pub fn definition(&self) -> Json {
        serde_json::to_value(self).unwrap_or(Json::Null)
    }
}

/// Returns a stored definition as the text that `config show` prints: two spaces of indent, and a
/// blank line before each section, as Fly prints it.
#[must_use]
pub fn json(definition: &Json) -> String {
    let plain = serde_json::to_string_pretty(definition).unwrap_or_default();
    let mut lines: Vec<&str> = Vec::new();
    let mut opened = true;
    for line in plain.lines() {
        let opens = line.ends_with(": {") || line.ends_with(": [");
        if opens && !opened {
            lines.push("");
        }
        lines.push(line);
        opened = opens;
    }
    lines.join("\n")
}

/// Returns a stored definition as TOML, or `None` where it cannot be written so.
#[must_use]
pub fn toml(definition: &Json) -> Option<String> {
    toml::to_string_pretty(definition).ok()
}
